"""YOLO's data.yaml and label files: its common forms, what is left out and counted, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detect.formats.data_yaml import read_data_yaml
from detect.formats.yolo import YoloDetection

LABELS = {
    "images/train/b.jpg": "1 0.5 0.5 1 1\n0 0.25 0.5 0.25 0.2\n",
    "images/train/deep/c.jpg": "\n0 0.1 0.2 0.3 0.2 0.3 0.6\n",  # an outline
    "images/train/a.png": None,  # no label file, no objects
    "images/val/d.jpg": "",
    "images/val/e.jpg": "0 0.9 0.5 0.4 0.5\n",  # reaches beyond the edge
}
YAML = "path: .\ntrain: images/train\nval: images/val\nnames: [cat, 'no']\nnc: 2\ndownload: rm -rf /\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, text in LABELS.items():
        picture = tmp_path / name
        label = tmp_path / name.replace("images", "labels", 1).rsplit(".", 1)[0]
        picture.parent.mkdir(parents=True, exist_ok=True)
        label.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (50, 80, 3), dtype=np.uint8)).save(picture)
        if text is not None:
            label.with_suffix(".txt").write_text(text)
    (tmp_path / "labels/train/classes.txt").write_text("cat\nno\n")
    (tmp_path / "data.yaml").write_text(YAML)
    return tmp_path


def test_centres_and_outlines_become_corners(root: Path) -> None:
    data = YoloDetection(root / "data.yaml", "train", strict=True)
    assert (data.class_names, data.category_ids) == (("cat", "no"), (0, 1))
    assert data.file_names == ("images/train/a.png", "images/train/b.jpg", "images/train/deep/c.jpg")
    assert (data.image_ids, data.report.empty_pictures) == ((1, 2, 3), 1)
    image, target = data[1]
    assert (image.shape, target.original_size) == ((3, 50, 80), (50, 80))
    torch.testing.assert_close(target.boxes, torch.tensor([[0.0, 0, 80, 50], [10, 20, 30, 30]]), rtol=0, atol=1e-5)
    assert target.labels.tolist() == [1, 0]
    torch.testing.assert_close(data[2][1].boxes, torch.tensor([[8.0, 10, 24, 30]]), rtol=0, atol=1e-5)
    assert data[0][1].boxes.shape == (0, 4)
    assert data.labels_per_picture() == [set(), {0, 1}, {0}]
    truth: Any = data.ground_truth()
    assert [row["category_id"] for row in truth["annotations"]] == [1, 0, 0]
    assert truth["annotations"][0]["bbox"] == [0, 0, 80, 50]


def test_rounding_alone_is_no_defect(root: Path) -> None:
    """x 0.9166665 with width 0.166667 ends at 1.0000000; x 0.916667 with width 0.166668 at 1.000001."""
    (root / "labels/train/b.txt").write_text("0 0.916667 0.5 0.166668 1\n")
    data = YoloDetection(root / "data.yaml", "train", strict=True)
    assert data[1][1].boxes[0, 2] == 80
    assert YoloDetection(root / "data.yaml", "val").report.clipped == 1


def test_chosen_classes_and_pictures(root: Path) -> None:
    data = YoloDetection(root / "data.yaml", "train", class_names=["no"], file_names=["images/train/b.jpg"])
    assert (data.class_names, data.category_ids, data.file_names) == (("no",), (1,), ("images/train/b.jpg",))
    assert data[0][1].labels.tolist() == [0]
    assert data.report.other_classes == 1
    with pytest.raises(ValueError, match=r"has no class 'cta' \(nearest: 'cat'\)"):
        YoloDetection(root / "data.yaml", class_names=["cta"])
    with pytest.raises(ValueError, match=r"has no picture 'images/train/bb' \(nearest: 'images/train/b'\)"):
        YoloDetection(root / "data.yaml", file_names=["images/train/bb.jpg"])


def test_pictures_that_differ_in_their_ending_alone(root: Path) -> None:
    Image.new("RGB", (10, 10)).save(root / "images/train/b.png")
    for name in ("images/train/b.jpg", "images/train/b.png"):
        assert YoloDetection(root / "data.yaml", file_names=[name]).file_names == (name,)
    both = YoloDetection(root / "data.yaml", file_names=["images/train/b.png", "images/train/b.jpg"])
    assert both.file_names == ("images/train/b.jpg", "images/train/b.png")
    for name in ("images/train/b", "images/train/b.bmp"):
        several = rf"'{name}' stands for several pictures of .*data\.yaml: expected one of images/train/b\.jpg, .*png$"
        with pytest.raises(ValueError, match=several):
            YoloDetection(root / "data.yaml", file_names=["images/train/b.jpg", name])
    alone = YoloDetection(root / "data.yaml", file_names=["images/train/a.jpg", "images/train/deep/c"])
    assert alone.file_names == ("images/train/a.png", "images/train/deep/c.jpg")


def test_hidden_files_are_neither_pictures_nor_labels(root: Path) -> None:
    for name in ("images/train/._b.jpg", "labels/train/._b.txt", "labels/train/._old.txt", "images/train/.old/b.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"what macOS leaves")
    data = YoloDetection(root / "data.yaml", "train", strict=True)
    assert data.file_names == ("images/train/a.png", "images/train/b.jpg", "images/train/deep/c.jpg")


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        ("[2, 2]", "0 0.8 0.8 0.1 0.2 0.79 0.75 0.81 0.85\n"),
        ("[2, 3]", "0 0.8 0.8 0.1 0.2 0.79 0.75 2 0 0 0\n"),  # 2: to be seen, 0: not marked
        ("[1, 2]", "0 0.8 0.8 0.1 0.2 1.3 0.9\n"),  # a point beyond the picture says nothing of the box
    ],
)
def test_keypoints_behind_a_box_are_no_outline(root: Path, shape: str, line: str) -> None:
    (root / "data.yaml").write_text(f"{YAML}kpt_shape: {shape}\n")
    (root / "labels/train/b.txt").write_text(line)
    (root / "labels/train/deep/c.txt").unlink()
    image, target = YoloDetection(root / "data.yaml", "train", strict=True)[1]
    expected = torch.tensor([[0.75 * 80, 0.7 * 50, 0.85 * 80, 0.9 * 50]])
    assert image.shape == (3, 50, 80)
    torch.testing.assert_close(target.boxes, expected, rtol=0, atol=1e-4)


def test_lines_without_their_keypoints_are_counted(root: Path) -> None:
    (root / "data.yaml").write_text(f"{YAML}kpt_shape: [2, 2]\n")
    (root / "labels/train/b.txt").write_text(
        "0 0.8 0.8 0.1 0.2 0.79 0.75 0.81 0.85\n0 0.8 0.8 0.1 0.2\n0 0.8 0.8 1.1 0.2 0.79 0.75 0.81 0.85\n"
    )
    report = YoloDetection(root / "data.yaml", "train").report
    words = "2 boxes dropped: no box with keypoints, which are 8 numbers (4 numbers after the class in line 2 of"
    assert words in str(report)
    assert "1 box dropped: numbers out of 0..1 (1.1 in line 3 of" in str(report)
    assert report.boxes == 1


FORMS = [
    "train: images/train\nval: images/val\nnames: {0: cat, 1: no}\n",  # no path: the yaml's own folder
    "path: {root}\ntrain: images/train\nval: images/val\nnames:\n  1: no\n  0: cat\n",
    "path: ..\ntrain: {name}/images/train\nval: {name}/images/val\nnames: [cat, no]\n",
    "train: ../images/train\nval: ../images/val\nnames: [cat, no]\nroboflow: {license: MIT}\n",
    "train: train.txt\nval: [images/val]\nnames: [cat, no]\n",
    "train: [images/train/deep, rest.txt]\nval: {root}/images/val\nnames: [cat, no]\n",
    "train: [images/train, train.txt]\nval: images/val\nnames: [cat, no]\n",  # named twice, read once
]


@pytest.mark.parametrize("text", FORMS)
def test_the_forms_of_a_data_yaml(root: Path, text: str) -> None:
    (root / "train.txt").write_text(
        "./images/train/a.png\nimages/train/b.jpg\n\n" + str(root / "images/train/deep/c.jpg")
    )
    (root / "rest.txt").write_text("images/train/a.png\nimages/train/b.jpg\n")
    (root / "data.yaml").write_text(text.replace("{root}", str(root)).replace("{name}", root.name))
    data = YoloDetection(root / "data.yaml", "train")
    assert {Path(name).name for name in data.file_names} == {"a.png", "b.jpg", "c.jpg"}
    assert (len(data), data.report.boxes, data.class_names) == (3, 3, ("cat", "no"))
    assert YoloDetection(root / "data.yaml", "val").report.boxes == 1


def test_labels_beside_the_pictures(root: Path) -> None:
    """Where no folder is called images, as in Darknet's own sets."""
    (root / "all").mkdir()
    (root / "images/train/b.jpg").rename(root / "all/b.jpg")
    (root / "all/b.txt").write_text("1 0.5 0.5 1 1\n")
    (root / "data.yaml").write_text("train: all\nval: all\nnc: 2\n")
    data = YoloDetection(root / "data.yaml", strict=True)
    assert (data.class_names, data.report.boxes) == (("class_0", "class_1"), 1)


def label(text: str | bytes) -> Callable[[Path], Any]:
    """A change of b's label file."""
    content = text if isinstance(text, bytes) else text.encode()
    return lambda root: (root / "labels/train/b.txt").write_bytes(content)


def list_with(name: str) -> Callable[[Path], Any]:
    """Train's pictures from a list, one of which is not there."""

    def change(root: Path) -> None:
        (root / "train.txt").write_text(f"images/train/a.png\nimages/train/deep/c.jpg\n{name}\n")
        (root / "data.yaml").write_text(YAML.replace("images/train", "train.txt"))

    return change


DEFECTS = [
    (label("0 0.5 0.5 1.2 1\n"), "1 box dropped: numbers out of 0..1 (1.2 in line 1 of labels/train/b.txt)", 3, 1),
    (label("0 -0.1 0.5 0.5 1\n"), "numbers out of 0..1 (-0.1 in line 1", 3, 1),
    (label("0 40 25 80 50\n0 nan 0.5 0.5 0.5"), "2 boxes dropped: numbers out of 0..1 (40 in line 1", 3, 1),
    (label("0 0.5 0.5 0 0.5\n"), "1 box dropped: no area (line 1 of labels/train/b.txt)", 3, 1),
    (
        label("2 0.5 0.5 0.5 0.5\n"),
        "class number not in the list (2 in line 1 of labels/train/b.txt, expected 0..1)",
        3,
        1,
    ),
    (label("-1 0.5 0.5 0.5 0.5\n0.5 0.5 0.5 0.5 0.5"), "2 boxes dropped: class number not in the list (-1 in", 3, 1),
    (label("cat 0.5 0.5 0.5 0.5\n"), "1 box dropped: no numbers (line 1 of labels/train/b.txt)", 3, 1),
    (label("0 0.5 0.5 0.5\n"), "neither a box nor an outline (3 numbers after the class in line 1", 3, 1),
    (label("0 0.5 0.5 0.5 0.5 0.99\n"), "neither a box nor an outline (5 numbers after the class in line 1", 3, 1),
    (label(b"\xff\xfe\x00"), "1 picture left out: the label file is no text", 2, 1),
    (
        lambda root: (root / "images/train/b.jpg").unlink(),
        "1 label file left out: without a picture (labels/train/b.txt)",
        2,
        1,
    ),
    (lambda root: (root / "images/train/b.jpg").write_text("x"), "1 picture left out: not readable", 2, 1),
    (list_with("images/train/bb.jpg"), "1 picture left out: not in the folder (images/train/bb.jpg)", 2, 1),
]


@pytest.mark.parametrize(("spoil", "words", "pictures", "boxes"), DEFECTS)
def test_a_defect_is_counted_and_named_or_stops_the_reader(
    root: Path, spoil: Callable[[Path], Any], words: str, pictures: int, boxes: int
) -> None:
    spoil(root)
    data = YoloDetection(root / "data.yaml", "train")
    assert words in str(data.report)
    assert "\n" not in str(data.report)
    assert (len(data), data.report.boxes) == (pictures, boxes)
    assert sum(len(data[index][1].boxes) for index in range(len(data))) == boxes  # the rest can be used
    with pytest.raises(ValueError, match="strict is on: ") as caught:
        YoloDetection(root / "data.yaml", "train", strict=True)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [cat\n", "data.yaml: expected ',' or ']', but got '<stream end>', line 2"),
        ("\ttrain: x", "data.yaml: found character '\\t' that cannot start any token, line 1"),
        ("just text", "has no keys; expected train, val and names"),
        ("", "has no keys"),
        ("train: x\ntrain: y\nnames: [a]", "the key 'train' comes twice, line 1"),
        ("names: {0: a, 0: b}\ntrain: x", "the key '0' comes twice"),
        ("val: images/val\nnames: [a]", "has no pictures for 'train'; it has val"),
        ("tarin: images/train\nnames: [a]", "has no pictures for 'train'; it has none"),
        ("train: images/tarin\nnames: [a]", "names 'images/tarin', but there is neither folder nor list at"),
        ("path: elsewhere\ntrain: x\nnames: [a]", "path is 'elsewhere', but there is no folder at"),
        ("path: [a]\ntrain: x\nnames: [a]", "expected one folder"),
        ("train: {a: b}\nnames: [a]", "train is {'a': 'b'}; expected a folder, a list file, or a list of these"),
        ("train: images/train", "has neither names nor nc"),
        ("train: images/train\nnc: three\nnames: [a]", "nc is 'three'; expected the number of classes"),
        ("train: images/train\nnc: 3\nnames: [a, b]", "nc is 3, but there are 2 names"),
        ("train: images/train\nnames: {0: a, 2: b}", "names has the numbers 0, 2; expected 0 to 1"),
        ("train: images/train\nnames: [a, a]", "each once"),
        ("train: images/train\nnames: [[a]]", "expected a list of names, or a mapping"),
        ("train: images/train\nnames: cat", "expected a list of names, or a mapping"),
        ("train: images/train\nnames: [a]\nkpt_shape: 17", "kpt_shape is '17'; expected [keypoints, 2 or 3]"),
        ("train: images/train\nnames: [a]\nkpt_shape: [17]", "kpt_shape is ['17']"),
        ("train: images/train\nnames: [a]\nkpt_shape: [0, 2]", "kpt_shape is ['0', '2']"),
        ("train: images/train\nnames: [a]\nkpt_shape: [17, 4]", "kpt_shape is ['17', '4']"),
        ("train: images/train\nnames: [a]\nkpt_shape: [1.5, 2]", "kpt_shape is ['1.5', '2']"),
        ("train: images/train\nnames: [a]\nkpt_shape: [[1], 2]", "kpt_shape is [['1'], '2']"),
    ],
)
def test_a_broken_yaml_is_refused_in_one_line(root: Path, text: str, words: str) -> None:
    (root / "data.yaml").write_text(text)
    with pytest.raises((ValueError, OSError)) as caught:
        YoloDetection(root / "data.yaml", "train")
    assert words in str(caught.value)
    assert str(root / "data.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_in_a_yaml_is_run(root: Path) -> None:
    (root / "data.yaml").write_text(f"{YAML}x: !!python/object/apply:os.system ['touch {root}/ran']\n")
    try:
        read_data_yaml(root / "data.yaml")
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 - reading it or refusing it are both fine
    assert not (root / "ran").exists()


def test_a_yaml_that_would_expand_without_end(root: Path) -> None:
    levels = [f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]" for level in range(1, 30)]
    bomb = "\n".join(["l0: &l0 [ha, ha]", *levels])
    for key in ("names", "train", "path", "nc"):
        (root / "data.yaml").write_text(f"{bomb}\n{key}: *l29\n")
        with pytest.raises(ValueError, match=f"{key} is \\[") as caught:
            read_data_yaml(root / "data.yaml")
        assert len(str(caught.value)) < 300


def test_labels_in_the_wrong_place_are_no_pictures_without_objects(root: Path) -> None:
    (root / "labels").rename(root / "label")
    with pytest.raises(ValueError, match=r"none of 3 pictures in .* has a label file; .*labels/train/a\.txt"):
        YoloDetection(root / "data.yaml", "train")


def test_no_box_left_is_refused_with_the_reasons(root: Path) -> None:
    """A file in pixels, for one: there is nothing to learn, whatever strict says."""
    for name in ("b", "deep/c"):
        (root / f"labels/train/{name}.txt").write_text("0 40 25 20 10\n")
    with pytest.raises(ValueError, match=r"data\.yaml leads to no usable box: 2 boxes dropped: numbers out of 0\.\.1"):
        YoloDetection(root / "data.yaml")


def test_files_that_begin_with_a_byte_order_mark(root: Path) -> None:
    for name in ("labels/train/b.txt", "data.yaml"):
        (root / name).write_bytes(b"\xef\xbb\xbf" + (root / name).read_bytes())
    assert YoloDetection(root / "data.yaml", strict=True).report.boxes == 3


def test_missing_files(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no data\.yaml at .*dat\.yaml"):
        YoloDetection(root / "dat.yaml")
    (root / "data.yaml").write_text(YAML.replace("images/train", "empty.txt"))
    (root / "empty.txt").write_text("gone.jpg\n")
    with pytest.raises(ValueError, match=r"leads to no usable picture: 1 picture left out: not in the folder"):
        YoloDetection(root / "data.yaml")
