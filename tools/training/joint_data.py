"""The pictures of a joint training: those with boxes and those with labels, side by side or one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detect.formats.boxed_pictures import BoxedPictures
from joint import JointTruth
from pictures.images import resize_image

from .sampler import Size
from .segmentation_data import JoinedPictures
from .training_task import PictureSet

Entry = tuple[Tensor, JointTruth]  # pictures [K, 3, h, w] uint8 RGB, and K entries of truth of either kind


class LearntPictures(Dataset[Entry]):
    """For training: entry `index` is picture `index` of the first of the two sets, and one of the other beside it.

    Which one of the other follows from the seed. Either may be None: then entries hold one picture.
    """

    def __init__(self, boxed: PictureSet | None, labelled: PictureSet | None) -> None:
        self.boxed, self.labelled = boxed, labelled

    @property
    def report(self) -> str:
        """What was read."""
        return _reports(self.boxed, self.labelled)

    def __len__(self) -> int:
        first = self.labelled if self.boxed is None else self.boxed
        assert first is not None
        return len(first)

    def __getitem__(self, request: Any) -> Entry:
        """See the class; a request is (index, seed, size)."""
        index, seed, size = request
        entries = []
        if self.boxed is not None:
            image, target = self.boxed[request]
            entries.append((image[None], JointTruth([target], [None])))
        if self.labelled is not None:
            if self.boxed is not None:
                index = int(np.random.default_rng((seed, 2)).integers(len(self.labelled)))
            image, labels = self.labelled[index, seed, size]
            entries.append((image[None], JointTruth([None], [labels.long()])))
        return collate(entries)


class ScoredPictures(Dataset[Entry]):
    """For evaluation: all whole pictures with boxes, then all with labels, stretched to `size`; labels stay as large as
    the picture on disk.
    """

    def __init__(self, boxed: BoxedPictures | None, labelled: JoinedPictures | None, size: Size) -> None:
        self.boxed, self.labelled, self.size = boxed, labelled, size

    @property
    def report(self) -> str:
        """What was read."""
        return _reports(self.boxed, self.labelled)

    def __len__(self) -> int:
        return sum(len(part) for part in (self.boxed, self.labelled) if part is not None)

    def __getitem__(self, index: Any) -> Entry:
        """See the class. `boxed` has to resize by itself."""
        before = 0 if self.boxed is None else len(self.boxed)
        if self.boxed is not None and index < before:
            image, target = self.boxed[index]
            return image[None], JointTruth([target], [None])
        assert self.labelled is not None
        image, labels = self.labelled[index - before]
        stretched = resize_image(image.permute(1, 2, 0).numpy(), self.size)
        pictures = torch.from_numpy(np.ascontiguousarray(stretched)).permute(2, 0, 1)[None]
        return pictures.contiguous(), JointTruth([None], [labels.long()])


def collate(batch: Sequence[Entry]) -> Entry:
    """The entries' pictures and truths in one row each. ValueError where sizes differ."""
    sizes = {tuple(images.shape[2:]) for images, _ in batch}
    if len(sizes) != 1:
        raise ValueError(f"a batch needs pictures of one size, got {sorted(sizes)}")
    truths = [truth for _, truth in batch]
    targets = [target for truth in truths for target in truth.targets or ()]
    return torch.cat([images for images, _ in batch]), JointTruth(
        targets, [labels for truth in truths for labels in truth.labels or ()]
    )


def _reports(boxed: Any, labelled: Any) -> str:
    parts = (("boxes", boxed), ("labels", labelled))
    return "; ".join(f"{kind}: {part.report}" for kind, part in parts if part is not None)
