"""Reads and checks a COCO annotation file; nothing is believed that the file does not prove.

Format: https://cocodataset.org/#format-data, object detection. Segmentations are left to who reads masks.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pictures.boxes import MAX_COORDINATE, Annotations, BoxColumns, Picture, fit_boxes, gather_columns
from pictures.coco_table import CocoTable, find_places, read_categories, read_pictures, read_table
from pictures.report import AnnotationReport

_ROUNDING = 1e-3  # what rounding to few digits may push an edge beyond 1
_NEARLY_ALL = 0.9


class Entry(NamedTuple):
    """One annotation of a chosen class in a chosen picture, by their places; `number`: its own place in the file."""

    picture: int
    label: int
    number: int
    path: Path
    stored: dict[str, Any] | msgspec.Raw

    @property
    def content(self) -> dict[str, Any]:
        """What the file says; read anew at each call where it is kept as text."""
        return self.stored if isinstance(self.stored, dict) else msgspec.json.decode(self.stored)

    @property
    def what(self) -> str:
        """Its name in an error message."""
        return f"annotation {self.number} of {self.path}"


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
    file_names = None if file_names is None else list(file_names)
    quick = read_table(path, with_texts=True)
    if quick is None:
        return _read_whole(path, class_names, file_names)
    category_ids = _choose_classes(quick.names_by_id, class_names, path)
    pictures = _choose_pictures(quick.pictures, file_names, path)
    chosen, places, labels, other_classes = _choose_rows(quick, pictures, category_ids)
    rows = zip(places.tolist(), labels.tolist(), chosen.tolist(), strict=True)
    entries = [Entry(place, label, number, path, quick.texts[number]) for place, label, number in rows]
    names = tuple(quick.names_by_id[category] for category in category_ids)
    return CocoIndex(pictures, names, category_ids, entries, other_classes)


def read_annotations(
    path: Path, *, class_names: Sequence[str] | None = None, file_names: Iterable[str] | None = None
) -> Annotations:
    """The boxes of the chosen classes in the chosen pictures: see `read_index`, also for what it raises.

    Boxes are repaired or dropped as the report says. Outlines are passed over.
    """
    file_names = None if file_names is None else list(file_names)
    quick = read_table(path)
    if quick is None:
        return _annotations_of(_read_whole(path, class_names, file_names))
    category_ids = _choose_classes(quick.names_by_id, class_names, path)
    pictures = _choose_pictures(quick.pictures, file_names, path)
    chosen, places, labels, other_classes = _choose_rows(quick, pictures, category_ids)
    rows = BoxColumns(places, quick.boxes_xywh[chosen], labels, quick.is_crowd[chosen])
    classes = [(category, quick.names_by_id[category]) for category in category_ids]

    def name(row: int) -> str:
        number = int(chosen[row])
        said = quick.ids[number]
        return reprlib.repr(f"annotation {number} of {path}" if said is msgspec.UNSET else said)

    return _fitted(pictures, classes, rows, AnnotationReport(other_classes=other_classes), name)


def _choose_rows(
    quick: CocoTable, pictures: Sequence[Picture], category_ids: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The rows of these pictures and classes, their pictures' and classes' places; how many are of other classes."""
    places = find_places(quick.image_ids, [picture.image_id for picture in pictures])
    labels = find_places(quick.category_ids, category_ids)
    chosen = np.flatnonzero((places >= 0) & (labels >= 0))
    return chosen, places[chosen], labels[chosen], int((places >= 0).sum()) - len(chosen)


def _annotations_of(index: CocoIndex) -> Annotations:
    """The boxes of a file that was read as a whole."""
    contents = [entry.content for entry in index.entries]
    boxes = [_checked_box(content, entry.what) for content, entry in zip(contents, index.entries, strict=True)]
    rows = BoxColumns(
        np.array([entry.picture for entry in index.entries], np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array([entry.label for entry in index.entries], np.int64),
        np.array([bool(content.get("iscrowd", 0)) for content in contents], bool),
    )
    classes = list(zip(index.category_ids, index.class_names, strict=True))

    def name(row: int) -> str:
        return reprlib.repr(contents[row].get("id", index.entries[row].what))

    return _fitted(index.pictures, classes, rows, AnnotationReport(other_classes=index.other_classes), name)


def _fitted(
    pictures: list[Picture],
    classes: Sequence[tuple[int, str]],
    rows: BoxColumns,
    report: AnnotationReport,
    name: Callable[[int], str],
) -> Annotations:
    """Boxes xywh in file order, put into their pictures; name(row): how the report calls one."""
    corners = np.where(abs(rows.boxes) < MAX_COORDINATE, rows.boxes, np.nan)
    corners[:, 2:] += corners[:, :2]

    def place(row: int) -> str:
        return f"annotation {name(row)} in {pictures[rows.pictures[row]].file_name}"

    _note_parts(corners, report, place)
    fitted, kept = fit_boxes(corners, _sizes(pictures)[rows.pictures], report, place)
    return gather_columns(pictures, classes, rows.rows(kept)._replace(boxes=fitted), report)


def _note_parts(corners: np.ndarray, report: AnnotationReport, place: Callable[[int], str]) -> None:
    """Where nearly all boxes [N, 4] xyxy lie within 0..1, they are counted: other formats write parts of a side."""
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero(corners[:, 2] <= 1 + _ROUNDING)  # few, where all is right
        rows = rows[((corners[rows] >= 0) & (corners[rows] <= 1 + _ROUNDING)).all(axis=1)]
    if len(rows) and len(rows) >= _NEARLY_ALL * len(corners):
        reason = "boxes within 0..1, most likely parts of the picture; COCO has pixels"
        report.repair(reason, place(int(rows[0])), len(rows))


def _sizes(pictures: Sequence[Picture]) -> np.ndarray:
    """[P, 2] float64, height and width."""
    return np.array([picture.size for picture in pictures], np.float64).reshape(-1, 2)


def _read_whole(path: Path, class_names: Sequence[str] | None, file_names: Sequence[str] | None) -> CocoIndex:
    """See `read_index`: entry by entry, which says what is wrong with a file and where."""
    content = load_coco(path)
    names_by_id = read_categories(content["categories"], path)
    category_ids = _choose_classes(names_by_id, class_names, path)
    all_pictures = read_pictures(content["images"], path)
    pictures = _choose_pictures(all_pictures, file_names, path)
    known_images = {picture.image_id for picture in all_pictures}
    place_of = {picture.image_id: place for place, picture in enumerate(pictures)}
    label_of = {category: label for label, category in enumerate(category_ids)}
    entries, other_classes = [], 0
    for number, entry in enumerate(content["annotations"]):
        _check_references(entry, known_images, names_by_id, f"annotation {number} of {path}")
        place, label = place_of.get(entry["image_id"]), label_of.get(entry["category_id"])
        if place is not None and label is not None:
            entries.append(Entry(place, label, number, path, entry))
        elif place is not None:
            other_classes += 1
    names = tuple(names_by_id[category] for category in category_ids)
    return CocoIndex(pictures, names, category_ids, entries, other_classes)


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


def _choose_classes(names_by_id: dict[int, str], class_names: Sequence[str] | None, path: Path) -> tuple[int, ...]:
    """Category id of each class index."""
    if class_names is None:
        return tuple(names_by_id)
    ids_by_name = {name: category for category, name in names_by_id.items()}
    unknown = [name for name in class_names if name not in ids_by_name]
    if unknown:
        near = _nearest(unknown[0], ids_by_name) or f": it has {reprlib.repr(list(ids_by_name))}"
        raise ValueError(f"{path} has no category {unknown[0]!r}{near}")
    if not class_names or len(set(class_names)) < len(class_names):
        raise ValueError(f"class_names is {list(class_names)}; expected one or more names, each once")
    return tuple(ids_by_name[name] for name in class_names)


def _choose_pictures(pictures: list[Picture], file_names: Iterable[str] | None, path: Path) -> list[Picture]:
    """The pictures named, in the file's order."""
    if file_names is not None:
        wanted = set(file_names)
        known = {picture.file_name for picture in pictures}
        unknown = sorted(wanted - known)
        if unknown:
            others = f", nor {len(unknown) - 1} others of the {len(wanted)} asked for" if len(unknown) > 1 else ""
            raise ValueError(f"{path} has no picture {unknown[0]!r}{_nearest(unknown[0], known)}{others}")
        pictures = [picture for picture in pictures if picture.file_name in wanted]
    if not pictures:
        raise ValueError(f"{path} lists no pictures, or none was asked for; expected at least one")
    return pictures


def _nearest(word: str, choices: Iterable[str]) -> str:
    """See `backbones.registry.nearest`."""
    from backbones.registry import nearest  # here: torch comes with it, more memory than all boxes of COCO take

    return nearest(word, choices)


def _check_references(entry: Any, images: set[int], categories: Mapping[int, str], what: str) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{what} is {reprlib.repr(entry)}; expected an object with image_id, category_id and bbox")
    for key, known, owner in (("image_id", images, "images"), ("category_id", categories, "categories")):
        value = entry.get(key)
        if not isinstance(value, int) or value not in known:
            raise ValueError(f"{what} has {key} {reprlib.repr(value)}, which is not among the file's {owner}")
    if entry.get("iscrowd", 0) not in (0, 1):
        raise ValueError(f"{what} has iscrowd {reprlib.repr(entry['iscrowd'])}; expected 0 or 1")


def _checked_box(entry: dict[str, Any], what: str) -> list[float]:
    """xywh; NaN for a number that is too large for one."""
    bbox = entry.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(isinstance(value, int | float) for value in bbox):
        raise ValueError(f"{what} has bbox {reprlib.repr(bbox)}; expected [x, y, width, height]")
    return [value if abs(value) < MAX_COORDINATE else math.nan for value in bbox]
