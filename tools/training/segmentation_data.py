"""The labelled pictures that a config names, opened: parts put together, checked, kept in memory, seen whole."""

from __future__ import annotations

import bisect
import itertools
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pictures.images import read_size, resize_image
from pictures.splits import read_split
from segment.formats.camvid import CamVid
from segment.formats.check_labels import check_labels
from segment.formats.cityscapes_folders import Cityscapes
from segment.formats.coco_masks import CocoMasks
from segment.formats.labelled_pictures import LabelledPictures
from segment.formats.mask_folder import MaskFolder
from segment.predictor import same_shape_size
from segment.transforms import Transform

from ..configuration.segmentation_config import (
    CamVidData,
    CamVidPart,
    CityscapesData,
    CityscapesPart,
    CocoData,
    CocoPart,
    LabelledData,
    LabelledPart,
    MasksData,
    MasksPart,
)
from ..progress import show_progress
from .sampler import Request, Size


class JoinedPictures(Dataset[tuple[Tensor, Tensor]]):
    """One or more `LabelledPictures` of the same classes as one data set; requests and answers are theirs."""

    def __init__(self, parts: Sequence[LabelledPictures]) -> None:
        self.parts = tuple(parts)
        self.class_names, self.colours = parts[0].class_names, parts[0].colours
        self.notes = [str(part.report) for part in parts]
        self._ends = list(itertools.accumulate(len(part) for part in parts))

    @property
    def report(self) -> str:
        """What was read, part by part."""
        return "; ".join(self.notes)

    @property
    def file_names(self) -> list[str]:
        """One per picture, relative to the folder of its part."""
        return [name for part in self.parts for name in part.file_names]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, request: int | Request) -> tuple[Tensor, Tensor]:
        """See `LabelledPictures`."""
        if isinstance(request, tuple):
            part, place = self.locate(request[0])
            return part[place, request[1], request[2]]
        part, place = self.locate(request)
        return part[place]

    def locate(self, index: int) -> tuple[LabelledPictures, int]:
        """The part that picture `index` is in, and its place there."""
        index = range(len(self))[operator.index(index)]
        number = bisect.bisect(self._ends, index)
        part = self.parts[number]
        return part, index - self._ends[number] + len(part)


class WholePictures(Dataset[tuple[Tensor, Tensor]]):
    """`data` for evaluation: (the whole picture, resized to about as many pixels as `size` has; its full-size labels).

    As `segment.Predictor` does it, so that what is scored is what is used. keep_shape: False to squeeze pictures into
    `size` itself. size: None to leave them as they are on disk.
    """

    def __init__(self, data: JoinedPictures, size: Size | None, *, keep_shape: bool = True) -> None:
        self.data, self.size, self.keep_shape = data, size, keep_shape

    @property
    def report(self) -> str:
        """That of the pictures."""
        return self.data.report

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        """(image [3, h, w] uint8 RGB, labels [H, W] uint8)."""
        image, labels = self.data[index]
        if self.size is None:
            return image, labels
        pixels = image.permute(1, 2, 0).numpy()
        own = (pixels.shape[0], pixels.shape[1])
        resized = resize_image(pixels, same_shape_size(self.size, own) if self.keep_shape else self.size)
        return torch.from_numpy(resized).permute(2, 0, 1).contiguous(), labels


def open_pictures(
    data: LabelledData,
    parts: Sequence[LabelledPart],
    *,
    class_names: Sequence[str] | None = None,
    transform: Transform | None = None,
) -> JoinedPictures:
    """Some parts of a config's data. Raises as the layout's reader.

    class_names: the net's, which count where the config leaves open what is read from a COCO file.
    """
    opened: list[LabelledPictures] = []
    for part in parts:
        opened.append(_open_part(data, part, class_names, transform))
        class_names = opened[0].class_names
    return JoinedPictures(opened)


def _open_part(
    data: LabelledData, part: LabelledPart, class_names: Sequence[str] | None, transform: Transform | None
) -> LabelledPictures:
    names = None if part.file_names is None else read_split(part.file_names)
    if isinstance(data, CityscapesData) and isinstance(part, CityscapesPart):
        return Cityscapes(data.root, part.split, labels=data.labels, annotation=part.annotation, cities=part.cities,
                          file_names=names, transform=transform)  # fmt: skip
    if isinstance(data, CamVidData) and isinstance(part, CamVidPart):
        return CamVid(data.root, part.split, file_names=names, transform=transform)
    if isinstance(data, MasksData) and isinstance(part, MasksPart):
        return MaskFolder(part.images, part.labels, data.class_names, kind=data.kind, ignore=data.ignore,
                          label_suffix=data.label_suffix, file_names=names, transform=transform)  # fmt: skip
    if isinstance(data, CocoData) and isinstance(part, CocoPart):
        wanted = data.class_names or (class_names and class_names[1:])  # without the background
        return CocoMasks(part.annotations, part.images, class_names=wanted, crowds=data.crowds, file_names=names,
                         transform=transform)  # fmt: skip
    raise TypeError(f"no reader is known for {type(data).__name__} with {type(part).__name__}")


def prepare_pictures(data: JoinedPictures, *, check: bool, cache: bool) -> None:
    """Open every label of `data` and note the classes' shares in its report, if `check`; keep what is read, if `cache`.

    Raises as `check_labels` and `LabelledPictures.keep_in_memory`.
    """
    for number, part in enumerate(data.parts):
        if check:
            counts = check_labels(part, progress=lambda items, total: show_progress(items, total, "labels checked"))
            data.notes[number] += f"; {counts}"
        if cache:
            part.keep_in_memory()


def refuse_mixed_sizes(data: JoinedPictures, why: str) -> None:
    """ValueError, which begins with `why`, where the pictures of `data` are not all of one size."""
    sizes: dict[Size, str] = {}
    for part in data.parts:
        for path, name in zip(part.image_paths, part.file_names, strict=True):
            sizes.setdefault(read_size(path), name)
            if len(sizes) > 1:
                shown = " and ".join(f"{width} x {height} ({one})" for (height, width), one in sizes.items())
                raise ValueError(f"{why}, but there are pictures of {shown}; expected 1, or one size")
