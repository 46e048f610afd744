"""Suppression of boxes that say the same thing.

References: hard suppression as in Faster R-CNN; Bodla et al., Soft-NMS, ICCV 2017, arXiv:1704.04503, section 3
(linear, equation 4; Gaussian, equation 5), which ThunderNet uses.
Deviations: the IoU threshold of the linear form is 0.5, as in the released ThunderNet settings (the paper names none).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from .boxes import pairwise_iou
from .results import Detections, RawDetections

SUPPRESSIONS = ("soft", "gaussian", "hard")
ONNX_VERSION = 18  # of the operator that is written into graphs

_as_onnx_operator: ContextVar[bool] = ContextVar("as_onnx_operator", default=False)


def keep_mask(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Which boxes hard suppression keeps, picture by picture: boxes [N, K, 4], scores [N, K] -> bool [N, K].

    Compiled or exported, the pictures are set apart by an offset and suppressed in one call without a loop; run
    directly, one call a picture is quicker, since suppression compares every box with every other. Both keep the same,
    but for the rounding of an IoU that lies on the threshold.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        step = boxes.max() + 1
        apart = boxes + (torch.arange(boxes.shape[0], device=boxes.device) * step)[:, None, None]
        kept = nms(apart.reshape(-1, 4), scores.flatten(), iou_threshold)
        marks = torch.zeros_like(scores).flatten().index_fill(0, kept, 1.0)
        return marks.view_as(scores) > 0
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for picture, (one_boxes, one_scores) in enumerate(zip(boxes, scores, strict=True)):
        mask[picture, nms(one_boxes, one_scores, iou_threshold)] = True
    return mask


@contextmanager
def suppression_for_onnx() -> Iterator[None]:
    """What `torch.export` traces in here is for ONNX: `kept_places` becomes that format's own operator.

    The traced program can be written as ONNX, not run by torch.
    """
    token = _as_onnx_operator.set(True)
    try:
        yield
    finally:
        _as_onnx_operator.reset(token)


def kept_places(
    boxes: Tensor, scores: Tensor, *, iou_threshold: float, score_threshold: float, max_per_class: int
) -> Tensor:
    """What hard suppression within each class keeps, as (picture, class, row) [M, 3] int64, in no certain order.

    boxes [N, R, 4], shared by the classes, scores [N, C, R]. Only scores above the threshold compete, so suppression
    costs what is still in the race and not what there is. At least the best `max_per_class` of each class are there.
    """
    if torch.compiler.is_exporting() and (_as_onnx_operator.get() or torch.onnx.is_in_onnx_export()):
        return _onnx_kept_places(boxes, scores, iou_threshold, score_threshold, max_per_class)
    _, classes, rows = scores.shape
    places = torch.nonzero(scores.flatten() > score_threshold)[:, 0]
    group, row = places // rows, places % rows
    # The groups are set apart by more than a picture; in double precision, so that their boxes do not get coarse. Not
    # in a traced graph: it may become ONNX, whose suppression takes single precision only.
    exact = boxes.dtype if torch.compiler.is_compiling() or torch.jit.is_tracing() else torch.float64
    apart = boxes.to(exact)[group // classes, row] + (group.to(exact) * (boxes.max() + 1))[:, None]
    kept = nms(apart.reshape(-1, 4), scores.flatten()[places].to(exact), iou_threshold)
    return torch.stack((group[kept] // classes, group[kept] % classes, row[kept]), dim=1)


def _onnx_kept_places(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_per_class: int
) -> Tensor:
    """ONNX's NonMaxSuppression, which knows classes, thresholds and when to stop; the traced size is only the most."""
    limits = (
        torch.tensor([max_per_class]),
        torch.tensor([iou_threshold], dtype=torch.float32),
        torch.tensor([score_threshold], dtype=torch.float32),
    )
    most = scores.shape[0] * scores.shape[1] * max_per_class
    places: Tensor = torch.onnx.ops.symbolic(
        "NonMaxSuppression", (boxes, scores, *limits), dtype=torch.int64, shape=(most, 3), version=ONNX_VERSION
    )
    return places


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
