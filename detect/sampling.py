"""Which proposals the box head learns from.

References: Ren et al., Faster R-CNN, NeurIPS 2015 (random, a quarter positive); Shrivastava et al., Training
Region-based Object Detectors with Online Hard Example Mining, CVPR 2016, arXiv:1604.03540, which ThunderNet uses.
Deviations: ThunderNet's paper does not say how many hard examples it keeps; 256 of a picture, as in Light-Head R-CNN.
Its release draws 512 at random, a quarter of them positive, out of 1,000 proposals: `sampling="random"`, `samples=512`.
Of 2,000 candidates the suppression leaves some 300 to 1,500; to have the paper's 2,000 left, `before_nms` must be 6,000
or more, which makes the suppression eight times as slow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import areas
from .losses import head_losses_each
from .matching import IGNORED, draw_sample, match
from .results import Target

SAMPLINGS = ("ohem", "random")


@dataclass(frozen=True)
class ProposalSampling:
    """kind: "ohem" keeps the `samples` proposals of highest loss, "random" draws `samples` of which at most
    `positive_fraction` are positive; proposals: how many the RPN gives in training, of `before_nms` candidates;
    positive_iou: the overlap that makes a proposal an example of its object, below it of background.
    """

    kind: str = "ohem"
    proposals: int = 2000
    before_nms: int = 2000
    samples: int = 256
    positive_fraction: float = 0.25
    positive_iou: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in SAMPLINGS:
            raise ValueError(f"sampling {self.kind!r}: it is one of {', '.join(SAMPLINGS)}")
        for name in ("proposals", "before_nms", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of the sampling is {getattr(self, name)}; expected at least 1")
        for name in ("positive_fraction", "positive_iou"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} of the sampling is {getattr(self, name)}; expected more than 0, at most 1")


class ProposalSample(NamedTuple):
    """proposals [N, R, 4]; labels [N, R], C for background, `IGNORED` for neither; boxes [N, R, 4] their truth."""

    proposals: Tensor
    labels: Tensor
    boxes: Tensor

    def take(self, places: Tensor) -> ProposalSample:
        """The proposals at `places` [N, K] of each picture."""
        columns = places[..., None].expand(-1, -1, 4)
        return ProposalSample(
            self.proposals.gather(1, columns), self.labels.gather(1, places), self.boxes.gather(1, columns)
        )


def _label(proposals: Tensor, target: Target, num_classes: int, setting: ProposalSampling) -> ProposalSample:
    """One picture's proposals [R, 4] and its objects themselves, each with label and matched box."""
    proposals = torch.cat((target.boxes[~target.is_crowd], proposals))
    found = match(proposals, target, positive_iou=setting.positive_iou, negative_iou=setting.positive_iou)
    labels = torch.full((len(proposals),), IGNORED, device=proposals.device)
    labels[found.is_negative] = num_classes
    boxes = torch.zeros_like(proposals)
    if found.is_positive.any():
        labels[found.is_positive] = target.labels[found.truth[found.is_positive]]
        boxes[found.is_positive] = target.boxes[found.truth[found.is_positive]]
    labels[areas(proposals) <= 0] = IGNORED
    if setting.kind == "random":
        counted = found._replace(is_negative=labels == num_classes)
        chosen = torch.cat(draw_sample(counted, setting.samples, setting.positive_fraction))
        proposals, labels, boxes = proposals[chosen], labels[chosen], boxes[chosen]
    return ProposalSample(proposals, labels, boxes)


def _stack(samples: list[ProposalSample]) -> ProposalSample:
    """Pictures with different numbers of proposals in one batch, padded with ignored ones."""
    length = max(len(sample.labels) for sample in samples)

    def pad(tensor: Tensor, value: float) -> Tensor:
        missing = tensor.new_full((length - len(tensor), *tensor.shape[1:]), value)
        return torch.cat((tensor, missing))

    return ProposalSample(
        torch.stack([pad(sample.proposals, 0) for sample in samples]),
        torch.stack([pad(sample.labels, IGNORED) for sample in samples]),
        torch.stack([pad(sample.boxes, 0) for sample in samples]),
    )


@torch.no_grad()
def sample_proposals(
    proposals: Tensor,
    targets: list[Target],
    num_classes: int,
    setting: ProposalSampling,
    *,
    head: Callable[[Tensor], tuple[Tensor, Tensor]],
    box_loss: str,
) -> ProposalSample:
    """proposals [N, R, 4], zero rows being padding -> the ones to learn from.

    head: gives class logits and box deltas for proposals; asked only where hard examples are looked for.
    """
    labelled = [_label(one, target, num_classes, setting) for one, target in zip(proposals, targets, strict=True)]
    sample = _stack(labelled)
    if setting.kind == "random" or sample.labels.shape[1] <= setting.samples:
        return sample
    classes, boxes = head_losses_each(*head(sample.proposals), *sample, box_loss=box_loss)
    hardness = (classes + boxes).masked_fill(sample.labels == IGNORED, -1.0)
    return sample.take(hardness.topk(setting.samples, dim=1).indices)
