"""COCO's polygons and run lengths as a class for every pixel: background, and one class for each chosen category.

Format: https://cocodataset.org/#format-data, object detection. What it leaves open, and what is done here: COCO does
not say which object lies in front, so smaller ones are drawn over larger ones; a crowd region (people without outlines
of their own, gaps included) is ignored where no single object covers it, or taken as its class on request.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from pictures.checks import Size
from pictures.coco_json import Entry, read_index
from pictures.folders import check_files
from segment.formats.labelled_pictures import LabelledPictures, LabelReport
from segment.losses import IGNORE
from segment.transforms import Transform

BACKGROUND = "background"
_MOST_CATEGORIES = IGNORE - 1  # a label is one byte: 0 is the background
_FEWEST_NUMBERS = 6  # three corners
_MAX_COORDINATE = 1e6  # pixels
_MAX_RUN = 1 << 40
_MAX_BITS = 30  # of one compressed number

Runs = np.ndarray  # [R] int64: lengths of runs down the columns, outside and inside the object in turn, outside first
Drawn = tuple[Runs, int]  # where, and as which class


class CocoMasks(LabelledPictures):
    """The pictures of a COCO json all of whose objects of the chosen categories have outlines.

    class_names: the categories to take (all, by id); class 0 is the background, class i the i-th of them. crowds:
    "ignore" their regions, or take them as "objects" of their class. file_names: which pictures (all). Pictures in
    which some chosen object has a box but no outline are left out, since its pixels would be called background;
    `report` counts them. Raises as `read_index`, FileNotFoundError where pictures are missing from `images`, and
    ValueError for more than 254 categories.
    """

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        *,
        class_names: Sequence[str] | None = None,
        crowds: Literal["ignore", "objects"] = "ignore",
        file_names: Iterable[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        if crowds not in ("ignore", "objects"):
            raise ValueError(f"crowds is {crowds!r}; expected 'ignore' or 'objects'")
        self.annotations, folder = Path(annotations), Path(images)
        index = read_index(self.annotations, class_names=class_names, file_names=file_names)
        if len(index.class_names) > _MOST_CATEGORIES:
            raise ValueError(
                f"{self.annotations} gives {len(index.class_names)} categories; expected at most {_MOST_CATEGORIES}, "
                f"chosen by class_names: a label is one byte, 0 is the background and {IGNORE} is ignored"
            )
        check_files([picture.file_name for picture in index.pictures], folder, self.annotations)
        entries: list[list[Entry]] = [[] for _ in index.pictures]
        for entry in index.entries:
            entries[entry.picture].append(entry)
        report = LabelReport()
        names: list[str] = []
        self._sizes: list[Size] = []
        self._drawn: list[list[Drawn]] = []
        for picture, own in zip(index.pictures, entries, strict=True):
            drawn = _draw(own, picture.size, ignore_crowds=crowds == "ignore")
            if drawn is None:
                report.leave_out("left out because an object has no outline", picture.file_name)
                continue
            names.append(picture.file_name)
            self._sizes.append(picture.size)
            self._drawn.append(drawn)
        if not names:
            raise ValueError(f"{self.annotations} has no picture all of whose objects have outlines (segmentation)")
        paths = [folder / name for name in names]
        super().__init__(paths, names, (BACKGROUND, *index.class_names), transform=transform, report=report)

    def read_labels(self, index: int) -> np.ndarray:
        """See `LabelledPictures`."""
        height, width = self._sizes[index]
        columns = np.zeros((width, height), np.uint8)
        for runs, value in self._drawn[index]:
            is_inside = np.arange(len(runs)) % 2 == 1
            columns[is_inside.repeat(runs).reshape(width, height)] = value
        return columns.T

    def label_name(self, index: int) -> str:
        """The annotations and the picture's name in them."""
        return f"{self.annotations}, {self.file_names[index]}"


def _draw(entries: Sequence[Entry], size: Size, *, ignore_crowds: bool) -> list[Drawn] | None:
    """What to draw one over the other: ignored regions first, then large objects, then small; None if one has none."""
    drawn: list[tuple[bool, int, Runs, int]] = []
    for entry in entries:
        content = entry.content
        runs = _read_outline(content.get("segmentation"), size, entry.what)
        if runs is None:
            return None
        ignored = ignore_crowds and bool(content.get("iscrowd", 0))
        drawn.append((not ignored, -int(runs[1::2].sum()), runs, IGNORE if ignored else entry.label + 1))
    return [(runs, value) for _, _, runs, value in sorted(drawn, key=lambda one: one[:2])]


def _read_outline(outline: Any, size: Size, what: str) -> Runs | None:
    """The pixels of one object, or None where it has no outline. Raises ValueError for an outline that is none."""
    if not outline:
        return None
    if isinstance(outline, dict):
        return _read_run_lengths(outline, size, what)
    if not isinstance(outline, list) or not all(_is_polygon(polygon) for polygon in outline):
        raise ValueError(f"{what} has a segmentation that is no list of polygons [x1, y1, x2, y2, x3, y3, ...]")
    polygons = [polygon for polygon in outline if len(polygon) >= _FEWEST_NUMBERS]
    if not polygons:  # a point or a line
        return None
    # pycocotools' own decoder warns at each call (numpy 2), hence `decode_counts`.
    return decode_counts(coco_mask.merge(coco_mask.frPyObjects(polygons, *size))["counts"])


def _is_polygon(polygon: Any) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) % 2 == 0
        and all(isinstance(value, int | float) and math.isfinite(value) for value in polygon)
        and all(abs(value) < _MAX_COORDINATE for value in polygon)
    )


def _read_run_lengths(outline: dict[str, Any], size: Size, what: str) -> Runs:
    """Run lengths as plain numbers or as COCO's compressed text."""
    counts, said = outline.get("counts"), outline.get("size")
    if said != list(size):
        raise ValueError(f"{what} has run lengths of a picture of {said}; expected {list(size)} (height, width)")
    if isinstance(counts, str):
        runs = decode_counts(counts.encode())
    elif isinstance(counts, list) and all(isinstance(count, int) and abs(count) < _MAX_RUN for count in counts):
        runs = np.array(counts, np.int64)
    else:
        raise ValueError(f"{what} has run lengths that are neither a list of whole numbers nor text")
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError(f"{what} has run lengths of {runs.sum()} pixels; expected {size[0] * size[1]}, none negative")
    return runs


def decode_counts(text: bytes) -> Runs:
    """COCO's compressed run lengths.

    Each character, less 48, carries five bits of a number, the lowest first; the sixth bit says that more follow, and
    the fifth of the last one is the sign. From the fourth number on it is the difference to the number two before.
    """
    numbers: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32 and shift < _MAX_BITS:
            continue
        if bits & 16:
            value -= 1 << shift
        numbers.append(value + numbers[-2] if len(numbers) > 2 else value)
        value = shift = 0
    return np.array(numbers, np.int64)
