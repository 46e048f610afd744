"""A segmenter as it leaves the house: pictures in, labels out, nothing in between that the answer does not need."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.lean import lean_copy

from .base import Segmenter


class DeployedSegmenter(nn.Module):
    """What is exported: `Segmenter.predict` as one graph of tensors, on a copy without norms and
    channel shuffles (`backbones.lean`).

    keep_scores: `forward` also gives the probabilities of the classes, which soft edges need. Two classes are told
    apart by the difference of their logits, so that one map is enlarged, not two: enlarging is linear. prepared: the
    segmenter is such a copy already and is taken over, be it a part of a joint net that has no backbone of its own;
    `answers` is what can be called then.
    """

    def __init__(self, segmenter: Segmenter, *, keep_scores: bool = False, prepared: bool = False) -> None:
        super().__init__()
        self.segmenter = segmenter if prepared else lean_copy(segmenter)
        self.segmenter.auxiliary = nn.ModuleList()
        self.keep_scores = keep_scores
        last = _last_convolution(self.segmenter.classifier)
        self.by_difference = segmenter.num_classes == 2 and last is not None
        if self.by_difference and last is not None:
            _only_difference(last)

    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, ...]:
        """images [N, 3, h, w] uint8 or float, RGB 0..255, of any size -> labels [N, H, W] uint8, of equal classes the
        first; with `keep_scores` also scores [N, C, H, W] in 0..1. size: (H, W) of the answers, by default (h, w).
        """
        return self.answers(self.segmenter(images), size)

    def answers(self, logits: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, ...]:
        """What `forward` gives, of logits [N, C, h, w] of `self.segmenter`."""
        if size is not None:
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        if self.by_difference:
            labels = logits[:, 0] > 0
            second = logits.sigmoid() if self.keep_scores else logits
            scores = torch.cat((1 - second, second), dim=1)
        else:
            labels = logits.argmax(dim=1)
            scores = logits.softmax(dim=1)
        return (labels.to(torch.uint8), scores) if self.keep_scores else (labels.to(torch.uint8),)


def _last_convolution(classifier: nn.Module) -> nn.Conv2d | None:
    """The convolution that makes the logits, None where something else does."""
    last = classifier[-1] if isinstance(classifier, nn.Sequential) else classifier
    return last if isinstance(last, nn.Conv2d) and last.groups == 1 else None


@torch.no_grad()
def _only_difference(last: nn.Conv2d) -> None:
    """Makes a convolution to two maps one to their difference, the second less the first."""
    last.weight = nn.Parameter(last.weight[1:] - last.weight[:1])
    if last.bias is not None:
        last.bias = nn.Parameter(last.bias[1:] - last.bias[:1])
    last.out_channels = 1
