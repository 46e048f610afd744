"""Batch norms said by two numbers a channel instead of four: the same function in evaluation mode."""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor, nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_Norm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


@torch.no_grad()
def simplify_norms_(net: nn.Module) -> None:
    """Put the running statistics of each batch norm with scale and shift into these; mean 0 and variance 1 stay.

    What the net gives in evaluation mode stays the same to rounding; a packed file of it needs half as much for norms,
    because statistics that are all alike deflate to nothing. The net can be trained on, but has lost its statistics.
    """
    for norm in net.modules():
        if isinstance(norm, _NORMS) and isinstance(norm.running_mean, Tensor) and isinstance(norm.weight, Tensor):
            _simplify(norm)


def _simplify(norm: _Norm) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    norm.bias.copy_(norm.bias.double() - mean * scale)
    norm.weight.copy_(scale * math.sqrt(1 + norm.eps))
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0)
