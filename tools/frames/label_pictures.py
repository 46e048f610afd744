"""Predictions as picture files: label values for a scoring server or another program, colours for people."""

from pathlib import Path

import numpy as np

from segment.formats.cityscapes import to_label_ids

from .annotate import write_image

_CITYSCAPES_PICTURE = "_leftImg8bit"


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Writes class numbers 0..C-1 [H, W] as a grey PNG whose values are those numbers. OSError."""
    _refuse_other_format(path)
    write_image(path, labels.astype(np.uint8))


def write_cityscapes_ids(folder: Path, picture_name: str, labels: np.ndarray) -> Path:
    """Writes train ids [H, W] as the label ids that Cityscapes' server takes, and gives the file's path.

    The file is named after the picture, `<city>_<sequence>_<frame>_labelIds.png`, as the server finds it. Raises
    ValueError for labels that are no train ids, OSError where the file cannot be written.
    """
    stem = Path(picture_name).stem.removesuffix(_CITYSCAPES_PICTURE)
    path = folder / f"{stem}_labelIds.png"
    write_image(path, to_label_ids(labels))
    return path


def write_colours(path: Path, labels: np.ndarray, colours: np.ndarray) -> None:
    """Writes labels [H, W] as a PNG in the colours [C, 3] uint8 RGB of their classes, the rest black. OSError."""
    _refuse_other_format(path)
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    write_image(path, table[labels.astype(np.uint8)])


def _refuse_other_format(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: labels are written as .png, which keeps every value")
