"""The training of a joint net: pictures with boxes and pictures with labels, the figures of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mmengine.evaluator import BaseMetric
from torch import Tensor

from backbones.registry import find_builder
from detect import Detections
from detect.formats.boxed_pictures import BoxedPictures
from detect.nms import select_detections
from detect.results import RawDetections
from detect.transforms import Resize, SSDAugmentation
from joint import JointNet, JointTruth, create_joint, save_joint
from joint.registry import JOINTS
from segment.formats.coco_masks import BACKGROUND
from segment.inference import predict_labels
from segment.pasting import PastedObjects
from segment.transforms import ScaleCropFlip

from ..configuration.joint_config import JointConfig, JointPart
from ..configuration.schema import arguments, convert, section
from .detection_task import DetectionMetric, open_data, refuse_no_objects
from .joint_data import Entry, LearntPictures, ScoredPictures, collate
from .known_classes import refuse_other_classes
from .sampler import Request, Size
from .segmentation_data import JoinedPictures, open_pictures, prepare_pictures
from .segmentation_task import SegmentationMetric
from .training_task import PictureSet

_FOLLOWS = {
    "detector_classes": "data.boxes",
    "segmenter_classes": "data.masks",
    "input_size": "eval_size",
    "detector": "the name",
    "segmenter": "the name",
}
_WEIGHTS = ("weights", "detector_weights", "segmenter_weights")


class Found(NamedTuple):
    """The answer to one picture of an evaluation, as far as it is scored."""

    detections: Detections | None
    labels: Tensor | None


class ClassNames(NamedTuple):
    """In the order of each part's classes."""

    detector: tuple[str, ...]
    segmenter: tuple[str, ...]


class JointTask:
    """See `TrainingTask`."""

    loss_options: Mapping[str, Any] = MappingProxyType({})
    free_keys = (
        "data.boxes.cache", "data.boxes.strict", "data.boxes.layout", "data.masks.cache", "data.masks.check_labels",
        "model.weights", "model.detector_weights", "model.segmenter_weights", "model.backbone_weights",
    )  # fmt: skip

    def __init__(self, config: JointConfig) -> None:
        self.config = config
        boxed, labelled = _open_boxed(config), _open_labelled(config)
        self.names = ClassNames(boxed.class_names, labelled.class_names)
        self.class_names = (*self.names.detector, *self.names.segmenter)
        pasted: PictureSet = labelled
        if config.paste_probability:
            pasted = _with_pasted_objects(labelled, config.paste_probability)
        self.train_data: PictureSet = LearntPictures(
            boxed if config.learn != "masks" else None, pasted if config.learn != "boxes" else None
        )
        self.val_data = open_scored(config, config.data.val, self.names, config.eval_size)
        data = config.data.masks
        for key, pictures in (("data.masks.train", labelled), ("data.masks.val", self.val_data.labelled)):
            if pictures is not None:
                with section(key):
                    prepare_pictures(pictures, check=data.check_labels, cache=data.cache)

    def collate(self, batch: Sequence[Entry]) -> Entry:
        """See `joint_data.collate`."""
        return collate(batch)

    def create_net(self) -> JointNet:
        """The config's net for these classes."""
        with section("model"):
            return create_net(self.config, self.names)

    def predict(self, net: Any, images: Tensor, truth: JointTruth) -> list[Found]:
        """Of each picture what its truth can score: detections in input pixels, labels at the truth's size."""
        return predict(net, images, truth)

    def create_metric(self) -> BaseMetric:
        """COCO's figures, mean IoU and its like, and the mean of AP and mIoU."""
        return JointMetric(self.val_data, self.names)

    def save(self, net: Any, path: Path) -> None:
        """A file of `save_joint`."""
        save_joint(net, path)

    def describe(self, requests: Sequence[Request], truth: JointTruth) -> dict[str, Any]:  # noqa: ARG002
        """Boxes, their labels and the pixels' labels, picture by picture; what a picture lacks is left out."""
        targets = [target for target in truth.targets or () if target is not None]
        return {
            "boxes": [target.boxes for target in targets],
            "box_labels": [target.labels for target in targets],
            "image_ids": [int(target.image_id) for target in targets],
            "labels": [labels for labels in truth.labels or () if labels is not None],
        }


def _open_boxed(config: JointConfig) -> BoxedPictures:
    with section("augmentation.boxes"):
        augmentation = SSDAugmentation(**arguments(SSDAugmentation, config.augmentation.boxes, "augmentation.boxes"))
    data = config.data.boxes
    with section("data.boxes.train"):
        boxed = open_data(data, data.train, data.class_names, augmentation)
        if config.learn != "masks":
            refuse_no_objects(boxed)
    return boxed


def _open_labelled(config: JointConfig) -> JoinedPictures:
    with section("augmentation.masks"):
        augmentation = ScaleCropFlip(**arguments(ScaleCropFlip, config.augmentation.masks, "augmentation.masks"))
    with section("data.masks.train"):
        return open_pictures(config.data.masks, config.data.masks.train, transform=augmentation)


def _with_pasted_objects(pictures: JoinedPictures, probability: float) -> PictureSet:
    if pictures.class_names[0] != BACKGROUND:
        first = f"class 0 is {pictures.class_names[0]}, not {BACKGROUND}"
        raise ValueError(f"paste_probability needs pictures of objects on a background; {first}")
    return PastedObjects(pictures, probability)


def open_scored(config: JointConfig, part: JointPart, names: ClassNames, size: Size) -> ScoredPictures:
    """A part of both data sets for evaluation at `size`. Raises as the layouts' readers."""
    boxed = labelled = None
    if part.boxes is not None:
        with section("data.boxes"):
            boxed = open_data(config.data.boxes, part.boxes, names.detector, Resize(size))
    if part.masks is not None:
        with section("data.masks"):
            labelled = open_pictures(config.data.masks, part.masks, class_names=names.segmenter)
    return ScoredPictures(boxed, labelled, size)


def predict(net: Any, images: Tensor, truth: JointTruth, **settings: Any) -> list[Found]:
    """See `JointTask.predict`; settings: of `detect.nms.select_detections`. The net has to be in evaluation mode."""
    boxes, logits = net(images)
    found = []
    for place, (target, labels) in enumerate(zip(truth.targets or (), truth.labels or (), strict=True)):
        row = slice(place, place + 1)
        if target is not None:
            found.append(Found(select_detections(RawDetections(*(part[row] for part in boxes)), **settings)[0], None))
        else:
            assert labels is not None  # a picture of which nothing is known is in no data set
            found.append(Found(None, predict_labels(logits[row], (labels.shape[-2], labels.shape[-1]))[0]))
    return found


def create_net(config: JointConfig, names: ClassNames, weights: Path | None = None) -> JointNet:
    """The config's net for these classes, with `weights` instead of those that the config starts from.

    ValueError for an unknown option, and for weights of other classes.
    """
    options: dict[str, Any] = dict(config.model)
    name = str(options.pop("name"))
    for key, source in _FOLLOWS.items():
        if key in options:
            raise ValueError(f"model.{key} follows from {source}")
    said = {key: options.pop(key, None) for key in _WEIGHTS}
    if weights is None:
        start = {key: convert(value, str | Path | None, f"model.{key}") for key, value in said.items()}
    else:
        start = {"weights": weights}
        for key in ("backbone_weights", "backbone_of"):
            options.pop(key, None)
    checked = arguments(find_builder(JOINTS, name), options, "model")
    counts: dict[str, Any] = {"detector_classes": len(names.detector), "segmenter_classes": len(names.segmenter)}
    net = create_joint(name, input_size=config.eval_size, **counts, **start, **checked)
    for part, wanted in zip((net.detector, net.segmenter), names, strict=True):
        kind = "detector" if part is net.detector else "segmenter"
        if start["weights"] or start.get(f"{kind}_weights"):
            refuse_other_classes(f"the {kind}'s weights know", part.class_names, wanted)
        part.class_names = wanted
    return net


class JointMetric(BaseMetric):
    """The figures of the detector and those of the segmenter, of the pictures of `data` that each is scored on."""

    def __init__(self, data: ScoredPictures, names: ClassNames) -> None:
        super().__init__(prefix="val")
        boxed = data.boxed
        self.boxes = None if boxed is None else DetectionMetric(boxed.ground_truth(), boxed.category_ids)
        self.masks = None if data.labelled is None else SegmentationMetric(names.segmenter)

    def process(self, data_batch: tuple[Tensor, JointTruth], data_samples: Sequence[Found]) -> None:
        """One entry per picture: mmengine cuts the list at the number of pictures."""
        images, truth = data_batch
        rows: Any = zip(truth.targets or (), truth.labels or (), data_samples, strict=True)
        for target, labels, found in rows:
            metric: Any
            metric, known, answer = (
                (self.boxes, target, found.detections) if target is not None else (self.masks, labels, found.labels)
            )
            assert metric is not None  # as `data` was opened
            assert answer is not None
            metric.results = []
            metric.process((images, [known]), [answer])
            self.results.append((target is not None, metric.results[0]))

    def compute_metrics(self, results: list[tuple[bool, Any]]) -> dict[str, float]:
        """All figures by name, 0..1, and mean_of_both, that of AP and mIoU, where there are both."""
        figures: dict[str, float] = {}
        for is_boxed, metric in ((True, self.boxes), (False, self.masks)):
            if metric is not None:
                figures |= metric.compute_metrics([entry for kind, entry in results if kind == is_boxed])
        if self.boxes is not None and self.masks is not None:
            figures = {"mean_of_both": (figures["AP"] + figures["mIoU"]) / 2, **figures}
        return figures
