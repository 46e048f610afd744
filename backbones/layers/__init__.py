"""The blocks that backbones and heads are made of."""

from .atrous import hold_stride_
from .conv import ConvFactory, conv_norm_act, depthwise_norm
from .head import pooled_linear
from .shuffle import ShuffleUnit, channel_shuffle, interleave, shuffle_stage

__all__ = [
    "ConvFactory",
    "ShuffleUnit",
    "channel_shuffle",
    "conv_norm_act",
    "depthwise_norm",
    "hold_stride_",
    "interleave",
    "pooled_linear",
    "shuffle_stage",
]
