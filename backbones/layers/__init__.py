"""The blocks that backbones and heads are made of."""

from .conv import conv_norm_act, depthwise_norm
from .shuffle import ShuffleUnit, interleave, shuffle_stage

__all__ = ["ShuffleUnit", "conv_norm_act", "depthwise_norm", "interleave", "shuffle_stage"]
