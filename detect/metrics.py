"""How good are detections: COCO's twelve figures, per-class scores and precision-recall curves, by pycocotools.

Pure functions: lists and dictionaries in, numbers out, nothing printed. What pycocotools stumbles over is mended on the
way in: no detections at all, annotations without `iscrowd` or `area`, an annotation with the id 0 (which it takes for
"not matched"), results that name pictures or categories that the ground truth does not have. Boxes of the ground truth
that have no area, which nothing can match, are left out and counted.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

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


def read_results(path: Path) -> list[dict[str, Any]]:
    """Anybody's COCO results file. Raises OSError for a missing file, ValueError for anything but a list of results."""
    results = _read_json(path)
    if not isinstance(results, list):
        raise ValueError(f"{path}: a {_kind(results)}; expected a list of results, each with {_listed(_RESULT_KEYS)}")
    with _naming(path):
        _check_results(results)
    return results


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
    truth, unusable_boxes = _ground_truth(annotations)
    results = list(results)
    _check_results(results)
    _refuse_unknown("results name an unknown picture id", [row["image_id"] for row in results], truth.imgs)
    _refuse_unknown("results name an unknown category id", [row["category_id"] for row in results], truth.cats)
    found = [_box_row(row, number, row["bbox"][2] * row["bbox"][3], 0) for number, row in enumerate(results, 1)]
    evaluation = COCOeval(truth, _index({**truth.dataset, "annotations": found}), iouType="bbox")
    if image_ids is not None:
        evaluation.params.imgIds = _chosen(image_ids, "picture", truth.imgs)
    if category_ids is not None:
        evaluation.params.catIds = _chosen(category_ids, "category", truth.cats)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return _scores(evaluation, unusable_boxes)


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
        for place, (category, name) in enumerate(_unique_names(evaluation.cocoGt, parameters.catIds))
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


def _unique_names(truth: COCO, category_ids: Sequence[int]) -> list[tuple[int, str]]:
    """(id, name) per category; a name that is used twice carries its id."""
    names = {category: str(truth.cats[category].get("name", category)) for category in category_ids}
    uses = Counter(names.values())
    return [(category, name if uses[name] == 1 else f"{name} ({category})") for category, name in names.items()]


# What comes in.

_RESULT_KEYS = ("image_id", "category_id", "bbox", "score")
_SECTIONS = {"images": ("id",), "annotations": ("image_id", "category_id", "bbox"), "categories": ("id",)}


def _ground_truth(annotations: Path | Mapping[str, Any]) -> tuple[COCO, int]:
    """An index over checked copies of the annotations, ids renumbered from 1, and how many boxes were left out."""
    place = annotations if isinstance(annotations, Path) else "annotations"
    content = _read_json(annotations) if isinstance(annotations, Path) else annotations
    with _naming(place):
        _check_sections(content)
        images = {row["id"]: {"id": row["id"]} for row in content["images"]}
        categories = {row["id"]: dict(row) for row in content["categories"]}
        if len(images) < len(content["images"]) or len(categories) < len(content["categories"]):
            raise ValueError("the ids of its images or of its categories are not unique")
        boxes = content["annotations"]
        _refuse_unknown("boxes name an unknown picture id", [row["image_id"] for row in boxes], images)
        _refuse_unknown("boxes name an unknown category id", [row["category_id"] for row in boxes], categories)
    usable = [_truth_row(row, number) for number, row in enumerate(boxes, 1) if _has_area(row["bbox"])]
    dataset = {"images": list(images.values()), "categories": list(categories.values()), "annotations": usable}
    return _index(dataset), len(boxes) - len(usable)


def _truth_row(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A box of the ground truth; its area is the object's where the file gives it, else the box's."""
    area: Any = row.get("area")
    return _box_row(row, number, area if _is_number(area) else row["bbox"][2] * row["bbox"][3], row.get("iscrowd"))


def _box_row(row: Mapping[str, Any], number: int, area: float, is_crowd: Any) -> dict[str, Any]:
    """Every key that COCOeval reads, in an object of its own."""
    kept = {key: row[key] for key in _RESULT_KEYS if key in row}
    return {**kept, "id": number, "area": area, "iscrowd": int(is_crowd in (1, True))}


def _index(dataset: dict[str, Any]) -> COCO:
    index = COCO()
    index.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
    return index


def _chosen(ids: Iterable[int], noun: str, known: Mapping[Any, Any]) -> list[int]:
    """The ids, sorted, each once; ValueError where one is unknown."""
    chosen = sorted(set(ids))
    _refuse_unknown(f"of the chosen {noun} ids are unknown", chosen, known)
    return chosen


def _check_sections(content: Any) -> None:
    if not isinstance(content, Mapping):
        raise ValueError(f"a {_kind(content)}; expected COCO annotations, an object with {_listed(_SECTIONS)}")
    for section, keys in _SECTIONS.items():
        rows = content.get(section)
        if not isinstance(rows, list):
            raise ValueError(f"no list called {section!r}; expected COCO annotations with {_listed(_SECTIONS)}")
        _check_rows(section, rows, keys)


def _check_results(results: Sequence[Any]) -> None:
    _check_rows("results", results, _RESULT_KEYS)
    for place, row in enumerate(results):
        if not all(map(math.isfinite, row["bbox"])) or min(row["bbox"][2:]) < 0:
            raise ValueError(
                f"results[{place}] has the box {row['bbox']}; expected finite numbers, sides of at least 0"
            )
        if not _is_number(row["score"]) or not math.isfinite(row["score"]):
            raise ValueError(f"results[{place}] has the score {row['score']!r}; expected a finite number")


def _check_rows(section: str, rows: Sequence[Any], keys: Sequence[str]) -> None:
    """Each row an object with these keys, its ids usable as such, its box four numbers."""
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping) or not all(key in row for key in keys):
            raise ValueError(f"{section}[{place}] is {_brief(row)}; expected an object with {_listed(keys)}")
        for key in keys:
            if key.endswith("id") and not isinstance(row[key], (int, str, np.integer)):
                raise ValueError(f"{section}[{place}] has the {key} {_brief(row[key])}; expected a whole number")
        if "bbox" in keys and not _is_box(row["bbox"]):
            raise ValueError(f"{section}[{place}] has the box {_brief(row['bbox'])}; expected [x, y, width, height]")


def _is_box(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 4 and all(map(_is_number, value))


def _has_area(box: Sequence[float]) -> bool:
    return all(map(math.isfinite, box)) and min(box[2:]) > 0


def _is_number(value: Any) -> bool:
    """Whether it is a number that arithmetic takes: no truth value, nothing beyond what a float holds."""
    if not isinstance(value, (int, float, np.number)) or isinstance(value, bool):
        return False
    return isinstance(value, float) or bool(-1e300 < value < 1e300)


def _refuse_unknown(complaint: str, ids: Iterable[Any], known: Mapping[Any, Any]) -> None:
    """ValueError where ids are not among the known ones: how many, one example, what is known."""
    unknown = [value for value in ids if value not in known]
    if unknown:
        span = f"{len(known)} ids from {min(known)} to {max(known)}" if known else "none"
        raise ValueError(f"{len(unknown)} {complaint}, for example {unknown[0]!r}; the ground truth has {span}")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no JSON text ({error.reason} at byte {error.start})") from error
    except RecursionError:
        raise ValueError(f"{path}: no JSON of results or annotations (lists within lists without end)") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: no JSON ({error.msg} in line {error.lineno}, column {error.colno})") from error


@contextlib.contextmanager
def _naming(place: Path | str) -> Iterator[None]:
    """Put the file's name in front of a complaint about its content."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _kind(value: Any) -> str:
    names = {"dict": "JSON object", "list": "JSON list", "str": "JSON string"}
    return names.get(type(value).__name__, type(value).__name__)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
