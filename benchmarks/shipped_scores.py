"""The figures by which the shipped nets are judged, on the person set's pictures that no training saw."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detect import create_detector
from detect.formats.boxed_pictures import collate
from detect.formats.coco import CocoDetection
from detect.metrics import coco_results, evaluate_detections
from detect.transforms import Resize
from segment import Predictor, create_segmenter
from segment.formats.coco_masks import CocoMasks
from segment.metrics import ConfusionMatrix


def person_ap(net: Any, folder: Path, count: int | None = None) -> float:
    """AP of a detector on the 300 pictures of the person set's val part; `folder`: of the set; count: on the first ones
    alone.
    """
    size = getattr(net, "size", None) or net.input_size
    data = CocoDetection(folder / "person_val.json", folder / "val", transform=Resize(size))
    rows, seen = [], []
    for index in range(min(count or len(data), len(data))):
        images, (target,) = collate([data[index]])
        (found,) = net.predict(images)
        factors = target.original_size[1] / images.shape[-1], target.original_size[0] / images.shape[-2]
        rows += coco_results(found.scaled(*factors), target.image_id, data.category_ids)
        seen.append(target.image_id)
    return float(evaluate_detections(rows, folder / "person_val.json", image_ids=seen).figures["AP"])


def person_iou(net: Any, folder: Path, count: int | None = None) -> float:
    """IoU of the person on the 113 outlined pictures of that part, in one confusion matrix; count: as above."""
    return outlined_iou(Predictor(net), folder, count)


def outlined_iou(label: Callable[[np.ndarray], Any], folder: Path, count: int | None = None) -> float:
    """The same of whatever labels a picture."""
    data = CocoMasks(folder / "person_val.json", folder / "val", class_names=("person",))
    confusion = ConfusionMatrix(2)
    for index in range(min(count or len(data), len(data))):
        image, labels = data[index]
        confusion.update(label(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).labels, labels)
    return float(confusion.scores(("background", "person")).class_iou[1])


class Scored(NamedTuple):
    """create(weights=...): the net; score(net, folder, count): its figure, which is called `what`."""

    create: Callable[..., Any]
    score: Callable[..., float]
    what: str


SCORED = {
    "thundernet_shufflenet_v2_x0_5": Scored(partial(create_detector, "thundernet_shufflenet_v2_x0_5"), person_ap, "AP"),
    "bisenet_shufflenet_v2_x0_5": Scored(
        partial(create_segmenter, "bisenet_shufflenet_v2_x0_5"), person_iou, "person IoU"
    ),
}
