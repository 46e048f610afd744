"""From a map to class scores: what a classifier puts on a backbone."""

from __future__ import annotations

from torch import nn


def pooled_linear(channels: int, num_classes: int, *, dropout: float = 0.0) -> nn.Sequential:
    """[N, channels, H, W] -> logits [N, num_classes]: average of the map, dropout if any, a linear layer with bias."""
    drops = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *drops, nn.Linear(channels, num_classes))
