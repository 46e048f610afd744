"""SNet: ShuffleNetV2 with 5x5 depthwise convolutions, the backbones of ThunderNet.

Reference: Qin et al., ThunderNet: Towards Real-time Generic Object Detection, ICCV 2019, arXiv:1903.11752,
section 3.1, Table 1.
Deviations: the stride-2 unit gives half of the channels from each branch (layers/shuffle.py); with it SNet535 costs
exactly the 535 M multiply-adds of Table 1. SNet146 as tabled measures 161 M, not the 146 M that the paper prints, and
SNet49 51 M, in every reading of the table.
"""

from __future__ import annotations

from collections.abc import Sequence

from .base import Backbone
from .registry import BACKBONES
from .shufflenet_v2 import shuffle_net


class SNet(Backbone):
    """A stem at strides 2 and 4, three stages at 8, 16, 32, and for SNet49 a 1x1 convolution (Conv5) at 32."""

    def __init__(
        self,
        channels: Sequence[int],
        *,
        stem_channels: int = 24,
        last_channels: int | None = None,
        out_strides: Sequence[int] | None = None,
    ) -> None:
        stages, info = shuffle_net(channels, kernel_size=5, stem_channels=stem_channels, last_channels=last_channels)
        super().__init__(stages, info, out_strides=out_strides)


@BACKBONES.register_module()
def snet49(*, out_strides: Sequence[int] | None = None) -> SNet:
    """SNet49: the smallest."""
    return SNet((60, 120, 240), last_channels=512, out_strides=out_strides)


@BACKBONES.register_module()
def snet146(*, out_strides: Sequence[int] | None = None) -> SNet:
    """SNet146: the middle one."""
    return SNet((132, 264, 528), out_strides=out_strides)


@BACKBONES.register_module()
def snet535(*, out_strides: Sequence[int] | None = None) -> SNet:
    """SNet535: the large one, with a stem of 48 channels."""
    return SNet((248, 496, 992), stem_channels=48, out_strides=out_strides)
