"""COCO json and a folder of pictures -> (picture, `Target`). Category ids and xywh boxes end here."""

from __future__ import annotations

import operator
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detect.formats.coco_json import read_annotations
from detect.formats.images import PictureCache, read_image
from detect.results import Target
from detect.transforms import Resize, Size, Transform, Transformed

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
        _check_files(self.file_names, self.images, self.annotations)
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
            raise ValueError(_size_error(path, image.shape[:2], self.annotations, self._sizes[index]))
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


def read_split(path: str | os.PathLike[str]) -> list[str]:
    """The file names in a list, one a line; empty lines and lines that begin with # are skipped.

    Raises FileNotFoundError, or ValueError where it is no text, names nothing or names a file twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no list of file names at {path}")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file; expected one file name a line") from error
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise ValueError(f"{path} names no file; expected one file name a line")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{path} names {name!r} {count} times; expected each name once")
    return names


def _check_files(file_names: Sequence[str], folder: Path, annotations: Path) -> None:
    """One listing per folder instead of one question per picture."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of pictures at {folder}")
    present = {parent: _names_in(folder / parent) for parent in {os.path.dirname(name) for name in file_names}}
    missing = [name for name in file_names if os.path.basename(name) not in present[os.path.dirname(name)]]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(file_names)} pictures of {annotations} are not in {folder}, first {missing[0]!r}"
        )


def _names_in(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()


def _size_error(path: Path, found: Size, annotations: Path, said: Size) -> str:
    turned = "; was it annotated without its EXIF rotation?" if found == said[::-1] else ""
    return f"{path} is {found[1]} x {found[0]} pixels, but {annotations} says {said[1]} x {said[0]}{turned}"
