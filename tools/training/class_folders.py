"""Folders of class folders (ImageNet's layout) -> (picture, class): `cat/1.jpg` is a cat."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pictures.images import DAMAGE, read_image

from .sampler import Request, Size

# Draws a picture [H, W, 3] uint8 anew from (picture, seed, size); without a seed nothing is random.
PictureTransform = Callable[[np.ndarray, int | None, Size | None], np.ndarray]

_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"))
_MAX_EXAMPLES = 3


@dataclass
class FoldersReport:
    """What was read of class folders and what was left out, by reason with up to three examples; `str()` is a line."""

    pictures: int = 0
    classes: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, what: str) -> None:
        """Note one thing that is left out."""
        self.left_out.setdefault(reason, []).append(what)

    def __str__(self) -> str:
        parts = [f"{self.pictures} pictures of {self.classes} classes"]
        for reason, things in sorted(self.left_out.items()):
            shown = ", ".join(things[:_MAX_EXAMPLES]) + (", ..." if len(things) > _MAX_EXAMPLES else "")
            parts.append(f"left out: {len(things)} {reason} ({shown})")
        return "; ".join(parts)


class ClassFolders(Dataset[tuple[Tensor, int]]):
    """Pictures and the class folder that each lies in, at any depth.

    `dataset[index]` is for evaluation, `dataset[index, seed, size]` for training, as in `CocoDetection`; either gives
    (picture [3, h, w] uint8 RGB, class 0..C-1). Attributes: `folder`, `class_names` (the folders' names, sorted, unless
    given), `file_names` (relative to `folder`), `labels` (one a picture), `report`.
    """

    def __init__(
        self,
        folder: Path,
        transform: PictureTransform,
        *,
        class_names: Sequence[str] | None = None,
        check: bool = False,
    ) -> None:
        """List the class folders in `folder`. Hidden files are passed over; files that are no pictures by their ending,
        classes without pictures and, with class_names, classes that are not among them are left out and reported.

        check: decode every picture, at an eighth of its size where the format can, and leave out those that are
        damaged. Raises ValueError or OSError where there is nothing to learn from or to score.
        """
        self.folder, self.transform, self.report = folder, transform, FoldersReport()
        classes = {name: self._pictures_of(name) for name in _class_folders(folder)}
        if class_names is not None:
            for name in [name for name in classes if name not in class_names]:
                self.report.leave_out("class folders that the net has no class for", name)
                del classes[name]
        if check:
            self._leave_out_damaged(classes)
        for name in [name for name, pictures in classes.items() if not pictures]:
            self.report.leave_out("classes without pictures", name)
            del classes[name]
        self._refuse_nothing(classes, class_names)
        self.class_names = tuple(classes) if class_names is None else tuple(class_names)
        self.file_names = [file for pictures in classes.values() for file in pictures]
        index = {name: place for place, name in enumerate(self.class_names)}
        self.labels = np.array([index[name] for name, pictures in classes.items() for _ in pictures], np.int64)
        self.report.pictures, self.report.classes = len(self.file_names), len(classes)

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, request: int | Request) -> tuple[Tensor, int]:
        """See the class. Raises ValueError for a damaged picture."""
        index, seed, size = request if isinstance(request, tuple) else (request, None, None)
        image = self.transform(self._read(index), seed, size)
        return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C")), int(self.labels[index])

    def labels_per_picture(self) -> list[set[int]]:
        """The one class of each picture, as a set: what class balance asks for."""
        return [{int(label)} for label in self.labels]

    def _read(self, index: int) -> np.ndarray:
        try:
            return read_image(self.folder / self.file_names[index])
        except ValueError as error:
            raise ValueError(f"{error}; data.check_pictures: true leaves such pictures out") from error

    def _pictures_of(self, name: str) -> list[str]:
        """Files relative to the folder, in a fixed order; what is no picture by its ending is reported."""
        pictures = []
        for file in sorted(_files_below(self.folder / name)):
            relative = str(file.relative_to(self.folder))
            if file.suffix.lower() in _SUFFIXES:
                pictures.append(relative)
            else:
                self.report.leave_out("files that are no pictures by their ending", relative)
        return pictures

    def _leave_out_damaged(self, classes: dict[str, list[str]]) -> None:
        files = [file for pictures in classes.values() for file in pictures]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            whole = dict(zip(files, pool.map(lambda file: _is_whole(self.folder / file), files), strict=True))
        for pictures in classes.values():
            for file in pictures:
                if not whole[file]:
                    self.report.leave_out("pictures that cannot be read", file)
            pictures[:] = [file for file in pictures if whole[file]]

    def _refuse_nothing(self, classes: dict[str, list[str]], class_names: Sequence[str] | None) -> None:
        reasons = f" ({self.report})" if self.report.left_out else ""
        if not classes:
            raise ValueError(f"{self.folder} has no class folder with pictures for this net{reasons}")
        if class_names is None and len(classes) == 1:
            only = next(iter(classes))
            raise ValueError(f"{self.folder} has pictures of one class only, {only!r}; expected two or more{reasons}")


def collate(batch: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """[(picture [3, H, W] uint8, class)] -> (images [N, 3, H, W] uint8, labels [N] int64)."""
    return torch.stack([image for image, _ in batch]), torch.tensor([label for _, label in batch])


def _class_folders(folder: Path) -> list[str]:
    """Their names, sorted. Raises FileNotFoundError, or ValueError where there is none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of class folders at {folder}")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    expected = "expected a folder for each class, such as cat/ and dog/, with the pictures in them"
    if not names:
        raise ValueError(f"{folder} has no folders in it; {expected}")
    if {"train", "val"} <= set(names):
        raise ValueError(f"{folder} holds train/ and val/, each of which is a part of the data; {expected}")
    return names


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _is_whole(path: Path) -> bool:
    """Whether the picture can be decoded to its end. JPEGs are decoded small, which takes a quarter of the time."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                if picture.format == "JPEG":
                    picture.draft("RGB", (1, 1))
                    picture.load()
                    return True
        read_image(path)
    except DAMAGE:
        return False
    return True
