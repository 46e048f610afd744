"""Cross-entropy over pixels, of all or of the hard ones.

References: Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining (OHEM), CVPR
2016; BiSeNet, arXiv:1808.00897, section 3.3, whose speed runs use it.
Deviations: BiSeNet's paper gives no numbers. As in the public trainings that come nearest to it, a pixel is hard where
its class has a probability under 0.7, and at least a sixteenth of the labelled pixels of a batch are taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.registry import nearest

IGNORE = 255  # the label of pixels that count nowhere
PIXELS = ("all", "ohem")


@dataclass(frozen=True)
class PixelLoss:
    """Cross-entropy, averaged over the pixels that it takes, each weighted by its class.

    pixels: "all", or "ohem": those whose class has a probability under `threshold`, and at least the hardest
    `least_kept` of the labelled ones. class_weights: one per class, or None for equal ones. Raises ValueError for
    numbers that cannot be.
    """

    pixels: str = "ohem"
    threshold: float = 0.7
    least_kept: float = 1 / 16
    class_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.pixels not in PIXELS:
            raise ValueError(
                f"pixels is {self.pixels!r}{nearest(self.pixels, PIXELS)}: it is one of {', '.join(PIXELS)}"
            )
        for name, number in (("threshold", self.threshold), ("least_kept", self.least_kept)):
            if not 0 < number <= 1:
                raise ValueError(f"{name} of the hard pixels is {number}; expected above 0, at most 1")
        weights = self.class_weights
        if weights is not None and not all(0 <= weight < math.inf for weight in weights):
            raise ValueError(f"class_weights are {list(weights)}; expected numbers from 0")

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits [N, C, H, W], labels [N, H, W] int64 in 0..C-1 or 255 -> a scalar; 0 where every pixel is ignored."""
        logits, labelled = logits.float(), labels != IGNORE
        if not labelled.any():
            return logits.flatten()[:0].sum()  # zero with a gradient of zero, whatever the logits are
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        if self.pixels == "all":
            total = F.cross_entropy(logits, labels, weights, ignore_index=IGNORE, reduction="sum")
            counts = labels.flatten().bincount(minlength=IGNORE + 1)[: logits.shape[1]].float()
            return total / _above_zero(counts.sum() if weights is None else counts @ weights)
        each = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
        losses, classes = each[labelled], labels[labelled]
        hard = self._hard(losses.detach())
        losses, classes = losses[hard], classes[hard]
        if weights is None:
            return losses.mean()
        return (losses * weights[classes]).sum() / _above_zero(weights[classes].sum())

    def _hard(self, losses: Tensor) -> Tensor:
        """losses [P] -> the places to take: those above the threshold, or the hardest where they are too few."""
        hard = losses > -math.log(self.threshold)
        least = max(1, int(len(losses) * self.least_kept))
        if int(hard.sum()) >= least:
            return hard.nonzero()[:, 0]
        return losses.topk(least, sorted=False).indices


def _above_zero(total: Tensor) -> Tensor:
    """What to divide by: no pixel, or pixels of weightless classes alone, must not divide by zero."""
    return total.clamp(min=torch.finfo(total.dtype).tiny)
