"""Objects of one training picture pasted into another.

Reference: Ghiasi et al., Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation, CVPR 2021,
arXiv:2012.07177.
Deviations: all objects of the other picture are taken, not a random part of them, and only what is sure of them: pixels
to ignore are not pasted.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pictures.checks import Size, checked
from segment.losses import IGNORE

BACKGROUND = 0  # the class of what is no object


class TrainingPictures(Protocol):
    """What objects are pasted into and taken from: see `segment.formats.labelled_pictures.LabelledPictures`."""

    @property
    def report(self) -> Any:
        """What was read."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, request: tuple[int, int, Size]) -> tuple[Tensor, Tensor]: ...


class PastedObjects(Dataset[tuple[Tensor, Tensor]]):
    """`data`, with objects of another of its pictures pasted over a part of them.

    probability: of a picture to get some. Requests (index, seed, size) and answers are those of `data`; which other
    picture it is, and how that is transformed, follows from `seed` too. Class 0 has to be the background. Raises
    ValueError for a probability out of 0..1.
    """

    def __init__(self, data: TrainingPictures, probability: float) -> None:
        self.data, self.probability = data, checked("paste_probability", probability, 0, 1)

    @property
    def report(self) -> Any:
        """That of `data`."""
        return self.data.report

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, request: Any) -> tuple[Tensor, Tensor]:
        """(image [3, h, w] uint8, labels [h, w] uint8)."""
        _, seed, size = request
        image, labels = self.data[request]
        rng = np.random.default_rng((seed, 1))  # not the transform's own numbers once more
        if rng.random() >= self.probability:
            return image, labels
        other_image, other_labels = self.data[int(rng.integers(len(self))), int(rng.integers(1 << 31)), size]
        is_object = (other_labels != BACKGROUND) & (other_labels != IGNORE)
        return torch.where(is_object, other_image, image), torch.where(is_object, other_labels, labels)
