"""The training of a segmenter: pictures with a class for every pixel, cross-entropy, mean IoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor, nn

from backbones.registry import find_builder
from segment import Segmenter, create_segmenter, save_segmenter
from segment.formats.coco_masks import BACKGROUND
from segment.formats.labelled_pictures import collate
from segment.inference import predict_labels
from segment.metrics import ConfusionMatrix, SegmentationScores
from segment.pasting import PastedObjects
from segment.registry import SEGMENTERS, find_weights, read_saved
from segment.transforms import ScaleCropFlip

from ..configuration.schema import arguments, convert, section
from ..configuration.segmentation_config import SegmentationConfig
from .binary_choice import choose_layers
from .known_classes import refuse_other_classes, say_other_size
from .sampler import Request
from .segmentation_data import WholePictures, open_pictures, prepare_pictures, refuse_mixed_sizes
from .teaching import teach_segmenter, with_unlabelled
from .training_task import PictureSet


class SegmentationTask:
    """See `TrainingTask`."""

    loss_options: Mapping[str, Any] = MappingProxyType({})
    free_keys = ("data.cache", "data.check_labels", "model.weights", "model.backbone_weights")

    def __init__(self, config: SegmentationConfig) -> None:
        self.config = config
        data = config.data
        with section("augmentation"):
            augmentation = ScaleCropFlip(**arguments(ScaleCropFlip, config.augmentation, "augmentation"))
        with section("data.train"):
            self._pictures = open_pictures(data, data.train, transform=augmentation)
        self.class_names = self._pictures.class_names
        self.train_data: PictureSet = self._pictures
        if config.paste_probability:
            self.train_data = self._with_pasted_objects(config.paste_probability)
        with section("distill.unlabelled"):
            self.train_data = with_unlabelled(self.train_data, config.distill, augmentation)
        with section("data.val"):
            whole = open_pictures(data, data.val, class_names=self.class_names)
        if config.eval_batch_size > 1:
            with section("eval_batch_size"):
                refuse_mixed_sizes(whole, f"eval_batch_size is {config.eval_batch_size}")
        self.val_data = WholePictures(whole, config.eval_size)
        for key, pictures in (("data.train", self._pictures), ("data.val", whole)):
            with section(key):
                prepare_pictures(pictures, check=data.check_labels, cache=data.cache)

    def _with_pasted_objects(self, probability: float) -> PictureSet:
        if self.class_names[0] != BACKGROUND:
            first = f"class 0 is {self.class_names[0]}, not {BACKGROUND}"
            raise ValueError(f"paste_probability needs pictures of objects on a background; {first}")
        return PastedObjects(self._pictures, probability)

    def collate(self, batch: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """(images [N, 3, H, W] uint8, labels [N, H, W] int64); ValueError where sizes differ."""
        images, labels = collate(batch)
        return images, labels.long()

    def create_net(self) -> nn.Module:
        """The config's segmenter for these classes; under its teacher, if it has one."""
        with section("model"):
            net = create_net(self.config, self.class_names)
        with section("distill"):
            return teach_segmenter(net, self.config.distill)

    def predict(self, net: Any, images: Tensor, labels: Tensor) -> list[Tensor]:
        """The class of each pixel, [H, W] int64 per picture, at the size of the labels."""
        return list(predict_labels(net(images), (labels.shape[-2], labels.shape[-1])))

    def create_metric(self) -> BaseMetric:
        """Mean IoU and its like."""
        return SegmentationMetric(self.class_names)

    def save(self, net: Any, path: Path) -> None:
        """A file of `save_segmenter`."""
        save_segmenter(net, path)

    def describe(self, requests: Sequence[Request], truth: Tensor) -> dict[str, Any]:
        """Labels and file names; unlabelled pictures have none here."""
        names = dict(enumerate(self._pictures.file_names))
        return {"labels": truth, "file_names": [names.get(index, "") for index, _, _ in requests]}


def create_net(config: SegmentationConfig, class_names: tuple[str, ...], weights: Path | None = None) -> Segmenter:
    """The config's segmenter for these classes, with `weights` instead of those that the config starts from.

    Raises ValueError for an option that its builder does not have and for weights that do not fit.
    """
    options: dict[str, Any] = dict(config.model)
    name = str(options.pop("name"))
    for key, source in (("num_classes", "the classes of the data"), ("input_size", "eval_size")):
        if key in options:
            raise ValueError(f"model.{key} follows from {source}")
    start = convert(options.pop("weights", None), str | Path | None, "model.weights")
    if weights is not None:
        options.pop("backbone_weights", None)
    if start is not None and weights is None:
        path = find_weights(name, start)
        saved = read_saved(path, name)
        refuse_other_classes(f"{path} knows", saved.class_names, class_names)
        say_other_size(path, saved.options, config.eval_size)
    checked = arguments(find_builder(SEGMENTERS, name), options, "model")
    net = create_segmenter(
        name, num_classes=len(class_names), weights=weights or start, input_size=config.eval_size, **checked
    )
    net.class_names = class_names
    choose_layers(net, config.binarize, start, scored=weights)
    return net


class SegmentationMetric(BaseMetric):
    """The figures of all pictures together, from one confusion matrix."""

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__(prefix="val")
        self.class_names = tuple(class_names)

    def process(self, data_batch: tuple[Tensor, Tensor], data_samples: Sequence[Tensor]) -> None:
        """One entry per picture: mmengine cuts the list at the number of pictures."""
        for labels, predicted in zip(data_batch[1], data_samples, strict=True):
            confusion = ConfusionMatrix(len(self.class_names))
            confusion.update(predicted, labels)
            self.results.append(confusion.matrix)

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        """Figures 0..1; the IoU of each class that is there as "IoU/<class>"."""
        confusion = ConfusionMatrix(len(self.class_names))
        confusion.matrix += np.sum(results, axis=0)
        scores = confusion.scores(self.class_names)
        ious = zip(scores.class_names, scores.class_iou.tolist(), strict=True)
        return {**mean_figures(scores), **{f"IoU/{name}": iou for name, iou in ious if not np.isnan(iou)}}


def mean_figures(scores: SegmentationScores) -> dict[str, float]:
    """The figures over all classes that a config's `monitor` may name."""
    return {
        "mIoU": scores.mean_iou,
        "mean_accuracy": scores.mean_accuracy,
        "pixel_accuracy": scores.pixel_accuracy,
        "weighted_IoU": scores.frequency_weighted_iou,
    }
