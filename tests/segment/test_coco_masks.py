"""COCO's outlines as a class for every pixel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segment.formats.check_labels import check_labels
from segment.formats.coco_masks import CocoMasks, decode_counts

HEIGHT, WIDTH = 6, 8


def rectangle(x: int, y: int, width: int, height: int) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def block(x: int, y: int, width: int, height: int, value: int, labels: np.ndarray) -> None:
    labels[y : y + height, x : x + width] = value


def object_of(category: int, outline: Any, *, image: int = 1, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": [0, 0, 1, 1], "segmentation": outline, **more}


@pytest.fixture
def write(tmp_path: Path):
    """Writes a COCO set of black pictures with the given annotations; gives the json's path and the folder."""

    def write(annotations: list[dict[str, Any]], images: int = 1) -> tuple[Path, Path]:
        entries = []
        for number in range(1, images + 1):
            Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"{number}.png")
            entries.append({"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
        content = {
            "images": entries,
            "annotations": [{"id": place, **entry} for place, entry in enumerate(annotations)],
            "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
        }
        (tmp_path / "a.json").write_text(json.dumps(content))
        return tmp_path / "a.json", tmp_path

    return write


def test_polygons_by_hand_and_smaller_objects_in_front(write) -> None:
    person = [rectangle(1, 1, 4, 4), rectangle(6, 0, 2, 2)]  # one person in two parts
    data = CocoMasks(*write([object_of(18, [rectangle(3, 2, 2, 2)]), object_of(1, person)]))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    block(1, 1, 4, 4, 1, expected)
    block(6, 0, 2, 2, 1, expected)
    block(3, 2, 2, 2, 2, expected)
    np.testing.assert_array_equal(data[0][1].numpy(), expected)
    assert data.class_names == ("background", "person", "dog")
    np.testing.assert_array_equal(check_labels(data).pixels, [HEIGHT * WIDTH - 20, 16, 4])


def test_only_the_chosen_categories(write) -> None:
    annotations = [object_of(18, [rectangle(0, 0, 2, 2)]), object_of(1, [rectangle(4, 4, 2, 2)], image=2)]
    data = CocoMasks(*write(annotations, images=3), class_names=["person"])
    assert data.class_names == ("background", "person")
    assert [int(data[index][1].sum()) for index in range(3)] == [0, 4, 0]
    chosen = CocoMasks(*write(annotations, images=3), class_names=["dog", "person"], file_names=["1.png"])
    assert (len(chosen), chosen[0][1].unique().tolist()) == (1, [0, 1])


def test_more_categories_than_a_label_can_hold(write) -> None:
    """254, for a byte also says background and ignored."""
    annotations, images = write([object_of(300, [rectangle(0, 0, 2, 2)]), object_of(254, [rectangle(4, 4, 2, 2)])])
    content = json.loads(annotations.read_text())
    content["categories"] = [{"id": number, "name": f"c{number}"} for number in range(1, 301)]
    annotations.write_text(json.dumps(content))
    for count in (None, 255):
        names = count and [f"c{number}" for number in range(1, count + 1)]
        with pytest.raises(ValueError, match=rf"json gives {count or 300} categories; expected at most 254, .*class_n"):
            CocoMasks(annotations, images, class_names=names)
    data = CocoMasks(annotations, images, class_names=[f"c{number}" for number in range(1, 255)])
    assert data[0][1].unique().tolist() == [0, 254]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_crowd_is_ignored_or_taken_as_its_class(write, compressed: bool) -> None:
    crowd = np.zeros((HEIGHT, WIDTH), np.uint8)
    crowd[2:5, 1:7] = 1
    if compressed:
        counts: Any = coco_mask.encode(np.asfortranarray(crowd))["counts"].decode()
    else:
        changes = np.flatnonzero(np.diff(crowd.ravel(order="F"), prepend=0)).tolist()
        counts = np.diff([0, *changes, crowd.size]).tolist()
    annotations = [
        object_of(1, [rectangle(0, 0, 3, 4)]),
        object_of(1, {"size": [HEIGHT, WIDTH], "counts": counts}, iscrowd=1),
    ]
    expected = crowd * 255
    block(0, 0, 3, 4, 1, expected)
    np.testing.assert_array_equal(CocoMasks(*write(annotations))[0][1].numpy(), expected)
    np.testing.assert_array_equal(CocoMasks(*write(annotations), crowds="objects")[0][1].numpy(), expected > 0)


@pytest.mark.parametrize("outline", [None, [], [[1, 1, 4, 4]]])
def test_pictures_with_an_object_without_outline_are_left_out(write, outline) -> None:
    annotations = [object_of(1, [rectangle(0, 0, 2, 2)]), object_of(1, outline, image=2), object_of(18, None, image=3)]
    data = CocoMasks(*write(annotations, images=3), class_names=["person"])
    assert data.file_names == ("1.png", "3.png")
    assert str(data.report) == "2 pictures; 1 left out because an object has no outline (first 2.png)"
    with pytest.raises(ValueError, match=r"has no picture all of whose objects have outlines"):
        CocoMasks(*write(annotations, images=3), class_names=["person"], file_names=["2.png"])


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ("circle", "no list of polygons"),
        ([[1, 2, 3, 4, 5, 6, 7]], "no list of polygons"),
        ([[1, 2, 3, 4, 5, "6"]], "no list of polygons"),
        ([[1, 2, 3, 4, 5, 1e300]], "no list of polygons"),
        ({"size": [HEIGHT, WIDTH], "counts": [40, 4]}, r"run lengths of 44 pixels; expected 48"),
        ({"size": [HEIGHT, WIDTH], "counts": [60, -12]}, r"expected 48, none negative"),
        ({"size": [HEIGHT, WIDTH], "counts": [48, 1e3]}, r"neither a list of whole numbers nor text"),
        ({"size": [HEIGHT, WIDTH], "counts": "zzzz"}, r"expected 48, none negative"),
        ({"size": [HEIGHT, WIDTH], "counts": "o" * 5000}, r"expected 48, none negative"),
        ({"size": [WIDTH, HEIGHT], "counts": [48]}, r"of a picture of \[8, 6\]; expected \[6, 8\]"),
        ({"counts": [48]}, r"of a picture of None"),
    ],
)
def test_outlines_that_are_none(write, outline, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^annotation 0 of .*a\.json has .*{message}") as caught:
        CocoMasks(*write([object_of(1, outline)]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(20))
def test_compressed_run_lengths_as_pycocotools_writes_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = np.asfortranarray(random.random((37, 1 + 400 * (seed % 3))) < (0.02, 0.5, 0.98)[seed % 3], np.uint8)
    runs = decode_counts(coco_mask.encode(mask)["counts"])
    inside = np.arange(len(runs)) % 2 == 1
    np.testing.assert_array_equal(inside.repeat(runs), mask.ravel(order="F"))


def test_another_size_than_the_json_says(write) -> None:
    path, folder = write([object_of(1, [rectangle(0, 0, 2, 2)])])
    Image.new("RGB", (HEIGHT, WIDTH)).save(folder / "1.png")
    with pytest.raises(ValueError, match=r"1\.png is 6 x 8 pixels, but .*a\.json, 1\.png is 8 x 6"):
        check_labels(CocoMasks(path, folder))
    with pytest.raises(ValueError, match="crowds is 'person'; expected 'ignore' or 'objects'"):
        CocoMasks(path, folder, crowds="person")
    (folder / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 1 pictures of .* are not in"):
        CocoMasks(path, folder)


@pytest.mark.parametrize(("split", "pictures"), [("train", 887), ("val", 113)])
def test_the_real_persons_that_carry_polygons(data_dir: Path, split: str, pictures: int) -> None:
    folder = data_dir / "coco_person"
    data = CocoMasks(folder / f"person_{split}.json", folder / split, class_names=["person"])
    assert len(data) == pictures
    areas = {
        entry["image_id"]: entry["area"]
        for entry in json.loads((folder / f"person_{split}.json").read_text())["annotations"]
        if "segmentation" in entry
    }
    drawn = [int((data.read_labels(index) == 1).sum()) for index in range(20)]
    known = [areas[int(Path(name).stem)] for name in data.file_names[:20]]
    np.testing.assert_allclose(drawn, known, rtol=0.05, atol=60)  # the file's area is that of the polygon itself


def test_the_real_crowds(data_dir: Path) -> None:
    folder = data_dir / "coco_mini"
    paths = folder / "instances_train2017.json", folder / "train2017"
    ignored = CocoMasks(*paths, class_names=["person"])
    taken = CocoMasks(*paths, class_names=["person"], crowds="objects")
    assert len(ignored) == len(taken) == 343
    counts, all_counts = check_labels(ignored), check_labels(taken)
    assert counts.ignored > 0
    assert all_counts.ignored == 0
    assert all_counts.pixels[1] == counts.pixels[1] + counts.ignored
