"""Folders of class folders: what is read, what is left out and said, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from swiftsight_tools.training.class_folders import ClassFolders, collate
from swiftsight_tools.training.crops import CropAugmentation, MiddleCrop

WHOLE = MiddleCrop((8, 8), 1.0)


def save(path: Path, value: int = 100, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cats, one of them deeper down, and one dog."""
    save(tmp_path / "cat" / "b.png", 10)
    save(tmp_path / "cat" / "deep" / "A.JPG", 20)
    save(tmp_path / "dog" / "1.png", 30)
    return tmp_path


def test_classes_are_the_folders_in_order(folder: Path) -> None:
    data = ClassFolders(folder, WHOLE)
    assert data.class_names == ("cat", "dog")
    assert data.file_names == ["cat/b.png", "cat/deep/A.JPG", "dog/1.png"]
    assert data.labels.tolist() == [0, 0, 1]
    assert str(data.report) == "3 pictures of 2 classes"
    images, labels = collate([data[index] for index in range(3)])
    assert (images.shape, images.dtype) == ((3, 3, 8, 8), torch.uint8)
    assert labels.tolist() == [0, 0, 1]
    assert images[:, 0, 0, 0].tolist() == [10, 20, 30]


def test_what_is_left_out_is_counted_by_reason(folder: Path) -> None:
    (folder / "bird").mkdir()
    (folder / "cat" / "notes.txt").write_text("not a picture")
    (folder / "cat" / ".hidden.png").write_text("passed over")
    (folder / "dog" / "torn.png").write_bytes((folder / "dog" / "1.png").read_bytes()[:40])
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(folder / "dog" / "t.jpg")
    whole = (folder / "dog" / "t.jpg").read_bytes()
    (folder / "dog" / "t.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "dog" / "text.jpg").write_text("no picture")
    for number in range(4):
        (folder / "fish" / f"{number}.png").parent.mkdir(exist_ok=True)
        (folder / "fish" / f"{number}.png").write_bytes(b"")
    data = ClassFolders(folder, WHOLE, check=True)
    assert data.class_names == ("cat", "dog")
    assert str(data.report) == (
        "3 pictures of 2 classes"
        "; left out: 2 classes without pictures (bird, fish)"
        "; left out: 1 files that are no pictures by their ending (cat/notes.txt)"
        "; left out: 7 pictures that cannot be read (dog/t.jpg, dog/text.jpg, dog/torn.png, ...)"
    )


@pytest.mark.parametrize("name", ["large.png", "large.jpg"])
def test_a_picture_of_too_many_pixels_is_left_out(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow has an error of its own for what may be meant to fill the memory."""
    save(folder / "dog" / name, size=(80, 80))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    report = str(ClassFolders(folder, WHOLE, check=True).report)
    assert report == f"3 pictures of 2 classes; left out: 1 pictures that cannot be read (dog/{name})"


def test_without_the_check_a_damaged_picture_is_named_when_it_is_met(folder: Path) -> None:
    (folder / "dog" / "torn.png").write_text("no picture")
    data = ClassFolders(folder, WHOLE)
    assert len(data) == 4
    with pytest.raises(ValueError, match=r"torn\.png is not a readable picture.*data\.check_pictures: true"):
        data[3]


def test_the_nets_classes_rule_a_second_part(folder: Path) -> None:
    data = ClassFolders(folder, WHOLE, class_names=("ape", "dog"))
    assert data.class_names == ("ape", "dog")
    assert (data.file_names, data.labels.tolist()) == (["dog/1.png"], [1])
    assert "1 class folders that the net has no class for (cat)" in str(data.report)
    with pytest.raises(ValueError, match=r"no class folder with pictures for this net.*\(cat, dog\)"):
        ClassFolders(folder, WHOLE, class_names=("ape", "bee"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["1.png", "2.png"], "has no folders in it; expected a folder for each class"),
        (["train/cat/1.png", "val/cat/1.png"], "holds train/ and val/"),
        (["cat/1.png"], "pictures of one class only, 'cat'; expected two or more"),
        (["cat/1.txt", "dog/1.txt"], "no class folder with pictures for this net.*2 files that are no pictures"),
    ],
)
def test_what_is_no_folder_of_class_folders(tmp_path: Path, files: list[str], message: str) -> None:
    for file in files:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    with pytest.raises(ValueError, match=message):
        ClassFolders(tmp_path, WHOLE)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder of class folders at"):
        ClassFolders(tmp_path / "nowhere", WHOLE)


def test_a_request_alone_decides_what_is_drawn(folder: Path) -> None:
    """The same request gives the same bytes, another seed others; an index alone is refused by what is random."""
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(picture).save(folder / "cat" / "b.png")
    data = ClassFolders(folder, CropAugmentation())
    first, again, other = (data[0, seed, (16, 24)][0] for seed in (1, 1, 2))
    assert first.shape == (3, 16, 24)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    with pytest.raises(ValueError, match="needs a seed"):
        data[0]
