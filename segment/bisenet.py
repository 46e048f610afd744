"""BiSeNet: a wide shallow path for detail and a narrow deep one for context.

Reference: Yu et al., BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation, ECCV 2018,
arXiv:1808.00897, section 3, Figure 2.
Deviations: the paper leaves kernel sizes and channels open, and its author's release has layers that its text lacks: a
fourth, 1x1, convolution in the spatial path, a 3x3 before each attention, a 3x3 after each enlargement. With them the
net has the paper's size (its "Params (M)" are megabytes), so the release is what is built. The path of the text is
`spatial_path="three_layers"`, with 3x3 kernels and 64, 64, 128 channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from backbones import Backbone, reach_strides
from backbones.base import FeatureInfo
from backbones.layers import conv_norm_act
from backbones.registry import nearest

from .base import Segmenter, checked_classes, checked_input_size, resize
from .losses import PixelLoss
from .registry import SEGMENTERS, register_presets

CHANNELS = 128  # of either path
HEAD_CHANNELS = 64

# (channels, kernel size, stride) of each layer; all end at stride 8.
SPATIAL_PATHS = {
    "released": ((64, 7, 2), (64, 3, 2), (64, 3, 2), (CHANNELS, 1, 1)),
    "three_layers": ((64, 3, 2), (64, 3, 2), (CHANNELS, 3, 2)),
}


def build_spatial_path(kind: str) -> nn.Sequential:
    """The detail path (section 3.1): images [N, 3, H, W] -> [N, 128, ceil(H/8), ceil(W/8)]. ValueError for a kind."""
    if kind not in SPATIAL_PATHS:
        raise ValueError(
            f"spatial_path is {kind!r}{nearest(kind, SPATIAL_PATHS)}: it is one of {', '.join(SPATIAL_PATHS)}"
        )
    layers, before = [], 3
    for channels, kernel_size, stride in SPATIAL_PATHS[kind]:
        layers.append(conv_norm_act(before, channels, kernel_size, stride))
        before = channels
    return nn.Sequential(*layers)


class AttentionRefinementModule(nn.Module):
    """ARM: a 3x3 convolution, its channels weighed by what the whole picture shows (Figure 2b).

    [N, in_channels, H, W] -> [N, out_channels, H, W].
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = conv_norm_act(in_channels, out_channels, 3)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), *conv_norm_act(out_channels, out_channels, 1, act=None), nn.Sigmoid()
        )

    def forward(self, features: Tensor) -> Tensor:
        """The reduced map, channel by channel times 0..1."""
        reduced = self.reduce(features)
        weighed: Tensor = reduced * self.attention(reduced)
        return weighed


class FeatureFusionModule(nn.Module):
    """FFM: both paths side by side, mixed, and the channels that matter added once more (Figure 2c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = conv_norm_act(channels, channels, 1)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """[N, c1, H, W] and [N, c2, H, W] -> [N, c1 + c2, H, W]."""
        mixed = self.mix(torch.cat((spatial, context), dim=1))
        fused: Tensor = mixed + mixed * self.attention(mixed)
        return fused


class BilateralDecoder(nn.Module):
    """The context path's way up (section 3.2), and the fusion with the spatial path.

    feature_info: of the backbone's maps at strides 16 and 32.
    """

    def __init__(self, feature_info: Sequence[FeatureInfo]) -> None:
        super().__init__()
        middle, coarse = feature_info
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_norm_act(coarse.channels, CHANNELS, 1))
        self.arm_coarse = AttentionRefinementModule(coarse.channels, CHANNELS)
        self.arm_middle = AttentionRefinementModule(middle.channels, CHANNELS)
        self.refine_coarse = conv_norm_act(CHANNELS, CHANNELS, 3)
        self.refine_middle = conv_norm_act(CHANNELS, CHANNELS, 3)
        self.fusion = FeatureFusionModule(2 * CHANNELS)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[spatial [N, 128, h, w], C16, C32] -> [fused [N, 256, h, w], context at 1/16, context at 1/8], 128 deep."""
        spatial, middle, coarse = features
        context = self.arm_coarse(coarse) + self.whole(coarse)
        at_16 = self.refine_coarse(resize(context, middle.shape[-2:]))
        at_8 = self.refine_middle(resize(self.arm_middle(middle) + at_16, spatial.shape[-2:]))
        return [self.fusion(spatial, at_8), at_16, at_8]


def pixel_head(in_channels: int, channels: int, num_classes: int) -> nn.Sequential:
    """A 3x3 convolution with norm and ReLU, and a 1x1 with bias: [N, in_channels, h, w] -> [N, num_classes, h, w]."""
    return nn.Sequential(conv_norm_act(in_channels, channels, 3), nn.Conv2d(channels, num_classes, 1))


@SEGMENTERS.register_module()
def bisenet(
    backbone: str | Backbone = "xception39",
    *,
    num_classes: int = 19,
    backbone_weights: str | PathLike[str] | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    input_size: Sequence[int] = (768, 1536),
    spatial_path: str = "released",
    auxiliary_channels: int = 128,
    auxiliary_weight: float = 1.0,
    pixels: str = "ohem",
    ohem_threshold: float = 0.7,
    ohem_least_kept: float = 1 / 16,
    class_weights: Sequence[float] | None = None,
) -> Segmenter:
    """BiSeNet on any backbone; one that ends at stride 16 is extended to 32 (`backbones.reach_strides`).

    backbone_options: the backbone's own, such as {"width": 0.6} for mobilenet_v1. input_size: (height, width) the net
    is meant for; any size works. auxiliary_channels: inside the two heads that only learn (the release has 256 in its
    accuracy runs of ResNet-18). auxiliary_weight: alpha of section 3.3. pixels ("ohem" or "all"), ohem_threshold,
    ohem_least_kept, class_weights: see `segment.losses.PixelLoss`. Raises ValueError for an unknown backbone or word
    and for a number that cannot be.
    """
    checked_classes(num_classes, class_weights)
    if auxiliary_channels < 1 or auxiliary_weight < 0:
        came = f"auxiliary_channels is {auxiliary_channels}, auxiliary_weight {auxiliary_weight}"
        raise ValueError(f"{came}; expected at least 1, and a number from 0")
    height, width = checked_input_size(input_size)
    backbone = reach_strides(backbone, (16, 32), weights=backbone_weights, options=backbone_options)
    return Segmenter(
        backbone,
        BilateralDecoder(backbone.feature_info),
        pixel_head(2 * CHANNELS, HEAD_CHANNELS, num_classes),
        num_classes=num_classes,
        detail_path=build_spatial_path(spatial_path),
        auxiliary=[pixel_head(CHANNELS, auxiliary_channels, num_classes) for _ in range(2)],
        auxiliary_weight=auxiliary_weight,
        loss=PixelLoss(pixels, ohem_threshold, ohem_least_kept, class_weights),
        input_size=(height, width),
    )


register_presets(bisenet, ("xception39", "resnet18", "shufflenet_v2_x0_5"))
