"""MobileNetV2: inverted residuals with linear bottlenecks, at any width.

Reference: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, arXiv:1801.04381, Table 2.
Deviations: widths are rounded to multiples of 8 as in the authors' code and torchvision's, which the paper does not
mention; width 1.4 then has 6.1 M parameters, not the 6.9 M that the paper's Table 4 prints. The 1x1 convolution to 1280
channels belongs to the classifier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from .base import Backbone, FeatureInfo
from .layers import conv_norm_act, pooled_linear


class Bottlenecks(NamedTuple):
    """A row of Table 2: `repeats` units that widen their input `expansion` times and give `channels`."""

    expansion: int
    channels: int
    repeats: int


STEM_CHANNELS = 32
# Stride of the map -> the rows of Table 2 at it. The first unit of a new stride halves the map.
ROWS = {
    2: (Bottlenecks(1, 16, 1),),
    4: (Bottlenecks(6, 24, 2),),
    8: (Bottlenecks(6, 32, 3),),
    16: (Bottlenecks(6, 64, 4), Bottlenecks(6, 96, 3)),
    32: (Bottlenecks(6, 160, 3), Bottlenecks(6, 320, 1)),
}
CLASSIFIER_CHANNELS = 1280


def scaled_channels(channels: int, width: float) -> int:
    """`width` times `channels`, as the nearest multiple of 8 that is not less than 90 % of it; at least 8."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * exact else rounded + 8


class InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, filter by a depthwise 3x3, narrow by a linear 1x1; the input is added where it fits.

    [N, in_channels, H, W] -> [N, out_channels, ceil(H/stride), ceil(W/stride)] (section 3.3, Figure 3b).
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        widen = [] if expansion == 1 else [conv_norm_act(in_channels, inner, 1, act="relu6")]
        self.branch = nn.Sequential(
            *widen,
            conv_norm_act(inner, inner, 3, stride, groups=inner, act="relu6"),
            conv_norm_act(inner, out_channels, 1, act=None),
        )
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        """The branch, and the input added to it where stride and channels allow."""
        worked: Tensor = self.branch(features)
        return features + worked if self.is_residual else worked


class MobileNetV2(Backbone):
    """A 3x3 convolution and 17 inverted residuals, at `width` times the paper's channels.

    Raises ValueError for a width that is no number above 0.
    """

    def __init__(self, width: float = 1.0, *, out_strides: Sequence[int] | None = None) -> None:
        if not 0 < width < math.inf:
            raise ValueError(
                f"width is {width}; MobileNetV2 takes any above 0, published are 1.4, 1.0, 0.75, 0.5, 0.35"
            )
        before = scaled_channels(STEM_CHANNELS, width)
        stages: list[nn.Module] = [conv_norm_act(3, before, 3, 2, act="relu6")]
        info = [FeatureInfo(2, before)]
        for map_stride, rows in ROWS.items():
            units: list[nn.Module] = []
            for row in rows:
                channels = scaled_channels(row.channels, width)
                for _ in range(row.repeats):
                    stride = 2 if not units and map_stride > info[0].stride else 1
                    units.append(InvertedResidual(before, channels, stride=stride, expansion=row.expansion))
                    before = channels
            stages.append(nn.Sequential(*units))
            info.append(FeatureInfo(map_stride, before))
        super().__init__(stages, info, out_strides=out_strides)
        self._classifier_channels = scaled_channels(CLASSIFIER_CHANNELS, max(1.0, width))  # never thinner (section 5)

    def classifier_head(self, num_classes: int) -> nn.Module:
        """A 1x1 convolution to at least 1280 channels with norm and ReLU6, then average, dropout and linear layer."""
        last = conv_norm_act(self.feature_info[-1].channels, self._classifier_channels, 1, act="relu6")
        return nn.Sequential(last, *pooled_linear(self._classifier_channels, num_classes, dropout=0.2))
