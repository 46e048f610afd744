"""The lists of the person set, and the script that rebuilds it, on a made-up COCO."""

import json
import random
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from swiftsight_tools.rebuild_coco_person import main, shrunk_size

from detect.formats.coco import CocoDetection
from pictures.splits import read_split

LISTS = Path(str(resources.files("swiftsight_configs"))) / "splits"


def test_the_lists_partition_the_set() -> None:
    train, select, val = (read_split(LISTS / f"coco_person_{name}.txt") for name in ("train", "select", "val"))
    assert (len(train), len(select), len(val)) == (2084, 200, 300)
    assert len({*train, *select, *val}) == 2584
    assert select == sorted(random.Random(352).sample(sorted([*train, *select]), 200))


def test_the_lists_name_the_real_set(data_dir: Path) -> None:
    folder = data_dir / "coco_person"
    for names, part, boxes in ((("train", "select"), "train", 9268), (("val",), "val", 1280)):
        listed = [name for split in names for name in read_split(LISTS / f"coco_person_{split}.txt")]
        data = CocoDetection(folder / f"person_{part}.json", folder / part, file_names=listed)
        assert sorted(listed) == sorted(data.file_names)
        assert len(data) == len(CocoDetection(folder / f"person_{part}.json", folder / part))
        assert data.report.boxes == boxes
        assert all(int(name[:12]) == image_id for name, image_id in zip(data.file_names, data.image_ids, strict=True))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((425, 640), (234, 352)), ((640, 621), (352, 342)), ((352, 100), (352, 100)), ((240, 320), (240, 320))],
)
def test_sizes_by_hand(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert shrunk_size(size) == expected


def person(image_id: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {"id": image_id, "image_id": image_id, "category_id": 1, "bbox": bbox, "iscrowd": 0, "area": 100.0, **more}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Four pictures, of which the lists name three: one person with a polygon, two with a crowd, one shown small."""
    sizes = {785: (640, 425), 2: (704, 352), 3: (100, 80), 4: (50, 50)}
    (tmp_path / "val2017").mkdir()
    (tmp_path / "lists").mkdir()
    for number, (width, height) in sizes.items():
        pixels = np.tile(np.linspace(0, 255, width, dtype=np.uint8)[None, :, None], (height, 1, 3))
        Image.fromarray(pixels).save(tmp_path / f"val2017/{number:012d}.jpg", quality=95)
    entries = [
        person(
            785,
            [280.79, 44.73, 218.7, 346.68],
            area=27789.11535,
            segmentation=[[280.79, 44.73, 499.49, 391.41, 300, 60]],
        ),
        person(2, [100, 10, 50, 20], segmentation=[[100, 10, 150, 10, 150, 30]]),
        person(2, [0, 100, 704, 101], iscrowd=1, segmentation={"counts": [1, 2], "size": [352, 704]}),
        person(2, [7, 7, 7, 7]) | {"category_id": 44},
        person(3, [10.126, 20, 30, 40], segmentation={"counts": "x", "size": [80, 100]}),
        person(4, [1, 1, 9, 9]),
    ]
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "width": w, "height": h} for n, (w, h) in sizes.items()]
    categories = [{"id": 44, "name": "bottle"}, {"id": 1, "name": "person"}]
    content = {"images": images, "annotations": entries, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    for name, numbers in (("train", [785]), ("select", [2]), ("val", [3])):
        (tmp_path / f"lists/coco_person_{name}.txt").write_text("\n".join(f"{n:012d}.jpg" for n in numbers))
    return tmp_path


def words(coco: Path, *more: str) -> list[str]:
    given = {"--annotations": "instances.json", "--pictures": "val2017", "--output": "made/set", "--lists": "lists"}
    return [word for option, name in given.items() for word in (option, str(coco / name))] + list(more)


def test_the_set_is_rebuilt_as_it_was_made(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(coco)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["train: 2 pictures, 3 boxes", "val: 1 pictures, 1 boxes"]
    made = coco / "made/set"
    train, val = (json.loads((made / f"person_{split}.json").read_text()) for split in ("train", "val"))
    assert [(image["id"], image["width"], image["height"]) for image in train["images"]] == [
        (2, 352, 176),
        (785, 352, 234),
    ]
    halves, crowd, alone = train["annotations"]
    assert (halves["bbox"], halves["area"], halves["iscrowd"]) == ([50, 5, 25, 10], 250, 0)
    assert (crowd["bbox"], crowd["area"], crowd["iscrowd"]) == ([0, 50, 352, 50.5], 17776, 0)
    assert "segmentation" not in halves
    assert "segmentation" not in crowd
    # The very numbers of COCO's picture 785 and of the set made from it.
    assert (alone["bbox"], alone["area"]) == ([154.43, 24.63, 120.28, 190.88], 8415.2)
    assert alone["segmentation"] == [[154.43, 24.63, 274.72, 215.51, 165.0, 33.04]]
    assert [entry["id"] for entry in (*train["annotations"], *val["annotations"])] == [1, 2, 3, 4]
    assert (val["annotations"][0]["bbox"], val["annotations"][0]["area"]) == ([10.13, 20, 30, 40], 1200)
    assert train["categories"] == [{"id": 1, "name": "person", "supercategory": "person"}]
    data = CocoDetection(made / "person_train.json", made / "train")
    image, target = data[0]
    assert image.shape == (3, 176, 352)
    assert abs(int(image[0, 80, 176]) - 127) < 4
    assert target.original_size == (176, 352)
    assert data[1][0].shape == (3, 234, 352)


def test_crowds_can_be_marked(coco: Path) -> None:
    assert main(words(coco, "--mark-crowds")) == 0
    train = json.loads((coco / "made/set/person_train.json").read_text())
    assert [entry["iscrowd"] for entry in train["annotations"]] == [0, 1, 0]


def refused(coco: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a run that fails and leaves nothing behind."""
    before = sorted(coco.rglob("*"))
    assert main(words(coco)) == 1
    assert [path for path in sorted(coco.rglob("*")) if path not in before] in ([], [coco / "made"])
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_failures_leave_nothing_half_made(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = coco / "val2017/000000000003.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    assert "000000000003.jpg is not a readable picture" in refused(coco, capsys)
    Image.fromarray(np.zeros((81, 100, 3), np.uint8)).save(path)
    assert "is 100 x 81 pixels, but the annotations say 100 x 80" in refused(coco, capsys)
    path.unlink()
    assert "no picture at" in refused(coco, capsys)
    path.write_bytes(whole)
    (coco / "lists/coco_person_val.txt").write_text("000000000099.jpg")
    assert "no picture '000000000099.jpg'" in refused(coco, capsys)
    (coco / "made/set").mkdir(parents=True)
    assert "exists already" in refused(coco, capsys)
