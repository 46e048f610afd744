"""Convolution, batch norm and ReLU in one row."""

from __future__ import annotations

from torch import nn


def conv_norm_act(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, groups: int = 1
) -> nn.Sequential:
    """Convolution without bias, padded so that stride 1 keeps the size, then batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def depthwise_norm(channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Depthwise convolution without bias and batch norm; no activation."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
    )
