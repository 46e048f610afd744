"""What the values of a label picture mean: the class of each, what is ignored, and what a wrong value probably is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segment.losses import IGNORE

_UNKNOWN = -1
_CITYSCAPES_CLASSES, _CITYSCAPES_IDS = 19, 34


class Hint(NamedTuple):
    """What it probably means that a picture holds one of `values` where it must not."""

    values: Collection[int]
    words: str


class LabelValues:
    """classes: value -> class 0..C-1, or `IGNORE`; every other value is refused. expected: those values in words."""

    def __init__(self, classes: dict[int, int], expected: str, hints: Sequence[Hint] = ()) -> None:
        self.expected, self.hints = expected, tuple(hints)
        self._table = np.full(256, _UNKNOWN, np.int16)
        self._table[list(classes)] = list(classes.values())
        self._is_unknown = self._table == _UNKNOWN

    def to_classes(self, values: np.ndarray, path: Path) -> np.ndarray:
        """values [H, W] uint8 of the file `path` -> [H, W] uint8 classes; ValueError for a value without a meaning."""
        found = self._table[values]
        if found.min() == _UNKNOWN:
            self.refuse_unknown(np.bincount(values.ravel(), minlength=256), path)
        return found.astype(np.uint8)

    def class_counts(self, counts: np.ndarray, num_classes: int) -> np.ndarray:
        """counts [256] of values -> [C + 1] of classes, what is ignored last."""
        places = np.where(self._table == IGNORE, num_classes, self._table)
        return np.bincount(places[~self._is_unknown], counts[~self._is_unknown], num_classes + 1).astype(np.int64)

    def refuse_unknown(self, counts: np.ndarray, path: Path) -> None:
        """ValueError, with the file and the fix, where counts [256] of its values hold one without a meaning."""
        unknown = np.flatnonzero((counts > 0) & self._is_unknown)
        if not len(unknown):
            return
        value = int(unknown[0])
        hint = next((hint.words for hint in self.hints if set(unknown.tolist()) & set(hint.values)), "")
        what = f"{path} holds the value {value} ({counts[value]} pixels)"
        raise ValueError(f"{what}; expected {self.expected}{f'; {hint}' if hint else ''}")


def index_values(num_classes: int, ignore: Collection[int] = (IGNORE,)) -> LabelValues:
    """Values are the classes themselves, 0..C-1; those in `ignore` are not learnt. ValueError where the two overlap."""
    if not 1 <= num_classes <= IGNORE:
        raise ValueError(f"{num_classes} classes; expected 1 to {IGNORE}, since labels have 8 bits")
    wrong = [value for value in ignore if not num_classes <= value <= 255]
    if wrong:
        raise ValueError(f"the value {wrong[0]} is to be ignored; expected values from {num_classes} to 255")
    hints = [Hint([255], "are these 0/255 masks, or is 255 to be ignored? kind: binary reads the first, ignore: [255]")]
    if num_classes == _CITYSCAPES_CLASSES:
        ids = range(_CITYSCAPES_CLASSES, _CITYSCAPES_IDS)
        hints.insert(0, Hint(ids, "are these Cityscapes' label ids? The layout cityscapes reads *_labelIds.png"))
    words = f", and {', '.join(map(str, sorted(ignore)))} for what is ignored" if ignore else ""
    classes = {value: value for value in range(num_classes)} | dict.fromkeys(ignore, IGNORE)
    return LabelValues(classes, f"0..{num_classes - 1}{words}", hints)


def binary_values() -> LabelValues:
    """0 is class 0, 255 is class 1."""
    hints = (
        Hint([1], "are these classes? kind: index reads them"),
        Hint(range(2, 255), "masks with soft edges must be cut at a threshold first"),
    )
    return LabelValues({0: 0, 255: 1}, "0 and 255", hints)
