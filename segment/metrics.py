"""How well pixels are labelled: one confusion matrix for a whole data set, and the figures read from it.

Intersections and unions are summed over all pictures before anything is divided, as the data sets' own scripts do; the
mean of per-picture figures would be another number. `cityscapes_scores.py` adds categories and instances.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .losses import IGNORE

_VALUES = 256  # what a label picture of 8 bits can hold


@dataclass(frozen=True)
class SegmentationScores:
    """The figures of a data set, each 0..1 (NaN where undefined); C classes.

    class_iou: [C] TP / (TP + FP + FN), NaN for a class that is ignored or that neither labels nor predictions hold;
    class_accuracy: [C] the part of a class's labelled pixels that was found, NaN for a class without labelled pixels;
    pixels: [C] labelled pixels; scored: [C] whether the class counts at all. mean_iou and mean_accuracy are taken over
    the classes that are not NaN, so a class that no picture shows does not count, and one that is only predicted counts
    with an IoU of 0. pixel_accuracy: the part of all labelled pixels that was found; frequency_weighted_iou: the
    classes' IoU weighted by their labelled pixels.
    """

    class_names: tuple[str, ...]
    class_iou: np.ndarray
    class_accuracy: np.ndarray
    pixels: np.ndarray
    scored: np.ndarray
    mean_iou: float
    mean_accuracy: float
    pixel_accuracy: float
    frequency_weighted_iou: float


class ConfusionMatrix:
    """Counts pixels by their label (row) and their prediction (column), over as many pictures as are given to it.

    Classes are 0..C-1 and `IGNORE` (255) is kept apart: `matrix` is [C + 1, C + 1] int64 with `IGNORE` last. `ignored`
    names further classes that are not scored. Pixels whose label is ignored count nowhere; a prediction of `IGNORE` or
    of an ignored class is a miss of the class that the label names.
    """

    def __init__(self, num_classes: int, *, ignored: Collection[int] = ()) -> None:
        if not 1 <= num_classes <= IGNORE:
            raise ValueError(f"{num_classes} classes; expected 1 to {IGNORE}, since labels have 8 bits")
        self.num_classes = num_classes
        self.matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
        self.scored = np.ones(num_classes + 1, bool)
        self.scored[[*ignored, num_classes]] = False

    def update(self, prediction: np.ndarray | Tensor, label: np.ndarray | Tensor) -> None:
        """Counts the pixels of one picture or batch: integers of the same shape, both at the label's full size.

        Raises ValueError, and counts nothing, for shapes that differ and for a value that is no class and not `IGNORE`.
        """
        predicted, labelled = label_values(prediction, "prediction"), label_values(label, "label")
        refuse_other_size(predicted, labelled)
        starts, lengths = runs(predicted, labelled)
        self.add(predicted.ravel()[starts], labelled.ravel()[starts], lengths)

    def add(self, predicted: np.ndarray, labelled: np.ndarray, pixels: np.ndarray) -> None:
        """Counts areas [R] of `pixels` pixels, each with one prediction and one label (uint8); raises as `update`."""
        codes = labelled.astype(np.uint16) << 8 | predicted
        counts = np.bincount(codes, pixels, _VALUES * _VALUES).reshape(_VALUES, _VALUES).astype(np.int64)
        self._refuse_unknown(counts.sum(axis=1), "label")
        self._refuse_unknown(counts.sum(axis=0), "prediction")
        known = [*range(self.num_classes), IGNORE]
        self.matrix += counts[np.ix_(known, known)]

    def scores(self, class_names: Sequence[str] | None = None) -> SegmentationScores:
        """The figures; `class_names` [C] are "0", "1", ... by default.

        Raises ValueError where no labelled pixel was counted: an empty data set has no figures.
        """
        names = [str(number) for number in range(self.num_classes)] if class_names is None else class_names
        if len(names) != self.num_classes:
            raise ValueError(f"{len(names)} class names for {self.num_classes} classes")
        self.refuse_empty()
        classes = np.eye(self.num_classes, self.num_classes + 1, dtype=bool) & self.scored
        iou = group_iou(self.matrix, classes, self.scored)
        hits, pixels = (values[:-1] for values in (self.matrix.diagonal(), self.matrix.sum(axis=1)))
        hits, pixels = hits * self.scored[:-1], pixels * self.scored[:-1]
        accuracy = ratio(hits, pixels)
        return SegmentationScores(
            class_names=tuple(names),
            class_iou=iou,
            class_accuracy=accuracy,
            pixels=pixels,
            scored=self.scored[:-1].copy(),
            mean_iou=defined_mean(iou),
            mean_accuracy=defined_mean(accuracy),
            pixel_accuracy=float(hits.sum() / pixels.sum()),
            frequency_weighted_iou=float((np.nan_to_num(iou) * pixels).sum() / pixels.sum()),
        )

    def refuse_empty(self) -> None:
        """ValueError where nothing was counted that could be scored."""
        if not self.matrix[self.scored].any():
            seen = f"all {self.matrix.sum()} pixels are ignored" if self.matrix.any() else "no picture was counted"
            raise ValueError(f"there is nothing to score: {seen}")

    def _refuse_unknown(self, counts: np.ndarray, what: str) -> None:
        """ValueError where `counts` [256] of values holds one that is no class."""
        unknown = counts[self.num_classes : IGNORE].nonzero()[0] + self.num_classes
        if unknown.size:
            raise ValueError(
                f"the {what} holds the value {unknown[0]} ({counts[unknown[0]]} pixels); expected 0 to "
                f"{self.num_classes - 1}, or {IGNORE} for what is ignored"
            )


def label_values(values: np.ndarray | Tensor, what: str) -> np.ndarray:
    """Labels as uint8; ValueError, which calls them `what`, where they are no integers from 0 to 255."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iu":
        raise ValueError(f"the {what} is {array.dtype}; expected integers, one class number a pixel")
    if array.size and not (array.min() >= 0 and array.max() <= IGNORE):
        raise ValueError(f"the {what} holds values from {array.min()} to {array.max()}; expected 0 to {IGNORE}")
    return array.astype(np.uint8)


def refuse_other_size(predicted: np.ndarray, labelled: np.ndarray) -> None:
    """ValueError where a prediction has another shape than its label."""
    if predicted.shape != labelled.shape:
        raise ValueError(
            f"the prediction is {list(predicted.shape)}, the label {list(labelled.shape)}; expected one size: scores "
            "are taken at the label's full size"
        )


def runs(*maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where all maps of one size stay the same: the start [R] of each such run of pixels, row by row, and its length.

    Label pictures consist of areas, so there are far fewer runs than pixels to count.
    """
    flat = [values.ravel() for values in maps]
    is_start = np.zeros(flat[0].size, bool)
    is_start[:1] = True
    for values in flat:
        is_start[1:] |= values[1:] != values[:-1]
    starts = np.flatnonzero(is_start)
    return starts, np.diff(starts, append=is_start.size)


def group_iou(matrix: np.ndarray, groups: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """IoU of each group of values: [G] from a matrix [V, V], groups [G, V] bool and scored [V] bool.

    What is confused within a group is right. Rows that are not scored count nowhere; `groups` must hold scored values
    only. NaN for a group that is empty or that nothing was counted for.
    """
    rows = groups @ matrix  # [G, V]: what the pixels of each group were taken for
    hits = (rows * groups).sum(axis=1)
    misses = rows.sum(axis=1) - hits
    false_alarms = groups @ matrix[scored].sum(axis=0) - hits
    return ratio(hits, hits + misses + false_alarms)


def ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """parts / wholes as float64, NaN where the whole is 0."""
    return np.divide(parts, wholes, out=np.full(np.shape(wholes), np.nan), where=wholes != 0)


def defined_mean(values: np.ndarray) -> float:
    """The mean over what is not NaN; NaN where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
