"""How a segmenter learns from another one: pixel by pixel.

References: Hinton et al., 2015, arXiv:1503.02531 (soft targets, temperature); Liu et al., Structured Knowledge
Distillation for Semantic Segmentation, CVPR 2019, arXiv:1903.04197, section 3.1 (the divergence of every pixel).
Deviations: the auxiliary heads may learn from the teacher's one answer as well; the pairwise and the adversarial term
of the second paper are left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compress.distill import LogitLesson, soft_loss

from .losses import IGNORE
from .results import SegmenterOutputs

PIXELS = ("all", "labelled")


class PixelLesson(LogitLesson):
    """The teacher's classes of every pixel, softened by the temperature.

    pixels: "all", also those that the labels ignore, as the teacher speaks there, or only the "labelled" ones.
    auxiliary_weight: of each auxiliary head's loss against the teacher's main answer, besides `weight`; 0 leaves them
    out. Raises ValueError for a word or number that cannot be.
    """

    def __init__(
        self, *, temperature: float = 4.0, weight: float = 1.0, auxiliary_weight: float = 0.0, pixels: str = "all"
    ) -> None:
        super().__init__(temperature=temperature, weight=weight)
        if auxiliary_weight < 0:
            raise ValueError(f"auxiliary_weight is {auxiliary_weight}; expected a number from 0")
        if pixels not in PIXELS:
            raise ValueError(f"pixels is {pixels!r}; expected one of {', '.join(PIXELS)}")
        self.auxiliary_weight, self.pixels = auxiliary_weight, pixels

    def ask(self, teacher: Any, images: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's logits [N, C, H, W], and where they count [N, H, W] bool."""
        counted = truth != IGNORE if self.pixels == "labelled" else torch.ones_like(truth, dtype=torch.bool)
        return teacher(images), counted

    def losses(self, outputs: SegmenterOutputs, answer: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """{"loss_soft": mean over the pixels that count, "loss_soft_auxiliary_1": ...}."""
        heads: list[tuple[str, Tensor, float]] = [("loss_soft", outputs.logits, 1.0)]
        if self.auxiliary_weight:
            heads += [
                (f"loss_soft_auxiliary_{number}", logits, self.auxiliary_weight)
                for number, logits in enumerate(outputs.auxiliary, start=1)
            ]
        return {name: self.weight * factor * self._mean(logits, *answer) for name, logits, factor in heads}

    def _mean(self, logits: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
        each = soft_loss(logits, wanted, self.temperature, dim=1)
        return each.where(counted, 0.0).sum() / counted.sum().clamp(min=1)
