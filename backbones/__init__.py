"""Feature extractors by name, and the blocks, weights and counts that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from . import shufflenet_v2, snet
from .base import Backbone, FeatureInfo
from .classifier import Classifier
from .cost import Cost, measure_cost
from .registry import BACKBONES, check_overrides, find_builder, list_names
from .weights import LoadReport, load_weights, read_metadata, read_state_dict, save_weights

__all__ = [
    "BACKBONES",
    "Backbone",
    "Classifier",
    "Cost",
    "FeatureInfo",
    "LoadReport",
    "create_backbone",
    "create_classifier",
    "list_backbones",
    "load_weights",
    "measure_cost",
    "read_metadata",
    "read_state_dict",
    "save_weights",
    "shufflenet_v2",
    "snet",
]


def list_backbones(pattern: str = "*") -> list[str]:
    """Names that `create_backbone` takes, filtered by a shell-style pattern."""
    return list_names(BACKBONES, pattern)


def create_backbone(
    name: str,
    *,
    out_strides: Sequence[int] | None = None,
    weights: str | PathLike[str] | None = None,
    **overrides: Any,
) -> Backbone:
    """The backbone called `name`, giving maps at `out_strides` (None: at every stride that the net has).

    weights: a file of this project, or a published checkpoint that `backbones.checkpoints` knows.
    Raises ValueError for an unknown name, stride or option, and for weights that do not fit.
    """
    builder = find_builder(BACKBONES, name)
    check_overrides(name, builder, overrides)
    backbone: Backbone = builder(out_strides=out_strides, **overrides)
    if weights is not None:
        load_weights(backbone, weights)
    return backbone


def create_classifier(name: str, *, num_classes: int = 1000, weights: str | PathLike[str] | None = None) -> Classifier:
    """The backbone called `name` under its published classifier. Raises like `create_backbone`."""
    classifier = Classifier(create_backbone(name), num_classes=num_classes)
    if weights is not None:
        load_weights(classifier, weights)
    return classifier
