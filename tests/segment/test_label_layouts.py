"""Cityscapes, CamVid and folders of masks: which files belong together, and what their values mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pictures.splits import read_split
from segment.formats.camvid import CLASS_COLOURS, CLASS_NAMES, CamVid
from segment.formats.cityscapes import CLASS_NAMES as CITYSCAPES_NAMES
from segment.formats.cityscapes import CLASSES, LABELS, to_label_ids
from segment.formats.cityscapes_folders import Cityscapes
from segment.formats.labelled_pictures import collate
from segment.formats.mask_folder import MaskFolder

SIZE = (4, 6)  # (height, width)


def write(path: Path, values: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def filled(value: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full(size, value, np.uint8)


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """Three frames of two cities; the label ids of the first one are 0..23 in order, its train ids are not there."""
    for number, name in enumerate(
        ["bonn/bonn_000000_000019", "bonn/bonn_000001_000019", "aachen/aachen_000000_000019"]
    ):
        write(tmp_path / "leftImg8bit" / "val" / f"{name}_leftImg8bit.png", picture(number))
        ids = np.arange(24, dtype=np.uint8).reshape(SIZE) + (10 if number == 1 else 0)
        write(tmp_path / "gtFine" / "val" / f"{name}_gtFine_labelIds.png", ids)
    return tmp_path


def test_cityscapes_turns_label_ids_into_classes(cityscapes: Path) -> None:
    data = Cityscapes(cityscapes, "val")
    assert data.file_names[0] == "aachen/aachen_000000_000019_leftImg8bit.png"
    assert data.class_names == CITYSCAPES_NAMES
    image, labels = data[1]
    torch.testing.assert_close(image, torch.from_numpy(picture(0).transpose(2, 0, 1).copy()))
    # By hand: ids 0..6 are void; road 0, sidewalk 1; parking, rail track void; building 2, wall 3, fence 4; guard rail,
    # bridge, tunnel void; pole 5; polegroup void; light 6, sign 7, vegetation 8, terrain 9, sky 10.
    expected = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10]
    assert labels.flatten().tolist() == expected
    # Ids 24..33: person 11, rider, car, truck, bus 15; caravan, trailer void; train 16, motorcycle 17, bicycle 18.
    assert data[2][1].flatten().tolist() == [*expected[10:], 11, 12, 13, 14, 15, 255, 255, 16, 17, 18]
    assert data.label_paths[1] == cityscapes / "gtFine/val/bonn/bonn_000000_000019_gtFine_labelIds.png"
    assert data.instance_path(1) == cityscapes / "gtFine/val/bonn/bonn_000000_000019_gtFine_instanceIds.png"


def test_cityscapes_train_ids_are_classes_already(cityscapes: Path) -> None:
    labels = np.array([*range(19), 255, 255, 255, 0, 0], np.uint8).reshape(SIZE)
    for path in cityscapes.glob("gtFine/val/*/*_labelIds.png"):
        write(path.with_name(path.name.replace("labelIds", "labelTrainIds")), labels)
    data = Cityscapes(cityscapes, "val", labels="labelTrainIds")
    torch.testing.assert_close(data[0][1], torch.from_numpy(labels))


def test_cityscapes_cities_and_lists_choose(cityscapes: Path) -> None:
    (cityscapes / "leftImg8bit" / "val" / "bonn" / "._bonn_000000_000019_leftImg8bit.png").write_bytes(b"no picture")
    assert len(Cityscapes(cityscapes, "val", cities=["bonn"])) == 2
    name = "bonn/bonn_000001_000019_leftImg8bit.png"
    assert Cityscapes(cityscapes, "val", file_names=[name]).file_names == (name,)
    with pytest.raises(ValueError, match=r"no city 'bon' \(nearest: 'bonn'\): it has aachen, bonn"):
        Cityscapes(cityscapes, "val", cities=["bon"])
    with pytest.raises(ValueError, match=r"no picture 'bonn/bonn_000001_000018_leftImg8bit.png' \(nearest: "):
        Cityscapes(cityscapes, "val", file_names=[name.replace("19", "18")])


def test_cityscapes_without_a_part(cityscapes: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no folder at .*leftImg8bit/train; expected leftImg8bit and gtFine in"
    ):
        Cityscapes(cityscapes, "train")
    with pytest.raises(ValueError, match=r"labels is 'trainIds' \(nearest: 'labelTrainIds'\)"):
        Cityscapes(cityscapes, "val", labels="trainIds")
    with pytest.raises(
        FileNotFoundError, match=r"3 of 3 pictures .*aachen_.*_labelTrainIds.png; labels: labelIds reads"
    ):
        Cityscapes(cityscapes, "val", labels="labelTrainIds")
    first = next(cityscapes.glob("gtFine/val/aachen/*_labelIds.png"))
    first.unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of 3 pictures in .* have no label, first {first}$"):
        Cityscapes(cityscapes, "val")


def test_train_ids_go_back_to_label_ids() -> None:
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]  # the data set's own list
    labels = np.array([[*range(19), 255]], np.uint8)
    np.testing.assert_array_equal(to_label_ids(labels), [[*ids, 0]])
    assert [label.id for label in CLASSES] == ids
    assert len(LABELS) == 34
    with pytest.raises(ValueError, match=r"hold 19; expected classes 0..18, or 255"):
        to_label_ids(np.array([19], np.uint8))


@pytest.mark.parametrize(("images", "labels"), [("train/images", "train/labels"), ("train", "trainannot")])
def test_camvid_in_both_layouts(tmp_path: Path, images: str, labels: str) -> None:
    write(tmp_path / images / "0001TP_006690.png", picture())
    write(tmp_path / labels / "0001TP_006690.png", np.arange(24, dtype=np.uint8).reshape(SIZE) % 12)
    data = CamVid(tmp_path, "train")
    assert data[0][1].flatten().tolist() == [*range(11), 255] * 2
    assert (data.class_names, data.colours) == (CLASS_NAMES, CLASS_COLOURS)
    with pytest.raises(
        FileNotFoundError, match=r"no CamVid at .*: expected the folders val/images and val/labels, or val"
    ):
        CamVid(tmp_path, "val")


def test_a_folder_of_index_pictures_with_a_palette(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)
    palette = Image.frombytes("P", (3, 2), values.tobytes())
    palette.putpalette([200, 10, 10] * 256)  # the colours say nothing
    write(tmp_path / "images" / "town" / "a.png", picture(size=(2, 3)))
    (tmp_path / "labels" / "town").mkdir(parents=True)
    palette.save(tmp_path / "labels" / "town" / "a_label.png")
    data = MaskFolder(tmp_path / "images", tmp_path / "labels", ["a", "b", "c"], label_suffix="_label")
    assert data.file_names == ("town/a.png",)
    assert data[0][1].tolist() == values.tolist()
    assert (data[0][0].dtype, data[0][1].dtype) == (torch.uint8, torch.uint8)


def test_a_folder_of_masks(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.jpg", picture())
    mask = filled(0)
    mask[1:3, 2:] = 255
    write(tmp_path / "masks" / "a.png", np.repeat(mask[:, :, None], 3, axis=2))  # grey, saved as RGB
    data = MaskFolder(tmp_path / "images", tmp_path / "masks", ["background", "person"], kind="binary")
    assert data[0][1].tolist() == (mask // 255).tolist()


def test_a_list_chooses_from_a_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "images" / f"{name}.png", picture())
    write(tmp_path / "labels" / "b.png", filled(1))
    (tmp_path / "list.txt").write_text("b.png\n")
    names = read_split(tmp_path / "list.txt")
    data = MaskFolder(tmp_path / "images", tmp_path / "labels", ["x", "y"], file_names=names)
    assert data.file_names == ("b.png",)
    with pytest.raises(ValueError, match=r"has no picture 'b.jpg' \(nearest: 'b.png'\)"):
        MaskFolder(tmp_path / "images", tmp_path / "labels", ["x", "y"], file_names=["b.jpg"])


def test_pairs_that_are_none(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    with pytest.raises(FileNotFoundError, match=r"no folder at .*images"):
        MaskFolder(images, labels, ["x"])
    images.mkdir()
    labels.mkdir()
    with pytest.raises(ValueError, match="holds no picture, or none was asked for"):
        MaskFolder(images, labels, ["x"])
    write(images / "a.png", picture())
    expected = rf"1 of 1 pictures in {images} have no label, first a.png: expected {labels / 'a.png'}$"
    with pytest.raises(FileNotFoundError, match=expected):
        MaskFolder(images, labels, ["x"])
    write(labels / "a.png", filled(0))
    write(labels / "b.png", filled(0))
    with pytest.raises(ValueError, match=rf"1 labels have no picture in {images}, first {labels / 'b.png'}"):
        MaskFolder(images, labels, ["x"])
    write(labels / "a.bmp", filled(0))
    with pytest.raises(ValueError, match=r"holds a.bmp, a.png; expected one file for each name"):
        MaskFolder(images, labels, ["x"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "indices"}, r"kind is 'indices' \(nearest: 'index'\)"),
        ({"kind": "binary", "class_names": ["a", "b", "c"]}, "two classes, but there are 3 names"),
        ({"class_names": []}, "expected one or more names"),
        ({"class_names": ["a", "a"]}, "each once"),
        ({"class_names": [str(number) for number in range(256)]}, "256 classes; expected 1 to 255"),
        ({"ignore": [1]}, "the value 1 is to be ignored; expected values from 2 to 255"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: dict[str, object], message: str) -> None:
    write(tmp_path / "images" / "a.png", picture())
    write(tmp_path / "labels" / "a.png", filled(0))
    with pytest.raises(ValueError, match=message):
        MaskFolder(tmp_path / "images", tmp_path / "labels", **{"class_names": ["a", "b"], **options})


def test_a_batch_needs_one_size(tmp_path: Path) -> None:
    for name, size in (("a", SIZE), ("b", SIZE), ("c", (5, 6))):
        write(tmp_path / "images" / f"{name}.png", picture(size=size))
        write(tmp_path / "labels" / f"{name}.png", filled(1, size))
    data = MaskFolder(tmp_path / "images", tmp_path / "labels", ["x", "y"])
    images, labels = collate([data[0], data[1]])
    assert (images.shape, labels.shape, labels.dtype) == ((2, 3, *SIZE), (2, *SIZE), torch.uint8)
    with pytest.raises(ValueError, match=r"one size, got \[\(4, 6\), \(5, 6\)\]"):
        collate([data[0], data[2]])
    with pytest.raises(ValueError, match="has no transform"):
        data[0, 1, (8, 8)]
    with pytest.raises(IndexError):
        data[3]


def test_the_real_camvid(data_dir: Path) -> None:
    data = CamVid(data_dir / "camvid", "val")
    assert (len(data), str(data.report)) == (101, "101 pictures")
    image, labels = data[0]
    assert (image.shape, labels.shape) == ((3, 360, 480), (360, 480))
    assert set(labels.unique().tolist()) <= {*range(11), 255}
