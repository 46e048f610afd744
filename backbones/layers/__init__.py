"""The blocks that backbones and heads are made of."""

from .conv import conv_norm_act, depthwise_norm
from .shuffle import ShuffleUnit, channel_shuffle, shuffle_stage

__all__ = ["ShuffleUnit", "channel_shuffle", "conv_norm_act", "depthwise_norm", "shuffle_stage"]
