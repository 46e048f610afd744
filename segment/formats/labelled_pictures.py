"""Pictures with a class for every pixel, whatever layout they come from: what a training and an evaluation read."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pictures.checks import Size
from pictures.images import PictureCache, read_image, read_size, read_values
from segment.formats.label_values import LabelValues
from segment.transforms import Transform

Request = int | tuple[int, int, Size]


@dataclass
class LabelReport:
    """How many pictures were read, and which were left out and why; `str()` gives one readable line."""

    pictures: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Count one picture, or one object, that is left out."""
        self.left_out[reason] += 1
        self.examples.setdefault(reason, name)

    def __str__(self) -> str:
        reasons = [f"{count} {reason} (first {self.examples[reason]})" for reason, count in self.left_out.items()]
        return "; ".join([f"{self.pictures} pictures", *reasons])


class LabelledPictures(Dataset[tuple[Tensor, Tensor]]):
    """Pictures and the class of each of their pixels.

    `dataset[index]` is for evaluation: the picture and the label as they are on disk. `dataset[index, seed, size]` is
    for training: both go through the transform, and everything random derives from `seed`, so that the same request
    gives the same bytes in any process. Either gives (image [3, h, w] uint8 RGB, labels [h, w] uint8: 0..C-1, or 255
    for what is ignored).

    Attributes: `class_names` and their `colours` (RGB, None where the layout has none), `image_paths` and `file_names`
    (one per picture, the latter relative to the folder that was given), `report`.
    """

    def __init__(
        self,
        image_paths: Sequence[Path],
        file_names: Sequence[str],
        class_names: Sequence[str],
        *,
        colours: Sequence[tuple[int, int, int]] | None = None,
        transform: Transform | None = None,
        report: LabelReport | None = None,
    ) -> None:
        self.file_names, self.image_paths = tuple(file_names), tuple(image_paths)
        self.class_names = tuple(class_names)
        self.colours = None if colours is None else tuple(colours)
        self.transform = transform
        self.report = report or LabelReport()
        self.report.pictures = len(self.file_names)
        self._kept: tuple[PictureCache, PictureCache] | None = None  # pictures, labels

    @property
    def num_classes(self) -> int:
        """How many classes there are, without what is ignored."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor]:
        """See the class. Raises ValueError for a damaged file, for labels that do not fit, and without a transform."""
        index, seed, size = request if isinstance(request, tuple) else (request, None, None)
        index = range(len(self))[operator.index(index)]
        image, labels = self._read(index)
        if seed is not None and size is not None:
            if self.transform is None:
                raise ValueError("this data set has no transform, so it cannot give a picture at another size")
            image, labels = self.transform(image, labels, seed=seed, size=size)
        pixels = np.array(image.transpose(2, 0, 1), order="C")
        return torch.from_numpy(pixels), torch.from_numpy(np.array(labels, order="C"))

    def keep_in_memory(self) -> None:
        """From here on what was read once is not read again, also not by another of a loader's forked workers.

        Raises OSError where there is no room for all pictures.
        """
        sizes = [read_size(path) for path in self.image_paths]
        self._kept = PictureCache(sizes), PictureCache(sizes, channels=1)

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The picture [H, W, 3] and its labels [H, W], both uint8 and possibly read-only."""
        kept = [] if self._kept is None else [cache.get(index) for cache in self._kept]
        if kept and kept[0] is not None and kept[1] is not None:
            return kept[0], kept[1][:, :, 0]
        image, labels = read_image(self.image_paths[index]), self.read_labels(index)
        self._check_size(index, image.shape[:2], labels.shape)
        if self._kept is not None:
            self._kept[0].put(index, image)
            self._kept[1].put(index, labels[:, :, None])
        return image, labels

    @abstractmethod
    def read_labels(self, index: int) -> np.ndarray:
        """The labels of picture `index` as they are on disk: [H, W] uint8, 0..C-1 or 255. Raises ValueError."""

    @abstractmethod
    def label_name(self, index: int) -> str:
        """What to call the labels of picture `index` in an error message."""

    def count_values(self, index: int) -> np.ndarray:
        """[256] int64: how often each stored value stands in the labels of picture `index`.

        Raises ValueError where the labels do not fit: other values, or another size than the picture's.
        """
        labels = self.read_labels(index)
        self._check_size(index, read_size(self.image_paths[index]), labels.shape)
        return np.bincount(labels.ravel(), minlength=256)

    def class_counts(self, counts: np.ndarray) -> np.ndarray:
        """counts [256] of stored values -> [C + 1] of classes, what is ignored last."""
        return np.append(counts[: self.num_classes], counts[255])

    def _check_size(self, index: int, size: tuple[int, ...], label_size: tuple[int, ...]) -> None:
        if size != label_size:
            picture = f"{self.image_paths[index]} is {size[1]} x {size[0]} pixels"
            label = f"{self.label_name(index)} is {label_size[1]} x {label_size[0]}"
            turned = "; is the picture turned by its EXIF mark?" if size == label_size[::-1] else ""
            raise ValueError(f"{picture}, but {label}; expected one size{turned}")


class LabelFiles(LabelledPictures):
    """Pictures whose labels are pictures too: `label_paths`, one per picture, and what their values mean."""

    def __init__(
        self,
        folder: Path,
        file_names: Sequence[str],
        label_paths: Sequence[Path],
        values: LabelValues,
        class_names: Sequence[str],
        *,
        colours: Sequence[tuple[int, int, int]] | None = None,
        transform: Transform | None = None,
    ) -> None:
        image_paths = [folder / name for name in file_names]
        super().__init__(image_paths, file_names, class_names, colours=colours, transform=transform)
        self.label_paths, self.values = tuple(label_paths), values

    def read_labels(self, index: int) -> np.ndarray:
        """See `LabelledPictures`."""
        path = self.label_paths[index]
        return self.values.to_classes(read_values(path), path)

    def label_name(self, index: int) -> str:
        """The path of the label picture."""
        return str(self.label_paths[index])

    def count_values(self, index: int) -> np.ndarray:
        """See `LabelledPictures`."""
        path = self.label_paths[index]
        stored = read_values(path)
        self._check_size(index, read_size(self.image_paths[index]), stored.shape)
        counts = np.bincount(stored.ravel(), minlength=256)
        self.values.refuse_unknown(counts, path)
        return counts

    def class_counts(self, counts: np.ndarray) -> np.ndarray:
        """See `LabelledPictures`."""
        return self.values.class_counts(counts, self.num_classes)


def collate(batch: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """[(image [3, H, W], labels [H, W])] -> (images [N, 3, H, W], labels [N, H, W]), all uint8.

    Raises ValueError where sizes differ.
    """
    sizes = {tuple(labels.shape) for _, labels in batch}
    if len(sizes) != 1:
        raise ValueError(f"a batch needs pictures of one size, got {sorted(sizes)}; take them one by one, or by a size")
    return torch.stack([image for image, _ in batch]), torch.stack([labels for _, labels in batch])
