"""Pictures for a detector that learns from a teacher: with boxes of the truth or bare, each with the teacher's answer.

The teacher is asked about the very view that the student gets, wherever the pictures are made (in a loader's workers);
or its boxes on whole pictures were written down before and go through the same transform.
"""

from __future__ import annotations

import bisect
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detect.distill import Taught
from detect.results import Detections
from detect.transforms import Size, Transform
from pictures.boxes import BoxRow, Picture, fit_box, gather
from pictures.folders import list_pictures
from pictures.images import read_size
from pictures.report import AnnotationReport

from .boxed_pictures import BoxedPictures, Request, View


class Look(Protocol):
    """A teacher's answer to a view."""

    @property
    def detections(self) -> Detections:
        """In pixels of the view."""
        ...

    @property
    def features(self) -> tuple[Tensor, ...]:
        """[channels, h, w] for each hint, over the whole view."""
        ...


Teacher = Callable[[np.ndarray, Size | None], Look]  # (view [h, w, 3] uint8 RGB, (height, width) it had unstretched)


class AskedPictures(Dataset[tuple[Tensor, Taught]]):
    """`data` with what `teacher` says of each view."""

    def __init__(self, data: BoxedPictures, teacher: Teacher) -> None:
        self.data, self.teacher = data, teacher

    @property
    def report(self) -> Any:
        """That of the pictures."""
        return self.data.report

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, request: Request) -> tuple[Tensor, Taught]:
        """See `BoxedPictures`."""
        seen = self.data.view(request)
        pixels = np.ascontiguousarray(seen.image.permute(1, 2, 0).numpy())
        look = self.teacher(pixels, seen.shown)
        found = look.detections
        return seen.image, Taught(seen.target, found.boxes, found.scores, found.labels, look.features)

    def labels_per_picture(self) -> list[set[int]]:
        """See `BoxedPictures`: of the truth's objects."""
        return self.data.labels_per_picture()


class AnsweredPictures(Dataset[tuple[Tensor, Taught]]):
    """`data` with a teacher's boxes on its whole pictures, rows as in COCO's files of results.

    object_score: the lesson's (`detect.distill.BoxLesson`). A transform treats boxes that the lesson makes objects as
    objects: it looks for them, and drops those whose centre is cut off; all others are regions to it, as crowds are.
    Rows of other pictures or categories are counted and left out. Raises ValueError where none is left, and for a score
    that is no probability.
    """

    def __init__(
        self,
        data: BoxedPictures,
        results: Iterable[Mapping[str, Any]],
        source: str,
        *,
        object_score: float | None = 0.5,
    ) -> None:
        self._truth = data
        self._object_score = object_score
        self._count, self._left_out = 0, 0
        more, scores = self._rows_of(results, source)
        if not self._count:
            raise ValueError(f"{source} has no box in these pictures and of their categories ({data.category_ids})")
        self._scores = scores
        self._data = data.with_more(more)

    def _rows_of(
        self, results: Iterable[Mapping[str, Any]], source: str
    ) -> tuple[list[list[BoxRow]], list[list[float]]]:
        data = self._truth
        place_of = {image_id: place for place, image_id in enumerate(data.image_ids)}
        label_of = {category: label for label, category in enumerate(data.category_ids)}
        rows: list[list[BoxRow]] = [[] for _ in data.image_ids]
        scores: list[list[float]] = [[] for _ in data.image_ids]
        unused = AnnotationReport()
        for row in results:
            place, label = place_of.get(row["image_id"]), label_of.get(row["category_id"])
            if not 0 <= row["score"] <= 1:
                raise ValueError(f"{source} has the score {row['score']}; a teacher's has to be a probability, 0..1")
            box = None
            if place is not None and label is not None:
                x, y, width, height = row["bbox"]
                box = fit_box((x, y, x + width, y + height), data.size_of(place), unused, source)
            if box is None or place is None or label is None:
                self._left_out += 1
                continue
            rows[place].append(BoxRow(box, label, self._object_score is None or row["score"] < self._object_score))
            scores[place].append(float(row["score"]))
            self._count += 1
        return rows, scores

    @property
    def report(self) -> str:
        """What was read, and what of the results was of no use."""
        left_out = f", {self._left_out} of other pictures, categories or places left out" if self._left_out else ""
        return f"{self._truth.report}; {self._count} boxes of the teacher{left_out}"

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, request: Request) -> tuple[Tensor, Taught]:
        """See `BoxedPictures`."""
        seen = self._data.view(request)
        index = range(len(self))[operator.index(request[0] if isinstance(request, tuple) else request)]
        return seen.image, self._divide(seen, index)

    def _divide(self, seen: View, index: int) -> Taught:
        """The objects of a view: first come the truth's, then the teacher's."""
        target = seen.target
        own = self._data.count_of(index) - len(self._scores[index])
        is_taught = seen.kept >= own
        scores = torch.tensor([self._scores[index][place - own] for place in seen.kept[is_taught]], dtype=torch.float32)
        taught, known = torch.from_numpy(is_taught), torch.from_numpy(~is_taught)
        truth = target._replace(boxes=target.boxes[known], labels=target.labels[known], is_crowd=target.is_crowd[known])
        return Taught(truth, target.boxes[taught], scores, target.labels[taught])

    def labels_per_picture(self) -> list[set[int]]:
        """See `BoxedPictures`: of the truth's objects."""
        return self._truth.labels_per_picture()


class JoinedTaught(Dataset[tuple[Tensor, Taught]]):
    """Several of either kind, of the same classes, as one data set."""

    def __init__(self, parts: Sequence[AskedPictures | AnsweredPictures]) -> None:
        self.parts = tuple(parts)
        self._ends = list(itertools.accumulate(len(part) for part in parts))

    @property
    def report(self) -> str:
        """What was read, part by part."""
        return "; ".join(str(part.report) for part in self.parts)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, request: Request) -> tuple[Tensor, Taught]:
        """See `BoxedPictures`."""
        index = range(len(self))[operator.index(request[0] if isinstance(request, tuple) else request)]
        number = bisect.bisect(self._ends, index)
        part = self.parts[number]
        place = index - self._ends[number] + len(part)
        return part[(place, *request[1:]) if isinstance(request, tuple) else place]

    def labels_per_picture(self) -> list[set[int]]:
        """See `BoxedPictures`."""
        return [labels for part in self.parts for labels in part.labels_per_picture()]


def bare_pictures(
    folder: Path,
    classes: Sequence[tuple[int, str]],
    *,
    transform: Transform | None = None,
    file_names: Iterable[str] | None = None,
    cache: bool = False,
) -> BoxedPictures:
    """The pictures of a folder, or those named, in the order of their names and numbered from 1; no object is known.

    classes: the category id and name of each. Raises FileNotFoundError or ValueError for what is not there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of pictures at {folder}")
    present = {path.name for path in list_pictures(folder)}
    names = sorted(present if file_names is None else set(file_names))
    missing = [name for name in names if name not in present]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(names)} pictures are not in {folder}, first {missing[0]!r}")
    if not names:
        raise ValueError(f"no pictures in {folder}; expected files such as .jpg or .png")
    pictures = [Picture(number, name, read_size(folder / name)) for number, name in enumerate(names, start=1)]
    read = gather(pictures, classes, [[] for _ in pictures], AnnotationReport())
    return BoxedPictures(read, folder, folder, transform=transform, cache=cache)
