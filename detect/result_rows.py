"""Detection results and COCO annotations as they come in: read, checked, and with what cannot be scored left out.

Any metric of boxes starts here. Rows are COCO's: boxes as [x, y, width, height] in pixels of the picture on disk.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RESULT_KEYS = ("image_id", "category_id", "bbox", "score")
_BEYOND = 1e300  # nothing in a picture is
_SECTIONS = {"images": ("id",), "annotations": ("image_id", "category_id"), "categories": ("id",)}


class ResultColumns(NamedTuple):
    """Checked results: the ids as they are, boxes_xywh [D, 4] and scores [D] float64."""

    image_ids: list[Any]
    category_ids: list[Any]
    boxes_xywh: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class GroundTruth:
    """Checked copies of annotations: pictures and categories by id, and the boxes.

    A box has image_id, category_id, bbox, area (the object's where the file gives it, else the box's), iscrowd and
    difficult (0 or 1). unusable_boxes: how many were left out because they have no area or values that are not finite.
    """

    images: dict[Any, dict[str, Any]]
    categories: dict[Any, dict[str, Any]]
    boxes: list[dict[str, Any]]
    unusable_boxes: int


def read_results(path: Path) -> list[dict[str, Any]]:
    """Anybody's COCO results file. Raises OSError for a missing file, ValueError for anything but a list of results."""
    results = _read_json(path)
    if not isinstance(results, list):
        raise ValueError(f"{path}: a {_kind(results)}; expected a list of results, each with {_listed(RESULT_KEYS)}")
    with _naming(path):
        check_results(results)
    return results


def read_truth(annotations: Path | Mapping[str, Any], category_ids: Iterable[int] | None = None) -> GroundTruth:
    """COCO annotations, a file or what was read from one, the boxes of these categories alone if any are named.

    Raises ValueError for anything else, OSError for no file. What lies in other categories needs no box.
    """
    place = annotations if isinstance(annotations, Path) else "annotations"
    content = _read_json(annotations) if isinstance(annotations, Path) else annotations
    with _naming(place):
        _check_sections(content)
        images = {row["id"]: {"id": row["id"]} for row in content["images"]}
        categories = {row["id"]: dict(row) for row in content["categories"]}
        if len(images) < len(content["images"]) or len(categories) < len(content["categories"]):
            raise ValueError("the ids of its images or of its categories are not unique")
        rows = content["annotations"]
        refuse_unknown("boxes name an unknown picture id", [row["image_id"] for row in rows], images)
        refuse_unknown("boxes name an unknown category id", [row["category_id"] for row in rows], categories)
        chosen = set(categories if category_ids is None else category_ids)
        boxes = [row for place, row in enumerate(rows) if row["category_id"] in chosen and _check_box(place, row)]
    usable = [_truth_row(row) for row in boxes if _has_area(row["bbox"])]
    return GroundTruth(images, categories, usable, len(boxes) - len(usable))


def check_against(results: Sequence[Mapping[str, Any]], truth: GroundTruth) -> ResultColumns:
    """The results as columns.

    Raises ValueError for what is malformed, or names pictures or categories that the ground truth does not have.
    """
    columns = check_results(results)
    refuse_unknown("results name an unknown picture id", columns.image_ids, truth.images)
    refuse_unknown("results name an unknown category id", columns.category_ids, truth.categories)
    return columns


def check_results(results: Sequence[Any]) -> ResultColumns:
    """ValueError for what is no list of COCO results, with the place of the first wrong one."""
    columns = _plain_columns(results)
    if columns is None:
        _check_each_result(results)
        lists = ([row[key] for row in results] for key in RESULT_KEYS)
        columns = _columns(*lists)
    return columns


def _plain_columns(results: Sequence[Any]) -> ResultColumns | None:
    """Half a million results in a second, or None where a row is not of the plainest kind and needs a closer look."""
    if set(map(type, results)) - {dict}:
        return None
    try:
        images, categories, boxes, scores = ([row[key] for row in results] for key in RESULT_KEYS)
    except KeyError:
        return None
    if set(map(type, chain(images, categories))) - {int} or set(map(type, boxes)) - {list, tuple}:
        return None
    if set(map(len, boxes)) - {4} or set(map(type, chain(scores, chain.from_iterable(boxes)))) - {int, float}:
        return None
    try:
        columns = _columns(images, categories, boxes, scores)
    except OverflowError:
        return None
    usable = bool((abs(columns.boxes_xywh) < _BEYOND).all() and (abs(columns.scores) < _BEYOND).all())
    return columns if usable and (columns.boxes_xywh[:, 2:] >= 0).all() else None


def _columns(images: list[Any], categories: list[Any], boxes: list[Any], scores: list[Any]) -> ResultColumns:
    flat = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes))
    return ResultColumns(images, categories, flat.reshape(-1, 4), np.array(scores, np.float64))


def _check_each_result(results: Sequence[Any]) -> None:
    _check_rows("results", results, RESULT_KEYS)
    for place, row in enumerate(results):
        if not all(map(math.isfinite, row["bbox"])) or min(row["bbox"][2:]) < 0:
            raise ValueError(
                f"results[{place}] has the box {row['bbox']}; expected finite numbers, sides of at least 0"
            )
        if not _is_number(row["score"]) or not math.isfinite(row["score"]):
            raise ValueError(f"results[{place}] has the score {row['score']!r}; expected a finite number")


def chosen_ids(ids: Iterable[int], noun: str, known: Mapping[Any, Any]) -> list[int]:
    """The ids, sorted, each once; ValueError where one is unknown."""
    chosen = sorted(set(ids))
    refuse_unknown(f"of the chosen {noun} ids are unknown", chosen, known)
    return chosen


def unique_names(categories: Mapping[Any, Mapping[str, Any]], category_ids: Iterable[Any]) -> list[tuple[Any, str]]:
    """(id, name) per category; a name that is used twice carries its id."""
    names = {category: str(categories[category].get("name", category)) for category in category_ids}
    uses = Counter(names.values())
    return [(category, name if uses[name] == 1 else f"{name} ({category})") for category, name in names.items()]


def refuse_unknown(complaint: str, ids: Iterable[Any], known: Mapping[Any, Any]) -> None:
    """ValueError where ids are not among the known ones: how many, one example, what is known."""
    unknown = [value for value in ids if value not in known]
    if unknown:
        span = f"{len(known)} ids from {min(known)} to {max(known)}" if known else "none"
        raise ValueError(f"{len(unknown)} {complaint}, for example {unknown[0]!r}; the ground truth has {span}")


def _truth_row(row: Mapping[str, Any]) -> dict[str, Any]:
    area: Any = row.get("area")
    return {
        "image_id": row["image_id"],
        "category_id": row["category_id"],
        "bbox": row["bbox"],
        "area": area if _is_number(area) else row["bbox"][2] * row["bbox"][3],
        "iscrowd": int(row.get("iscrowd") in (1, True)),
        "difficult": int(row.get("difficult") in (1, True)),
    }


def _check_sections(content: Any) -> None:
    if not isinstance(content, Mapping):
        raise ValueError(f"a {_kind(content)}; expected COCO annotations, an object with {_listed(_SECTIONS)}")
    for section, keys in _SECTIONS.items():
        rows = content.get(section)
        if not isinstance(rows, list):
            raise ValueError(f"no list called {section!r}; expected COCO annotations with {_listed(_SECTIONS)}")
        _check_rows(section, rows, keys)
        if keys == ("id",) and len({isinstance(row["id"], str) for row in rows}) > 1:
            raise ValueError(f"the ids of its {section} are numbers and words; expected numbers")


def _check_box(place: int, row: Mapping[str, Any]) -> bool:
    """True; ValueError where the row has no box of four numbers."""
    if not _is_box(row.get("bbox")):
        raise ValueError(f"annotations[{place}] has the box {_brief(row.get('bbox'))}; expected [x, y, width, height]")
    return True


def _check_rows(section: str, rows: Sequence[Any], keys: Sequence[str]) -> None:
    """Each row an object with these keys, its ids usable as such, its box four numbers."""
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping) or not all(key in row for key in keys):
            raise ValueError(f"{section}[{place}] is {_brief(row)}; expected an object with {_listed(keys)}")
        for key in keys:
            if key.endswith("id") and not isinstance(row[key], (int, str, np.integer)):
                raise ValueError(f"{section}[{place}] has the {key} {_brief(row[key])}; expected a whole number")
        if "bbox" in keys and not _is_box(row["bbox"]):
            raise ValueError(f"{section}[{place}] has the box {_brief(row['bbox'])}; expected [x, y, width, height]")


def _is_box(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 4 and all(map(_is_number, value))


def _has_area(box: Sequence[float]) -> bool:
    return all(map(math.isfinite, box)) and min(box[2:]) > 0


def _is_number(value: Any) -> bool:
    """Whether it is a number that arithmetic takes: no truth value, nothing beyond what a float holds."""
    if not isinstance(value, (int, float, np.number)) or isinstance(value, bool):
        return False
    return isinstance(value, float) or bool(-_BEYOND < value < _BEYOND)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no JSON text ({error.reason} at byte {error.start})") from error
    except RecursionError:
        raise ValueError(f"{path}: no JSON of results or annotations (lists within lists without end)") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: no JSON ({error.msg} in line {error.lineno}, column {error.colno})") from error


@contextlib.contextmanager
def _naming(place: Path | str) -> Iterator[None]:
    """Put the file's name in front of a complaint about its content."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _kind(value: Any) -> str:
    names = {"dict": "JSON object", "list": "JSON list", "str": "JSON string"}
    return names.get(type(value).__name__, type(value).__name__)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
