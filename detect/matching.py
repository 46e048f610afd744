"""Who answers for which object: matching boxes to ground truth, and drawing a sample of them.

Reference: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1.2 (thresholds, low-quality matches); COCO's rule for
crowds: a box that lies mostly inside one is neither right nor wrong.
Deviations: none.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import areas, intersections, pairwise_iou
from .results import Target

IGNORED = -1  # a label that no loss counts
CROWD_OVERLAP = 0.5  # of the box's own area


class Match(NamedTuple):
    """truth: [B] int64, the ground-truth box each box is nearest to (0 where there is none); is_positive, is_negative:
    [B] bool; a box that is neither is ignored.
    """

    truth: Tensor
    is_positive: Tensor
    is_negative: Tensor


def match(
    boxes: Tensor, target: Target, *, positive_iou: float, negative_iou: float, low_quality: bool = False
) -> Match:
    """boxes [B, 4] against the target's objects.

    Positive: IoU of at least `positive_iou` with an object, or, with `low_quality`, the best box that an object has.
    Negative: IoU below `negative_iou` with every object, and not mostly inside a crowd.
    """
    crowds, objects = target.boxes[target.is_crowd], target.boxes[~target.is_crowd]
    original = torch.nonzero(~target.is_crowd).flatten()
    none = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    if len(objects) == 0:
        truth, is_positive, is_negative = none.long(), none, ~none
    else:
        ious = pairwise_iou(objects, boxes)
        best_iou, best = ious.max(dim=0)
        is_positive, is_negative = best_iou >= positive_iou, best_iou < negative_iou
        if low_quality:
            highest = ious.max(dim=1, keepdim=True).values
            owners, places = ((ious == highest) & (highest > 0)).nonzero(as_tuple=True)
            below = ~is_positive[places]
            best = best.index_put((places[below],), owners[below])
            is_positive = is_positive.index_fill(0, places, True)
            is_negative = is_negative.index_fill(0, places, False)
        truth = original[best]
    if len(crowds) and len(boxes):
        inside = intersections(boxes, crowds).amax(dim=1) >= CROWD_OVERLAP * areas(boxes)
        is_negative = is_negative & ~inside
    return Match(truth, is_positive, is_negative)


def _draw(mask: Tensor, count: int) -> Tensor:
    """At most `count` places where `mask` [B] is true, drawn at random: int64 indices."""
    places = torch.nonzero(mask).flatten()
    if len(places) <= count:
        return places
    return places[torch.randperm(len(places), device=places.device)[:count]]


def draw_sample(found: Match, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Indices of positives (at most `count * positive_fraction`) and of negatives that fill up to `count`."""
    positives = _draw(found.is_positive, int(count * positive_fraction))
    return positives, _draw(found.is_negative, count - len(positives))
