"""Labels are counted before a training, and what is wrong with them is said with the file and the fix."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segment.formats.camvid import CamVid
from segment.formats.check_labels import check_labels
from segment.formats.cityscapes_folders import Cityscapes
from segment.formats.mask_folder import MaskFolder

PICTURES = 5


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures of 8 x 6 pixels, with the classes 0, 1 and 2 in equal parts."""
    for number in range(PICTURES):
        save(tmp_path / "images" / f"{number}.png", np.zeros((6, 8, 3), np.uint8))
        save(tmp_path / "labels" / f"{number}.png", np.repeat(np.uint8([0, 1, 2]), 16).reshape(6, 8))
    return tmp_path


def masks(folder: Path, **options: object) -> MaskFolder:
    return MaskFolder(folder / "images", folder / "labels", **{"class_names": ("sky", "road", "car"), **options})


def relabel(folder: Path, number: int, values: object) -> Path:
    path = folder / "labels" / f"{number}.png"
    save(path, np.broadcast_to(np.uint8(values), (6, 8)).copy())
    return path


def test_counts_by_hand(folder: Path) -> None:
    relabel(folder, 3, [0] * 6 + [255, 255])
    seen: list[int] = []

    def progress(items, total):
        seen.append(total)
        yield from items

    counts = check_labels(masks(folder), progress=progress, threads=2)
    np.testing.assert_array_equal(counts.pixels, [4 * 16 + 36, 64, 64])
    np.testing.assert_array_equal(counts.pictures, [5, 4, 4])
    assert (counts.ignored, seen) == (12, [PICTURES])
    assert str(counts) == "% of the pixels: sky 41.67, road 26.67, car 26.67, ignored 5.00"


def test_a_class_that_nobody_shows_is_named(folder: Path) -> None:
    counts = check_labels(masks(folder, class_names=("sky", "road", "car", "tree", "fence")))
    assert str(counts).endswith("ignored 0.00; in no picture: tree, fence")


def test_a_value_outside_the_classes(folder: Path) -> None:
    path = relabel(folder, 3, [0, 1, 2, 3, 7, 7, 7, 0])
    message = rf"^{path} holds the value 3 \(6 pixels\); expected 0\.\.2, and 255 for what is ignored$"
    with pytest.raises(ValueError, match=message):
        check_labels(masks(folder))
    with pytest.raises(ValueError, match=message):  # also where nobody checked before
        masks(folder)[3]


def test_masks_read_as_classes(folder: Path) -> None:
    for number in range(PICTURES):
        relabel(folder, number, [0, 255] * 4)
    with pytest.raises(ValueError, match=r"0\.png and all others hold 0 and 255 only, .* kind: binary reads them$"):
        check_labels(masks(folder, class_names=("background", "person")))
    with pytest.raises(ValueError, match=r"holds the value 255 .* 0/255 masks, .* kind: binary reads the first"):
        check_labels(masks(folder, class_names=("background", "person"), ignore=()))
    counts = check_labels(masks(folder, class_names=("background", "person"), kind="binary"))
    np.testing.assert_array_equal(counts.pixels, [120, 120])


@pytest.mark.parametrize(
    ("value", "message"),
    [(1, "expected 0 and 255; are these classes? kind: index reads them"), (128, "must be cut at a threshold first")],
)
def test_classes_read_as_masks(folder: Path, value: int, message: str) -> None:
    for number in range(PICTURES):
        relabel(folder, number, [0, 255] * 4)
    path = relabel(folder, 2, [0, value] * 4)
    with pytest.raises(
        ValueError, match=rf"^{path} holds the value {value} \(24 pixels\); .*{message}".replace("?", r"\?")
    ):
        check_labels(masks(folder, class_names=("background", "person"), kind="binary"))


def test_labels_where_all_is_ignored(folder: Path) -> None:
    for number in range(PICTURES):
        relabel(folder, number, 255)
    with pytest.raises(ValueError, match=r"hold nothing but pixels to ignore; expected some of sky, road, car$"):
        check_labels(masks(folder))


def test_another_size_than_the_picture(folder: Path) -> None:
    path = folder / "labels" / "4.png"
    save(path, np.zeros((8, 6), np.uint8))
    picture = folder / "images" / "4.png"
    with pytest.raises(ValueError, match=rf"^{picture} is 8 x 6 pixels, but {path} is 6 x 8; .* turned by"):
        check_labels(masks(folder))
    with pytest.raises(ValueError, match="expected one size"):
        masks(folder)[4]


def test_colours_and_jpegs_are_no_labels(folder: Path) -> None:
    path = folder / "labels" / "1.png"
    save(path, np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8))
    with pytest.raises(
        ValueError, match=rf"^{path} is not a readable picture: colours \(RGB\); expected one value a pixel"
    ):
        check_labels(masks(folder))
    path.unlink()
    save(path.with_suffix(".jpg"), np.zeros((6, 8), np.uint8))
    with pytest.raises(ValueError, match=r"1\.jpg is not a readable picture: a JPEG, which does not keep values"):
        check_labels(masks(folder))


def test_a_damaged_label_is_named(folder: Path) -> None:
    path = folder / "labels" / "2.png"
    path.write_bytes(path.read_bytes()[:45])
    with pytest.raises(ValueError, match=rf"^{path} is not a readable picture"):
        check_labels(masks(folder))


def test_whoever_interrupts_need_not_wait_for_the_rest(folder: Path) -> None:
    for number in range(PICTURES, 400):
        for part in ("images", "labels"):
            (folder / part / f"{number}.png").symlink_to(folder / part / "1.png")
    data = masks(folder)
    read: list[int] = []
    count = data.count_values
    data.count_values = lambda index: read.append(index) or count(index)

    def interrupt(items, total):
        yield next(iter(items))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_labels(data, progress=interrupt, threads=1)
    assert 0 < len(read) < 400


@pytest.fixture
def street(tmp_path: Path) -> Path:
    start = tmp_path / "gtFine/val/bonn/bonn_000000_000019_gtFine"
    save(tmp_path / "leftImg8bit/val/bonn/bonn_000000_000019_leftImg8bit.png", np.zeros((6, 8, 3), np.uint8))
    save(Path(f"{start}_labelIds.png"), np.broadcast_to(np.uint8([7, 8, 26, 33, 0, 1, 2, 3]), (6, 8)).copy())
    save(Path(f"{start}_labelTrainIds.png"), np.broadcast_to(np.uint8([0, 1, 13, 18] + [255] * 4), (6, 8)).copy())
    return tmp_path


def test_label_ids_and_train_ids_taken_for_each_other(street: Path) -> None:
    counts = check_labels(Cityscapes(street, "val"))
    np.testing.assert_array_equal(counts.pixels.nonzero()[0], [0, 1, 13, 18])
    np.testing.assert_array_equal(check_labels(Cityscapes(street, "val", labels="labelTrainIds")).pixels, counts.pixels)
    ids = next(street.glob("gtFine/val/*/*labelIds.png"))
    train_ids = ids.with_name(ids.name.replace("labelIds", "labelTrainIds"))
    shutil.copy(ids, street / "kept.png")
    shutil.copy(train_ids, ids)
    with pytest.raises(
        ValueError, match=rf"^{ids} holds the value 255 .* label ids 0\.\.33; are these train ids\? labels: "
    ):
        check_labels(Cityscapes(street, "val"))
    shutil.copy(street / "kept.png", train_ids)
    with pytest.raises(
        ValueError, match=rf"^{train_ids} holds the value 26 .*; are these label ids\? labels: labelIds"
    ):
        check_labels(Cityscapes(street, "val", labels="labelTrainIds"))


def test_label_ids_in_a_plain_folder_of_19_classes(street: Path) -> None:
    images, labels = street / "flat_images", street / "flat_labels"
    save(images / "a.png", np.zeros((6, 8, 3), np.uint8))
    labels.mkdir()
    shutil.copy(next(street.glob("gtFine/val/*/*labelIds.png")), labels / "a.png")
    data = MaskFolder(images, labels, [str(number) for number in range(19)])
    with pytest.raises(ValueError, match=r"holds the value 26 .*Cityscapes' label ids\? The layout cityscapes reads"):
        check_labels(data)


def test_the_real_camvid_has_the_known_shares(data_dir: Path) -> None:
    """Shares in percent as counted by others for SegNet's version: classes in order, then void."""
    counts = check_labels(CamVid(data_dir / "camvid", "val"))
    shares = 100 * np.append(counts.pixels, counts.ignored) / (101 * 360 * 480)
    np.testing.assert_allclose(
        shares, [9.18, 25.96, 0.56, 28.95, 8.72, 16.34, 0.89, 3.08, 1.75, 0.65, 2.22, 1.70], atol=0.006
    )
