"""The twelve figures by hand, beside pycocotools used plainly, and what must be refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detect.metrics import FIGURES, coco_results, evaluate_detections
from detect.result_rows import read_results
from detect.results import Detections


def truth(boxes: list[tuple[int, int, list[float]]], crowds: tuple[int, ...] = (), first_id: int = 1) -> dict[str, Any]:
    """Annotations over the pictures 10 and 25 and the categories 3 (cat) and 7 (dog); crowds by place in `boxes`."""
    return {
        "images": [{"id": 10, "file_name": "a.jpg"}, {"id": 25, "file_name": "b.jpg"}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {
                "id": first_id + place,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(place in crowds),
            }
            for place, (image, category, box) in enumerate(boxes)
        ],
    }


def result(image: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


FIVE_BOXES = [
    (10, 3, [0, 0, 10, 10]),
    (10, 3, [20, 0, 10, 10]),
    (25, 3, [0, 0, 10, 10]),
    (25, 7, [50, 50, 10, 10]),
    (10, 7, [50, 0, 100, 100]),
]
FOUND = [
    result(10, 3, [0, 0, 10, 10], 0.9),
    result(10, 3, [200, 200, 10, 10], 0.8),
    result(10, 3, [20, 0, 10, 7.2], 0.7),
    result(25, 7, [50, 50, 10, 10], 0.6),
]


def assert_figures(actual: dict[str, float], expected: dict[str, float]) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


def test_five_boxes_by_hand() -> None:
    """COCO reads precision at 101 recalls, 0.00, 0.01 ... 1.00, at ten overlaps from 0.50 to 0.95.

    Cats: 3 objects; by falling score a hit, a miss, a hit that overlaps by 72 / 100 and so counts at five overlaps.
      up to 0.70: recall 1/3, 1/3, 2/3 at precision 1, 1/2, 2/3. The 34 recalls 0.00 to 0.33 have 1, the 33 recalls
      0.34 to 0.66 have 2/3, the rest 0: (34 + 22) / 101 = 56 / 101. From 0.75 on the third is a miss: 34 / 101.
      AP = (56 + 34) / 2 / 101 = 45 / 101. Recall 2/3 at five overlaps, 1/3 at five: mean 1/2; of one per picture 1/3.
    Dogs: 2 objects, one found exactly: the 51 recalls 0.00 to 0.50 have 1. AP = 51 / 101 at every overlap, recall 1/2.
    Sizes: all are small (under 32 x 32), but the dog that was missed is large (over 96 x 96). Small: cats as above,
      dogs 1. Large: no cats, dogs 0. Medium: nothing, so -1.
    """
    scores = evaluate_detections(FOUND, truth(FIVE_BOXES))
    expected = {
        "AP": (45 + 51) / 2 / 101,
        "AP50": (56 + 51) / 2 / 101,
        "AP75": (34 + 51) / 2 / 101,
        "APs": (45 / 101 + 1) / 2,
        "APm": -1.0,
        "APl": 0.0,
        "AR1": (1 / 3 + 1 / 2) / 2,
        "AR10": 1 / 2,
        "AR100": 1 / 2,
        "ARs": (1 / 2 + 1) / 2,
        "ARm": -1.0,
        "ARl": 0.0,
    }
    assert_figures(scores.figures, expected)
    assert_figures(scores.per_class["cat"], {"AP": 45 / 101, "AP50": 56 / 101, "AR100": 1 / 2, "boxes": 3})
    assert_figures(scores.per_class["dog"], {"AP": 51 / 101, "AP50": 51 / 101, "AR100": 1 / 2, "boxes": 2})
    cats_at_half = [1.0] * 34 + [2 / 3] * 33 + [0.0] * 34
    torch.testing.assert_close(scores.precision[0, :, 0].tolist(), cats_at_half, rtol=0, atol=1e-9)
    torch.testing.assert_close(scores.scores[0, :, 0].tolist(), [0.9] * 34 + [0.7] * 33 + [0.0] * 34)
    assert scores.precision.shape == (len(scores.iou_thresholds), len(scores.recalls), 2)


def test_a_subset_of_the_pictures() -> None:
    """Picture 25 alone: its cat is missed, its dog found."""
    scores = evaluate_detections(FOUND, truth(FIVE_BOXES), image_ids=[25])
    assert_figures(scores.per_class["cat"], {"AP": 0.0, "AP50": 0.0, "AR100": 0.0, "boxes": 1})
    assert_figures(scores.per_class["dog"], {"AP": 1.0, "AP50": 1.0, "AR100": 1.0, "boxes": 1})


def test_crowds_swallow_detections() -> None:
    """One object, and a crowd over which any number of detections is neither right nor wrong.

    By falling score: a miss outside, two inside the crowd (ignored), the object. Precision 1/2 at recall 1, so AP 1/2.
    Were the crowd an object of 100 x 100, the 10 x 10 boxes would not overlap it: precision 1/4 at recall 1/2, the
    51 recalls up to 0.50: AP 51 / 101 / 4.
    """
    boxes = [(10, 3, [0.0, 0.0, 10.0, 10.0]), (10, 3, [100.0, 100.0, 100.0, 100.0])]
    found = [
        result(10, 3, [50, 50, 10, 10], 0.9),
        result(10, 3, [110, 110, 10, 10], 0.8),
        result(10, 3, [150, 150, 10, 10], 0.7),
        result(10, 3, [0, 0, 10, 10], 0.6),
    ]
    honoured = evaluate_detections(found, truth(boxes, crowds=(1,)))
    assert_figures(honoured.per_class["cat"], {"AP": 0.5, "AP50": 0.5, "AR100": 1.0, "boxes": 1})
    plain = evaluate_detections(found, truth(boxes))
    assert_figures(plain.per_class["cat"], {"AP": 51 / 101 / 4, "AP50": 51 / 101 / 4, "AR100": 0.5, "boxes": 2})


def test_a_subset_of_the_classes() -> None:
    """A net that only knows cats: the dogs count neither for nor against it."""
    scores = evaluate_detections(FOUND, truth(FIVE_BOXES), category_ids=[3])
    assert scores.figures["AP"] == pytest.approx(45 / 101)
    assert list(scores.per_class) == ["cat"]
    with pytest.raises(ValueError, match="1 of the chosen category ids are unknown, for example 4"):
        evaluate_detections(FOUND, truth(FIVE_BOXES), category_ids=[3, 4])
    tag = {"image_id": 10, "category_id": 7, "bbox": []}
    tagged = {**truth(FIVE_BOXES), "annotations": [*truth(FIVE_BOXES)["annotations"], tag]}
    assert evaluate_detections(FOUND, tagged, category_ids=[3]).figures == scores.figures
    with pytest.raises(ValueError, match=r"annotations\[5\] has the box \[\]; expected \[x, y, width, height\]"):
        evaluate_detections(FOUND, tagged)


@pytest.mark.parametrize("box", [[5, 5, 0, 9], [5, 5, -3, 9], [5, float("nan"), 3, 9]])
def test_boxes_without_area_are_left_out_and_counted(box: list[float]) -> None:
    scores = evaluate_detections(FOUND, truth([*FIVE_BOXES, (10, 3, box)]))
    whole = evaluate_detections(FOUND, truth(FIVE_BOXES))
    assert (scores.unusable_boxes, whole.unusable_boxes) == (1, 0)
    assert_figures(scores.figures, whole.figures)


def test_an_annotation_with_the_id_0_can_be_found() -> None:
    boxes = [(10, 3, [0.0, 0.0, 10.0, 10.0])]
    assert evaluate_detections(FOUND[:1], truth(boxes, first_id=0)).figures["AP"] == pytest.approx(1.0)


def test_annotations_without_crowd_flag_and_area() -> None:
    bare = truth(FIVE_BOXES)
    for row in bare["annotations"]:
        del row["iscrowd"], row["area"], row["id"]
    assert_figures(evaluate_detections(FOUND, bare).figures, evaluate_detections(FOUND, truth(FIVE_BOXES)).figures)


def test_no_detections() -> None:
    figures = evaluate_detections([], truth(FIVE_BOXES)).figures
    assert_figures(figures, {name: -1.0 if name in ("APm", "ARm") else 0.0 for name in FIGURES})


@pytest.mark.parametrize("found", [[], FOUND])
def test_ground_truth_without_objects(found: list[dict[str, Any]]) -> None:
    scores = evaluate_detections(found, truth([]))
    assert_figures(scores.figures, dict.fromkeys(FIGURES, -1.0))
    assert_figures(scores.per_class["dog"], {"AP": -1.0, "AP50": -1.0, "AR100": -1.0, "boxes": 0})


def test_nothing_at_all() -> None:
    empty: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    assert_figures(evaluate_detections([], empty).figures, dict.fromkeys(FIGURES, -1.0))


def test_quiet_and_leaves_its_inputs_alone(capfd: pytest.CaptureFixture[str]) -> None:
    annotations, found = truth(FIVE_BOXES), copy.deepcopy(FOUND)
    before = copy.deepcopy((annotations, found))
    evaluate_detections(found, annotations)
    assert (annotations, found) == before
    assert capfd.readouterr() == ("", "")


def random_case(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Twelve pictures, two classes, some crowds, detections that are shaken ground truth or pure chance."""
    random = np.random.default_rng(seed)
    annotations = truth([])
    annotations["images"] = [{"id": int(image)} for image in random.choice(1000, 12, replace=False)]
    found = []
    for number in range(1, 81):
        image = annotations["images"][random.integers(12)]["id"]
        category = int(random.choice([3, 7]))
        box = np.concatenate([random.uniform(0, 200, 2), random.uniform(5, 150, 2)])
        row = {"id": number, "image_id": image, "category_id": category, "bbox": box.tolist()}
        row |= {"area": float(box[2] * box[3] * 0.7), "iscrowd": int(number % 9 == 0)}
        annotations["annotations"].append(row)
        for _ in range(random.integers(4)):
            shaken = box + random.normal(0, 6, 4) * [1, 1, 0.5, 0.5]
            found.append(result(image, category, np.maximum(shaken, 1).tolist(), float(random.random())))
    return annotations, found


@pytest.mark.parametrize("seed", [1, 2])
def test_equals_pycocotools_used_plainly(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    annotations, found = random_case(seed)
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(annotations))
    plain_truth = COCO(str(file))
    plain = COCOeval(plain_truth, plain_truth.loadRes(copy.deepcopy(found)), "bbox")
    plain.evaluate()
    plain.accumulate()
    plain.summarize()
    capsys.readouterr()
    scores = evaluate_detections(found, file)
    assert 0.05 < scores.figures["AP"] < 0.95
    torch.testing.assert_close(list(scores.figures.values()), plain.stats.tolist(), rtol=0, atol=0)
    torch.testing.assert_close(scores.precision, plain.eval["precision"][..., 0, 2], rtol=0, atol=0)


def test_detections_become_results() -> None:
    detections = Detections(
        torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.5, 0.25, 10.0, 10.0]]), torch.tensor([0.75, 0.5]), torch.tensor([1, 0])
    )
    assert coco_results(detections, 25, (3, 7)) == [
        result(25, 7, [1.0, 2.0, 3.0, 6.0], 0.75),
        result(25, 3, [0.5, 0.25, 9.5, 9.75], 0.5),
    ]
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert coco_results(nothing, 25, (3, 7)) == []
    with pytest.raises(ValueError, match="labels from 0 to 1, but 1 category ids"):
        coco_results(detections, 25, (3,))


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([result(11, 3, [0, 0, 1, 1], 0.5)] * 4, r"4 results name an unknown picture id, .* 11; .*2 ids from 10 to 25"),
        ([result(10, 4, [0, 0, 1, 1], 0.5)], r"1 results name an unknown category id, .* 4; .*2 ids from 3 to 7"),
        ([result(10, 3, [0, 0, 1], 0.5)], r"results\[0\] has the box \[0, 0, 1\]; expected \[x, y, width, height\]"),
        ([result(10, 3, [5, 5, -1, 1], 0.5)], r"results\[0\] has the box .*sides of at least 0"),
        ([result(10, 3, [0, 0, 1, float("nan")], 0.5)], r"results\[0\] has the box"),
        ([result(10, 3, [0, 0, 1, 1], float("inf"))], r"results\[0\] has the score inf"),
        ([{**FOUND[0], "image_id": [10]}], r"results\[0\] has the image_id \[10\]"),
        ([FOUND[0], {"image_id": 10}], r"results\[1\] is \{'image_id': 10\}; expected .*category_id, bbox, score"),
        ([7], r"results\[0\] is 7"),
    ],
)
def test_bad_results_are_refused(results: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        evaluate_detections(results, truth(FIVE_BOXES))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": None}, "no list called 'annotations'; expected COCO annotations with images"),
        ({"annotations": [{"caption": "a cat"}]}, r"annotations\[0\] is .*expected an object with image_id"),
        ({"images": [{"id": 10}, {"id": 10}]}, "not unique"),
        ({"images": [{"id": 25}]}, "3 boxes name an unknown picture id, for example 10"),
        ({"images": [{"id": 10}, {"id": "b"}]}, "the ids of its images are numbers and words"),
        ({"categories": [{"id": 3}]}, "2 boxes name an unknown category id, for example 7"),
    ],
)
def test_bad_annotations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_detections(FOUND, {**truth(FIVE_BOXES), **change})


def test_unknown_chosen_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of the chosen picture ids are unknown, for example 26"):
        evaluate_detections(FOUND, truth(FIVE_BOXES), image_ids=[25, 26])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON"),
        (b'[{"image_id": 1', "no JSON .* line 1, column"),
        (b"\xff\xd8\xff\xe0", "no JSON text"),
        (b'{"images": []}', "a JSON object; expected a list of results, each with image_id, category_id, bbox, score"),
    ],
)
def test_files_that_are_no_results(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "results.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_results(file)
    assert str(caught.value).startswith(str(file))


def test_files_that_are_no_annotations(tmp_path: Path) -> None:
    file = tmp_path / "truth.json"
    file.write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"truth\.json: a JSON list; expected COCO annotations, an object with images"):
        evaluate_detections([], file)
    with pytest.raises(OSError, match=r"missing\.json"):
        evaluate_detections([], tmp_path / "missing.json")


def test_results_survive_the_file(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(FOUND))
    assert read_results(file) == FOUND
