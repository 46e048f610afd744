"""Every label picture is opened and its values are counted before a training runs into a wrong one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from segment.formats.labelled_pictures import LabelFiles, LabelledPictures

Progress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class LabelCounts:
    """pixels: [C] int64 of each class in all pictures; pictures: [C] int64 that show it; ignored: pixels."""

    class_names: tuple[str, ...]
    pixels: np.ndarray
    pictures: np.ndarray
    ignored: int

    def __str__(self) -> str:
        """Shares in percent of all pixels, in one line; classes that no picture shows are named."""
        total = self.pixels.sum() + self.ignored
        shares = [
            f"{name} {100 * count / total:.2f}"
            for name, count in zip(self.class_names, self.pixels, strict=True)
            if count
        ]
        absent = [name for name, count in zip(self.class_names, self.pixels, strict=True) if not count]
        never = f"; in no picture: {', '.join(absent)}" if absent else ""
        return f"% of the pixels: {', '.join(shares)}, ignored {100 * self.ignored / total:.2f}{never}"


def check_labels(
    data: LabelledPictures, *, progress: Progress | None = None, threads: int | None = None
) -> LabelCounts:
    """Count the classes in all labels of `data`, several files at once (threads: None for one per processor).

    progress: passes on what it is given and may show how far it is: (counts one by one, how many there will be).
    Raises ValueError in one line, with the file and the fix, for the first picture whose labels hold a value that is
    neither a class nor ignored, are of another size than the picture or cannot be read; and where the labels as a whole
    say nothing, or are 0/255 masks that are read as classes.
    """
    pixels = np.zeros(data.num_classes + 1, np.int64)  # those to ignore come last
    pictures = np.zeros(data.num_classes + 1, np.int64)
    values = np.zeros(256, np.int64)
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        found: Iterable[np.ndarray] = pool.map(data.count_values, range(len(data)))
        try:
            for counts in progress(found, len(data)) if progress else found:
                of_classes = data.class_counts(counts)
                values += counts
                pixels += of_classes
                pictures += of_classes > 0
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _refuse_whole(data, values, pixels)
    return LabelCounts(data.class_names, pixels[:-1], pictures[:-1], int(pixels[-1]))


def _refuse_whole(data: LabelledPictures, values: np.ndarray, pixels: np.ndarray) -> None:
    """ValueError for what no single file proves."""
    where = f"{data.label_name(0)} and all others"
    if pixels[:-1].sum() == 0:
        raise ValueError(f"{where} hold nothing but pixels to ignore; expected some of {', '.join(data.class_names)}")
    if isinstance(data, LabelFiles) and pixels[-1] == values[255] > 0 and values[1:255].sum() == 0:
        raise ValueError(
            f"{where} hold 0 and 255 only, so all would be {data.class_names[0]} or ignored; are these 0/255 masks? "
            "kind: binary reads them"
        )
