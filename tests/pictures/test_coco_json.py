"""A COCO json read in blocks, beside the same file read as a whole; and boxes fitted at once, beside one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pictures import coco_json, coco_table, json_blocks
from pictures.boxes import Annotations, fit_box, fit_boxes
from pictures.coco_json import read_annotations, read_index
from pictures.report import AnnotationReport


def made_up(count: int = 60, seed: int = 0) -> dict[str, Any]:
    """Outlines, crowds, boxes that reach out, a picture and a class without objects, text of every kind."""
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        box = [round(float(value), 2) for value in random.uniform(-10, 60, 4)]
        crowd = number % 7 == 0
        outline: Any = {"counts": [3, 4, 5], "size": [50, 60]} if crowd else [[1.5, 2.5, 3.0, 4.0, 5.0, 6.0]]
        row = {"segmentation": outline, "iscrowd": int(crowd), "image_id": int(random.integers(1, 6)) * 11}
        row |= {"bbox": box, "category_id": int(random.integers(1, 4)), "id": number + 1000}
        rows.append(row)
    del rows[5]["iscrowd"], rows[6]["id"]
    return {
        "info": {"text": "a } ] , { of [ nothing", "list": [{"a": 1}, {"b": 2}]},
        "images": [{"id": i * 11, "file_name": f"é{i} }},{{.jpg", "width": 60, "height": 50} for i in range(1, 8)],
        "annotations": rows,
        "categories": [{"id": i, "name": f"class {i}"} for i in (4, 2, 1, 3)],
    }


def same(one: Annotations, other: Annotations) -> bool:
    arrays = all(
        np.array_equal(one_part, other_part) for one_part, other_part in zip(one[3:7], other[3:7], strict=True)
    )
    return arrays and one[:3] == other[:3] and one.report == other.report


def as_a_whole(path: Path, monkeypatch: pytest.MonkeyPatch, **chosen: Any) -> Annotations:
    with monkeypatch.context() as patch:
        patch.setattr(coco_json, "read_table", lambda *_, **__: None)
        return read_annotations(path, **chosen)


@pytest.mark.parametrize("block_bytes", [300, 1000, 1 << 20])
@pytest.mark.parametrize("style", [{}, {"indent": 2}, {"separators": (",", ":"), "ensure_ascii": False}])
@pytest.mark.parametrize("keys", ["info images annotations categories", "annotations categories info images"])
def test_blocks_of_any_size_give_what_the_whole_file_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, style: dict[str, Any], keys: str
) -> None:
    path, content = tmp_path / "instances.json", made_up()
    path.write_text(json.dumps({key: content[key] for key in keys.split()}, **style), encoding="utf-8")
    monkeypatch.setattr(json_blocks, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(json_blocks, "_MOST_TRIALS", 10_000)
    assert coco_table.read_table(path) is not None
    for chosen in ({}, {"class_names": ["class 3", "class 1"], "file_names": [content["images"][2]["file_name"]]}):
        expected = as_a_whole(path, monkeypatch, **chosen)
        assert len(expected.boxes) >= 3
        assert expected.report.clipped
        assert same(read_annotations(path, **chosen), expected)
    entries = read_index(path).entries
    assert [entry.content for entry in entries] == content["annotations"]
    assert entries[8].what == f"annotation 8 of {path}"


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ({"iscrowd": True}, None),
        ({"bbox": [1, 2, float("nan"), 4]}, None),
        ({"bbox": [1, 2, 10**400, 4]}, None),
        ({"bbox": [True, 2, 3, 4]}, None),
        ({"parts": [{"bbox": [1, 2, 3, 4]}, {"bbox": [1, 2, 3, 4]}] * 20}, None),
        ({"id": [{"nested": 1}]}, None),
        ({"image_id": 11.0}, "image_id 11.0"),
        ({"image_id": 10**30}, "image_id 1000000"),
        ({"image_id": 12}, "image_id 12, which is not among"),
        ({"category_id": True, "image_id": True}, "image_id True"),
        ({"iscrowd": 2}, "iscrowd 2; expected 0 or 1"),
        ({"bbox": [1, 2, 3]}, "expected [x, y, width, height]"),
    ],
)
def test_what_is_unusual_is_read_or_refused_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], value: str | None
) -> None:
    path, content = tmp_path / "instances.json", made_up()
    content["annotations"][9] |= row
    path.write_text(json.dumps(content))
    if value is None:
        assert same(read_annotations(path), as_a_whole(path, monkeypatch))
        return
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words follow
        read_annotations(path)
    assert value in str(caught.value)
    assert f"annotation 9 of {path}" in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"counts": [3', b'"counts": [x'),
        (b'"counts": [3', b'"counts": "\xff\xfe", "more": [3'),  # in what a detector does not read
        (b'"categories"', b'"annotations": [], "categories"'),
        (b'"segmentation"', b'"segmentation" '),
        (b"}]}", b"}]} x"),
        (b"}]}", b"}]"),
        (b"}]}", b"},]}"),
    ],
)
def test_blocks_take_no_other_json_than_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes, after: bytes
) -> None:
    path = tmp_path / "instances.json"
    text = json.dumps(made_up()).encode()
    assert before in text
    path.write_bytes(text.replace(before, after, 1) if before != b"}]}" else text.removesuffix(before) + after)

    def outcome(whole: bool) -> Any:
        try:
            return as_a_whole(path, monkeypatch) if whole else read_annotations(path)
        except ValueError as error:
            return str(error)

    expected, actual = outcome(whole=True), outcome(whole=False)
    assert expected == actual if isinstance(expected, str) else same(actual, expected)


def test_many_boxes_are_fitted_as_one_by_one() -> None:
    random = np.random.default_rng(0)
    edges = np.array([-5, 0, 1e-9, 7, 19.9999999999, 20, 20.000001, 40, 1e12, np.nan, np.inf, -np.inf])
    corners = random.choice(edges, (4000, 4), p=[*[0.124] * 8, *[0.002] * 4])
    sizes = np.array([[20, 40], [40, 20]])[random.integers(2, size=4000)]
    single, together = AnnotationReport(), AnnotationReport()
    expected = [
        fit_box(row, (height, width), single, str(place))
        for place, (row, (height, width)) in enumerate(zip(corners.tolist(), sizes.tolist(), strict=True))
    ]
    boxes, kept = fit_boxes(corners, sizes.astype(float), together, str)
    assert together == single
    assert set(single.dropped) == {"not finite", "no area", "outside the picture"}
    assert kept.tolist() == [place for place, box in enumerate(expected) if box is not None]
    np.testing.assert_array_equal(boxes, np.array([box for box in expected if box is not None], np.float32))
