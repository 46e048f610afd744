"""VOC's average precision by hand, by a plain reference in the kit's own coordinates, and what must be refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detect.formats.voc import VocDetection
from detect.voc_metric import average_precision, evaluate_voc

Box = list[float]


def truth(boxes: list[tuple[int, int, Box]], difficult: tuple[int, ...] = (), crowds: tuple[int, ...] = ()) -> Any:
    """Annotations over the pictures 10 and 25 and the categories 3 (cat), 7 (dog) and 8 (bird); flags by place."""
    return {
        "images": [{"id": 10}, {"id": 25}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 8, "name": "bird"}],
        "annotations": [
            {
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "iscrowd": int(place in (*difficult, *crowds)),
                "difficult": int(place in difficult),
            }
            for place, (image, category, box) in enumerate(boxes)
        ],
    }


def result(image: int, category: int, box: Box, score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


BOXES: list[tuple[int, int, Box]] = [
    (10, 3, [0, 0, 10, 10]),
    (10, 3, [20, 0, 10, 10]),
    (25, 3, [0, 0, 10, 10]),
    (25, 3, [40, 0, 10, 10]),
    (25, 3, [80, 0, 10, 10]),  # difficult
    (10, 7, [50, 50, 10, 10]),
    (25, 7, [50, 50, 10, 10]),
]
FOUND = [
    result(25, 3, [80, 0, 10, 10], 0.5),  # on the difficult cat: no mark
    result(10, 3, [0, 0, 10, 10], 0.9),  # hit
    result(25, 3, [0, 0, 10, 6], 0.7),  # hit, 60 / 100
    result(10, 3, [200, 200, 10, 10], 0.8),  # miss
    result(10, 3, [0, 0, 10, 9], 0.6),  # the first cat again: miss
    result(10, 3, [20, 0, 10, 10], 0.4),  # hit
    result(25, 3, [80, 0, 10, 9], 0.3),  # on the difficult cat again: no mark
    result(25, 7, [50, 50, 10, 10], 0.2),  # hit
    result(25, 8, [50, 50, 10, 10], 0.9),  # a bird, of which there is none
]


@pytest.mark.parametrize(
    ("rule", "cats", "dogs"),
    [
        ("voc2007", (3 * 1 + 3 * 2 / 3 + 2 * 3 / 5) / 11, 6 / 11),
        ("voc2012", (1 + 2 / 3 + 3 / 5) / 4, 1 / 2),
    ],
)
def test_nine_detections_by_hand(rule: str, cats: float, dogs: float) -> None:
    """Cats: 4 objects and a difficult one; by falling score hit, miss, hit, miss, (no mark), hit, (no mark).

      recall     1/4  1/4  2/4  2/4  3/4
      precision  1    1/2  2/3  2/4  3/5    made to fall: 1, 2/3, 2/3, 3/5, 3/5
      Eleven points: 0, 0.1, 0.2 have 1; 0.3, 0.4, 0.5 have 2/3; 0.6, 0.7 have 3/5; 0.8, 0.9, 1 have 0.
      Area: 1/4 at 1, 1/4 at 2/3, 1/4 at 3/5.
    Dogs: 2 objects, the one detection a hit: the points 0 to 0.5 have 1; the area is 1/2.
    Birds: no object, so no figure, and no part in the mean.
    """
    scores = evaluate_voc(FOUND, truth(BOXES, difficult=(4,)), rule=rule)
    assert scores.per_class["cat"] == pytest.approx(
        {"AP": cats, "recall": 3 / 4, "objects": 4, "difficult": 1, "detections": 7}
    )
    assert scores.per_class["dog"] == pytest.approx(
        {"AP": dogs, "recall": 1 / 2, "objects": 2, "difficult": 0, "detections": 1}
    )
    assert (scores.per_class["bird"]["AP"], scores.per_class["bird"]["recall"]) == (-1, -1)
    assert (scores.rule, scores.mean) == (rule, pytest.approx((cats + dogs) / 2))


def test_a_difficult_object_that_counts_changes_the_figures() -> None:
    """The same without the flag: 5 objects; hit, miss, hit, miss, hit, hit, miss (again): area (1 + 2/3 * 3) / 5."""
    scores = evaluate_voc(FOUND, truth(BOXES), rule="voc2012")
    assert scores.per_class["cat"]["AP"] == pytest.approx((1 + 3 * 2 / 3) / 5)


@pytest.mark.parametrize(("height", "ap"), [(5, 1.0), (4.99, 0.0)])
def test_half_an_overlap_is_enough(height: float, ap: float) -> None:
    found = [result(10, 3, [0, 0, 10, height], 0.5)]
    assert evaluate_voc(found, truth([(10, 3, [0, 0, 10, 10])])).per_class["cat"]["AP"] == ap
    assert evaluate_voc(found, truth([(10, 3, [0, 0, 10, 10])]), min_overlap=0.4).per_class["cat"]["AP"] == 1.0


def test_the_object_that_is_overlapped_most_decides() -> None:
    """The second detection overlaps the first object by 9/11, the second by 8/10: the first is taken, so it is a miss.

    COCO's rule would give it the second object.
    """
    boxes: list[tuple[int, int, Box]] = [(10, 3, [0, 0, 10, 10]), (10, 3, [0, 2, 10, 8])]
    found = [result(10, 3, [0, 0, 10, 10], 0.9), result(10, 3, [0, 1, 10, 10], 0.8)]
    assert evaluate_voc(found, truth(boxes)).per_class["cat"]["recall"] == 0.5


def test_inside_a_crowd_nothing_is_wrong() -> None:
    """A region of 100 x 100: small boxes inside have no mark; on a difficult object of that size they are misses."""
    boxes: list[tuple[int, int, Box]] = [(10, 3, [0, 0, 10, 10]), (10, 3, [100, 100, 100, 100])]
    found = [
        result(10, 3, [150, 150, 10, 10], 0.9),
        result(10, 3, [300, 300, 0, 0], 0.8),
        result(10, 3, [0, 0, 10, 10], 0.7),
    ]
    assert evaluate_voc(found, truth(boxes, crowds=(1,))).per_class["cat"]["AP"] == pytest.approx(1 / 2)
    assert evaluate_voc(found, truth(boxes, difficult=(1,))).per_class["cat"]["AP"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("left", "ap"), [(94, 1 / 2), (95, 1.0), (96, 1.0)])
def test_half_inside_a_crowd_is_enough(left: float, ap: float) -> None:
    """The region begins at 100, the box is 10 wide: with 4 of them inside it is a miss before the one hit."""
    boxes: list[tuple[int, int, Box]] = [(10, 3, [0, 0, 10, 10]), (10, 3, [100, 100, 100, 100])]
    found = [result(10, 3, [left, 150, 10, 10], 0.9), result(10, 3, [0, 0, 10, 10], 0.7)]
    assert evaluate_voc(found, truth(boxes, crowds=(1,))).per_class["cat"]["AP"] == pytest.approx(ap)


def test_a_recall_on_one_of_the_eleven_points_counts_there() -> None:
    """3 of 10 found: the points 0, 0.1, 0.2, 0.3, although 3 * 0.1 is more than 3 / 10 to a computer."""
    assert average_precision(np.array([True] * 3), 10, "voc2007") == pytest.approx(4 / 11)
    assert average_precision(np.array([True] * 3), 10, "voc2012") == pytest.approx(3 / 10)
    assert average_precision(np.array([], bool), 10, "voc2007") == 0
    assert average_precision(np.array([False, False]), 0, "voc2012") == -1


def test_parts_of_pictures_and_classes() -> None:
    scores = evaluate_voc(FOUND, truth(BOXES, difficult=(4,)), image_ids=[10], category_ids=[3])
    assert list(scores.per_class) == ["cat"]
    assert scores.per_class["cat"]["objects"] == 2
    assert scores.mean == pytest.approx((1 + 2 / 4) / 2)  # hit, miss, miss, hit
    nothing = evaluate_voc([], truth([(10, 3, [0, 0, 0, 5])]))
    assert (nothing.mean, nothing.unusable_boxes) == (-1, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "voc2010"}, "rule is 'voc2010'; expected one of voc2007, voc2012"),
        ({"min_overlap": 0}, "min_overlap is 0"),
        ({"image_ids": [11]}, "1 of the chosen picture ids are unknown"),
        ({"results": [result(10, 5, [0, 0, 1, 1], 1)]}, "unknown category id"),
        ({"results": [{}]}, "results[0] is {}"),
    ],
)
def test_what_cannot_be_scored_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words follow
        evaluate_voc(options.pop("results", FOUND), truth(BOXES), **options)
    assert words in str(caught.value)


def plain_voc(found: list[tuple[str, float, Any]], objects: dict[str, list[tuple[Any, bool]]], eleven: bool) -> float:
    """The challenge's own steps for one class, on whole pixels of which both ends belong to a box."""
    taken: set[tuple[str, int]] = set()
    count = sum(not difficult for boxes in objects.values() for _, difficult in boxes)
    right, curve = 0, []
    for picture, _, (x1, y1, x2, y2) in sorted(found, key=lambda row: -row[1]):
        best, place = 0.0, -1
        for number, ((a1, b1, a2, b2), _) in enumerate(objects.get(picture, [])):
            width, height = min(x2, a2) - max(x1, a1) + 1, min(y2, b2) - max(y1, b1) + 1
            if width > 0 and height > 0:
                both = (x2 - x1 + 1) * (y2 - y1 + 1) + (a2 - a1 + 1) * (b2 - b1 + 1) - width * height
                if width * height / both > best:
                    best, place = width * height / both, number
        if best >= 0.5 and objects[picture][place][1]:
            continue
        if best >= 0.5 and (picture, place) not in taken:
            taken.add((picture, place))
            right += 1
        curve.append((right / count, right))
    curve = [(recall, hits / (number + 1)) for number, (recall, hits) in enumerate(curve)]
    if eleven:
        points = [max((p for r, p in curve if r >= t / 10 - 1e-12), default=0.0) for t in range(11)]
        return sum(points) / 11
    area, before = 0.0, 0.0
    for place, (recall, _) in enumerate(curve):
        area += (recall - before) * max(p for _, p in curve[place:])
        before = recall
    return area


@pytest.mark.parametrize("seed", range(3))
def test_random_boxes_beside_the_plain_reference(tmp_path: Path, seed: int) -> None:
    """From VOC's xml to VOC's figures, each in the kit's own pixels, which count from 1."""
    rng = np.random.default_rng(seed)
    for folder in ("Annotations", "JPEGImages"):
        (tmp_path / folder).mkdir()
    objects: dict[str, list[tuple[Any, bool]]] = {}
    found: list[tuple[str, float, Any]] = []
    for name in ("p1", "p2", "p3", "p4"):
        corners = rng.integers(1, 60, (12, 2))
        boxes = np.concatenate([corners, corners + rng.integers(3, 30, (12, 2))], axis=1)
        objects[name] = [(tuple(map(int, box)), bool(rng.random() < 0.2)) for box in boxes]
        near = np.concatenate([boxes, boxes]) + rng.integers(-3, 4, (24, 4))
        found += [(name, float(rng.random()), tuple(map(int, box))) for box in near if (box[2:] >= box[:2]).all()]
        parts = "".join(
            f"<object><name>cell</name><difficult>{int(difficult)}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for (x1, y1, x2, y2), difficult in objects[name]
        )
        (tmp_path / "Annotations" / f"{name}.xml").write_text(f"<annotation>{parts}</annotation>")
        Image.new("L", (100, 100)).save(tmp_path / "JPEGImages" / f"{name}.png")
    data = VocDetection(tmp_path)
    ids = {name.split(".")[0]: image_id for name, image_id in zip(data.file_names, data.image_ids, strict=True)}
    rows = [result(ids[name], 1, [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1], score)
            for name, score, (x1, y1, x2, y2) in found]  # fmt: skip
    for rule in ("voc2007", "voc2012"):
        expected = plain_voc(found, objects, eleven=rule == "voc2007")
        assert 0.2 < expected < 0.9
        assert evaluate_voc(rows, data.ground_truth(), rule=rule).mean == pytest.approx(expected, abs=1e-9)
