"""How good are detections by the rules of PASCAL VOC: one overlap, average precision per class and its mean.

Reference: Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 2010, section 4.2; the area under
the curve: the development kits from 2010 on.
Deviations: a recall that equals one of the eleven points to the digit counts there, where the kit's own arithmetic with
floats may miss it. VOC knows no crowd regions: a false positive that lies mostly inside one is not counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .result_rows import check_against, chosen_ids, read_truth, unique_names

VOC_RULES = ("voc2007", "voc2012")
_POINTS = 10  # recalls 0/10, 1/10 ... 10/10
_HIT, _MISS, _IGNORED = 1, 0, -1
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class VocScores:
    """The answer of `evaluate_voc`: mean is the mAP over the classes that have objects, -1 where none has.

    per_class: name -> AP and recall, 0..1, -1 where the class has no objects, and the numbers objects, difficult (which
    count neither way) and detections. unusable_boxes: boxes of the ground truth left out for want of an area.
    """

    rule: str
    mean: float
    per_class: dict[str, dict[str, float]]
    unusable_boxes: int


def evaluate_voc(
    results: Iterable[Mapping[str, Any]],
    annotations: Path | Mapping[str, Any],
    *,
    rule: str = "voc2012",
    min_overlap: float = 0.5,
    image_ids: Iterable[int] | None = None,
    category_ids: Iterable[int] | None = None,
) -> VocScores:
    """Score COCO results (xywh in picture pixels) against COCO annotations by VOC's rules.

    rule: "voc2007", precision at eleven recalls, or "voc2012", the area under the curve. By falling score a detection
    is compared with the object of its class that it overlaps most: a hit from `min_overlap` on, the first time; without
    a mark where that object is difficult (`difficult`, and `iscrowd` for a region); else a false positive. The rest is
    as in `evaluate_detections`.
    """
    if rule not in VOC_RULES:
        raise ValueError(f"rule is {rule!r}; expected one of {', '.join(VOC_RULES)}")
    if not 0 < min_overlap <= 1:
        raise ValueError(f"min_overlap is {min_overlap}; expected a number above 0 and at most 1")
    truth, found = read_truth(annotations, category_ids), list(results)
    check_against(found, truth)
    pictures = set(truth.images if image_ids is None else chosen_ids(image_ids, "picture", truth.images))
    chosen = (
        sorted(truth.categories) if category_ids is None else chosen_ids(category_ids, "category", truth.categories)
    )
    objects_of, found_of = _by_category(truth.boxes, pictures), _by_category(found, pictures)
    per_class = {
        name: _score(found_of[category], objects_of[category], rule, min_overlap)
        for category, name in unique_names(truth.categories, chosen)
    }
    defined = [row["AP"] for row in per_class.values() if row["AP"] >= 0]
    return VocScores(rule, float(np.mean(defined)) if defined else -1.0, per_class, truth.unusable_boxes)


def average_precision(is_hit: np.ndarray, objects: int, rule: str) -> float:
    """AP of a class of so many objects; is_hit: [D] bool, its detections by falling score. -1 without objects.

    The curve is made to fall: the precision at a recall is the best at that recall or a higher one.
    """
    if objects == 0:
        return -1.0
    hits = np.cumsum(is_hit)
    precision = hits / np.arange(1, len(hits) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    if rule == "voc2012":
        return float(falling[is_hit].sum() / objects)  # the recall rises by 1 / objects at each hit, and only there
    reached = [np.flatnonzero(hits * _POINTS >= point * objects) for point in range(_POINTS + 1)]
    return float(sum(falling[places[0]] for places in reached if len(places)) / len(reached))


def _by_category(rows: Rows, pictures: set[Any]) -> dict[Any, list[Mapping[str, Any]]]:
    """The rows of these pictures by category."""
    sorted_out = defaultdict(list)
    for row in rows:
        if row["image_id"] in pictures:
            sorted_out[row["category_id"]].append(row)
    return sorted_out


def _score(found: Rows, objects: Rows, rule: str, min_overlap: float) -> dict[str, float]:
    """One class in all pictures."""
    found = sorted(found, key=lambda row: -row["score"])
    verdicts = np.empty(len(found), np.int64)
    objects_in, found_in = defaultdict(list), defaultdict(list)
    for row in objects:
        objects_in[row["image_id"]].append(row)
    for place, row in enumerate(found):
        found_in[row["image_id"]].append(place)
    for image, places in found_in.items():
        verdicts[places] = _judge(_corners([found[place] for place in places]), objects_in[image], min_overlap)
    counted = sum(not (row["difficult"] or row["iscrowd"]) for row in objects)
    is_hit = verdicts[verdicts != _IGNORED] == _HIT
    return {
        "AP": average_precision(is_hit, counted, rule),
        "recall": float(is_hit.sum() / counted) if counted else -1.0,
        "objects": counted,
        "difficult": len(objects) - counted,
        "detections": len(found),
    }


def _judge(boxes: np.ndarray, objects: Rows, min_overlap: float) -> list[int]:
    """A verdict for each of the boxes [D, 4] of one picture and class, by falling score."""
    regions = _corners([row for row in objects if row["iscrowd"] and not row["difficult"]])
    single = [row for row in objects if row["difficult"] or not row["iscrowd"]]
    inside = _shared(boxes, regions)
    in_region = np.any((inside > 0) & (inside >= min_overlap * _areas(boxes)[:, None]), axis=1)
    overlaps = _overlaps(boxes, _corners(single))
    taken: set[int] = set()
    verdicts = []
    for row, is_inside in zip(overlaps, in_region.tolist(), strict=True):
        best = int(row.argmax()) if len(row) else -1
        verdict = _IGNORED if is_inside else _MISS
        if best >= 0 and row[best] >= min_overlap:
            if single[best]["difficult"]:
                verdict = _IGNORED
            elif best not in taken:
                verdict = _HIT
                taken.add(best)
        verdicts.append(verdict)
    return verdicts


def _corners(rows: Rows) -> np.ndarray:
    """[K, 4] float64 xyxy."""
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _areas(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas


def _shared(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[D, 4], [K, 4] -> [D, K] the areas of what two boxes share."""
    top_left = np.maximum(boxes[:, None, :2], others[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: np.ndarray = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    return shared


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[D, 4], [K, 4] -> [D, K] intersection over union; the others have an area."""
    shared = _shared(boxes, others)
    overlaps: np.ndarray = shared / (_areas(boxes)[:, None] + _areas(others)[None, :] - shared)
    return overlaps
