"""A COCO json as columns of numbers, read in blocks: COCO's train2017 in seconds, its 450 MB never held at once.

Only what is in order is read here. Whatever else a file may hold is left to `coco_json`, which reads it entry by entry
and says what is wrong.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pictures.boxes import MAX_COORDINATE, Picture
from pictures.json_blocks import UnusualError, read_blocks


class CocoTable(NamedTuple):
    """All pictures and annotations of a file.

    names_by_id: of the categories, by id; image_ids, category_ids [N] int64, is_crowd [N] bool, boxes_xywh [N, 4]
    float64 as the file has them; ids: its own name for each annotation, msgspec.UNSET where there is none; texts: each
    annotation as JSON, if asked for.
    """

    pictures: list[Picture]
    names_by_id: dict[int, str]
    image_ids: np.ndarray
    category_ids: np.ndarray
    is_crowd: np.ndarray
    boxes_xywh: np.ndarray
    ids: list[Any]
    texts: list[msgspec.Raw]


class _References(msgspec.Struct, gc=False):
    """What must be right about an annotation in any case; the rest of it is passed over."""

    image_id: int
    category_id: int
    iscrowd: int = 0


class _Row(_References, gc=False, kw_only=True):
    """An annotation with its box."""

    bbox: tuple[float, float, float, float]
    id: Any = msgspec.UNSET


class _Columns:
    """Gathers the parts of a file as they come; raises UnusualError for what is not in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pictures: list[Picture] = []
        self._categories: list[Any] = []
        self._references = [np.zeros((0, 3), np.int64)]

    def read(self, decode: Callable[[bytes], Any]) -> Iterator[Any]:
        """What `decode` makes of the annotations, block by block; the rest of the file is kept here."""
        plain: Callable[[bytes], Any] = msgspec.json.decode
        decoders = {"images": plain, "annotations": decode, "categories": plain}
        for key, block in read_blocks(self._path, decoders):
            if key == "images":
                self._pictures += read_pictures(block, self._path)
            elif key == "categories":
                self._categories += block
            else:
                yield block

    def add(self, rows: Sequence[_References]) -> None:
        """The next annotations."""
        numbers = [(row.image_id, row.category_id, row.iscrowd) for row in rows]
        self._references.append(np.array(numbers, np.int64).reshape(-1, 3))

    def table(self) -> CocoTable:
        """Everything but boxes, ids and texts."""
        names = read_categories(self._categories, self._path)
        ids = [picture.image_id for picture in self._pictures]
        image_ids, category_ids, is_crowd = np.concatenate(self._references).T
        are_known = (find_places(image_ids, ids) >= 0).all() and (find_places(category_ids, list(names)) >= 0).all()
        if len(set(ids)) < len(ids) or not are_known or not np.isin(is_crowd, (0, 1)).all():
            raise UnusualError("ids or flags that need a closer look")
        return CocoTable(self._pictures, names, image_ids, category_ids, is_crowd == 1, np.zeros((0, 4)), [], [])


def read_table(path: Path, *, with_texts: bool = False) -> CocoTable | None:
    """The table, or None for a file that needs a closer look. With texts it holds these instead of boxes and ids."""
    try:
        return _read_texts(path) if with_texts else _read_boxes(path)
    except (UnusualError, ValueError, OverflowError, FileNotFoundError, IsADirectoryError):
        return None


def _read_boxes(path: Path) -> CocoTable:
    columns = _Columns(path)
    boxes: list[np.ndarray] = [np.zeros((0, 4))]
    ids: list[Any] = []
    for rows in columns.read(msgspec.json.Decoder(list[_Row]).decode):
        columns.add(rows)
        boxes.append(np.array([row.bbox for row in rows], np.float64).reshape(-1, 4))
        ids += [row.id for row in rows]
    return columns.table()._replace(boxes_xywh=np.concatenate(boxes), ids=ids)


def _read_texts(path: Path) -> CocoTable:
    references, texts = msgspec.json.Decoder(list[_References]), msgspec.json.Decoder(list[msgspec.Raw])
    columns = _Columns(path)
    kept: list[msgspec.Raw] = []
    for rows, raw in columns.read(lambda text: (references.decode(text), texts.decode(text))):
        columns.add(rows)
        kept += raw
    return columns.table()._replace(texts=kept)


def find_places(ids: np.ndarray, known: Sequence[int]) -> np.ndarray:
    """ids [N] -> [N] the place of each in `known`, whose numbers differ; -1 where it is not there."""
    if not known:
        return np.full(len(ids), -1)
    numbers = np.array(known, np.int64)
    order = np.argsort(numbers)
    places = order[np.minimum(np.searchsorted(numbers, ids, sorter=order), len(known) - 1)]
    return np.where(numbers[places] == ids, places, -1)


def read_categories(entries: list[Any], path: Path) -> dict[int, str]:
    """Names by category id, in the order of the ids."""
    names: dict[int, str] = {}
    for entry in entries:
        if not _has(entry, {"id": int, "name": str}):
            raise ValueError(f"{path} has the category {reprlib.repr(entry)}; expected a whole id and a name")
        if entry["id"] in names or entry["name"] in names.values():
            raise ValueError(f"{path} has two categories with the id {entry['id']} or the name {entry['name']!r}")
        names[entry["id"]] = entry["name"]
    if not names:
        raise ValueError(f"{path} has no categories; expected at least one")
    return dict(sorted(names.items()))


def read_pictures(entries: list[Any], path: Path) -> list[Picture]:
    """In the order of the file."""
    pictures = []
    for entry in entries:
        if not _has(entry, {"id": int, "file_name": str, "width": int, "height": int}):
            raise ValueError(f"{path} has the image {reprlib.repr(entry)}; expected id, file_name, width and height")
        if not (0 < entry["width"] < MAX_COORDINATE and 0 < entry["height"] < MAX_COORDINATE):
            raise ValueError(f"{path} says that {entry['file_name']} is {entry['width']} x {entry['height']} pixels")
        pictures.append(Picture(entry["id"], entry["file_name"], (entry["height"], entry["width"])))
    repeated = [image_id for image_id, count in Counter(picture.image_id for picture in pictures).items() if count > 1]
    if repeated:
        raise ValueError(f"{path} has two images with the id {repeated[0]}")
    return pictures


def _has(entry: Any, fields: dict[str, type]) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in fields.items())
