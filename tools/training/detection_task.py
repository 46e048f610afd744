"""The training of a detector: pictures with boxes, COCO's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mmengine.evaluator import BaseMetric
from torch import Tensor, nn

import detect
from backbones.registry import find_builder
from detect import TwoStageDetector
from detect.distill import Taught
from detect.formats.boxed_pictures import BoxedPictures, collate
from detect.formats.coco import CocoDetection
from detect.formats.voc import VocDetection
from detect.formats.yolo import YoloDetection
from detect.metrics import coco_results, evaluate_detections
from detect.registry import DETECTORS, find_weights, read_saved
from detect.results import Detections, Target
from detect.transforms import Resize, SSDAugmentation, Transform
from pictures.report import counted
from pictures.splits import read_split

from ..configuration.detection_config import (
    BoxesData,
    BoxesPart,
    CocoPart,
    DetectionConfig,
    VocData,
    VocPart,
    YoloData,
    YoloPart,
)
from ..configuration.schema import arguments, convert, section
from .binary_choice import choose_layers
from .known_classes import say_other_size
from .sampler import Request
from .teaching import open_peer, taught_pictures, teach_detector
from .training_task import PictureSet


class DetectionTask:
    """See `TrainingTask`."""

    loss_options: Mapping[str, Any] = MappingProxyType({})
    free_keys = (
        "data.cache", "data.strict", "data.layout", "model.weights", "model.new_classes", "model.backbone_weights"
    )  # fmt: skip

    def __init__(self, config: DetectionConfig) -> None:
        self.config = config
        with section("augmentation"):
            augmentation = SSDAugmentation(**arguments(SSDAugmentation, config.augmentation, "augmentation"))
        data = config.data
        with section("data.train"):
            boxed = open_data(data, data.train, data.class_names, augmentation)
            if config.distill is None:
                refuse_no_objects(boxed)
        self.class_names = boxed.class_names
        with section("distill"):
            self._peer = open_peer(config.distill, self.class_names)
            self.train_data: PictureSet = taught_pictures(
                boxed, config.distill, self._peer, augmentation, cache=data.cache
            )
        with section("data.val"):
            self.val_data = open_data(data, data.val, self.class_names, Resize(config.eval_size))

    def collate(self, batch: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
        """See `detect.formats.boxed_pictures.collate`."""
        return collate(batch)

    def create_net(self) -> nn.Module:
        """The config's detector for these classes; under its teacher, if it has one."""
        with section("model"):
            net = create_net(self.config, self.class_names)
        with section("distill"):
            return teach_detector(net, self.config.distill, self._peer)

    def predict(self, net: Any, images: Tensor, truth: Any) -> Sequence[Any]:  # noqa: ARG002
        """What the net's own `predict` gives."""
        answers: Sequence[Any] = net.predict(images)
        return answers

    def create_metric(self) -> BaseMetric:
        """COCO's figures."""
        return DetectionMetric(self.val_data.ground_truth(), self.val_data.category_ids)

    def save(self, net: Any, path: Path) -> None:
        """A file of `save_detector`."""
        detect.save_detector(net, path)

    def describe(self, requests: Sequence[Request], truth: Sequence[Target | Taught]) -> dict[str, Any]:  # noqa: ARG002
        """Boxes and labels of the truth, picture by picture."""
        targets = [known.target if isinstance(known, Taught) else known for known in truth]
        return {
            "boxes": [target.boxes for target in targets],
            "labels": [target.labels for target in targets],
            "is_crowd": [target.is_crowd for target in targets],
            "image_ids": [int(target.image_id) for target in targets],
        }


def open_data(
    data: BoxesData, part: BoxesPart, class_names: tuple[str, ...] | None, transform: Transform
) -> BoxedPictures:
    """A part of a config's data. Raises as the layout's reader."""
    options: dict[str, Any] = {
        "class_names": class_names,
        "file_names": None if part.file_names is None else read_split(part.file_names),
        "transform": transform,
        "cache": data.cache,
        "strict": data.strict,
    }
    if isinstance(part, CocoPart):
        return CocoDetection(part.annotations, part.images, **options)
    if isinstance(data, VocData) and isinstance(part, VocPart):
        options |= {"first_pixel": data.first_pixel, "images": data.images, "annotations": data.annotations}
        return VocDetection(data.root, part.split, **options)
    if isinstance(data, YoloData) and isinstance(part, YoloPart):
        return YoloDetection(data.yaml, part.split, **options)
    raise TypeError(f"no reader is known for {type(data).__name__} with {type(part).__name__}")


def refuse_no_objects(data: BoxedPictures) -> None:
    """ValueError, with the reasons, where no picture has an object to learn from."""
    report = data.report
    if not report.boxes:
        others = [f"{counted(report.other_classes, 'boxes')} of other classes not read"] if report.other_classes else []
        reasons = "; ".join([*others, *report.defects()]) or f"none in {counted(report.pictures, 'pictures')}"
        raise ValueError(f"{data.annotations} leads to no usable box: {reasons}")


def create_net(config: DetectionConfig, class_names: tuple[str, ...]) -> TwoStageDetector:
    """The config's detector for these classes. ValueError for an option that its builder does not have."""
    options: dict[str, Any] = dict(config.model)
    name = str(options.pop("name"))
    for key, source in (("num_classes", "data.class_names"), ("input_size", "eval_size")):
        if key in options:
            raise ValueError(f"model.{key} follows from {source}; set that instead")
    weights = convert(options.pop("weights", None), str | Path | None, "model.weights")
    new_classes = convert(options.pop("new_classes", False), bool, "model.new_classes")
    if weights is not None:
        _check_start(name, weights, class_names, new_classes, config.eval_size)
    checked = arguments(find_builder(DETECTORS, name), options, "model")
    net = detect.create_detector(
        name,
        num_classes=len(class_names),
        weights=weights,
        new_classes=new_classes,
        input_size=config.eval_size,
        **checked,
    )
    net.class_names = class_names
    choose_layers(net, config.binarize, weights)
    return net


def _check_start(
    name: str, weights: Any, class_names: tuple[str, ...], new_classes: bool, eval_size: Sequence[int]
) -> None:
    """ValueError where the classes of the weights and of the data are the same, or not, against what is said; a line
    where the weights are of another input size.
    """
    path = find_weights(name, weights)
    words = read_saved(path, name)
    saved = words.class_names
    knows = f"{path} knows the classes {', '.join(saved[:5])}"
    if saved and saved != class_names and not new_classes:
        has = f"the data has {', '.join(class_names[:5])}"
        raise ValueError(f"{knows}; {has}; model.new_classes: true starts what depends on them anew")
    if saved == class_names and new_classes:
        raise ValueError(f"{knows}, as the data does: remove model.new_classes, and their last layer is kept")
    say_other_size(path, words.options, eval_size)


class DetectionMetric(BaseMetric):
    """COCO's figures of the detections that `predict` gives, in the pixels of the pictures on disk."""

    def __init__(self, annotations: Path | Mapping[str, Any], category_ids: Sequence[int]) -> None:
        super().__init__(prefix="val")
        self.annotations = annotations
        self.category_ids = category_ids

    def process(self, data_batch: tuple[Tensor, list[Target]], data_samples: Sequence[Detections]) -> None:
        """One entry per picture: mmengine cuts the list at the number of pictures."""
        images, targets = data_batch
        height, width = images.shape[-2:]
        for target, detections in zip(targets, data_samples, strict=True):
            scaled = detections.scaled(target.original_size[1] / width, target.original_size[0] / height)
            self.results.append(
                (int(target.image_id), coco_results(scaled.to("cpu"), int(target.image_id), self.category_ids))
            )

    def compute_metrics(self, results: list[tuple[int, list[dict[str, Any]]]]) -> dict[str, float]:
        """The twelve figures by name, 0..1."""
        found = [row for _, rows in results for row in rows]
        pictures = [image_id for image_id, _ in results]
        scores = evaluate_detections(found, self.annotations, image_ids=pictures, category_ids=self.category_ids)
        return dict(scores.figures)
