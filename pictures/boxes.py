"""Boxes as annotation files give them: fitted into their picture or dropped, and put together for a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pictures.report import AnnotationReport

MAX_COORDINATE = 1e9  # pixels; also keeps huge whole numbers away from float arithmetic
Corners = tuple[float, float, float, float]  # xyxy


class Picture(NamedTuple):
    """A picture that annotations are about; size is (height, width)."""

    image_id: int
    file_name: str
    size: tuple[int, int]


class BoxRow(NamedTuple):
    """One object: xyxy in the picture's pixels, the place of its class, whether the losses leave it out."""

    box: Corners
    label: int
    is_crowd: bool


class Annotations(NamedTuple):
    """The chosen pictures and classes of a data set; the objects of picture i are the rows starts[i]:starts[i + 1].

    boxes: [T, 4] float32 xyxy in the picture's pixels, 0 <= x1 < x2 <= W; labels: [T] int64 places in category_ids;
    is_crowd: [T] bool; starts: [pictures + 1] int64; category_ids: the number of each class in files of results.
    """

    pictures: list[Picture]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    boxes: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray
    starts: np.ndarray
    report: AnnotationReport


def fit_box(corners: Sequence[float], size: tuple[int, int], report: AnnotationReport, place: str) -> Corners | None:
    """xyxy `corners` inside a picture of `size` (height, width), exact in float32, or None where the box is dropped.

    What was done stands in `report` under `place`.
    """
    if not all(abs(value) < MAX_COORDINATE for value in corners):  # false for NaN too
        report.drop("not finite", place)
        return None
    boxes, _ = fit_boxes(np.array([corners], np.float64), np.array([size]), report, lambda _: place)
    if not len(boxes):
        return None
    x1, y1, x2, y2 = boxes[0].tolist()
    return x1, y1, x2, y2


class BoxColumns(NamedTuple):
    """Objects in columns: the places of their pictures and classes [N] int64, boxes [N, 4], is_crowd [N] bool."""

    pictures: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray

    def rows(self, chosen: np.ndarray) -> BoxColumns:
        """Those that an index chooses, in its order."""
        return BoxColumns(*(column[chosen] for column in self))


def fit_boxes(
    corners: np.ndarray, sizes: np.ndarray, report: AnnotationReport, place: Callable[[int], str]
) -> tuple[np.ndarray, np.ndarray]:
    """`fit_box` for many: corners [N, 4] float64 xyxy, sizes [N, 2] of their pictures, place(row) for the report.

    The boxes [K, 4] float32 that are left, and their rows [K].
    """
    limits = np.concatenate([sizes, sizes], axis=1)[:, [1, 0, 3, 2]]
    boxes = np.clip(corners, 0, limits).astype(np.float32)
    with np.errstate(invalid="ignore"):
        reasons = {
            "not finite": ~(abs(corners) < MAX_COORDINATE).all(axis=1),
            "no area": (corners[:, :2] >= corners[:, 2:]).any(axis=1),
            "outside the picture": (corners[:, :2] >= limits[:, :2]).any(axis=1) | (corners[:, 2:] <= 0).any(axis=1),
        }
        is_empty = (boxes[:, :2] >= boxes[:, 2:]).any(axis=1)
        is_beyond = ((corners < 0) | (corners > limits)).any(axis=1)
    is_left = np.ones(len(corners), bool)
    for reason, holds in [*reasons.items(), ("no area", is_empty)]:  # the first that holds counts
        for row in np.flatnonzero(holds & is_left).tolist():
            report.drop(reason, place(row))
        is_left &= ~holds
    for row in np.flatnonzero(is_beyond & is_left).tolist():
        report.clip(place(row))
    kept = np.flatnonzero(is_left)
    return boxes[kept], kept


def gather_columns(
    pictures: list[Picture], classes: Sequence[tuple[int, str]], rows: BoxColumns, report: AnnotationReport
) -> Annotations:
    """As `gather`, of boxes in the order of a file."""
    rows = rows.rows(np.argsort(rows.pictures, kind="stable"))
    counts = np.bincount(rows.pictures, minlength=len(pictures))
    report.pictures = len(pictures)
    report.empty_pictures = int((counts == 0).sum())
    report.crowds = int(rows.is_crowd.sum())
    report.boxes = len(rows.labels) - report.crowds
    return Annotations(
        pictures=pictures,
        class_names=tuple(name for _, name in classes),
        category_ids=tuple(number for number, _ in classes),
        boxes=rows.boxes.astype(np.float32),
        labels=rows.labels,
        is_crowd=rows.is_crowd,
        starts=np.concatenate([[0], np.cumsum(counts)]),
        report=report,
    )


def gather(
    pictures: list[Picture],
    classes: Sequence[tuple[int, str]],
    rows: Sequence[Sequence[BoxRow]],
    report: AnnotationReport,
) -> Annotations:
    """The rows of each picture in a few large arrays, which forked workers share for good; `report` gets its counts.

    classes: the number of each class in files of results, and its name.
    """
    flat = [row for picture_rows in rows for row in picture_rows]
    columns = BoxColumns(
        pictures=np.repeat(np.arange(len(rows)), [len(picture_rows) for picture_rows in rows]),
        boxes=np.array([row.box for row in flat], np.float32).reshape(-1, 4),
        labels=np.array([row.label for row in flat], np.int64),
        is_crowd=np.array([row.is_crowd for row in flat], bool),
    )
    return gather_columns(pictures, classes, columns, report)
