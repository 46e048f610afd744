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
from .shufflenet_v2 import shuffle_net

# Million multiply-adds in the name -> stem, stages 2 to 4, and Conv5 where there is one (Table 1).
CHANNELS: dict[int, tuple[int, tuple[int, int, int], int | None]] = {
    49: (24, (60, 120, 240), 512),
    146: (24, (132, 264, 528), None),
    535: (48, (248, 496, 992), None),
}


class SNet(Backbone):
    """A stem at strides 2 and 4, three stages at 8, 16, 32, and for SNet49 a 1x1 convolution (Conv5) at 32.

    kernel_size: of the depthwise convolutions; Table 5 compares 3 with 5.
    """

    def __init__(self, size: int = 49, *, kernel_size: int = 5, out_strides: Sequence[int] | None = None) -> None:
        if size not in CHANNELS:
            raise ValueError(f"size is {size!r}; SNet is published as {', '.join(map(str, CHANNELS))}")
        if kernel_size not in (3, 5):
            raise ValueError(f"kernel_size is {kernel_size!r}; expected 3 or 5")
        stem, channels, last = CHANNELS[size]
        stages, info = shuffle_net(channels, kernel_size=kernel_size, stem_channels=stem, last_channels=last)
        super().__init__(stages, info, out_strides=out_strides)
