"""SqueezeNet 1.0 and 1.1: fire modules, without batch norm, with or without bypass.

Reference: Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size, 2016,
arXiv:1602.07360, Table 1, Figure 2; version 1.1: the authors' repository (forresti/SqueezeNet).
Deviations: conv10 has no padding (the authors' has 1, which costs multiply-adds and no parameter), as in torchvision.
`padded` pads the first convolution and the pools, so that a map at stride s has ceil(H/s) places; the published
classifier is not padded. The complex bypass puts a 1x1 convolution around the fire modules that change the channels and
an identity around the others; the sources disagree on its count of parameters. A bypass is added after the ReLUs of
the expand layers, and nothing follows the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from .base import Backbone, FeatureInfo
from .registry import nearest

Bypass = Literal["none", "simple", "complex"]

# Squeeze channels of fire2 to fire9, and those of each of the two expand layers (Table 1).
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


class Version(NamedTuple):
    """Kernel and channels of conv1, and how many fire modules stand at strides 4, 8, 16."""

    kernel_size: int
    stem_channels: int
    fires_at: tuple[int, int, int]


VERSIONS = {"1.0": Version(7, 96, (3, 4, 1)), "1.1": Version(3, 64, (2, 2, 4))}


def _conv_act(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2), nn.ReLU(inplace=True)
    )


class Fire(nn.Module):
    """Squeeze by a 1x1 convolution, expand by 1x1 and 3x3 side by side: [N, in_channels, H, W] -> [N, 2 expand, H, W].

    bypass: the input goes around, through a 1x1 convolution ("complex") or not at all ("simple") where the channels
    change.
    """

    def __init__(self, in_channels: int, squeeze: int, expand: int, *, bypass: Bypass) -> None:
        super().__init__()
        self.squeeze = _conv_act(in_channels, squeeze, 1)
        self.expand_1x1 = _conv_act(squeeze, expand, 1)
        self.expand_3x3 = _conv_act(squeeze, expand, 3)
        self.bypass: nn.Module | None = None
        if bypass != "none" and in_channels == 2 * expand:
            self.bypass = nn.Identity()
        elif bypass == "complex":
            self.bypass = nn.Conv2d(in_channels, 2 * expand, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Both expansions of the squeezed map, and what went around them."""
        squeezed = self.squeeze(features)
        expanded = torch.cat((self.expand_1x1(squeezed), self.expand_3x3(squeezed)), dim=1)
        return expanded if self.bypass is None else expanded + self.bypass(features)


class SqueezeNet(Backbone):
    """A convolution and eight fire modules behind three pools, up to stride 16.

    Raises ValueError for a version or bypass that does not exist.
    """

    def __init__(
        self,
        version: str = "1.1",
        *,
        bypass: Bypass = "none",
        padded: bool = True,
        out_strides: Sequence[int] | None = None,
    ) -> None:
        if version not in VERSIONS:
            raise ValueError(
                f"version is {version!r}{nearest(version, VERSIONS)}; expected {' or '.join(map(repr, VERSIONS))}"
            )
        if bypass not in get_args(Bypass):
            raise ValueError(
                f"bypass is {bypass!r}{nearest(bypass, get_args(Bypass))}; expected none, simple or complex"
            )
        kernel_size, before, fires_at = VERSIONS[version]
        conv1 = nn.Conv2d(3, before, kernel_size, 2, padding=kernel_size // 2 if padded else 0)
        stages: list[nn.Module] = [nn.Sequential(conv1, nn.ReLU(inplace=True))]
        info = [FeatureInfo(2, before)]
        fires = iter(FIRES)
        for map_stride, count in zip((4, 8, 16), fires_at, strict=True):
            units: list[nn.Module] = [nn.MaxPool2d(3, 2, padding=1) if padded else nn.MaxPool2d(3, 2, ceil_mode=True)]
            for _ in range(count):
                squeeze, expand = next(fires)
                units.append(Fire(before, squeeze, expand, bypass=bypass))
                before = 2 * expand
            stages.append(nn.Sequential(*units))
            info.append(FeatureInfo(map_stride, before))
        super().__init__(stages, info, out_strides=out_strides)
        self.apply(_initialize)

    def classifier_head(self, num_classes: int) -> nn.Module:
        """Dropout, a 1x1 convolution to the classes with ReLU, then the average: logits are never below 0."""
        conv10 = nn.Conv2d(self.feature_info[-1].channels, num_classes, 1)
        _initialize(conv10)
        nn.init.normal_(conv10.weight, std=0.01)
        return nn.Sequential(nn.Dropout(0.5), conv10, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _initialize(layer: nn.Module) -> None:
    """Without batch norm the weights alone must keep the signal's size (He et al., arXiv:1502.01852, section 2.2)."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
