"""Cityscapes: the table of its labels, ids, categories and colours.

Reference: Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016, arXiv:1604.01685;
the numbers are those of the data set's published scripts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from segment.losses import IGNORE


class Label(NamedTuple):
    """One label: its id in the `labelIds` pictures, its class, and how it is scored and shown.

    train_id: its class 0..18 or `IGNORE`; has_instances: single objects carry numbers of their own; ignored: not
    scored; colour: RGB.
    """

    id: int
    name: str
    train_id: int
    category: str
    category_id: int
    has_instances: bool
    ignored: bool
    colour: tuple[int, int, int]


# Every label that a picture can hold. The licence plate (id -1) is no value of an 8-bit picture and is left out: the
# data set's label pictures show the vehicle there.
LABELS = (
    Label(0, "unlabeled", IGNORE, "void", 0, False, True, (0, 0, 0)),
    Label(1, "ego vehicle", IGNORE, "void", 0, False, True, (0, 0, 0)),
    Label(2, "rectification border", IGNORE, "void", 0, False, True, (0, 0, 0)),
    Label(3, "out of roi", IGNORE, "void", 0, False, True, (0, 0, 0)),
    Label(4, "static", IGNORE, "void", 0, False, True, (0, 0, 0)),
    Label(5, "dynamic", IGNORE, "void", 0, False, True, (111, 74, 0)),
    Label(6, "ground", IGNORE, "void", 0, False, True, (81, 0, 81)),
    Label(7, "road", 0, "flat", 1, False, False, (128, 64, 128)),
    Label(8, "sidewalk", 1, "flat", 1, False, False, (244, 35, 232)),
    Label(9, "parking", IGNORE, "flat", 1, False, True, (250, 170, 160)),
    Label(10, "rail track", IGNORE, "flat", 1, False, True, (230, 150, 140)),
    Label(11, "building", 2, "construction", 2, False, False, (70, 70, 70)),
    Label(12, "wall", 3, "construction", 2, False, False, (102, 102, 156)),
    Label(13, "fence", 4, "construction", 2, False, False, (190, 153, 153)),
    Label(14, "guard rail", IGNORE, "construction", 2, False, True, (180, 165, 180)),
    Label(15, "bridge", IGNORE, "construction", 2, False, True, (150, 100, 100)),
    Label(16, "tunnel", IGNORE, "construction", 2, False, True, (150, 120, 90)),
    Label(17, "pole", 5, "object", 3, False, False, (153, 153, 153)),
    Label(18, "polegroup", IGNORE, "object", 3, False, True, (153, 153, 153)),
    Label(19, "traffic light", 6, "object", 3, False, False, (250, 170, 30)),
    Label(20, "traffic sign", 7, "object", 3, False, False, (220, 220, 0)),
    Label(21, "vegetation", 8, "nature", 4, False, False, (107, 142, 35)),
    Label(22, "terrain", 9, "nature", 4, False, False, (152, 251, 152)),
    Label(23, "sky", 10, "sky", 5, False, False, (70, 130, 180)),
    Label(24, "person", 11, "human", 6, True, False, (220, 20, 60)),
    Label(25, "rider", 12, "human", 6, True, False, (255, 0, 0)),
    Label(26, "car", 13, "vehicle", 7, True, False, (0, 0, 142)),
    Label(27, "truck", 14, "vehicle", 7, True, False, (0, 0, 70)),
    Label(28, "bus", 15, "vehicle", 7, True, False, (0, 60, 100)),
    Label(29, "caravan", IGNORE, "vehicle", 7, True, True, (0, 0, 90)),
    Label(30, "trailer", IGNORE, "vehicle", 7, True, True, (0, 0, 110)),
    Label(31, "train", 16, "vehicle", 7, True, False, (0, 80, 100)),
    Label(32, "motorcycle", 17, "vehicle", 7, True, False, (0, 0, 230)),
    Label(33, "bicycle", 18, "vehicle", 7, True, False, (119, 11, 32)),
)

# The 19 classes, in the order of their train ids.
CLASSES = tuple(sorted((label for label in LABELS if label.train_id != IGNORE), key=lambda label: label.train_id))
CLASS_NAMES = tuple(label.name for label in CLASSES)
CLASS_COLOURS = tuple(label.colour for label in CLASSES)


def to_label_ids(labels: np.ndarray) -> np.ndarray:
    """Classes [...] uint8 -> the label ids that a submission holds; what is ignored becomes 0, unlabeled.

    Raises ValueError for a value that is neither a class nor `IGNORE`.
    """
    wrong = np.setdiff1d(labels, [*range(len(CLASSES)), IGNORE])
    if len(wrong):
        raise ValueError(f"the labels hold {wrong[0]}; expected classes 0..{len(CLASSES) - 1}, or {IGNORE}")
    table = np.zeros(IGNORE + 1, np.uint8)
    table[: len(CLASSES)] = [label.id for label in CLASSES]
    return table[labels]
