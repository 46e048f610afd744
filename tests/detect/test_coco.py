"""COCO json: what is read, what is repaired and counted, what is refused, and that a request says everything."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from detect.formats.boxed_pictures import collate
from detect.formats.coco import CocoDetection
from detect.transforms import Resize, SSDAugmentation, Transform, Transformed
from pictures.report import counted
from pictures.splits import read_split

Json = dict[str, Any]


def annotation(number: int, image_id: int, category_id: int, bbox: list[Any], **more: Any) -> Json:
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": bbox, "iscrowd": 0, **more}


CONTENT: Json = {
    "images": [
        {"id": 42, "file_name": "b.png", "width": 40, "height": 30},
        {"id": 7, "file_name": "a.png", "width": 20, "height": 50},
        {"id": 9, "file_name": "deep/c.png", "width": 10, "height": 10},
    ],
    "categories": [{"id": 90, "name": "cup"}, {"id": 1, "name": "cat"}, {"id": 18, "name": "dog"}],
    "annotations": [
        annotation(1, 7, 90, [1, 2, 3, 4]),
        annotation(2, 42, 1, [-5, 20.5, 15, 30]),  # reaches beyond two edges
        annotation(3, 42, 18, [0, 0, 40, 30], iscrowd=1, segmentation={"size": [30, 40], "counts": "nonsense"}),
        annotation(4, 42, 1, [5, 5, 0, 10]),
        annotation(5, 42, 1, [5, 5, 4, -2]),
        annotation(6, 42, 1, [40, 3, 5, 5]),  # begins where the picture ends
        annotation(7, 42, 1, [float("nan"), 3, 5, 5]),
        annotation(8, 42, 1, [1, 3, float("inf"), 5]),
        annotation(9, 42, 1, [1, 3, 10**400, 5]),
        annotation(10, 42, 90, [30, 10, 10, 20]),  # touches two edges and needs no repair
        annotation(11, 7, 1, [-9, 0, 9, 5]),  # ends where the picture begins
        annotation(12, 7, 1, [19.9999999999, 0, 5, 5]),  # what is left has no width in float32
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images/deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for entry in CONTENT["images"]:
        pixels = rng.integers(0, 256, (entry["height"], entry["width"], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / entry["file_name"])
    return tmp_path


def write(folder: Path, content: Any) -> Path:
    path = folder / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def opened(folder: Path, **options: Any) -> CocoDetection:
    return CocoDetection(write(folder, CONTENT), folder / "images", **options)


def test_ids_become_classes_in_order_and_boxes_become_corners(folder: Path) -> None:
    data = opened(folder)
    assert data.class_names == ("cat", "dog", "cup")
    assert data.category_ids == (1, 18, 90)
    assert (data.image_ids, data.file_names) == ((42, 7, 9), ("b.png", "a.png", "deep/c.png"))
    image, target = data[0]
    assert (image.shape, image.dtype) == ((3, 30, 40), torch.uint8)
    expected = torch.tensor([[0, 20.5, 10, 30], [0, 0, 40, 30], [30, 10, 40, 30]])
    torch.testing.assert_close(target.boxes, expected, rtol=0, atol=0)
    assert target.labels.tolist() == [0, 1, 2]
    assert target.is_crowd.tolist() == [False, True, False]
    assert (target.image_id, target.original_size) == (42, (30, 40))
    assert (target.boxes.dtype, target.labels.dtype, target.is_crowd.dtype) == (torch.float32, torch.int64, torch.bool)


def test_pixels_are_rgb_in_place(folder: Path) -> None:
    image, _ = opened(folder)[1]
    with Image.open(folder / "images/a.png") as stored:
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(stored))


def test_pictures_without_objects_stay(folder: Path) -> None:
    _, target = opened(folder)[2]
    assert target.boxes.shape == (0, 4)
    assert target.labels.shape == target.is_crowd.shape == (0,)
    assert target.original_size == (10, 10)


def test_the_report_counts_and_says_why_and_where(folder: Path) -> None:
    report = opened(folder).report
    assert (report.pictures, report.empty_pictures, report.boxes, report.crowds) == (3, 1, 3, 1)
    assert report.clipped == 1
    assert report.dropped == {"no area": 3, "outside the picture": 2, "not finite": 3}
    text = str(report)
    assert "\n" not in text
    assert "3 pictures (1 without objects), 3 boxes and 1 crowd region" in text
    assert "3 boxes dropped: not finite (annotation 7 in b.png" in text
    assert "1 box clipped" in text


def test_one_is_no_plural() -> None:
    nouns = ("boxes", "pictures", "label files left out: without a picture", "class folders", "epochs", "batches")
    assert [counted(1, noun) for noun in nouns] == [
        "1 box", "1 picture", "1 label file left out: without a picture", "1 class folder", "1 epoch", "1 batch",
    ]  # fmt: skip
    assert [counted(number, "boxes") for number in (0, 2)] == ["0 boxes", "2 boxes"]


def test_strict_stops_at_what_would_be_dropped(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"instances\.json has defects, and strict is on: 1 box clipped") as caught:
        opened(folder, strict=True)
    assert "3 boxes dropped: not finite (annotation 7 in b.png" in str(caught.value)
    assert opened(folder, strict=True, file_names=["deep/c.png"]).report.defects() == []


def test_parts_of_the_picture_where_pixels_are_expected_are_a_defect(folder: Path) -> None:
    rows = [annotation(number, 42, 1, [0.125 * number, 0.25, 0.5, 0.5]) for number in range(4)]
    pixels = [annotation(number, 42, 1, [1, 1, number, 20]) for number in range(4, 7)]
    said = "within 0..1, most likely parts of the picture; COCO has pixels (annotation 0 in b.png)"
    for kept, options in ((rows, {}), ([*rows * 7, pixels[0]], {"class_names": ["cat"]})):
        data = CocoDetection(write(folder, {**CONTENT, "annotations": kept}), folder / "images", **options)
        assert f"{4 * (len(kept) // 4)} boxes {said}" in str(data.report)
    with pytest.raises(ValueError, match=r"strict is on: 28 boxes within 0\.\.1"):
        CocoDetection(folder / "instances.json", folder / "images", strict=True)
    for others in ([*rows, *pixels], pixels, []):
        data = CocoDetection(write(folder, {**CONTENT, "annotations": others}), folder / "images")
        assert data.report.defects() == []


def test_the_classes_of_each_picture(folder: Path) -> None:
    """The crowd of dogs does not count."""
    assert opened(folder).labels_per_picture() == [{0, 2}, {2}, set()]
    assert opened(folder).ground_truth() == folder / "instances.json"


def test_chosen_classes_in_the_order_asked(folder: Path) -> None:
    data = opened(folder, class_names=["cup", "cat"])
    assert data.class_names == ("cup", "cat")
    assert data.category_ids == (90, 1)
    assert data[0][1].labels.tolist() == [1, 0]
    assert data.report.other_classes == 1
    assert "1 box of other classes not read" in str(data.report)


def test_chosen_pictures_keep_the_order_of_the_file(folder: Path) -> None:
    (folder / "images/a.png").unlink()  # not asked for, so not missed
    data = opened(folder, file_names=iter(["deep/c.png", "b.png"]))
    assert data.file_names == ("b.png", "deep/c.png")
    assert data[1][1].image_id == 9
    assert data.report.boxes == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_names": ["cat", "dogg"]}, "no category 'dogg' (nearest: 'dog')"),
        ({"class_names": []}, "one or more names"),
        ({"class_names": ["cat", "cat"]}, "each once"),
        ({"file_names": ["deep/d.png", "b.png"]}, "no picture 'deep/d.png' (nearest: 'deep/c.png')"),
        ({"file_names": []}, "at least one"),
    ],
)
def test_what_the_file_does_not_have_is_refused(folder: Path, options: Json, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words follow
        opened(folder, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def changed(change: Callable[[Json], Any]) -> Json:
    content = copy.deepcopy(CONTENT)
    change(content)
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not json at all", "is no json"),
        ("", "is no json"),
        ("[" * 100_000, "is no json"),
        ([], "holds a list, expected an object"),
        (changed(lambda c: c.pop("images")), "'images' is missing"),
        (changed(lambda c: c.update(annotations={})), "'annotations' is a dict, expected a list"),
        (changed(lambda c: c.update(categories=None)), "'categories' is a NoneType, expected a list"),
        (changed(lambda c: c.update(categories=[])), "no categories"),
        (changed(lambda c: c.update(images=[])), "no pictures"),
        (changed(lambda c: c["images"][0].pop("width")), "expected id, file_name, width and height"),
        (changed(lambda c: c["images"].append("x" * 5000)), "expected id, file_name, width and height"),
        (changed(lambda c: c["images"][0].update(height=0)), "is 40 x 0 pixels"),
        (changed(lambda c: c["images"][0].update(id=7)), "two images with the id 7"),
        (changed(lambda c: c["categories"][0].update(id=18)), "two categories with the id 18"),
        (changed(lambda c: c["categories"][0].update(name="dog")), "or the name 'dog'"),
        (changed(lambda c: c["categories"][0].update(name=3)), "a whole id and a name"),
        (changed(lambda c: c["annotations"][0].update(image_id=8)), "annotation 0 of"),
        (changed(lambda c: c["annotations"][0].update(image_id=[7])), "not among the file's images"),
        (changed(lambda c: c["annotations"][2].update(category_id=2)), "annotation 2 of"),
        (changed(lambda c: c["annotations"][2].pop("category_id")), "not among the file's categories"),
        (changed(lambda c: c["annotations"][0].pop("bbox")), "expected [x, y, width, height]"),
        (changed(lambda c: c["annotations"][0].update(bbox=[1, 2, "3", 4])), "expected [x, y, width, height]"),
        (changed(lambda c: c["annotations"][0].update(bbox=[1, 2, 3])), "expected [x, y, width, height]"),
        (changed(lambda c: c["annotations"][0].update(iscrowd="0")), "expected 0 or 1"),
        (changed(lambda c: c["annotations"].append(5)), "expected an object with image_id"),
    ],
)
def test_what_is_no_coco_is_refused_in_one_line(folder: Path, content: Any, words: str) -> None:
    path = write(folder, content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words follow
        CocoDetection(path, folder / "images")
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_bytes_that_are_no_text_are_no_json(folder: Path) -> None:
    path = folder / "instances.json"
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match="is no json"):
        CocoDetection(path, folder / "images")


def test_missing_files_are_found_at_once(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no annotation file at"):
        CocoDetection(folder / "missing.json", folder / "images")
    with pytest.raises(FileNotFoundError, match="no folder of pictures at"):
        CocoDetection(write(folder, CONTENT), folder / "imagse")
    (folder / "images/a.png").unlink()
    (folder / "images/deep/c.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 3 pictures .* first 'a\.png'"):
        opened(folder)


def test_a_damaged_picture_is_named_when_it_is_read(folder: Path) -> None:
    data = opened(folder)
    path = folder / "images/b.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"b\.png is not a readable picture"):
        data[0]
    assert data[1][0].shape == (3, 50, 20)


def test_a_picture_of_another_size_than_the_json_says(folder: Path) -> None:
    data = opened(folder, cache=True)
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(folder / "images/b.png")
    with pytest.raises(ValueError, match=r"b\.png is 30 x 40 pixels, but .* says 40 x 30; .* EXIF rotation"):
        data[0]
    Image.fromarray(np.zeros((31, 40, 3), np.uint8)).save(folder / "images/b.png")
    with pytest.raises(ValueError, match=r"b\.png is 40 x 31 pixels, but .* says 40 x 30$"):
        data[0]


def test_requests(folder: Path) -> None:
    plain = opened(folder)
    assert plain[0, 5, (64, 32)][0].shape == (3, 64, 32)
    torch.testing.assert_close(plain[-1][0], plain[2][0], rtol=0, atol=0)
    torch.testing.assert_close(plain[np.int64(1)][0], plain[1][0], rtol=0, atol=0)  # type: ignore[index]
    with pytest.raises(IndexError):
        plain[3]
    assert len(list(plain)) == len(plain) == 3
    assert opened(folder, transform=Resize((32, 64)))[1][0].shape == (3, 32, 64)
    with pytest.raises(ValueError, match=r"\(index, seed, size\)"):
        opened(folder, transform=SSDAugmentation())[0]


def test_labels_and_crowds_stay_with_their_boxes(folder: Path) -> None:
    """The picture's three boxes have three classes, and only the second is a crowd."""
    data = opened(folder, transform=SSDAugmentation())
    dropped = 0
    for seed in range(60):
        _, target = data[0, seed, (96, 128)]
        assert [label == 1 for label in target.labels.tolist()] == target.is_crowd.tolist()
        assert len(target.boxes) == len(target.labels) == len(target.is_crowd)
        dropped += len(target.boxes) < 3
    assert dropped > 5


def test_collate_stacks_one_size_only(folder: Path) -> None:
    data = opened(folder, transform=Resize((16, 24)))
    images, targets = collate([data[0], data[2]])
    assert (images.shape, images.dtype) == ((2, 3, 16, 24), torch.uint8)
    assert [target.image_id for target in targets] == [42, 9]
    assert [target.original_size for target in targets] == [(30, 40), (10, 10)]  # not the network's
    with pytest.raises(ValueError, match=r"\(16, 24\), \(32, 32\)"):
        collate([data[0], data[1, 0, (32, 32)]])


class Nothing:
    """A transform that gives back what it was given, not a copy."""

    is_random = False

    def __call__(self, image: np.ndarray, boxes: np.ndarray, is_crowd: np.ndarray, **_: Any) -> Transformed:
        return Transformed(image, boxes, np.arange(len(boxes)))


@pytest.mark.parametrize("transform", [None, Nothing()])
def test_what_the_cache_holds_cannot_be_spoilt(folder: Path, transform: Transform | None) -> None:
    data, fresh = opened(folder, cache=True, transform=transform), opened(folder)
    for _ in range(2):
        image, target = data[0]
        torch.testing.assert_close(image, fresh[0][0], rtol=0, atol=0)
        image.zero_()
        target.boxes.zero_()
    (folder / "images/b.png").unlink()
    assert data[0][0].any()  # from memory
    assert data[0][1].boxes.any()
    with pytest.raises(FileNotFoundError):
        fresh[0]


class Requests:
    """A batch sampler of training requests, three pictures a batch."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> "Any":
        for batch in range(self.count):
            size = (32 + 32 * (batch % 2), 64)
            yield [(index, 1000 * batch + index, size) for index in range(3)]

    def __len__(self) -> int:
        return self.count


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where one core is all there is
@pytest.mark.parametrize("cache", [False, True])
def test_workers_give_the_same_bytes_as_no_workers(folder: Path, cache: bool) -> None:
    data = opened(folder, transform=SSDAugmentation(), cache=cache)
    expected = [collate([data[request] for request in batch]) for batch in Requests(6)]
    other = opened(folder, transform=SSDAugmentation(), cache=cache)  # its cache is empty: the workers fill it
    for workers in (1, 2):
        loader = DataLoader(other, batch_sampler=Requests(6), num_workers=workers, collate_fn=collate)
        for (images, targets), (wanted, wanted_targets) in zip(loader, expected, strict=True):
            torch.testing.assert_close(images, wanted, rtol=0, atol=0)
            for mine, theirs in zip(targets, wanted_targets, strict=True):
                torch.testing.assert_close(mine.boxes, theirs.boxes, rtol=0, atol=0)
                assert (mine.labels.tolist(), mine.image_id) == (theirs.labels.tolist(), theirs.image_id)


def test_workers_share_one_cache(folder: Path) -> None:
    data = opened(folder, transform=Resize((8, 8)), cache=True)
    expected = [image for image, _ in DataLoader(data, batch_size=None, num_workers=1)]
    for entry in CONTENT["images"]:
        (folder / "images" / entry["file_name"]).unlink()
    for index, image in enumerate(expected):  # what the worker read is here, without the files
        torch.testing.assert_close(data[index][0], image, rtol=0, atol=0)


def test_a_data_set_can_be_sent_to_another_process(folder: Path) -> None:
    data = opened(folder, transform=SSDAugmentation(), cache=True)
    data[0, 1, (32, 32)]
    there = pickle.loads(pickle.dumps(data))
    torch.testing.assert_close(there[0, 1, (32, 32)][0], data[0, 1, (32, 32)][0], rtol=0, atol=0)


def test_tiny_coco_of_the_other_tests(tiny_coco: Path) -> None:
    data = CocoDetection(tiny_coco / "train.json", tiny_coco / "images")
    assert (len(data), data.category_ids) == (8, (3, 7))
    assert (data.report.crowds, data.report.empty_pictures) == (1, 1)
    for image, target in data:
        for box, label in zip(target.boxes, target.labels, strict=True):
            x1, y1, x2, y2 = box.int().tolist()
            red, _, blue = image[:, y1 + 5 : y2 - 5, x1 + 5 : x2 - 5].float().mean(dim=(1, 2)).tolist()
            assert (red > 180 > 100 > blue) if label == 0 else (blue > 180 > 100 > red)


def test_read_split(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# what it is\n\nb.jpg\n  a.jpg \r\n# more\ndeep/c.jpg")
    assert read_split(path) == ["b.jpg", "a.jpg", "deep/c.jpg"]
    with pytest.raises(FileNotFoundError, match=r"no list of file names at .*other\.txt"):
        read_split(tmp_path / "other.txt")
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="names no file"):
        read_split(path)
    path.write_text("a.jpg\nb.jpg\na.jpg\n")
    with pytest.raises(ValueError, match=r"names 'a\.jpg' 2 times"):
        read_split(path)
    path.write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ValueError, match="no text file"):
        read_split(path)


def test_real_coco_with_gaps_and_crowds(data_dir: Path) -> None:
    data = CocoDetection(data_dir / "coco_mini/instances_train2017.json", data_dir / "coco_mini/train2017")
    assert (len(data), len(data.class_names)) == (343, 80)
    assert (data.category_ids[0], data.category_ids[11], data.category_ids[79]) == (1, 13, 90)
    assert (data.class_names[0], data.class_names[11], data.class_names[79]) == ("person", "stop sign", "toothbrush")
    assert data.report.boxes + data.report.crowds == 2974 - sum(data.report.dropped.values())
    assert data.report.crowds == 29
    augmented = CocoDetection(data.annotations, data.images, transform=SSDAugmentation())
    for index in range(0, 343, 9):
        image, target = augmented[index, index, (240, 320)]
        assert image.shape == (3, 240, 320)
        assert (target.boxes >= 0).all()
        assert (target.boxes <= torch.tensor([320, 240, 320, 240])).all()
        assert (target.boxes[:, :2] < target.boxes[:, 2:]).all()
