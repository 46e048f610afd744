"""Reads and checks a COCO annotation file; nothing is believed that the file does not prove.

Format: https://cocodataset.org/#format-data, object detection. Segmentations are left to who reads masks.
"""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backbones.registry import nearest
from pictures.boxes import MAX_COORDINATE, Annotations, BoxRow, Corners, Picture, fit_box, gather
from pictures.report import AnnotationReport


class Entry(NamedTuple):
    """One annotation of a chosen class in a chosen picture, by their places; `what` names it in an error message."""

    picture: int
    label: int
    content: dict[str, Any]
    what: str


class CocoIndex(NamedTuple):
    """The chosen pictures and classes of a file, with the annotations of both in the file's order.

    category_ids: the file's id of each class; other_classes: annotations in the pictures of classes not chosen.
    """

    pictures: list[Picture]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    entries: list[Entry]
    other_classes: int


def read_index(
    path: Path, *, class_names: Sequence[str] | None = None, file_names: Iterable[str] | None = None
) -> CocoIndex:
    """Read `path`: the classes named, in that order (all, by id), in the pictures named (all), in the file's order.

    Raises FileNotFoundError, or ValueError in one line where the file is no COCO json, contradicts itself or lacks a
    class or picture that was asked for.
    """
    content = load_coco(path)
    names_by_id = _read_categories(content["categories"], path)
    category_ids = _choose_classes(names_by_id, class_names, path)
    all_pictures = _read_pictures(content["images"], path)
    pictures = _choose_pictures(all_pictures, file_names, path)
    known_images = {picture.image_id for picture in all_pictures}
    place_of = {picture.image_id: place for place, picture in enumerate(pictures)}
    label_of = {category: label for label, category in enumerate(category_ids)}
    entries, other_classes = [], 0
    for number, entry in enumerate(content["annotations"]):
        what = f"annotation {number} of {path}"
        _check_references(entry, known_images, names_by_id, what)
        place, label = place_of.get(entry["image_id"]), label_of.get(entry["category_id"])
        if place is not None and label is not None:
            entries.append(Entry(place, label, entry, what))
        elif place is not None:
            other_classes += 1
    names = tuple(names_by_id[category] for category in category_ids)
    return CocoIndex(pictures, names, category_ids, entries, other_classes)


def read_annotations(
    path: Path, *, class_names: Sequence[str] | None = None, file_names: Iterable[str] | None = None
) -> Annotations:
    """The boxes of the chosen classes in the chosen pictures: see `read_index`, also for what it raises.

    Boxes are repaired or dropped as the report says.
    """
    index = read_index(path, class_names=class_names, file_names=file_names)
    report = AnnotationReport(other_classes=index.other_classes)
    rows: list[list[BoxRow]] = [[] for _ in index.pictures]
    for entry in index.entries:
        box = _read_box(entry.content, index.pictures[entry.picture], report, entry.what)
        if box is not None:
            rows[entry.picture].append(BoxRow(box, entry.label, bool(entry.content.get("iscrowd", 0))))
    classes = list(zip(index.category_ids, index.class_names, strict=True))
    return gather(index.pictures, classes, rows, report)


def load_coco(path: Path) -> dict[str, Any]:
    """The file's content: an object with the lists images, annotations and categories, whose entries are not checked.

    Raises FileNotFoundError, or ValueError in one line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file at {path}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no json: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no COCO annotation file: it holds a {type(content).__name__}, expected an object")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            found = f"{key!r} is a {type(content[key]).__name__}" if key in content else f"{key!r} is missing"
            raise ValueError(f"{path} is no COCO annotation file: {found}, expected a list")
    return content


def _read_categories(entries: list[Any], path: Path) -> dict[int, str]:
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


def _choose_classes(names_by_id: dict[int, str], class_names: Sequence[str] | None, path: Path) -> tuple[int, ...]:
    """Category id of each class index."""
    if class_names is None:
        return tuple(names_by_id)
    ids_by_name = {name: category for category, name in names_by_id.items()}
    unknown = [name for name in class_names if name not in ids_by_name]
    if unknown:
        near = nearest(unknown[0], ids_by_name) or f": it has {reprlib.repr(list(ids_by_name))}"
        raise ValueError(f"{path} has no category {unknown[0]!r}{near}")
    if not class_names or len(set(class_names)) < len(class_names):
        raise ValueError(f"class_names is {list(class_names)}; expected one or more names, each once")
    return tuple(ids_by_name[name] for name in class_names)


def _read_pictures(entries: list[Any], path: Path) -> list[Picture]:
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


def _choose_pictures(pictures: list[Picture], file_names: Iterable[str] | None, path: Path) -> list[Picture]:
    """The pictures named, in the file's order."""
    if file_names is not None:
        wanted = set(file_names)
        known = {picture.file_name for picture in pictures}
        unknown = sorted(wanted - known)
        if unknown:
            others = f", nor {len(unknown) - 1} others of the {len(wanted)} asked for" if len(unknown) > 1 else ""
            raise ValueError(f"{path} has no picture {unknown[0]!r}{nearest(unknown[0], known)}{others}")
        pictures = [picture for picture in pictures if picture.file_name in wanted]
    if not pictures:
        raise ValueError(f"{path} lists no pictures, or none was asked for; expected at least one")
    return pictures


def _check_references(entry: Any, images: set[int], categories: Mapping[int, str], what: str) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{what} is {reprlib.repr(entry)}; expected an object with image_id, category_id and bbox")
    for key, known, owner in (("image_id", images, "images"), ("category_id", categories, "categories")):
        value = entry.get(key)
        if not isinstance(value, int) or value not in known:
            raise ValueError(f"{what} has {key} {reprlib.repr(value)}, which is not among the file's {owner}")
    if entry.get("iscrowd", 0) not in (0, 1):
        raise ValueError(f"{what} has iscrowd {reprlib.repr(entry['iscrowd'])}; expected 0 or 1")


def _read_box(entry: dict[str, Any], picture: Picture, report: AnnotationReport, what: str) -> Corners | None:
    """The corners xyxy inside the picture, exact in float32, or None where it is dropped."""
    bbox = entry.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(isinstance(value, int | float) for value in bbox):
        raise ValueError(f"{what} has bbox {reprlib.repr(bbox)}; expected [x, y, width, height]")
    place = f"annotation {reprlib.repr(entry.get('id', what))} in {picture.file_name}"
    if not all(abs(value) < MAX_COORDINATE for value in bbox):  # before any sum: a whole number may be huge
        report.drop("not finite", place)
        return None
    x, y, width, height = bbox
    return fit_box((x, y, x + width, y + height), picture.size, report, place)


def _has(entry: Any, fields: dict[str, type]) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in fields.items())
