"""VOC's folders: what is read, what is left out and counted, what is refused, and what no xml can make us do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detect.formats.voc import VocDetection
from detect.transforms import SSDAugmentation

Box = tuple[Any, Any, Any, Any]


def obj(name: str, box: Box, difficult: Any = 0) -> str:
    corners = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return f"<object><name>{name}</name><pose>Left</pose>{flag}<bndbox>{corners}</bndbox></object>"


def xml(*objects: str, size: str = "<size><width>40</width><height>30</height><depth>3</depth></size>") -> str:
    return f"<annotation><filename>another.jpg</filename>{size}{''.join(objects)}</annotation>"


CONTENT = {
    "b": xml(
        obj("dog", (1, 1, 40, 30)),  # the whole picture
        obj("cat", (11, 6, 20, 10), difficult=1),
        obj(" red\n cat ", (5.5, 6, 20, 10.25), difficult=None),
    ),
    "a": xml(obj("cat", (38, 2, 45, 9))),  # reaches beyond the edge
    "c": xml(),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, text in CONTENT.items():
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
        pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "JPEGImages" / f"{name}.{'PNG' if name == 'a' else 'jpg'}")
    (tmp_path / "ImageSets/Main/train.txt").write_text("b\na\n\nc.jpg\n")
    (tmp_path / "ImageSets/Main/val.txt").write_text("a\n")
    return tmp_path


def test_pictures_come_in_the_order_of_the_list_and_classes_from_the_data(root: Path) -> None:
    data = VocDetection(root, "train")
    assert (data.class_names, data.category_ids) == (("cat", "dog", "red cat"), (1, 2, 3))
    assert (data.image_ids, data.file_names) == ((1, 2, 3), ("b.jpg", "a.PNG", "c.jpg"))
    image, target = data[0]
    assert (image.shape, image.dtype) == ((3, 30, 40), torch.uint8)
    expected = torch.tensor([[0, 0, 40, 30], [10, 5, 20, 10], [4.5, 5, 20, 10.25]])
    torch.testing.assert_close(target.boxes, expected, rtol=0, atol=0)
    assert target.labels.tolist() == [1, 0, 2]
    assert target.is_crowd.tolist() == [False, True, False]
    assert (target.image_id, target.original_size) == (1, (30, 40))
    assert data[2][1].boxes.shape == (0, 4)
    assert data.labels_per_picture() == [{1, 2}, {0}, set()]  # the difficult cat does not count
    assert str(data.report).startswith("3 pictures (1 without objects), 3 boxes and 1 difficult object; 1 box clipped")


def test_a_split_a_list_of_names_or_every_xml(root: Path) -> None:
    (root / "Annotations" / "._a.xml").write_bytes(b"a copy of macOS's")
    assert VocDetection(root, "val").file_names == ("a.PNG",)
    every = VocDetection(root)
    assert every.file_names == ("a.PNG", "b.jpg", "c.jpg")
    assert not any("._a" in defect for defect in every.report.defects())
    assert VocDetection(root, "train", file_names=["c.jpg", "b.jpg"]).file_names == ("b.jpg", "c.jpg")
    assert VocDetection(root, "train", transform=SSDAugmentation())[0, 3, (16, 24)][0].shape == (3, 16, 24)


def test_corners_that_count_from_0_and_folders_of_other_names(root: Path) -> None:
    (root / "all").mkdir()
    for folder in ("Annotations", "JPEGImages"):
        for path in (root / folder).iterdir():
            path.rename(root / "all" / path.name)
    data = VocDetection(root / "all", images=".", annotations=".", first_pixel=0)
    torch.testing.assert_close(data[1][1].boxes[1], torch.tensor([11.0, 6, 20, 10]), rtol=0, atol=0)


def test_the_ground_truth_for_the_metrics(root: Path) -> None:
    truth: Any = VocDetection(root, "train").ground_truth()
    assert truth["images"][1] == {"id": 2, "file_name": "a.PNG", "height": 30, "width": 40}
    assert truth["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "red cat"}]
    assert truth["annotations"][1] == {
        "image_id": 1, "category_id": 1, "bbox": [10, 5, 10, 5], "area": 50, "iscrowd": 1, "difficult": 1
    }  # fmt: skip
    assert [row["difficult"] for row in truth["annotations"]] == [0, 1, 0, 0]


def write(name: str, text: str | bytes) -> Callable[[Path], Any]:
    """A change of one xml."""
    content = text if isinstance(text, bytes) else text.encode()
    return lambda root: (root / "Annotations" / f"{name}.xml").write_bytes(content)


DEFECTS = [
    (write("b", xml(obj("cat", (1, 2, 9, 9)), size="")), "1 xml file without a size, which was read", 3, 2),
    (write("b", xml(obj("cat", (1, 2, 9, 9)), size="<size><width>0</width><height>0</height></size>")), "a size", 3, 2),
    (write("b", xml(obj("cat", (5, 5, 5, 9)), obj("cat", (9, 5, 5, 9)))), "2 boxes dropped: no area (object 1", 3, 1),
    (write("b", xml(obj("cat", (50, 5, 60, 9)))), "1 box dropped: outside the picture (object 1 in b.xml)", 3, 1),
    (write("b", xml(obj("cat", ("nan", 5, 60, 9)))), "1 box dropped: not finite", 3, 1),
    (write("b", xml(obj("cat", ("one", 5, 60, 9)))), "1 box dropped: no four numbers (object 1 in b.xml)", 3, 1),
    (write("b", xml("<object><name>cat</name></object>")), "1 box dropped: no four numbers", 3, 1),
    (write("b", xml(obj("cta", (1, 2, 9, 9)), obj("cta", (1, 2, 9, 9)))),
     "2 boxes dropped: name not in the class list ('cta' (nearest: 'cat') 2 times, first in b.xml)", 3, 1),
    (write("b", xml(obj("CAT", (1, 2, 9, 9)))), "name not in the class list ('CAT' (nearest: 'cat') 1 times", 3, 1),
    (write("b", xml(obj("", (1, 2, 9, 9)))), "name not in the class list (no name 1 times, first in b.xml)", 3, 1),
    (write("b", xml(obj("cat", (1, 2, 9, 9), "maybe"))), "1 difficult flag besides 0 and 1", 3, 2),
    (write("b", "<annotation><size>"), "1 picture left out: broken xml (b.xml: no element found", 2, 1),
    (write("b", b""), "1 picture left out: broken xml (b.xml: no element found", 2, 1),
    (write("b", b"\xff\xfe\x00\x01"), "1 picture left out: broken xml (b.xml: ", 2, 1),
    (write("b", '<?xml version="1.0" encoding="klingon"?><annotation/>'), "broken xml (b.xml: unknown encoding", 2, 1),
    (write("b", "<html></html>"), "broken xml (b.xml: the root is <html>, expected <annotation>)", 2, 1),
    (write("b", xml(size="<size><width>30</width><height>40</height></size>")),
     "1 picture left out: of another size than the xml says (b.jpg is 40 x 30, its xml says 30 x 40)", 2, 1),
    (lambda root: (root / "JPEGImages/b.jpg").unlink(), "1 picture left out: not in the folder (b)", 2, 1),
    (lambda root: (root / "Annotations/b.xml").unlink(), "1 picture left out: without xml (b.jpg)", 2, 1),
    (lambda root: (root / "JPEGImages/b.jpg").write_text("no picture"), "left out: not readable (", 2, 1),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "words", "pictures", "boxes"), DEFECTS)
def test_a_defect_is_counted_and_named_or_stops_the_reader(
    root: Path, spoil: Callable[[Path], Any], words: str, pictures: int, boxes: int
) -> None:
    write("a", xml(obj("cat", (3, 2, 9, 9))))(root)
    assert VocDetection(root, "train", class_names=["cat", "dog", "red cat"], strict=True).report.boxes == 3
    spoil(root)
    data = VocDetection(root, "train", class_names=["cat", "dog", "red cat"])
    assert words in str(data.report)
    assert "\n" not in str(data.report)
    assert (len(data), data.report.boxes) == (pictures, boxes)
    assert sum(len(data[index][1].boxes) for index in range(len(data))) == boxes  # the rest can be used
    with pytest.raises(ValueError, match="strict is on: ") as caught:
        VocDetection(root, "train", class_names=["cat", "dog", "red cat"], strict=True)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rare_name_much_like_a_frequent_one_is_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    box = (1, 2, 9, 9)
    write("a", xml(*[obj("RBC", box)] * 40, *[obj("WBC", box)] * 4, *[obj("cup", box)] * 2))(root)
    write("b", xml(obj("RCB", box), obj("owl", box)))(root)
    data = VocDetection(root, "train", strict=True)
    assert data.class_names == ("RBC", "RCB", "WBC", "cup", "owl")
    (said,) = caplog.messages
    assert said.endswith("own: 'RCB' 1 times (nearest: 'RBC'); data.class_names chooses which count")
    VocDetection(root, "train", class_names=["RBC", "RCB", "WBC"])
    assert len(caplog.messages) == 1


def test_no_more_than_three_examples_of_a_defect(root: Path) -> None:
    write("b", xml(*[obj("cat", (5, 5, 5, 5))] * 7))(root)
    text = str(VocDetection(root, "train").report)
    assert "7 boxes dropped: no area (object 1 in b.xml, object 2 in b.xml, object 3 in b.xml, ...)" in text


def test_entities_are_neither_expanded_nor_fetched(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("swordfish")
    laughs = "".join(f"<!ENTITY l{level} '{f'&l{level - 1};' * 10}'>" for level in range(1, 10))
    write("b", f"<!DOCTYPE a [<!ENTITY l0 'ha'>{laughs}]>{xml(obj('&l9;', (1, 2, 9, 9)))}")(root)
    write("c", f"<!DOCTYPE a [<!ENTITY x SYSTEM '{secret.as_uri()}'>]>{xml(obj('&x;', (1, 2, 9, 9)))}")(root)
    data = VocDetection(root, "train")
    assert (data.file_names, data.class_names) == (("a.PNG",), ("cat",))
    assert "2 pictures left out: broken xml (b.xml: a document type" in str(data.report)
    assert "swordfish" not in str(data.report)
    write("b", xml(obj("&x;", (1, 2, 9, 9))))(root)
    assert "b.xml: undefined entity" in str(VocDetection(root, "train").report)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "trian"}, "no list of pictures at "),
        ({"split": "trian"}, "trian.txt (nearest: 'train')"),
        ({"split": "train", "annotations": "xml"}, "no folder of xml files at "),
        ({"split": "train", "images": "pictures"}, "no folder of pictures at "),
        ({"split": "train", "class_names": []}, "the class names are none"),
        ({"split": "train", "class_names": ["cat", "cat"]}, "each once"),
        ({"split": "train", "file_names": ["bb.jpg"]}, "has no picture 'bb' (nearest: 'b')"),
        ({"split": "train", "file_names": []}, "expected at least one"),
        ({"split": "train", "first_pixel": 2}, "first_pixel is 2; expected 0 or 1"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(root: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, OSError)) as caught:
        VocDetection(root, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_left_is_refused_with_the_reasons(root: Path) -> None:
    for path in (root / "Annotations").iterdir():
        path.write_text("<annotation>")
    with pytest.raises(ValueError, match=r"train\.txt leads to no usable picture: 3 pictures left out: broken xml"):
        VocDetection(root, "train")
    for name in "abc":
        write(name, xml())(root)
    with pytest.raises(ValueError, match="no object with a name"):
        VocDetection(root, "train")
    assert VocDetection(root, "train", class_names=["cat"]).report.empty_pictures == 3
    write("a", xml(obj("cat", (1, 2, 9, 9))))(root)
    with pytest.raises(ValueError, match=r"train\.txt leads to no usable box: 1 box dropped: name not in the class"):
        VocDetection(root, "train", class_names=["dog"])


@pytest.mark.parametrize(
    ("split", "counts"), [("train", (205, 2804, 1)), ("val", (87, 1137, 1)), ("test", (72, 945, 0))]
)
def test_the_real_blood_cells(data_dir: Path, split: str, counts: tuple[int, int, int]) -> None:
    data = VocDetection(data_dir / "bccd", split)
    assert (len(data), data.report.boxes, data.report.dropped["no area"]) == counts
    assert data.class_names == ("Platelets", "RBC", "WBC")
    assert data.report.clipped == 0
    if split == "val":
        assert "no area (object 13 in BloodImage_00338.xml)" in str(data.report)
