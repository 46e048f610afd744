"""The channel shuffle, and the unit of ShuffleNetV2, which SNet shares.

Reference: Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, ECCV 2018,
arXiv:1807.11164, section 3.2 and Figure 3 (c, d).
Deviations: in the unit that halves the size both branches give half of the channels. The authors' own code lets the
shortcut keep its input channels; the two differ in the first unit of a net only (backbones/snet.py has the numbers).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .conv import conv_norm_act, depthwise_norm


def interleave(first: Tensor, second: Tensor) -> Tensor:
    """Two maps [N, C, H, W] -> [N, 2 C, H, W], channel by channel: a channel shuffle with two groups, in one copy."""
    return torch.stack((first, second), dim=2).flatten(1, 2)


def channel_shuffle(features: Tensor, groups: int) -> Tensor:
    """[N, C, H, W] -> the same, the first channel of each group, then the second of each: C a multiple of `groups`."""
    return features if groups == 1 else features.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleUnit(nn.Module):
    """Stride 1: half of the channels pass, half go through the branch. Stride 2: all go through branch and shortcut.

    [N, in_channels, H, W] -> [N, out_channels, ceil(H/stride), ceil(W/stride)]; the halves leave interleaved.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, kernel_size: int = 3) -> None:
        super().__init__()
        if out_channels % 2 or (stride == 1 and in_channels != out_channels):
            raise ValueError(
                f"a shuffle unit of stride {stride} cannot turn {in_channels} channels into {out_channels}"
            )
        half = out_channels // 2
        branch_channels = in_channels if stride > 1 else half
        self.shortcut = (
            nn.Sequential(depthwise_norm(in_channels, kernel_size, stride), conv_norm_act(in_channels, half, 1))
            if stride > 1
            else None
        )
        self.branch = nn.Sequential(
            conv_norm_act(branch_channels, half, 1),
            depthwise_norm(half, kernel_size, stride),
            conv_norm_act(half, half, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """What passes and what was worked on, interleaved."""
        if self.shortcut is None:
            passed, worked = features.chunk(2, dim=1)
        else:
            passed, worked = self.shortcut(features), features
        return interleave(passed, self.branch(worked))


def shuffle_stage(in_channels: int, out_channels: int, repeats: int, *, kernel_size: int = 3) -> nn.Sequential:
    """One unit of stride 2 and `repeats - 1` units of stride 1."""
    units = [ShuffleUnit(in_channels, out_channels, stride=2, kernel_size=kernel_size)]
    units += [ShuffleUnit(out_channels, out_channels, stride=1, kernel_size=kernel_size) for _ in range(repeats - 1)]
    return nn.Sequential(*units)
