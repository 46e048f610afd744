"""How good are detections: COCO's twelve figures, per-class scores and precision-recall curves, as pycocotools.

Pure functions: lists and dictionaries in, numbers out, nothing printed. What pycocotools stumbles over is mended on the
way in: no detections at all, annotations without `iscrowd` or `area`, an annotation with the id 0 (which it takes for
"not matched"), results that name pictures or categories that the ground truth does not have. Boxes of the ground truth
that have no area, which nothing can match, are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .coco_figures import (
    FIGURES,
    IOU_THRESHOLDS,
    RECALLS,
    Curves,
    Found,
    Objects,
    defined_mean,
    draw_curves,
    summarize,
)
from .result_rows import GroundTruth, check_against, chosen_ids, read_truth, unique_names
from .results import Detections

__all__ = ["FIGURES", "DetectionScores", "coco_results", "evaluate_detections"]


@dataclass(frozen=True)
class DetectionScores:
    """The answer of `evaluate_detections`; T overlap thresholds, R recall points, C classes by id.

    figures: COCO's twelve, 0..1, -1 where the ground truth leaves a figure undefined; per_class: name -> AP, AP50,
    AR100 (likewise) and boxes, the count of objects that are not crowds; precision: [T, R, C] interpolated, for all
    sizes and 100 detections a picture, -1 for a class without objects; scores: [T, R, C] the detection score at which
    each recall is reached, 0 where it is not, -1 without objects; iou_thresholds: [T]; recalls: [R]; unusable_boxes:
    how many boxes of the ground truth were left out because they have no area or values that are not finite.
    """

    figures: dict[str, float]
    per_class: dict[str, dict[str, float]]
    precision: np.ndarray
    scores: np.ndarray
    iou_thresholds: np.ndarray
    recalls: np.ndarray
    unusable_boxes: int


def coco_results(detections: Detections, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """One picture's detections as COCO results.

    `detections` are in the pixels of the picture on disk; `category_ids[label]` is the file's id of a class. Boxes are
    rounded to a thousandth of a pixel and scores to six digits, so that a written file scores as the run that wrote it.
    Raises ValueError for a label beyond `category_ids`.
    """
    labels = detections.labels.tolist()
    if labels and not 0 <= min(labels) <= max(labels) < len(category_ids):
        raise ValueError(f"labels from {min(labels)} to {max(labels)}, but {len(category_ids)} category ids")
    boxes, scores = detections.boxes.double().tolist(), detections.scores.double().tolist()
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, 6),
        }
        for (x1, y1, x2, y2), score, label in zip(boxes, scores, labels, strict=True)
    ]


def evaluate_detections(
    results: Iterable[Mapping[str, Any]],
    annotations: Path | Mapping[str, Any],
    *,
    image_ids: Iterable[int] | None = None,
    category_ids: Iterable[int] | None = None,
) -> DetectionScores:
    """Score COCO results (xywh in picture pixels) against COCO annotations, a file or what was read from one.

    `image_ids` and `category_ids` narrow the scoring to these pictures and classes (a net that knows some of the file's
    classes is not to blame for the others); all else is left out of ground truth and results alike. Neither input is
    changed. Raises ValueError for annotations that are not COCO's and for results that are malformed or name unknown
    pictures or categories; OSError for a missing file.
    """
    truth = read_truth(annotations, category_ids)
    columns = check_against(list(results), truth)
    pictures = sorted(truth.images) if image_ids is None else chosen_ids(image_ids, "picture", truth.images)
    classes = (
        sorted(truth.categories) if category_ids is None else chosen_ids(category_ids, "category", truth.categories)
    )
    picture_of, class_of = ({number: place for place, number in enumerate(numbers)} for numbers in (pictures, classes))
    objects = _objects(truth, picture_of, class_of)
    found = Found(_places(columns.image_ids, picture_of), _places(columns.category_ids, class_of), *columns[2:])
    found = found.rows((found.pictures >= 0) & (found.classes >= 0))
    curves = draw_curves(objects, found, len(pictures), len(classes))
    boxes = np.bincount(objects.classes[~objects.is_crowd], minlength=len(classes))
    names = [name for _, name in unique_names(truth.categories, classes)]
    return DetectionScores(
        figures=summarize(curves),
        per_class={name: _class_row(curves, place, int(boxes[place])) for place, name in enumerate(names)},
        precision=curves.precision[..., 0],
        scores=curves.scores,
        iou_thresholds=IOU_THRESHOLDS.copy(),
        recalls=RECALLS.copy(),
        unusable_boxes=truth.unusable_boxes,
    )


def _objects(truth: GroundTruth, picture_of: Mapping[Any, int], class_of: Mapping[Any, int]) -> Objects:
    """The boxes of the chosen pictures and classes, in the order of the file."""
    rows = [row for row in truth.boxes if row["image_id"] in picture_of and row["category_id"] in class_of]
    return Objects(
        pictures=_places((row["image_id"] for row in rows), picture_of),
        classes=_places((row["category_id"] for row in rows), class_of),
        boxes_xywh=np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4),
        areas=np.array([row["area"] for row in rows], np.float64),
        is_crowd=np.array([row["iscrowd"] for row in rows], bool),
    )


def _places(ids: Iterable[Any], place_of: Mapping[Any, int]) -> np.ndarray:
    """Where each id stands, -1 where it was not chosen."""
    return np.array([place_of.get(number, -1) for number in ids], np.int64)


def _class_row(curves: Curves, place: int, boxes: int) -> dict[str, float]:
    """The figures of the class at `place`, with all sizes and most detections."""
    precision, recall = curves.precision[:, :, place, 0], curves.recall[:, place, 0, -1]
    half = int(np.argmin(abs(IOU_THRESHOLDS - 0.5)))
    return {
        "AP": defined_mean(precision),
        "AP50": defined_mean(precision[half]),
        "AR100": defined_mean(recall),
        "boxes": boxes,
    }
