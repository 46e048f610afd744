"""Smaller nets: transformations of any `nn.Module`, which know no task."""

from .binary import (
    BinaryWeightConv2d,
    BinaryWeightLinear,
    XNORConv2d,
    XNORLinear,
    binarize_,
    is_binary,
    make_plain_,
    settle_binary_,
)
from .coding import Account
from .deep_compression import Settings, deep_compress_, finish_
from .distill import Distiller, LogitLesson
from .halves import round_others_
from .hints import Hint
from .layers import Layer, layers_of
from .norms import simplify_norms_
from .packed_file import Packed, Unpacked, is_packed, pack, read_packed_metadata, unpack
from .prune import Pruning, gradual_density, prune_, pruning_of
from .report import Stage, stages
from .weight_sharing import Sharing, cluster, share_, sharing_of
from .xnor import deploy_bits, holds_bits

__all__ = [
    "Account",
    "BinaryWeightConv2d",
    "BinaryWeightLinear",
    "Distiller",
    "Hint",
    "Layer",
    "LogitLesson",
    "Packed",
    "Pruning",
    "Settings",
    "Sharing",
    "Stage",
    "Unpacked",
    "XNORConv2d",
    "XNORLinear",
    "binarize_",
    "cluster",
    "deep_compress_",
    "deploy_bits",
    "finish_",
    "gradual_density",
    "holds_bits",
    "is_binary",
    "is_packed",
    "layers_of",
    "make_plain_",
    "pack",
    "prune_",
    "pruning_of",
    "read_packed_metadata",
    "round_others_",
    "settle_binary_",
    "share_",
    "sharing_of",
    "simplify_norms_",
    "stages",
    "unpack",
]
