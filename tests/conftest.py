"""What several test files share: where the real pictures lie, and a small made-up COCO set."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

os.environ.setdefault(
    "NO_ALBUMENTATIONS_UPDATE", "1"
)  # before anything imports albumentations: it would ask the network

COLOURS = {3: (214, 40, 40), 7: (40, 90, 214)}  # category id -> RGB
CATEGORIES = [{"id": 3, "name": "red block"}, {"id": 7, "name": "blue block"}]
PICTURES = 12
EMPTY, CROWDED = 4, 5  # the picture without objects, the picture whose second block is a crowd; both in train

BoxXYWH = tuple[int, int, int, int]

DATA = {"bccd", "camvid", "coco_mini", "coco_person", "mnist10k.npz", "peers", "video", "weights"}


@pytest.fixture(autouse=True)
def log_stays_open() -> Iterator[None]:
    """No test leaves the whole process's log silenced: tests of messages that run later would see none."""
    yield
    silenced = logging.root.manager.disable
    logging.disable(logging.NOTSET)
    assert silenced == logging.NOTSET, "logging.disable was called and not taken back"


class DataFolder(type(Path())):  # Path itself picks the system's kind
    """The folder of real data. What docs/data.md lists and is not there skips the test that asks for it."""

    def __truediv__(self, name: str) -> Path:
        found = Path(str(self)) / name
        top = Path(name).parts[0]
        assert top in DATA, f"{top} is not in docs/data.md"
        if not (Path(str(self)) / top).exists():
            pytest.skip(f"SWIFTSIGHT_DATA holds no {top}")
        return found


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real pictures, given by the environment alone."""
    folder = os.environ.get("SWIFTSIGHT_DATA")
    if not folder:
        pytest.skip("SWIFTSIGHT_DATA is not set: no real pictures here")
    if not Path(folder).is_dir():
        pytest.fail(f"SWIFTSIGHT_DATA is set to {folder}, which is no folder")
    return DataFolder(folder)


@pytest.fixture(scope="session")
def tiny_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images/*.jpg`, `train.json` (8 pictures) and `val.json` (4): coloured blocks on noise.

    Category ids are 3 and 7. In train one picture has no object and one has a crowd. Read it, never write into it.
    """
    folder = tmp_path_factory.mktemp("tiny_coco")
    (folder / "images").mkdir()
    images, annotations = [], []
    for index in range(PICTURES):
        picture, blocks = _draw_picture(index)
        image_id, name = 100 + 10 * index, f"blocks_{index:02d}.jpg"
        picture.save(folder / "images" / name, quality=95)
        images.append({"id": image_id, "file_name": name, "width": picture.width, "height": picture.height})
        for place, (category_id, box_xywh) in enumerate(blocks):
            crowded = index == CROWDED and place == 1
            annotations.append(_annotation(len(annotations) + 1, image_id, category_id, box_xywh, crowded))
    _write_split(folder / "train.json", images[:8], annotations)
    _write_split(folder / "val.json", images[8:], annotations)
    return folder


def _draw_picture(index: int) -> tuple[Image.Image, list[tuple[int, BoxXYWH]]]:
    """One picture and its blocks as (category id, box): lying pictures have a block in each half, standing ones one."""
    random = np.random.default_rng(index)
    width, height, num_blocks = (160, 120, 2) if index % 2 else (120, 160, 1)
    picture = Image.fromarray(random.integers(90, 166, (height, width, 3), dtype=np.uint8))
    room = width // num_blocks
    blocks = []
    for place in range(0 if index == EMPTY else num_blocks):
        box_width, box_height = (int(side) for side in random.integers(30, 56, 2))
        x = place * room + int(random.integers(0, room - box_width))
        y = int(random.integers(0, height - box_height))
        category_id = (3, 7)[(index // 2 + place) % 2]
        corners = (x, y, x + box_width - 1, y + box_height - 1)  # Pillow's corners are both inside
        ImageDraw.Draw(picture).rectangle(corners, fill=COLOURS[category_id])
        blocks.append((category_id, (x, y, box_width, box_height)))
    return picture, blocks


def _annotation(number: int, image_id: int, category_id: int, box_xywh: BoxXYWH, crowded: bool) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(box_xywh),
        "area": box_xywh[2] * box_xywh[3],
        "iscrowd": int(crowded),
    }


def _write_split(path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> None:
    kept = {image["id"] for image in images}
    split = {
        "images": images,
        "annotations": [annotation for annotation in annotations if annotation["image_id"] in kept],
        "categories": CATEGORIES,
    }
    path.write_text(json.dumps(split))
