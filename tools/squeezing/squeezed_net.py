"""What `squeeze` starts from and what it makes: a net with its weights, and the same net packed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

import detect
import joint
import segment
from backbones import create_classifier, find_weights, list_backbones
from compress import Packed

from ..model_choice import choose_weights

_AUXILIARY = "auxiliary"  # parts of such names help to learn, and nothing else runs them


class Squeezed(NamedTuple):
    """A net as it is in its file; tables and figures: what was made of it, to print and in plain values."""

    net: nn.Module
    packed: Packed
    tables: str
    figures: dict[str, Any]


def choose_net(model: str | None, weights: str | None) -> tuple[str, Path, Callable[..., Any]]:
    """A net's name, its weights file and what creates it: of a detector, segmenter, joint net, or a classifier on a
    backbone. ValueError where no choice is left.
    """
    if model in list_backbones():
        if weights is None:
            raise ValueError(f"no weights come with swiftsight for {model}; name --weights")
        return str(model), find_weights(str(model), weights), create_classifier
    name, file = choose_weights(model, weights)
    if name in list_backbones():
        return name, file, create_classifier
    if name in segment.list_segmenters():
        return name, file, segment.create_segmenter
    return name, file, joint.create_joint if name in joint.list_joints() else detect.create_detector


def auxiliary_parts(net: nn.Module) -> list[str]:
    """The heads that only training uses, by name."""
    names = [name for name, _ in net.named_modules()]
    found = [name for name in names if name.rpartition(".")[2].startswith(_AUXILIARY)]
    return [name for name in found if not any(name.startswith(f"{other}.") for other in found)]


def empty_auxiliary(net: nn.Module) -> None:
    """Make all numbers of the heads that only training uses zero: they then take no room."""
    parts, count = auxiliary_parts(net), 0
    for part in parts:
        for parameter in net.get_submodule(part).parameters():
            parameter.detach().zero_()
            count += parameter.numel()
    if count:
        print(f"left out: {count:,} parameters of {', '.join(parts)}, which only training uses")
