"""ResNet-18, -50 and -101, also with a dilated last stage and with other convolutions in place of the 3x3s.

Reference: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385, Table 1, Figure 5; the
dilated last stage: Li et al., Light-Head R-CNN, 2017, arXiv:1711.07264, section 3.2.
Deviations: a bottleneck that halves the map does so in its 3x3 convolution, not in the 1x1 before it, as torchvision's
published weights have it. With `dilate_last` all units of the last stage have dilation 2, as in Light-Head R-CNN's
code; torchvision's `replace_stride_with_dilation` leaves the first of them at 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from .base import Backbone, FeatureInfo
from .layers import ConvFactory, conv_norm_act, hold_stride_
from .layers.factorized import CONVOLUTIONS
from .registry import nearest


class Depth(NamedTuple):
    """Units in each of the four stages, and how many times its width a unit gives (1: basic, else: bottleneck)."""

    repeats: tuple[int, int, int, int]
    expansion: int


DEPTHS = {18: Depth((2, 2, 2, 2), 1), 50: Depth((3, 4, 6, 3), 4), 101: Depth((3, 4, 23, 3), 4)}
STEM_CHANNELS = 64
WIDTHS = (64, 128, 256, 512)


def _convolution(conv: str | ConvFactory) -> ConvFactory:
    """A factory by its name, or as it came; ValueError with the nearest name."""
    if callable(conv):
        return conv
    if conv not in CONVOLUTIONS:
        raise ValueError(f"conv is {conv!r}{nearest(conv, CONVOLUTIONS)}; expected one of {', '.join(CONVOLUTIONS)}")
    return CONVOLUTIONS[conv]


class ResidualUnit(nn.Module):
    """Two convolutions of `width` (basic), or 1x1, 3x3 and 1x1 to `expansion` times the width (bottleneck).

    [N, in_channels, H, W] -> [N, width * expansion, ceil(H/stride), ceil(W/stride)]. The input is added before the last
    ReLU, through a 1x1 convolution where its shape is another (option B of section 4.1).
    """

    def __init__(self, in_channels: int, width: int, *, stride: int, expansion: int, conv: ConvFactory) -> None:
        super().__init__()
        out_channels = width * expansion
        if expansion == 1:
            self.branch = nn.Sequential(
                nn.Sequential(conv(in_channels, width, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
                nn.Sequential(conv(width, width, 1), nn.BatchNorm2d(width)),
            )
        else:
            self.branch = nn.Sequential(
                conv_norm_act(in_channels, width, 1),
                nn.Sequential(conv(width, width, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
                conv_norm_act(width, out_channels, 1, act=None),
            )
        is_same = stride == 1 and in_channels == out_channels
        self.shortcut = None if is_same else conv_norm_act(in_channels, out_channels, 1, stride, act=None)
        self.act = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Branch and shortcut, added, then ReLU."""
        passed = features if self.shortcut is None else self.shortcut(features)
        summed: Tensor = self.act(self.branch(features) + passed)
        return summed


class ResNet(Backbone):
    """A 7x7 convolution, a pool and four stages of residual units at strides 4, 8, 16, 32.

    conv: what stands for the 3x3 convolutions of the units, a name in `layers.factorized.CONVOLUTIONS` or a factory.
    dilate_last: the last stage keeps stride 16 and sees as far by dilation 2; the net then ends at 16.
    Raises ValueError for a depth or conv that does not exist, and for dilate_last with another conv than "standard".
    """

    def __init__(
        self,
        depth: int = 18,
        *,
        conv: str | ConvFactory = "standard",
        dilate_last: bool = False,
        out_strides: Sequence[int] | None = None,
    ) -> None:
        if depth not in DEPTHS:
            raise ValueError(f"depth is {depth!r}; ResNet comes with {', '.join(map(str, DEPTHS))}")
        if dilate_last and conv != "standard":
            raise ValueError(f"dilate_last needs conv 'standard', which can be dilated; conv is {conv!r}")
        repeats, expansion = DEPTHS[depth]
        before = STEM_CHANNELS
        stages: list[nn.Module] = [conv_norm_act(3, before, 7, 2), nn.MaxPool2d(3, 2, padding=1)]
        info = [FeatureInfo(2, before), FeatureInfo(4, before)]
        for number, (width, count) in enumerate(zip(WIDTHS, repeats, strict=True)):
            first_stride = 1 if number == 0 else 2
            units = []
            for stride in (first_stride, *(1,) * (count - 1)):
                units.append(ResidualUnit(before, width, stride=stride, expansion=expansion, conv=_convolution(conv)))
                before = width * expansion
            stages.append(nn.Sequential(*units))
            info.append(FeatureInfo(info[-1].stride * first_stride, before))
        if dilate_last:
            hold_stride_(stages[-1], dilation=2)
            info[-1] = FeatureInfo(info[-2].stride, before)
        super().__init__(stages, info, out_strides=out_strides)
