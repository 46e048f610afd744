"""Xception-like nets in their three kinds: of Light-Head R-CNN, of BiSeNet and of DFANet.

References: Li et al., Light-Head R-CNN: In Defense of Two-Stage Object Detector, arXiv:1711.07264, Table 7
(`xception145`); Yu et al., BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation, ECCV 2018,
arXiv:1808.00897, and the structure that its author released (`Xception39`); Li et al., DFANet: Deep Feature Aggregation
for Real-Time Semantic Segmentation, CVPR 2019, arXiv:1904.02216, Table 1 and Figure 3 (`XceptionAB`).
Deviations: the Light-Head paper does not draw its block. Channels, repeats and the printed 145 M multiply-adds fit
ShuffleNetV1's unit with one group (143.08 M; every other reading costs more), so that unit is what is used.
DFANet's paper gives neither shortcut nor norm nor activation: the shortcut where a stage begins is a strided 1x1
convolution (its multiply-adds fit best), a norm follows each 1x1, no norm or ReLU stands between depthwise and 1x1, and
ReLU comes after each but the last convolution of a block and after the sum, as in Xception39. The attention's 1x1 is
followed by a norm, whose shift starts at 1, and by a sigmoid. The figure shows no sigmoid, but without it the factors
have no bounds, hang on the other pictures of the batch, and nets that fit their training pictures fail on the same ones
in evaluation; `bounded=False` is the figure's form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone, FeatureInfo
from .layers import conv_norm_act
from .shufflenet_v1 import ShuffleNetV1

STEM_CHANNELS = 8
ATTENTION_CLASSES = 1000  # ImageNet's: the attention's linear layer is the classifier's

Projection = Callable[[int, int, int], nn.Module]  # (in_channels, out_channels, stride) -> the shortcut, norm included


def separable(in_channels: int, out_channels: int, stride: int = 1, *, act: Literal["relu"] | None = None) -> nn.Module:
    """3x3 depthwise and 1x1 convolution with nothing between them, then norm and, if asked for, ReLU."""
    depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False)
    return nn.Sequential(depthwise, *conv_norm_act(in_channels, out_channels, 1, act=act))


class PickedPointwise(nn.Conv2d):
    """A strided 1x1 convolution without bias that picks its pixels first, which gives the same numbers.

    PyTorch's own (2.14, oneDNN) writes beyond its memory in the backward pass on 8 channels laid out channels last.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, ceil(H/stride), ceil(W/stride)]."""
        rows, columns = self.stride
        return F.conv2d(features[..., ::rows, ::columns], self.weight, self.bias)


def pointwise(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """A strided 1x1 convolution and norm."""
    return nn.Sequential(PickedPointwise(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


class XceptionBlock(nn.Module):
    """Three separable convolutions, a quarter wide inside, on a shortcut; ReLU after the sum.

    [N, in_channels, H, W] -> [N, out_channels, ceil(H/stride), ceil(W/stride)]. projection None: the input itself.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, projection: Projection | None = None
    ) -> None:
        super().__init__()
        middle = out_channels // 4
        self.residual = nn.Sequential(
            separable(in_channels, middle, stride, act="relu"),
            separable(middle, middle, act="relu"),
            separable(middle, out_channels),
        )
        self.shortcut = nn.Identity() if projection is None else projection(in_channels, out_channels, stride)
        self.act = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Shortcut and residual, added."""
        result: Tensor = self.act(self.residual(features) + self.shortcut(features))
        return result


def xception_stage(in_channels: int, out_channels: int, repeats: int, *, projection: Projection) -> nn.Sequential:
    """One block of stride 2 with a projection and `repeats - 1` of stride 1: halves the size of any map."""
    blocks = [XceptionBlock(in_channels, out_channels, 2, projection=projection)]
    blocks += [XceptionBlock(out_channels, out_channels) for _ in range(repeats - 1)]
    return nn.Sequential(*blocks)


def xception145(*, out_strides: Sequence[int] | None = None) -> ShuffleNetV1:
    """Light-Head R-CNN's small backbone: ShuffleNetV1 with one group, where shuffling does nothing."""
    return ShuffleNetV1(groups=1, width=1.0, out_strides=out_strides)


class Xception39(Backbone):
    """BiSeNet's: a convolution and a max pooling, then three stages; 39 M multiply-adds at 224 x 224."""

    def __init__(self, *, out_strides: Sequence[int] | None = None) -> None:
        channels = (STEM_CHANNELS, 64, 128, 256)
        stages: list[nn.Module] = [conv_norm_act(3, STEM_CHANNELS, 3, 2), nn.MaxPool2d(3, 2, padding=1)]
        stages += [
            xception_stage(before, after, repeats, projection=separable)
            for (before, after), repeats in zip(pairwise(channels), (4, 8, 4), strict=True)
        ]
        info = [FeatureInfo(*each) for each in zip((2, 4, 8, 16, 32), (STEM_CHANNELS, *channels), strict=True)]
        super().__init__(stages, info, out_strides=out_strides)


class FullyConnectedAttention(nn.Module):
    """DFANet's fc attention (Figure 3): what the whole picture shows weighs the channels.

    [N, channels, H, W] -> the same: average, linear layer to 1000 classes, 1x1 convolution back, multiplied on.
    bounded: a sigmoid keeps the factors in 0..1.
    """

    def __init__(self, channels: int, *, bounded: bool = True) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, ATTENTION_CLASSES)
        norm = nn.BatchNorm2d(channels)
        nn.init.ones_(norm.bias)
        self.weigh = nn.Sequential(nn.Conv2d(ATTENTION_CLASSES, channels, 1, bias=False), norm)
        self.bound = nn.Sigmoid() if bounded else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """features, each channel times its factor."""
        classes = self.fc(features.mean((2, 3)))
        weighed: Tensor = features * self.bound(self.weigh(classes[:, :, None, None]))
        return weighed


# enc2, enc3, enc4 of DFANet's Table 1.
DFANET_CHANNELS = {"a": (48, 96, 192), "b": (32, 64, 128)}
DFANET_REPEATS = (4, 6, 4)


def dfanet_stages(in_channels: Sequence[int], channels: Sequence[int]) -> list[nn.Module]:
    """enc2, enc3, enc4: each halves the size and turns its in_channels into its channels."""
    return [
        xception_stage(before, after, repeats, projection=pointwise)
        for before, after, repeats in zip(in_channels, channels, DFANET_REPEATS, strict=True)
    ]


class XceptionAB(Backbone):
    """DFANet's backbones A and B: a convolution at stride 2, enc2 to enc4 at 4, 8, 16, and the fc attention on enc4.

    variant: "a" or "b". attention False leaves enc4 as it is: the net that is pre-trained, whose classifier's linear
    layer is the attention's. Raises ValueError for another variant.
    """

    def __init__(self, variant: str = "a", *, attention: bool = True, out_strides: Sequence[int] | None = None) -> None:
        if variant not in DFANET_CHANNELS:
            raise ValueError(f"variant is {variant!r}; it is one of {', '.join(DFANET_CHANNELS)}")
        channels = (STEM_CHANNELS, *DFANET_CHANNELS[variant])
        stages = [conv_norm_act(3, STEM_CHANNELS, 3, 2), *dfanet_stages(channels[:-1], channels[1:])]
        info = [FeatureInfo(*each) for each in zip((2, 4, 8, 16), channels, strict=True)]
        if attention:
            stages.append(FullyConnectedAttention(channels[-1]))
            info.append(info[-1])
        super().__init__(stages, info, out_strides=out_strides)

    def tensors_beside_classifier(self, head: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The attention as it is here, with the classifier's linear layer where that has as many classes."""
        if not isinstance(self.stages[-1], FullyConnectedAttention):
            return {}
        own = {f"stages.{len(self.stages) - 1}.{name}": value for name, value in self.stages[-1].state_dict().items()}
        linear = {name.rpartition(".")[2]: value for name, value in head.items()}
        for part, value in linear.items():
            (name,) = [name for name in own if name.endswith(f"fc.{part}")]
            if own[name].shape == value.shape:
                own[name] = value
        return own
