"""ShuffleNetV1: bottlenecks of grouped 1x1 convolutions, with the channels shuffled between the groups.

Reference: Zhang et al., ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices, CVPR 2018,
arXiv:1707.01083, section 3.2, Figure 2, Table 1.
Deviations: none at 1x. The paper gives no channels for the other widths; those here, with their stems, are the ones
that the authors released, and no other pair of groups and width is built (scaled naively, many do not divide evenly).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .base import Backbone, FeatureInfo
from .layers import channel_shuffle, conv_norm_act, depthwise_norm

# (groups, width) -> channels of the stem and of stage 2; each later stage doubles.
PUBLISHED = {
    (1, 1.0): (24, 144),
    (2, 1.0): (24, 200),
    (3, 0.5): (12, 120),
    (3, 1.0): (24, 240),
    (3, 1.5): (24, 360),
    (3, 2.0): (48, 480),
    (4, 1.0): (24, 272),
    (8, 0.5): (16, 192),
    (8, 1.0): (24, 384),
    (8, 1.5): (24, 576),
    (8, 2.0): (48, 768),
}
STAGE_REPEATS = (4, 8, 4)


class GroupedShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, 3x3 depthwise, grouped 1x1, on a shortcut (Figure 2 b, c); the bottleneck is a quarter.

    [N, in_channels, H, W] -> [N, out_channels, ceil(H/stride), ceil(W/stride)]. Stride 1 adds the input; stride 2 puts
    its 3x3 average beside what was worked on, so the branch makes only the channels that are missing.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, groups: int, first_groups: int) -> None:
        super().__init__()
        if stride == 1 and in_channels != out_channels:
            raise ValueError(f"a unit of stride 1 cannot turn {in_channels} channels into {out_channels}")
        middle = out_channels // 4
        self.groups = groups
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else None
        self.squeeze = conv_norm_act(in_channels, middle, 1, groups=first_groups)
        self.spread = nn.Sequential(
            depthwise_norm(middle, 3, stride),
            conv_norm_act(middle, out_channels - (in_channels if stride > 1 else 0), 1, groups=groups, act=None),
        )
        self.act = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """What was worked on, added to the input or put behind its average."""
        worked = self.spread(channel_shuffle(self.squeeze(features), self.groups))
        joined = features + worked if self.pool is None else torch.cat((self.pool(features), worked), dim=1)
        result: Tensor = self.act(joined)
        return result


class ShuffleNetV1(Backbone):
    """A stem at strides 2 and 4, three stages of units at 8, 16, 32. ValueError for a pair that was not published."""

    def __init__(self, groups: int = 3, width: float = 1.0, *, out_strides: Sequence[int] | None = None) -> None:
        if (groups, width) not in PUBLISHED:
            known = ", ".join(f"{count} at {size}x" for count, size in PUBLISHED)
            raise ValueError(f"ShuffleNetV1 with {groups!r} groups at {width!r}x was not published; there are {known}")
        stem, first = PUBLISHED[groups, width]
        widths = (stem, *(first * 2**stage for stage in range(len(STAGE_REPEATS))))
        stages: list[nn.Module] = [conv_norm_act(3, stem, 3, 2), nn.MaxPool2d(3, 2, padding=1)]
        for (before, after), repeats in zip(pairwise(widths), STAGE_REPEATS, strict=True):
            # The stem's few channels are not split into groups (section 3.2).
            first_groups = 1 if before == stem else groups
            units = [GroupedShuffleUnit(before, after, stride=2, groups=groups, first_groups=first_groups)]
            units += [
                GroupedShuffleUnit(after, after, stride=1, groups=groups, first_groups=groups)
                for _ in range(repeats - 1)
            ]
            stages.append(nn.Sequential(*units))
        info = [FeatureInfo(*each) for each in zip((2, 4, 8, 16, 32), (stem, *widths), strict=True)]
        super().__init__(stages, info, out_strides=out_strides)
