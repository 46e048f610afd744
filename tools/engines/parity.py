"""Whether an exported file answers as torch does: compared answer by answer, with rounding allowed and nothing else.

Rounding alone can change which boxes are there. A score may lie on the threshold, the overlap of two boxes on that of
the suppression, and of two proposals that are as good as each other either may stay. So a detector's file is not
compared with one answer of torch's. It is asked whether its answer is *a right one*:

1. every box is one that the net gives for some proposal, within BOX_BOUND pixels and SCORE_BOUND;
2. no two boxes of a class overlap by more than the suppression allows;
3. what torch finds is there, or a box that is there suppresses it, or the file is full of better ones.

1 and 2 hold for all boxes. 3 may fail, by a tie between proposals, for TIE_SHARE of what torch finds. A segmenter's
labels are the same wherever torch's best class leads by more than LOGIT_BOUND of the logits' deviation.

Int8 is another function, not a rounded one: there the share of agreement is measured and has a floor, for labels also
class by class, so that a rare class cannot get lost among the pixels of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from detect import RawDetections
from detect.boxes import pairwise_iou
from detect.nms import select_detections
from detect.results import Detections

BOX_BOUND = 0.05  # pixels of what the net sees
SCORE_BOUND = 0.0005
TIE_SHARE = 0.01
LOGIT_BOUND = 0.001
INT8_BOXES, INT8_PIXELS, INT8_CLASS = 0.8, 0.9, 0.5
_BEST_BOXES = 10
_SAME_OBJECT = 0.5
_SEEN_CLASS = 0.01  # of torch's pixels: a class that has fewer is not asked about
_NOTHING = "no boxes: torch found none on these pictures, so there were none to compare (see --pictures)"
_MOST_BENT = 0.2  # an overlap of tiny boxes changes much by BOX_BOUND, but by no more than this counts as rounding


class Suppression(NamedTuple):
    """A detector's settings inside; see `DeployedDetector`."""

    score_threshold: float
    iou_threshold: float
    max_detections: int


@dataclass
class BoxAgreement:
    """What was found so far. expected, found: how many boxes torch and the file gave; strange: the first reason why a
    box of the file is wrong; missing: boxes of torch's that nothing explains; the largest differences of the others.
    """

    expected: int = 0
    found: int = 0
    strange: str = ""
    missing: int = 0
    box_difference: float = 0.0
    score_difference: float = 0.0

    def refusal(self) -> str:
        """Why the file is not as torch, in words; empty where it is."""
        if self.strange:
            return self.strange
        if self.missing > TIE_SHARE * self.expected + 0.5:
            return f"{self.missing} of {self.expected} boxes that torch finds are missing"
        return ""

    def __str__(self) -> str:
        if not self.expected + self.found:
            return _NOTHING
        ties = f"; {self.missing} lost to ties" if self.missing else ""
        return (
            f"{self.found} boxes, at most {self.box_difference:.4f} pixels and {self.score_difference:.6f} in score "
            f"apart{ties}"
        )


def add_boxes(
    agreement: BoxAgreement, found: Detections, raw: RawDetections, pool: RawDetections, setting: Suppression
) -> None:
    """Takes one more picture into account.

    found: of the file, in pixels of what the net saw. raw: what the net gives, of one picture. pool: the same for all
    proposals before suppression, and a few more: what the net can give.
    """
    if not all(each.isfinite().all() for each in raw):
        raise ValueError("torch's own boxes and scores are not all finite numbers: did its training go astray?")
    (wanted,) = select_detections(raw, suppression="hard", **setting._asdict())
    agreement.expected += len(wanted)
    agreement.found += len(found)
    agreement.strange = agreement.strange or _strange(agreement, found, pool) or _overlapping(found, setting)
    agreement.missing += _missing(found, raw, setting)


def _strange(agreement: BoxAgreement, found: Detections, pool: RawDetections) -> str:
    """Rule 1; notes the largest differences."""
    if not len(found):
        return ""
    apart = (found.boxes[:, None] - pool.boxes[0]).abs().amax(dim=2)
    scores_apart = (found.scores[:, None] - pool.scores[0][:, found.labels].T).abs()
    nearest = torch.maximum(apart / BOX_BOUND, scores_apart / SCORE_BOUND).min(dim=1)
    worst = int(nearest.values.argmax())
    if not nearest.values[worst] <= 1:
        place = int(nearest.indices[worst])
        return (
            f"a box with the score {found.scores[worst]:.4f} is one that torch does not give: the nearest is "
            f"{apart[worst, place]:.3f} pixels and {scores_apart[worst, place]:.5f} in score away"
        )
    rows = torch.arange(len(found))
    agreement.box_difference = max(agreement.box_difference, float(apart[rows, nearest.indices].max()))
    agreement.score_difference = max(agreement.score_difference, float(scores_apart[rows, nearest.indices].max()))
    return ""


def _overlapping(found: Detections, setting: Suppression) -> str:
    """Rule 2."""
    too_near = pairwise_iou(found.boxes, found.boxes) > setting.iou_threshold + _bent(found.boxes, found.boxes)
    both = too_near & (found.labels[:, None] == found.labels)
    pairs = int(both.triu(diagonal=1).sum())
    return f"{pairs} pairs of boxes overlap by more than {setting.iou_threshold}" if pairs else ""


def _missing(found: Detections, raw: RawDetections, setting: Suppression) -> int:
    """Rule 3: how many of the net's boxes are not there without a reason."""
    rows, labels = torch.nonzero(raw.scores[0] > setting.score_threshold + SCORE_BOUND, as_tuple=True)
    boxes, scores = raw.boxes[0][rows], raw.scores[0][rows, labels]
    if len(found) == setting.max_detections:
        beyond = scores <= found.scores[-1] + SCORE_BOUND
        boxes, scores, labels = boxes[~beyond], scores[~beyond], labels[~beyond]
    near = pairwise_iou(boxes, found.boxes) >= setting.iou_threshold - _bent(boxes, found.boxes)
    better = found.scores >= scores[:, None] - SCORE_BOUND
    explained = near & better & (labels[:, None] == found.labels)
    return int((~explained.any(dim=1)).sum())


def _bent(boxes: Tensor, others: Tensor) -> Tensor:
    """By how much an overlap may change where sides move by BOX_BOUND; [A, B]."""
    sides = [(each[:, 2:] - each[:, :2]).amin(dim=1).clamp(min=BOX_BOUND) for each in (boxes, others)]
    return (4 * BOX_BOUND / torch.minimum(sides[0][:, None], sides[1])).clamp(max=_MOST_BENT)


@dataclass
class ObjectAgreement:
    """Of int8 files: how many of the best boxes of either side the other side has, too; each counts by its score."""

    boxes: int = 0
    compared: float = 0.0
    agreed: float = 0.0

    def refusal(self) -> str:
        """See `BoxAgreement`."""
        if self.agreed < INT8_BOXES * self.compared:
            return f"only {self}"
        return ""

    def __str__(self) -> str:
        if not self.boxes:
            return _NOTHING
        share = self.agreed / self.compared
        return f"{share:.1%} of the {self.boxes} best boxes, counted by their scores, are found by both"


def add_objects(agreement: ObjectAgreement, found: Detections, wanted: Detections) -> None:
    """Takes one more picture into account: the best boxes of each side, looked for among all of the other's."""
    for best, others in ((wanted[:_BEST_BOXES], found), (found[:_BEST_BOXES], wanted)):
        same = (pairwise_iou(best.boxes, others.boxes) >= _SAME_OBJECT) & (best.labels[:, None] == others.labels)
        agreement.boxes += len(best)
        agreement.compared += float(best.scores.sum())
        agreement.agreed += float(best.scores[same.any(dim=1)].sum())


@dataclass
class PixelAgreement:
    """What was found so far. floor: the least share of equal labels, 1 where only ties may differ. by_class: the pixels
    that torch calls so, that the file does, that both do.
    """

    floor: float = 1.0
    pixels: int = 0
    equal: int = 0
    wrong: int = 0
    score_difference: float = 0.0
    by_class: Tensor | None = None  # [3, C]

    def refusal(self) -> str:
        """See `BoxAgreement`."""
        if self.floor < 1:
            return f"only {self}" if self.equal < self.floor * self.pixels else self._lost_class()
        if self.wrong:
            return f"{self.wrong} of {self.pixels} pixels have another class, though torch's leads clearly"
        if not self.score_difference <= SCORE_BOUND:
            return f"scores differ by {self.score_difference:.5f}"
        return ""

    def _lost_class(self) -> str:
        if self.by_class is None:
            return ""
        torchs, files, both = self.by_class
        overlap = both / (torchs + files - both).clamp(min=1)
        overlap[torchs < _SEEN_CLASS * self.pixels] = 1.0
        worst = int(overlap.argmin())
        share = float(overlap[worst])
        return f"of the pixels that either calls class {worst}, only {share:.1%} both do" if share < INT8_CLASS else ""

    def __str__(self) -> str:
        return f"{self.equal / max(self.pixels, 1):.3%} of {self.pixels} pixels have the same class"


def add_pixels(agreement: PixelAgreement, found: Sequence[Tensor], logits: Tensor) -> None:
    """Takes pictures into account. found: the file's labels [N, H, W], and scores [N, C, H, W] if it gives some;
    logits: torch's [N, C, H, W]. ValueError where they are not finite.
    """
    if not logits.isfinite().all():
        raise ValueError("torch's own scores are not all finite numbers: did its training go astray?")
    labels = found[0].long()
    best = logits.topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > LOGIT_BOUND * logits.std()
    wanted = logits.argmax(dim=1)
    different = labels != wanted
    agreement.pixels += labels.numel()
    agreement.equal += int((~different).sum())
    agreement.wrong += int((different & clear).sum())
    counts = [each.flatten().bincount(minlength=logits.shape[1]) for each in (wanted, labels, wanted[~different])]
    agreement.by_class = torch.stack(counts) + (0 if agreement.by_class is None else agreement.by_class)
    if len(found) > 1:
        apart = float((found[1] - logits.softmax(dim=1)).abs().max())
        agreement.score_difference = float(np.maximum(agreement.score_difference, apart))  # NaN stays
