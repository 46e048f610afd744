"""MobileNetV1: depthwise-separable convolutions from end to end, at any width.

Reference: Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017,
arXiv:1704.04861, Table 1; the width multiplier of section 3.3.
Deviations: Table 1 prints stride 2 at the last depthwise convolution as well, whose map could then not stay 7x7: it has
stride 1 here, as in the authors' code. With it width 0.75 measures the paper's 325 M multiply-adds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from .base import Backbone, FeatureInfo
from .layers import conv_norm_act

STEM_CHANNELS = 32
# Stride of the map -> output channels of the units at it. The first unit of a new stride halves the map (Table 1).
CHANNELS = {2: (64,), 4: (128, 128), 8: (256, 256), 16: (512,) * 6, 32: (1024, 1024)}


def _separable(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """A depthwise 3x3 and a 1x1 convolution, each with norm and ReLU."""
    return nn.Sequential(
        conv_norm_act(in_channels, in_channels, 3, stride, groups=in_channels),
        conv_norm_act(in_channels, out_channels, 1),
    )


class MobileNetV1(Backbone):
    """A 3x3 convolution and 13 separable units; `width` times the paper's channels in each, rounded down.

    Raises ValueError for a width that is no number above 0 or leaves the thinnest layer no channel.
    """

    def __init__(self, width: float = 1.0, *, out_strides: Sequence[int] | None = None) -> None:
        if not 1 / STEM_CHANNELS <= width < math.inf:
            raise ValueError(
                f"width is {width}; MobileNetV1 takes any from 1/{STEM_CHANNELS} up, published are 1.0, 0.75, 0.5, 0.25"
            )
        before = int(STEM_CHANNELS * width)
        stages: list[nn.Module] = [conv_norm_act(3, before, 3, 2)]
        info = [FeatureInfo(2, before)]
        for map_stride, row in CHANNELS.items():
            units: list[nn.Module] = []
            for channels in (int(full * width) for full in row):
                stride = 2 if not units and map_stride > info[0].stride else 1
                units.append(_separable(before, channels, stride))
                before = channels
            stages.append(nn.Sequential(*units))
            info.append(FeatureInfo(map_stride, before))
        super().__init__(stages, info, out_strides=out_strides)
