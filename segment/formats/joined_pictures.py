"""Several sets of labelled pictures as one, such as the persons of two COCO files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from segment.formats.labelled_pictures import LabelledPictures, LabelReport
from segment.transforms import Transform


class JoinedPictures(LabelledPictures):
    """All pictures of `parts`, one part after the other, through one transform. ValueError for parts of other classes.

    Attributes: as `LabelledPictures`, and `parts`.
    """

    def __init__(self, parts: Sequence[LabelledPictures], *, transform: Transform | None = None) -> None:
        if not parts:
            raise ValueError("no part was given; expected one or more sets of labelled pictures")
        for part in parts:
            if part.class_names != parts[0].class_names:
                other, first = ", ".join(part.class_names), ", ".join(parts[0].class_names)
                raise ValueError(f"the parts have other classes, {first} and {other}; expected the same in one order")
        self._parts = tuple(parts)
        self._starts = [0, *accumulate(len(part) for part in parts)]
        super().__init__(
            [path for part in parts for path in part.image_paths],
            [name for part in parts for name in part.file_names],
            parts[0].class_names,
            colours=parts[0].colours,
            transform=transform,
            report=LabelReport.joined([part.report for part in parts]),
        )

    @property
    def parts(self) -> tuple[LabelledPictures, ...]:
        """As they were given."""
        return self._parts

    def read_labels(self, index: int) -> np.ndarray:
        """See `LabelledPictures`."""
        part, own = self._find(index)
        return part.read_labels(own)

    def label_name(self, index: int) -> str:
        """What the part calls it."""
        part, own = self._find(index)
        return part.label_name(own)

    def _find(self, index: int) -> tuple[LabelledPictures, int]:
        place = bisect_right(self._starts, index) - 1
        return self._parts[place], index - self._starts[place]
