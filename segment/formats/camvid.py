"""CamVid in SegNet's version: 480 x 360, 11 classes, the value 11 is void.

Reference: Brostow et al., Semantic Object Classes in Video, Pattern Recognition Letters 30 (2009); classes and split of
Badrinarayanan et al., SegNet, arXiv:1511.00561. The pictures are for research; so are weights trained on them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from segment.formats.mask_folder import MaskFolder
from segment.losses import IGNORE
from segment.transforms import Transform

CLASS_NAMES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
CLASS_COLOURS = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)
VOID = 11


class CamVid(MaskFolder):
    """One split ("train", "val", "test") of `root`, 11 classes.

    The folders are `<split>/images` and `<split>/labels`, or SegNet's `<split>` and `<split>annot`. Raises as
    `MaskFolder`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        file_names: Iterable[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        images, labels = _folders(Path(root), split)
        super().__init__(
            images,
            labels,
            CLASS_NAMES,
            ignore=(VOID, IGNORE),
            file_names=file_names,
            colours=CLASS_COLOURS,
            transform=transform,
        )


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    layouts = ((root / split / "images", root / split / "labels"), (root / split, root / f"{split}annot"))
    for images, labels in layouts:
        if images.is_dir() and labels.is_dir():
            return images, labels
    expected = f"{split}/images and {split}/labels, or {split} and {split}annot"
    raise FileNotFoundError(f"no CamVid at {root}: expected the folders {expected}")
