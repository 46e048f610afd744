"""What a detector is sure of where no box is."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    import unlabelled_objects

    yield unlabelled_objects
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == BENCHMARKS:
            del sys.modules[name]


def row(image_id: int, box_xywh: list[float], score: float = 0.9) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 2, "bbox": box_xywh, "score": score}


def test_sure_and_far_from_every_label_of_its_picture(script: Any) -> None:
    labels = [row(1, [0, 0, 10, 10]), row(2, [50, 50, 10, 10])]
    results = [
        row(1, [1, 0, 10, 10]),  # the label's own
        row(1, [50, 50, 10, 10]),  # where another picture has a label
        row(1, [6, 0, 10, 10]),  # overlaps by a quarter
        row(1, [70, 70, 10, 10], score=0.4),
        row(3, [0, 0, 5, 5]),  # a picture without labels
    ]
    assert script.find_suspects(results, labels, 0.5, 0.3) == [results[1], results[2], results[4]]
    assert script.find_suspects(results, labels, 0.5, 0.2) == [results[1], results[4]]


def test_a_suspect_as_a_label_has_the_area_of_its_box(script: Any) -> None:
    label = script.as_label(row(1, [5, 6, 10, 4]))
    assert (label["area"], label["iscrowd"], label["bbox"]) == (40, 0, [5, 6, 10, 4])


def test_labels_are_thin_and_white_and_suspects_are_coloured(script: Any) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    drawn = script.draw(image, [row(1, [2, 2, 10, 10])], [row(1, [30, 20, 20, 10])], {2: 0})
    assert drawn[2, 5].tolist() == [255, 255, 255]
    assert drawn[20, 40].tolist() not in ([0, 0, 0], [255, 255, 255])
    assert not image.any()
