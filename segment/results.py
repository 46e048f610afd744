"""What segmenters give: every map that a loss needs, and the labelled picture that a user holds.

Named tuples cross devices; the frozen dataclass is for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class SegmenterOutputs(NamedTuple):
    """logits: [N, C, H, W] at the pictures' size; auxiliary: those of the heads that only learn, at the same size."""

    logits: Tensor
    auxiliary: list[Tensor]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One picture, labelled pixel by pixel.

    labels: [H, W] int64 class indices; scores: [C, H, W] in 0..1, which sum to 1 over the classes, or None. Raises
    ValueError where the shapes or kinds disagree.
    """

    labels: Tensor
    scores: Tensor | None = None

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.dtype != torch.int64:
            came = f"{self.labels.dtype} {list(self.labels.shape)}"
            raise ValueError(f"labels are {came}; expected torch.int64 [H, W]")
        if self.scores is not None and (self.scores.ndim != 3 or self.scores.shape[1:] != self.labels.shape):
            shapes = f"{list(self.scores.shape)} and {list(self.labels.shape)}"
            raise ValueError(f"scores and labels have shapes {shapes}; expected [C, H, W] and [H, W]")

    def to(self, device: torch.device | str) -> Segmentation:
        """The same on another device."""
        return Segmentation(self.labels.to(device), None if self.scores is None else self.scores.to(device))
