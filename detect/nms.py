"""Suppression of boxes that say the same thing.

References: hard suppression as in Faster R-CNN; Bodla et al., Soft-NMS, ICCV 2017, arXiv:1704.04503, section 3
(linear, equation 4; Gaussian, equation 5), which ThunderNet uses.
Deviations: the IoU threshold of the linear form is 0.5, as in the released ThunderNet settings (the paper names none).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from .boxes import pairwise_iou
from .results import Detections, RawDetections

SUPPRESSIONS = ("soft", "gaussian", "hard")


def keep_mask(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Which boxes hard suppression keeps, picture by picture: boxes [N, K, 4], scores [N, K] -> bool [N, K].

    Compiled or exported, the pictures are set apart by an offset and suppressed in one call without a loop; run
    directly, one call a picture is quicker, since suppression compares every box with every other. Both keep the same,
    but for the rounding of an IoU that lies on the threshold.
    """
    if torch.compiler.is_compiling():
        step = boxes.amax() + 1
        apart = boxes + (torch.arange(len(boxes), device=boxes.device) * step)[:, None, None]
        kept = nms(apart.flatten(0, 1), scores.flatten(), iou_threshold)
        mask = torch.zeros(scores.numel(), dtype=torch.bool, device=boxes.device).index_fill(0, kept, True)
        return mask.view_as(scores)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for picture, (one_boxes, one_scores) in enumerate(zip(boxes, scores, strict=True)):
        mask[picture, nms(one_boxes, one_scores, iou_threshold)] = True
    return mask


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.05,
    max_detections: int = 100,
    sigma: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft-NMS within each class; the boxes are shared by the classes.

    boxes [R, 4], scores [R, C] -> indices of boxes [K], of classes [K], lowered scores [K], falling. Linear: scores of
    boxes whose IoU with a kept one is above `iou_threshold` are multiplied by 1 - IoU; with `sigma` all are multiplied
    by exp(-IoU^2 / sigma). Because a class's own order is all that counts, taking the best of all classes at each step
    gives the best `max_detections` in that many steps.
    """
    best = scores.amax(dim=1)
    rows = torch.nonzero(best > score_threshold).flatten()
    rows = rows[best[rows].argsort(descending=True, stable=True)]
    decays = _Decays(boxes[rows], iou_threshold, sigma)
    left = scores[rows].cpu().numpy().copy()  # plain arrays: each step is a few tiny operations
    kept: list[tuple[int, int]] = []
    values: list[float] = []
    while len(kept) < max_detections and left.size:
        row, label = divmod(int(left.argmax()), left.shape[1])
        if left[row, label] <= score_threshold:
            break
        kept.append((row, label))
        values.append(float(left[row, label]))
        left[:, label] *= decays.of(row)
        left[row, label] = 0.0
    chosen = torch.tensor(kept, dtype=torch.long, device=boxes.device).view(-1, 2)
    return rows[chosen[:, 0]], chosen[:, 1], torch.tensor(values, dtype=scores.dtype, device=boxes.device)


class _Decays:
    """By what a kept box multiplies the scores of all others; worked out for many at once, where one is asked for.

    boxes [R, 4], the likeliest to be kept first: of a thousand proposals only some ever are, and the whole table of
    overlaps would be most of the work.
    """

    block = 128

    def __init__(self, boxes: Tensor, iou_threshold: float, sigma: float | None) -> None:
        self.boxes, self.iou_threshold, self.sigma = boxes, iou_threshold, sigma
        self._blocks: dict[int, Any] = {}  # plain arrays, see soft_nms

    def of(self, row: int) -> Any:
        """The factors [R] of box `row`."""
        number, place = divmod(row, self.block)
        if number not in self._blocks:
            ious = pairwise_iou(self.boxes[number * self.block :][: self.block], self.boxes)
            decay = torch.exp(-ious.square() / self.sigma) if self.sigma else 1 - ious * (ious > self.iou_threshold)
            self._blocks[number] = decay.cpu().numpy()
        return self._blocks[number][place]


def hard_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.05,
    max_detections: int = 100,
) -> tuple[Tensor, Tensor, Tensor]:
    """Hard suppression within each class; arguments and results as in `soft_nms`."""
    rows, labels = torch.nonzero(scores > score_threshold, as_tuple=True)
    values = scores[rows, labels]
    kept = batched_nms(boxes[rows], values, labels, iou_threshold)[:max_detections]
    return rows[kept], labels[kept], values[kept]


def select_detections(
    raw: RawDetections,
    *,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
    suppression: str = "soft",
) -> list[Detections]:
    """The detections of each picture of a batch, in input pixels, best first.

    suppression: "soft" (linear), "gaussian" (sigma 0.5) or "hard". Raises ValueError for another word.
    """
    if suppression not in SUPPRESSIONS:
        raise ValueError(f"suppression {suppression!r}: it is one of {', '.join(SUPPRESSIONS)}")
    found = []
    if max_detections < 1:
        raise ValueError(f"max_detections is {max_detections}; expected at least 1")
    for boxes, scores in zip(raw.boxes, raw.scores, strict=True):
        limits = {"score_threshold": score_threshold, "iou_threshold": iou_threshold}
        if suppression == "hard":
            rows, labels, values = hard_nms(boxes, scores, max_detections=max_detections, **limits)
        else:
            sigma = 0.5 if suppression == "gaussian" else None
            rows, labels, values = soft_nms(boxes, scores, max_detections=max_detections, sigma=sigma, **limits)
        found.append(Detections(boxes[rows], values, labels))
    return found
