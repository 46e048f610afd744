"""Feature extractors by name, and the blocks, weights and counts that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from .base import Backbone, FeatureInfo
from .catalogue import CATALOGUE
from .classifier import Classifier, create_classifier, save_classifier
from .cost import Cost, measure_cost
from .extension import reach_strides
from .published import find_weights
from .registry import BACKBONES, check_overrides, find_builder, list_names
from .weights import LoadReport, load_weights, read_metadata, read_state_dict, save_weights

__all__ = [
    "BACKBONES",
    "CATALOGUE",
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
    "reach_strides",
    "read_metadata",
    "read_state_dict",
    "save_classifier",
    "save_weights",
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

    weights: a file of this project, a published checkpoint that `backbones.checkpoints` knows, or "imagenet" for what
    `swiftsight weights fetch` brought (looked up on the disk, never downloaded here).
    Raises ValueError for an unknown name, stride or option, and for weights that do not fit.
    """
    builder = find_builder(BACKBONES, name)
    check_overrides(name, builder, overrides)
    backbone: Backbone = builder(out_strides=out_strides, **overrides)
    if weights is not None:
        load_weights(backbone, find_weights(name, weights), name=name)
    return backbone
