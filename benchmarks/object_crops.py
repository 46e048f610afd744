"""Objects cut out of the pictures of COCO sets, one square each: small classification sets for the other scripts.

The square lies around the box's centre and is as wide as `context` times the box's longer side; where it leaves the
picture, the picture's edge is repeated. Crowds and boxes shorter than `min_side` on their longer side are left out.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

BoxXYWH = Sequence[float]


class Source(NamedTuple):
    """A COCO json and the folder of its pictures."""

    annotations: Path
    pictures: Path


class _Object(NamedTuple):
    picture: Path
    box_xywh: BoxXYWH
    class_name: str


@dataclass(frozen=True)
class Crops:
    """images [M, 3, side, side] uint8 RGB; labels [M] int64; pictures [M] int64: which picture each was cut from."""

    images: Tensor
    labels: Tensor
    pictures: Tensor
    class_names: tuple[str, ...]

    def split_by_picture(self, share: float, seed: int) -> tuple[Tensor, Tensor]:
        """Indices of two parts, the second with about `share` of the pictures: no picture gives crops to both."""
        pictures = self.pictures.unique()
        order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
        chosen = torch.isin(self.pictures, pictures[order[: round(share * len(pictures))]])
        return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def data_folder() -> Path:
    """The folder of real pictures that SWIFTSIGHT_DATA names; ValueError where there is none."""
    folder = os.environ.get("SWIFTSIGHT_DATA", "")
    if not folder or not Path(folder).is_dir():
        raise ValueError(f"SWIFTSIGHT_DATA must name the folder of the real pictures, not {folder!r}")
    return Path(folder)


def coco_mini(data: Path) -> Source:
    """343 pictures of COCO train2017 with all their objects."""
    return Source(data / "coco_mini" / "instances_train2017.json", data / "coco_mini" / "train2017")


def coco_person(data: Path) -> Source:
    """Pictures of people; no other object is marked."""
    return Source(data / "coco_person" / "person_train.json", data / "coco_person" / "train")


def load_crops(
    sources: Sequence[Source],
    *,
    side: int,
    context: float = 1.0,
    min_side: float = 20,
    num_classes: int | None = None,
    most_of_a_class: int | None = None,
    seed: int = 0,
) -> Crops:
    """All objects of the sources, or those of the `num_classes` most frequent classes, of each at most so many."""
    objects = [found for source in sources for found in _objects(source, min_side)]
    frequent = [name for name, _ in Counter(found.class_name for found in objects).most_common(num_classes)]
    order = np.random.default_rng(seed).permutation(len(objects))
    taken: Counter[str] = Counter()
    chosen = []
    for found in (objects[index] for index in order):
        if found.class_name in frequent and taken[found.class_name] < (most_of_a_class or len(objects)):
            taken[found.class_name] += 1
            chosen.append(found)
    return _cut_all(chosen, tuple(frequent), side, context)


def _objects(source: Source, min_side: float) -> list[_Object]:
    truth = json.loads(source.annotations.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in truth["categories"]}
    files = {image["id"]: source.pictures / image["file_name"] for image in truth["images"]}
    return [
        _Object(files[entry["image_id"]], entry["bbox"], names[entry["category_id"]])
        for entry in truth["annotations"]
        if not entry.get("iscrowd") and max(entry["bbox"][2:]) >= min_side and min(entry["bbox"][2:]) >= 1
    ]


def _cut_all(objects: Sequence[_Object], class_names: tuple[str, ...], side: int, context: float) -> Crops:
    """The crops in order of their pictures, each of which is read once."""
    ordered = sorted(objects, key=lambda found: found.picture)
    paths = sorted({found.picture for found in ordered})
    number = {path: index for index, path in enumerate(paths)}
    images = np.empty((len(ordered), side, side, 3), np.uint8)
    open_path, picture = None, np.empty(0)
    for index, found in enumerate(ordered):
        if found.picture != open_path:
            open_path, picture = found.picture, _read(found.picture)
        images[index] = cut(picture, found.box_xywh, side, context)
    return Crops(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        torch.tensor([class_names.index(found.class_name) for found in ordered]),
        torch.tensor([number[found.picture] for found in ordered]),
        class_names,
    )


def _read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise OSError(f"{path} is no picture that can be read")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def cut(picture: np.ndarray, box_xywh: BoxXYWH, side: int, context: float = 1.0) -> np.ndarray:
    """[side, side, 3]: the square around the box of a picture [H, W, 3]."""
    left, top, width, height = box_xywh
    reach = max(1, round(context * max(width, height)))
    x, y = round(left + (width - reach) / 2), round(top + (height - reach) / 2)
    columns = np.arange(x, x + reach).clip(0, picture.shape[1] - 1)
    rows = np.arange(y, y + reach).clip(0, picture.shape[0] - 1)
    square = picture[rows[:, None], columns]
    return cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA if reach > side else cv2.INTER_LINEAR)
