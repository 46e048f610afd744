"""A classifier on a backbone: for pre-training and for parity with published nets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from . import named_nets
from .base import Backbone
from .binary_layers import BinaryChoice, read_binary, with_binary_layers
from .catalogue import CATALOGUE
from .evaluation import in_evaluation
from .named_nets import words_of
from .published import find_weights
from .registry import BACKBONES, check_overrides, find_builder
from .weights import load_weights, normalisation_words, read_metadata, read_normalisation, save_weights

DEFAULT_CLASSES = 1000


class Classifier(BinaryChoice):
    """A backbone under the head that its publication gives it.

    `forward` is the published net, on pictures that are normalised already. `losses` and `predict` take them as they
    are, RGB 0..255, and normalise as the backbone expects. name, options (what the backbone's builder was told),
    class_names and input_size (height, width) go along in a weights file, as does `binary`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int = DEFAULT_CLASSES,
        name: str = "",
        input_size: tuple[int, int] = (224, 224),
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes is {num_classes!r}; expected a whole number from 1 up")
        self.backbone = backbone
        self.head = backbone.classifier_head(num_classes)
        self.name, self.num_classes, self.input_size = name, num_classes, input_size
        self.options: dict[str, Any] = {}
        self.class_names: tuple[str, ...] = tuple(f"class {index}" for index in range(num_classes))
        # Not in the state dict, whose names are those of the published net.
        self.register_buffer("mean", torch.empty(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.empty(1, 3, 1, 1), persistent=False)
        self.expect(backbone.input_mean, backbone.input_std)

    def expect(self, input_mean: tuple[float, ...], input_std: tuple[float, ...]) -> None:
        """Take over the normalisation, RGB 0..255, that weights expect."""
        self.backbone.input_mean, self.backbone.input_std = input_mean, input_std
        self.mean.copy_(torch.tensor(input_mean).view(1, 3, 1, 1))
        self.std.copy_(torch.tensor(input_std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """images [N, 3, H, W], normalised -> logits [N, num_classes]."""
        logits: Tensor = self.head(self.backbone(images)[-1])
        return logits

    def normalize(self, images: Tensor) -> Tensor:
        """images [N, 3, H, W] uint8 or float, RGB 0..255 -> what `forward` takes. ValueError for another shape."""
        if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
            raise ValueError(f"images have shape {list(images.shape)}; expected [N, 3, H, W], no side 0")
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def outputs(self, images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002 (other nets' outputs depend on the truth)
        """What a loss needs: logits [N, num_classes]; images as in `normalize`."""
        logits: Tensor = self(self.normalize(images))
        return logits

    def losses_from(self, outputs: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> dict[str, Tensor]:
        """outputs: logits; labels [N] int64 in 0..C-1 -> {"loss_class": cross-entropy, mean over the batch}.

        label_smoothing: the part e of the truth that is spread over all classes, 1 - e + e / C for the right one
        (Szegedy et al., arXiv:1512.00567, section 7).
        """
        return {"loss_class": F.cross_entropy(outputs, labels, label_smoothing=label_smoothing)}

    def losses(self, images: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> dict[str, Tensor]:
        """`losses_from(outputs(images, labels), labels)`."""
        return self.losses_from(self.outputs(images, labels), labels, label_smoothing=label_smoothing)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """images as in `normalize` -> probabilities [N, num_classes]; always as in evaluation mode."""
        with in_evaluation(self):
            logits: Tensor = self(self.normalize(images))
        return logits.float().softmax(dim=1)


def create_classifier(
    name: str,
    *,
    num_classes: int | None = None,
    weights: str | PathLike[str] | None = None,
    backbone_weights: str | PathLike[str] | None = None,
    **overrides: Any,
) -> Classifier:
    """The backbone called `name` under its published classifier.

    num_classes: None means as many as the weights file says, or 1000. weights: a file of `save_classifier`, a published
    one, or "imagenet" as in `create_backbone`; backbone_weights: the same for the backbone alone, whatever the file's
    classes are. Other keywords override the backbone's options. A file of binary layers gives a net of binary layers,
    one of bits a net of bits. Raises ValueError for an unknown name or option and for weights of another net or class
    count, OSError for a missing file.
    """
    builder = find_builder(BACKBONES, name)
    path = None if weights is None else find_weights(name, weights)
    saved = SavedClassifier((), (224, 224), {}) if path is None else read_saved(path, name)
    if num_classes is not None and saved.class_names and len(saved.class_names) != num_classes:
        raise ValueError(f"{path} has {len(saved.class_names)} classes, not {num_classes}; its backbone fits")
    options = {**saved.options, **overrides}
    check_overrides(name, builder, options)
    if "out_strides" in options:
        raise ValueError(f"a classifier needs all of {name}; out_strides is an option of create_backbone")
    row = CATALOGUE.get(name)
    backbone: Backbone = builder(**{**(row.classifier_options if row else {}), **options})
    if backbone_weights is not None:
        load_weights(backbone, find_weights(name, backbone_weights), name=name)
    if num_classes is None:
        num_classes = len(saved.class_names) or DEFAULT_CLASSES
    classifier = Classifier(backbone, num_classes=num_classes, name=name, input_size=saved.input_size)
    classifier.options = options
    classifier.class_names = saved.class_names or classifier.class_names
    classifier = with_binary_layers(classifier, saved.binary, path)
    if path is not None:
        load_weights(classifier, path, name=name)
        normalisation = read_normalisation(read_metadata(path))
        classifier.expect(
            normalisation.get("input_mean", backbone.input_mean), normalisation.get("input_std", backbone.input_std)
        )
    return classifier


class SavedClassifier(NamedTuple):
    """What a weights file says beside its tensors: class names (none in a published file), size, backbone's options,
    and what `binarize_` was told, with "bits" where the file holds them.
    """

    class_names: tuple[str, ...]
    input_size: tuple[int, int]
    options: dict[str, Any]
    binary: dict[str, Any] = {}  # noqa: RUF012 (nobody changes it)


def read_saved(path: Path, name: str) -> SavedClassifier:
    """The words of a weights file for classifier `name`; ValueError where it is another's, or they make no sense."""
    words = named_nets.read_saved(BACKBONES, name, path)
    metadata = read_metadata(path)
    size = metadata.get("input_size", "[224, 224]")
    try:
        height, width = json.loads(size)
        input_size = (int(height), int(width))
    except (ValueError, TypeError):
        raise ValueError(f"{path}: its metadata gives input_size {size}; expected [height, width]") from None
    return SavedClassifier(words.class_names, input_size, words.options, read_binary(metadata, path))


def save_classifier(
    classifier: Classifier,
    path: str | PathLike[str],
    *,
    half: bool = True,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write safetensors that `create_classifier(classifier.name, weights=path)` reads back, class names too.

    The file is good for a backbone's weights as well. half: float16 on disk; notes: more words for its metadata, such
    as where the numbers come from. Raises as `save_weights`, and ValueError
    for a net that could not be read back: one that `create_classifier` did not make, or with other names than classes.
    """
    metadata = {
        **(notes or {}),
        **words_of(classifier, BACKBONES, "classifier"),
        "input_size": json.dumps(classifier.input_size),
        **normalisation_words(classifier.backbone),
    }
    save_weights(classifier, path, metadata=metadata, half=half)
