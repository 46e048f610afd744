"""How good are detections: COCO's twelve figures, per-class scores and precision-recall curves, by pycocotools.

Pure functions: lists and dictionaries in, numbers out, nothing printed. What pycocotools stumbles over is mended on the
way in: no detections at all, annotations without `iscrowd` or `area`, an annotation with the id 0 (which it takes for
"not matched"), results that name pictures or categories that the ground truth does not have. Boxes of the ground truth
that have no area, which nothing can match, are left out and counted.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .result_rows import RESULT_KEYS, GroundTruth, check_against, chosen_ids, read_truth, unique_names
from .results import Detections

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class DetectionScores:
    """The answer of `evaluate_detections`; T overlap thresholds, R recall points, C classes in the file's order.

    figures: COCO's twelve, 0..1, -1 where the ground truth leaves a figure undefined; per_class: name -> AP, AP50,
    AR100 (likewise) and boxes, the count of objects that are not crowds; precision: [T, R, C] interpolated, for all
    sizes and 100 detections a picture, -1 for a class without objects; scores: [T, R, C] the detection score at which
    each recall is reached, 0 where it is not; iou_thresholds: [T]; recalls: [R]; unusable_boxes: how many boxes of the
    ground truth were left out because they have no area or values that are not finite.
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
    truth, results = read_truth(annotations), list(results)
    check_against(results, truth)
    found = [_found_row(row) for row in results]
    evaluation = COCOeval(_index(truth, truth.boxes), _index(truth, found), iouType="bbox")
    if image_ids is not None:
        evaluation.params.imgIds = chosen_ids(image_ids, "picture", truth.images)
    if category_ids is not None:
        evaluation.params.catIds = chosen_ids(category_ids, "category", truth.categories)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return _scores(evaluation, truth.unusable_boxes)


def _scores(evaluation: COCOeval, unusable_boxes: int) -> DetectionScores:
    """Read the figures out of an accumulated evaluation."""
    parameters = evaluation.params
    everything = (..., parameters.areaRngLbl.index("all"), parameters.maxDets.index(100))
    precision, recall = evaluation.eval["precision"][everything], evaluation.eval["recall"][everything]
    half = int(np.argmin(abs(parameters.iouThrs - 0.5)))
    pictures = set(parameters.imgIds)
    rows = (row for row in evaluation.cocoGt.anns.values() if row["image_id"] in pictures and not row["iscrowd"])
    boxes = Counter(row["category_id"] for row in rows)
    per_class = {
        name: {
            "AP": _defined_mean(precision[:, :, place]),
            "AP50": _defined_mean(precision[half, :, place]),
            "AR100": _defined_mean(recall[:, place]),
            "boxes": boxes[category],
        }
        for place, (category, name) in enumerate(unique_names(evaluation.cocoGt.cats, parameters.catIds))
    }
    figures = {name: float(value) for name, value in zip(FIGURES, evaluation.stats, strict=True)}
    scores = evaluation.eval["scores"][everything]
    return DetectionScores(
        figures, per_class, precision, scores, parameters.iouThrs, parameters.recThrs, unusable_boxes
    )


def _defined_mean(values: np.ndarray) -> float:
    """The mean over what is defined (pycocotools writes -1 for "no such object"), -1 where nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def _found_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A result with every key that COCOeval reads, in an object of its own."""
    return {**{key: row[key] for key in RESULT_KEYS}, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}


def _index(truth: GroundTruth, rows: Sequence[Mapping[str, Any]]) -> COCO:
    """pycocotools' index over the pictures and categories of the truth with these boxes, their ids from 1."""
    index = COCO()
    numbered = [{**row, "id": number} for number, row in enumerate(rows, 1)]
    categories = list(truth.categories.values())
    index.dataset = {"images": list(truth.images.values()), "categories": categories, "annotations": numbered}
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
    return index
