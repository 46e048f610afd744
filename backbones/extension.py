"""Backbones for heads that need a coarser map than the net has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch

from .base import Backbone
from .published import find_weights
from .registry import BACKBONES, check_overrides, find_builder
from .weights import load_weights


def reach_strides(
    backbone: str | Backbone,
    strides: Sequence[int],
    *,
    weights: str | PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """The backbone (a name or a built one) with exactly the maps at `strides`.

    A net that ends at half of the coarsest stride (SqueezeNet, DFANet's Xceptions, a ResNet with a dilated last stage)
    gets a stage appended, `extra_stage`, which has random weights; `weights` are for the net itself, and so are
    `options` ({"width": 0.6}). Raises ValueError for an unknown name or option, for strides that are out of reach, and
    for weights or options with a built backbone, which has its own.
    """
    wanted = sorted(set(strides))
    if isinstance(backbone, str):
        name, backbone = backbone, _by_name(backbone, wanted, options or {})
        if weights is not None:
            load_weights(backbone, find_weights(name, weights), name=name)
    elif weights is not None or options:
        raise ValueError("backbone weights or options came with a built backbone, which has its own")
    else:
        name = type(backbone).__name__
    came = _strides(backbone)
    if len(wanted) == len(came) + 1 and wanted == [*came, 2 * came[-1]]:
        backbone.extend()
    if _strides(backbone) != wanted:
        raise ValueError(f"maps at strides {wanted} are needed; {name} gives {came}")
    return backbone


def _by_name(name: str, wanted: Sequence[int], options: Mapping[str, Any]) -> Backbone:
    """The net with those of the `wanted` maps that it has, or with all of its maps if it has none of them."""
    builder = find_builder(BACKBONES, name)
    check_overrides(name, builder, options)
    with torch.device("meta"):
        offered = _strides(builder(**options))
    backbone: Backbone = builder(out_strides=[stride for stride in wanted if stride in offered] or None, **options)
    return backbone


def _strides(backbone: Backbone) -> list[int]:
    return [info.stride for info in backbone.feature_info]
