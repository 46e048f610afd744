"""The figures and curves beside pycocotools' own, to the last digit, where its rules decide between equals."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detect import coco_figures
from detect.coco_figures import FIGURES
from detect.metrics import evaluate_detections

PICTURES, CLASSES = (3, 8, 11, 40), (2, 5, 9, 70)


def crowded(seed: int, detections: int = 900, grid: float = 4.0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Boxes and scores on a coarse grid: equal scores, equal overlaps, more than 100 detections a picture and class."""
    random = np.random.default_rng(seed)

    def box(scale: float) -> list[float]:
        corner, sides = random.uniform(0, 60 * scale, 2), random.uniform(4, 60 * scale, 2)
        return [float(value) for value in np.maximum(np.round(np.concatenate([corner, sides]) / grid), 1) * grid]

    rows = [
        {
            "id": number + 1,
            "image_id": int(random.choice(PICTURES[:3])),
            "category_id": int(random.choice(CLASSES[:2])),
            "bbox": (shape := box(3 if number % 5 == 0 else 1)),
            "area": shape[2] * shape[3] * float(random.choice([0.4, 1.0])),
            "iscrowd": int(number % 6 == 0),
        }
        for number in range(90)
    ]
    found = [
        {
            "image_id": int(random.choice(PICTURES, p=[0.5, 0.2, 0.2, 0.1])),
            "category_id": int(random.choice(CLASSES, p=[0.6, 0.2, 0.1, 0.1])),
            "bbox": box(3 if random.random() < 0.2 else 1),
            "score": float(random.integers(1, 30)) / 30,
        }
        for _ in range(detections)
    ]
    truth = {"images": [{"id": number} for number in PICTURES], "annotations": rows}
    return truth | {"categories": [{"id": number, "name": str(number)} for number in CLASSES]}, found


def by_pycocotools(
    truth: dict[str, Any], found: list[dict[str, Any]], pictures: list[int] | None, classes: list[int] | None
) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = truth | {"info": {}}
        index.createIndex()
        evaluation = COCOeval(index, index.loadRes([dict(row) for row in found]), "bbox")
        evaluation.params.imgIds = pictures or evaluation.params.imgIds
        evaluation.params.catIds = classes or evaluation.params.catIds
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("pictures", "classes"), [(None, None), ([3, 40], [2, 70, 5])])
def test_equal_to_the_last_digit(seed: int, pictures: list[int] | None, classes: list[int] | None) -> None:
    truth, found = crowded(seed, detections=(900, 40)[seed % 2], grid=(4.0, 16.0)[seed // 3])
    expected = by_pycocotools(truth, found, pictures, classes)
    scores = evaluate_detections(found, truth, image_ids=pictures, category_ids=classes)
    assert scores.figures == dict(zip(FIGURES, expected.stats.tolist(), strict=True))
    assert scores.figures["AP50"] > 0
    np.testing.assert_array_equal(scores.precision, expected.eval["precision"][..., 0, 2])
    np.testing.assert_array_equal(scores.scores, expected.eval["scores"][..., 0, 2])
    for place, row in enumerate(scores.per_class.values()):
        recall = expected.eval["recall"][:, place, 0, 2]
        assert row["AR100"] == (recall.mean() if recall[0] > -1 else -1)


def test_all_curves_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every size and every number of detections; compared a few pairs at a time, as many pictures would be."""
    monkeypatch.setattr(coco_figures, "_MOST_PAIRS", 50)
    curves = []
    original = coco_figures.draw_curves
    monkeypatch.setattr("detect.metrics.draw_curves", lambda *args: curves.append(original(*args)) or curves[-1])
    truth, found = crowded(7)
    expected = by_pycocotools(truth, found, None, None)
    evaluate_detections(found, truth)
    np.testing.assert_array_equal(curves[0].recall, expected.eval["recall"])
    np.testing.assert_array_equal(curves[0].precision, expected.eval["precision"][..., 2])


@pytest.mark.filterwarnings("error")
def test_boxes_beyond_any_area() -> None:
    """The area of a box with sides of 1e200 is no number any more; the others count as ever."""
    truth, found = crowded(1)
    plain = evaluate_detections(found, truth)
    huge = {**found[0], "bbox": [0, 0, 1e200, 1e200], "score": 0.0}
    assert evaluate_detections([*found, huge], truth).figures["AR100"] == plain.figures["AR100"]
