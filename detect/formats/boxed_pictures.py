"""Pictures with boxes, whatever files they came from: requests in, (picture, `Target`) out."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detect.results import Target
from detect.transforms import Resize, Size, Transform, Transformed
from pictures.boxes import Annotations, BoxRow
from pictures.folders import size_error
from pictures.images import PictureCache, read_image

Request = int | tuple[int, int, Size]


class View(NamedTuple):
    """A picture as a request asked for it. kept: [K] int64, which of the picture's objects the target's are; shown:
    (height, width) of what is seen, in the picture's own pixels, None where the picture keeps its proportion.
    """

    image: Tensor
    target: Target
    kept: np.ndarray
    shown: Size | None


class BoxedPictures(Dataset[tuple[Tensor, Target]]):
    """Pictures with boxes, for training and for evaluation; each layout of files has its own reader on top of this.

    `dataset[index]` is for evaluation and takes no chance; `dataset[index, seed, size]` is for training: everything
    random derives from `seed`, so that the same request gives the same bytes in any process. Either gives
    (image [3, h, w] uint8 RGB, Target). Without a transform a picture keeps its own size, or takes the request's.

    Attributes: `class_names` and `category_ids` (the number of each class in files of results), `annotations` and
    `images` (the paths), `report` (what was clipped, mended or left out, and why), `image_ids` and `file_names` (one
    per picture).
    """

    crowds_are_difficult: ClassVar[bool] = False  # what the losses leave out is a single object, no region

    def __init__(
        self,
        read: Annotations,
        annotations: Path,
        images: Path,
        *,
        transform: Transform | None = None,
        cache: bool = False,
        strict: bool = False,
    ) -> None:
        """read: what stands in `annotations`; its pictures lie in the folder `images` and are opened when asked for.

        cache: keep decoded pictures in memory, shared by forked workers; strict: ValueError, with all of them in one
        line, where the report has defects.
        """
        if strict:
            read.report.refuse_defects(str(annotations))
        self.annotations, self.images, self.transform = annotations, images, transform
        self.class_names, self.category_ids, self.report = read.class_names, read.category_ids, read.report
        self.image_ids = tuple(picture.image_id for picture in read.pictures)
        self.file_names = tuple(picture.file_name for picture in read.pictures)
        self._sizes = [picture.size for picture in read.pictures]
        self._boxes, self._labels, self._is_crowd, self._starts = read.boxes, read.labels, read.is_crowd, read.starts
        self._cache = PictureCache(self._sizes) if cache else None

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, request: Request) -> tuple[Tensor, Target]:
        """See the class. Raises ValueError for a damaged picture, or for an index alone with a random transform."""
        seen = self.view(request)
        return seen.image, seen.target

    def view(self, request: Request) -> View:
        """`self[request]`, and where it comes from."""
        index, seed, size = request if isinstance(request, tuple) else (request, None, None)
        index = range(len(self))[operator.index(index)]
        rows = self._rows(index)
        changed = self._transformed(self._read(index), self._boxes[rows], self._is_crowd[rows], seed, size)
        target = Target(
            boxes=torch.from_numpy(changed.boxes.copy()),
            labels=torch.from_numpy(self._labels[rows][changed.kept]),
            is_crowd=torch.from_numpy(self._is_crowd[rows][changed.kept]),
            image_id=self.image_ids[index],
            original_size=self._sizes[index],
        )
        # A copy in any case: the picture may be a view of the cache.
        image = torch.from_numpy(np.array(changed.image.transpose(2, 0, 1), order="C"))
        return View(image, target, changed.kept, changed.shown)

    def with_more(self, more: Sequence[Sequence[BoxRow]]) -> BoxedPictures:
        """The same pictures, the i-th with the objects more[i] behind its own."""
        counts = np.diff(self._starts)
        places = np.repeat(self._starts[1:], [len(rows) for rows in more])  # each goes where its picture's own end
        flat = [row for rows in more for row in rows]
        boxes = np.array([row.box for row in flat], np.float32).reshape(-1, 4)
        extended = copy.copy(self)
        vars(extended).update(
            _boxes=np.insert(self._boxes, places, boxes, axis=0),
            _labels=np.insert(self._labels, places, [row.label for row in flat]),
            _is_crowd=np.insert(self._is_crowd, places, [row.is_crowd for row in flat]),
            _starts=np.cumsum([0, *(counts + [len(rows) for rows in more])]),
        )
        return extended

    def labels_per_picture(self) -> list[set[int]]:
        """The classes 0..C-1 of each picture's objects; objects that the losses leave out do not count."""
        return [set(self._labels[rows][~self._is_crowd[rows]].tolist()) for rows in map(self._rows, range(len(self)))]

    def ground_truth(self) -> Path | dict[str, Any]:
        """What the metrics score against: COCO annotations, in pixels of the pictures on disk.

        What the losses leave out has `iscrowd` 1, and `difficult` 1 where it is a single object.
        """
        pictures = zip(self.image_ids, self.file_names, self._sizes, strict=True)
        return {
            "images": [
                {"id": image_id, "file_name": name, "height": size[0], "width": size[1]}
                for image_id, name, size in pictures
            ],
            "categories": [
                {"id": number, "name": name} for number, name in zip(self.category_ids, self.class_names, strict=True)
            ],
            "annotations": [row for index in range(len(self)) for row in self._truth(index)],
        }

    def _truth(self, index: int) -> list[dict[str, Any]]:
        """The objects of picture `index` as COCO annotations."""
        rows = self._rows(index)
        objects = zip(self._boxes[rows].tolist(), self._labels[rows], self._is_crowd[rows], strict=True)
        return [
            {
                "image_id": self.image_ids[index],
                "category_id": self.category_ids[label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": int(is_crowd),
                "difficult": int(is_crowd and self.crowds_are_difficult),
            }
            for (x1, y1, x2, y2), label, is_crowd in objects
        ]

    def size_of(self, index: int) -> tuple[int, int]:
        """(height, width) of picture `index` on disk."""
        return self._sizes[index]

    def count_of(self, index: int) -> int:
        """How many objects picture `index` has."""
        return int(self._starts[index + 1] - self._starts[index])

    def _rows(self, index: int) -> slice:
        """Where the objects of picture `index` stand in the arrays."""
        return slice(self._starts[index], self._starts[index + 1])

    def _transformed(
        self, image: np.ndarray, boxes: np.ndarray, is_crowd: np.ndarray, seed: int | None, size: Size | None
    ) -> Transformed:
        if self.transform is None:
            return Resize()(image, boxes, is_crowd, size=image.shape[:2] if size is None else size)
        if seed is None and self.transform.is_random:
            raise ValueError(
                "this data set has a random transform: ask for (index, seed, size), not for an index alone"
            )
        return self.transform(image, boxes, is_crowd, seed=seed or 0, size=size)

    def _read(self, index: int) -> np.ndarray:
        """Picture `index`, [H, W, 3] uint8 RGB, possibly read-only; from the cache where it is there."""
        cached = None if self._cache is None else self._cache.get(index)
        if cached is not None:
            return cached
        path = self.images / self.file_names[index]
        image = read_image(path)
        if image.shape[:2] != self._sizes[index]:
            raise ValueError(size_error(path, image.shape[:2], self.annotations, self._sizes[index]))
        if self._cache is not None:
            self._cache.put(index, image)
        return image


def collate(batch: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
    """[(image [3, H, W] uint8, Target)] -> (images [N, 3, H, W] uint8, targets). ValueError where sizes differ."""
    sizes = {tuple(image.shape[1:]) for image, _ in batch}
    if len(sizes) != 1:
        raise ValueError(
            f"a batch needs pictures of one size, got {sorted(sizes)}; resize them by a transform or request"
        )
    return torch.stack([image for image, _ in batch]), [target for _, target in batch]
