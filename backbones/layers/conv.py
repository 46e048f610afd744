"""Convolution, batch norm and activation in one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn

# (in_channels, out_channels, stride) -> a module [N, in, H, W] -> [N, out, ceil(H/stride), ceil(W/stride)] that stands
# where a 3x3 convolution without bias would; norm and activation follow outside of it.
ConvFactory = Callable[[int, int, int], nn.Module]

_ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6}


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    *,
    groups: int = 1,
    act: Literal["relu", "relu6"] | None = "relu",
) -> nn.Sequential:
    """Convolution without bias, padded so that stride 1 keeps the size, then batch norm and, if any, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
    if act is not None:
        layers.append(_ACTIVATIONS[act](inplace=True))
    return nn.Sequential(*layers)


def depthwise_norm(channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Depthwise convolution without bias and batch norm; no activation."""
    return conv_norm_act(channels, channels, kernel_size, stride, groups=channels, act=None)
