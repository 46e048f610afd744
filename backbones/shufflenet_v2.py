"""ShuffleNetV2 at its four published widths.

Reference: Ma et al., ShuffleNet V2, ECCV 2018, arXiv:1807.11164, Table 5.
Deviations: the stride-2 unit gives half of the channels from each branch (see layers/shuffle.py), as torchvision's
published weights have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from .base import Backbone, FeatureInfo
from .layers import conv_norm_act, pooled_linear, shuffle_stage

STAGE_REPEATS = (4, 8, 4)


def shuffle_net(
    channels: Sequence[int], *, kernel_size: int, stem_channels: int, last_channels: int | None = None
) -> tuple[list[nn.Module], list[FeatureInfo]]:
    """A stem at strides 2 and 4, three stages of units at 8, 16, 32, and an optional 1x1 convolution at 32."""
    widths = (stem_channels, *channels)
    stages: list[nn.Module] = [conv_norm_act(3, stem_channels, 3, 2), nn.MaxPool2d(3, 2, padding=1)]
    stages += [
        shuffle_stage(before, after, repeats, kernel_size=kernel_size)
        for (before, after), repeats in zip(pairwise(widths), STAGE_REPEATS, strict=True)
    ]
    info = [
        FeatureInfo(stride, width) for stride, width in zip((2, 4, 8, 16, 32), (stem_channels, *widths), strict=True)
    ]
    if last_channels is not None:
        stages.append(conv_norm_act(channels[-1], last_channels, 1))
        info.append(FeatureInfo(32, last_channels))
    return stages, info


# Width -> channels of stages 2, 3, 4, and of the 1x1 convolution in the classifier (Table 5).
CHANNELS = {
    0.5: ((48, 96, 192), 1024),
    1.0: ((116, 232, 464), 1024),
    1.5: ((176, 352, 704), 1024),
    2.0: ((244, 488, 976), 2048),
}


class ShuffleNetV2(Backbone):
    """Stages 1 to 4; the 1x1 convolution after them belongs to the classifier."""

    def __init__(self, width: float = 1.0, *, out_strides: Sequence[int] | None = None) -> None:
        if width not in CHANNELS:
            raise ValueError(f"width is {width!r}; ShuffleNetV2 is published at {', '.join(map(str, CHANNELS))}")
        channels, self._classifier_channels = CHANNELS[width]
        stages, info = shuffle_net(channels, kernel_size=3, stem_channels=24)
        super().__init__(stages, info, out_strides=out_strides)

    def classifier_head(self, num_classes: int) -> nn.Module:
        """A 1x1 convolution with norm and ReLU, then average and linear layer."""
        last = conv_norm_act(self.feature_info[-1].channels, self._classifier_channels, 1)
        return nn.Sequential(last, *pooled_linear(self._classifier_channels, num_classes))
