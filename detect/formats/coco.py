"""COCO json and a folder of pictures -> (picture, `Target`). Category ids and xywh boxes end here."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detect.results import Target
from detect.transforms import Resize, Size, Transform, Transformed
from pictures.coco_json import read_annotations
from pictures.folders import check_files, size_error
from pictures.images import PictureCache, read_image

Request = int | tuple[int, int, Size]


class CocoDetection(Dataset[tuple[Tensor, Target]]):
    """Pictures with boxes from a COCO json, for training and for evaluation.

    `dataset[index]` is for evaluation and takes no chance; `dataset[index, seed, size]` is for training: everything
    random derives from `seed`, so that the same request gives the same bytes in any process. Either gives
    (image [3, h, w] uint8 RGB, Target). Without a transform a picture keeps its own size, or takes the request's.

    Attributes: `class_names` and `category_ids` (the file's id of each class index), `annotations` and `images` (the
    paths), `report` (what was clipped or dropped, and why), `image_ids` and `file_names` (one per picture).
    """

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        *,
        class_names: Sequence[str] | None = None,
        file_names: Iterable[str] | None = None,
        transform: Transform | None = None,
        cache: bool = False,
    ) -> None:
        """Read the json `annotations`; its pictures lie in the folder `images` and are opened when asked for.

        class_names: which classes, in this order (all, by category id); file_names: which pictures (all); cache: keep
        decoded pictures in memory, shared by forked workers. Boxes that reach beyond their picture are clipped; boxes
        without area, outside the picture or not finite are dropped; pictures without objects stay. Raises ValueError
        or OSError in one line: see `read_annotations`; also where pictures are missing from the folder.
        """
        self.annotations, self.images, self.transform = Path(annotations), Path(images), transform
        read = read_annotations(self.annotations, class_names=class_names, file_names=file_names)
        self.class_names, self.category_ids, self.report = read.class_names, read.category_ids, read.report
        self.image_ids = tuple(picture.image_id for picture in read.pictures)
        self.file_names = tuple(picture.file_name for picture in read.pictures)
        self._sizes = [picture.size for picture in read.pictures]
        self._boxes, self._labels, self._is_crowd, self._starts = read.boxes, read.labels, read.is_crowd, read.starts
        check_files(self.file_names, self.images, self.annotations)
        self._cache = PictureCache(self._sizes) if cache else None

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, request: Request) -> tuple[Tensor, Target]:
        """See the class. Raises ValueError for a damaged picture, or for an index alone with a random transform."""
        index, seed, size = request if isinstance(request, tuple) else (request, None, None)
        index = range(len(self))[operator.index(index)]
        rows = slice(self._starts[index], self._starts[index + 1])
        changed = self._transformed(self._read(index), self._boxes[rows], self._is_crowd[rows], seed, size)
        target = Target(
            boxes=torch.from_numpy(changed.boxes.copy()),
            labels=torch.from_numpy(self._labels[rows][changed.kept]),
            is_crowd=torch.from_numpy(self._is_crowd[rows][changed.kept]),
            image_id=self.image_ids[index],
            original_size=self._sizes[index],
        )
        # A copy in any case: the picture may be a view of the cache.
        return torch.from_numpy(np.array(changed.image.transpose(2, 0, 1), order="C")), target

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
