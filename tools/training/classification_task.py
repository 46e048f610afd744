"""The training of a classifier: class folders, label smoothing, top-1 and top-5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor, nn

from backbones import Classifier, create_classifier, save_classifier
from backbones.classifier import read_saved
from backbones.published import find_weights
from backbones.registry import BACKBONES, find_builder

from ..configuration.classification_config import ClassificationConfig
from ..configuration.schema import arguments, convert, section
from .binary_choice import choose_layers
from .class_folders import ClassFolders, collate
from .crops import CropAugmentation, MiddleCrop
from .known_classes import refuse_other_classes
from .sampler import Request
from .teaching import teach_classifier


class ClassificationTask:
    """See `TrainingTask`. The classes are the folders of the train part."""

    free_keys = ("model.weights", "model.backbone_weights")

    def __init__(self, config: ClassificationConfig) -> None:
        self.config = config
        self.loss_options: Mapping[str, Any] = {"label_smoothing": config.label_smoothing}
        check = config.data.check_pictures
        with section("augmentation"):
            augmentation = CropAugmentation(**arguments(CropAugmentation, config.augmentation, "augmentation"))
        with section("data.train"):
            self.train_data = ClassFolders(config.data.train, augmentation, check=check)
        self.class_names = self.train_data.class_names
        middle = MiddleCrop(config.eval_size, config.eval_crop)
        with section("data.val"):
            self.val_data = ClassFolders(config.data.val, middle, class_names=self.class_names, check=check)

    def collate(self, batch: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        """See `class_folders.collate`."""
        return collate(batch)

    def create_net(self) -> nn.Module:
        """The config's backbone under its published head for these classes; under its teacher, if it has one."""
        with section("model"):
            net = create_net(self.config, self.class_names)
        net.class_names, net.input_size = self.class_names, self.config.eval_size
        with section("distill"):
            return teach_classifier(net, self.config.distill)

    def predict(self, net: Any, images: Tensor, truth: Any) -> Sequence[Any]:  # noqa: ARG002
        """What the net's own `predict` gives."""
        answers: Sequence[Any] = net.predict(images)
        return answers

    def create_metric(self) -> BaseMetric:
        """top1 and top5."""
        return ClassificationMetric()

    def save(self, net: Any, path: Path) -> None:
        """A file of `save_classifier`."""
        save_classifier(net, path)

    def describe(self, requests: Sequence[Request], truth: Tensor) -> dict[str, Any]:
        """Labels and file names."""
        return {"labels": truth, "file_names": [self.train_data.file_names[index] for index, _, _ in requests]}


def create_net(
    config: ClassificationConfig, class_names: Sequence[str] | None, weights: Path | None = None
) -> Classifier:
    """The config's classifier for these classes (None: those of the weights), with `weights` instead of those that the
    config starts from.

    Raises ValueError for an option that the backbone does not have and for weights that do not fit.
    """
    options: dict[str, Any] = dict(config.model)
    name = str(options.pop("name"))
    for key, source in (("num_classes", "the class folders"), ("input_size", "eval_size")):
        if key in options:
            raise ValueError(f"model.{key} follows from {source}")
    start = {
        key: convert(options.pop(key, None), str | Path | None, f"model.{key}")
        for key in ("weights", "backbone_weights")
    }
    checked = arguments(find_builder(BACKBONES, name), options, "model")
    sources = {"weights": weights} if weights else start
    if start["weights"] is not None and class_names and not weights:
        path = find_weights(name, start["weights"])
        refuse_other_classes(f"{path} knows", read_saved(path, name).class_names, class_names)
    net = create_classifier(name, num_classes=len(class_names) if class_names else None, **sources, **checked)
    choose_layers(net, config.binarize, start["weights"], scored=weights)
    return net


class ClassificationMetric(BaseMetric):
    """The share of pictures whose class is the likeliest (top1), or among the five likeliest (top5)."""

    def __init__(self) -> None:
        super().__init__(prefix="val")

    def process(self, data_batch: tuple[Tensor, Tensor], data_samples: Sequence[Tensor]) -> None:
        """One entry per picture: data_samples holds the probabilities [C] of each."""
        probabilities = torch.stack(list(data_samples)).cpu()
        self.results.extend(truth_ranks(probabilities, data_batch[1]).tolist())

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        """Figures 0..1."""
        return top_figures(results)


def truth_ranks(probabilities: Tensor, labels: Tensor) -> Tensor:
    """probabilities [N, C], labels [N] int64 -> [N] int64: how many other classes are as likely as the right one.

    So a net that finds everything equally likely is right nowhere; C where the probabilities are no numbers.
    """
    own = probabilities.gather(1, labels[:, None])
    ranks = (probabilities >= own).sum(dim=1) - 1
    return torch.where(probabilities.isfinite().all(dim=1), ranks, probabilities.shape[1])


def top_figures(ranks: Sequence[int]) -> dict[str, float]:
    """Ranks of the right classes, 0 for the likeliest -> top1 and top5, 0..1."""
    return {f"top{count}": sum(rank < count for rank in ranks) / max(len(ranks), 1) for count in (1, 5)}
