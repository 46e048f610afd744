"""Cityscapes' pixel-level scores: classes and categories, each as IoU and weighted by instance.

Reference: Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016, arXiv:1604.01685,
section 4.1; what counts in detail is as in the data set's published evaluation script, whose figures these equal.
Deviations: none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .formats.cityscapes import LABELS
from .metrics import (
    ConfusionMatrix,
    SegmentationScores,
    defined_mean,
    group_iou,
    label_values,
    ratio,
    refuse_other_size,
    runs,
)

# Mean pixels of an instance, by which large and small instances are made to count alike. From the published script.
AVERAGE_INSTANCE_PIXELS = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
_INSTANCES_PER_LABEL = 1000  # instance id = 1000 * label id + number; smaller values are label ids: no single object
_IDS = len(LABELS)
_SCORED = np.array([not label.ignored for label in LABELS])
CATEGORIES = tuple(dict.fromkeys(label.category for label, scored in zip(LABELS, _SCORED, strict=True) if scored))
_IN_CATEGORY = np.array([[label.category == category for label in LABELS] for category in CATEGORIES])  # [G, V]
# Categories that consist of instances alone; for those the instance-weighted figure is defined.
_OF_INSTANCES = np.array(
    [all(label.has_instances for label in LABELS if label.category == category) for category in CATEGORIES]
)
_WEIGHTS = np.array([AVERAGE_INSTANCE_PIXELS.get(label.name, 0.0) for label in LABELS])


@dataclass(frozen=True)
class CityscapesScores:
    """classes: the figures of all 34 ids, NaN for the 15 ignored; the others by name, each 0..1.

    class_iiou: the eight classes with instances; category_iou: the seven categories; category_iiou: human and vehicle.
    A figure is NaN where neither labels nor predictions hold the class or category, and the means leave it out.
    """

    classes: SegmentationScores
    class_iiou: dict[str, float]
    category_iou: dict[str, float]
    category_iiou: dict[str, float]
    mean_class_iiou: float
    mean_category_iou: float
    mean_category_iiou: float


class CityscapesEvaluation:
    """Counts Cityscapes pictures given by label ids (0..33; not train ids) and scores them as a whole.

    iIoU = TPw / (TPw + FNw + FP): the pixels of each labelled instance are weighted by (mean size of its class) / (its
    own size); false alarms belong to no instance and are not weighted. Groups, which carry no instance number, count
    for the IoU only.
    """

    def __init__(self) -> None:
        self.confusion = ConfusionMatrix(_IDS, ignored=np.flatnonzero(~_SCORED).tolist())
        # By label id: pixels of instances, weighted; those of them with the right class; with the right category.
        self._weighted, self._class_hits, self._category_hits = np.zeros((3, _IDS))

    def update(
        self, prediction: np.ndarray | Tensor, label: np.ndarray | Tensor, instances: np.ndarray | None = None
    ) -> None:
        """Counts one picture: label ids [H, W] at full size, and the instance ids [H, W] of the ground truth.

        Without `instances` the picture counts for the IoU only. Raises ValueError for shapes that differ and for values
        that are no ids.
        """
        predicted, labelled = label_values(prediction, "prediction"), label_values(label, "label")
        refuse_other_size(predicted, labelled)
        for values, what in ((predicted, "prediction"), (labelled, "label")):
            if values.size and values.max() >= _IDS:
                raise ValueError(f"the {what} holds the value {values.max()}; expected label ids from 0 to {_IDS - 1}")
        maps = [predicted, labelled]
        if instances is not None:
            _check_instances(instances, labelled.shape)
            maps.append(instances)
        starts, lengths = runs(*maps)
        seen_as, truth, *numbers = (values.ravel()[starts] for values in maps)
        self.confusion.add(seen_as, truth, lengths)
        for ids in numbers:
            self._count_instances(seen_as, ids, lengths)

    def scores(self) -> CityscapesScores:
        """The figures of all pictures so far. Raises ValueError where no labelled pixel was counted."""
        classes = self.confusion.scores([label.name for label in LABELS])
        matrix = self.confusion.matrix[:-1, :-1]
        category_iou = group_iou(matrix, _IN_CATEGORY & _SCORED, _SCORED)
        false_alarms = matrix[_SCORED].sum(axis=0) - matrix.diagonal()
        class_iiou = ratio(self._class_hits, self._weighted + false_alarms)
        category_iiou = self._category_iiou(matrix)
        weighted = {label.name: class_iiou[label.id] for label in LABELS if _WEIGHTS[label.id]}
        of_instances = np.flatnonzero(_OF_INSTANCES)
        return CityscapesScores(
            classes=classes,
            class_iiou={name: float(value) for name, value in weighted.items()},
            category_iou=dict(zip(CATEGORIES, category_iou.tolist(), strict=True)),
            category_iiou={CATEGORIES[place]: float(category_iiou[place]) for place in of_instances},
            mean_class_iiou=defined_mean(np.array(list(weighted.values()))),
            mean_category_iou=defined_mean(category_iou),
            mean_category_iiou=defined_mean(category_iiou[of_instances]),
        )

    def _category_iiou(self, matrix: np.ndarray) -> np.ndarray:
        """[G]. Unlike for the IoU, predictions of a category's ignored classes are hits, and false alarms elsewhere."""
        false_alarms = [
            matrix[np.ix_(_SCORED & ~in_category, in_category)].sum(dtype=np.int64) for in_category in _IN_CATEGORY
        ]
        return ratio(_IN_CATEGORY @ self._category_hits, _IN_CATEGORY @ self._weighted + np.array(false_alarms))

    def _count_instances(self, seen_as: np.ndarray, ids: np.ndarray, pixels: np.ndarray) -> None:
        """Adds areas [R] with one predicted id and one instance id each."""
        inside = ids > _INSTANCES_PER_LABEL
        present, places = np.unique(ids[inside], return_inverse=True)
        codes = places * _IDS + seen_as[inside]
        counts = np.bincount(codes, pixels[inside], len(present) * _IDS).reshape(-1, _IDS)  # [instances, V]
        owners = present // _INSTANCES_PER_LABEL
        weights = ratio(_WEIGHTS[owners], counts.sum(axis=1))  # 0 for the ignored classes with instances
        same_category = (_IN_CATEGORY[:, :, None] & _IN_CATEGORY[:, None, :]).any(axis=0)  # [V, V]
        np.add.at(self._weighted, owners, weights * counts.sum(axis=1))
        np.add.at(self._class_hits, owners, weights * counts[np.arange(len(present)), owners])
        np.add.at(self._category_hits, owners, weights * (counts * same_category[owners]).sum(axis=1))


def _check_instances(instances: np.ndarray, size: tuple[int, ...]) -> None:
    if instances.shape != size or instances.dtype.kind not in "iu":
        raise ValueError(
            f"the instance ids are {list(instances.shape)} of {instances.dtype}; expected integers of the label's size "
            f"{list(size)}"
        )
    least, most = (int(instances.min()), int(instances.max())) if instances.size else (0, 0)
    if least < 0 or most >= _IDS * _INSTANCES_PER_LABEL:
        raise ValueError(
            f"the instance ids reach from {least} to {most}; expected 0 to {_IDS * _INSTANCES_PER_LABEL - 1}: a label "
            f"id, or {_INSTANCES_PER_LABEL} times a label id plus a number"
        )
