"""Segmenters by name, and their weights files."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from mmengine.registry import Registry

from backbones import named_nets
from backbones.named_nets import SavedWords
from backbones.registry import list_names

from .base import Segmenter

SEGMENTERS = Registry("segmenter")
WEIGHTS_FOLDER = Path(__file__).parent / "weights"
DEFAULT_CLASSES = 19  # Cityscapes'


def register_presets(family: Callable[..., Segmenter], backbones: tuple[str, ...]) -> None:
    """Register `<family>_<backbone>` for each backbone: the family's builder with that choice made."""
    named_nets.register_presets(SEGMENTERS, family, backbones)


def list_segmenters(pattern: str = "*") -> list[str]:
    """Names that `create_segmenter` takes, filtered by a shell-style pattern."""
    return list_names(SEGMENTERS, pattern)


def shipped_weights() -> dict[str, Path]:
    """Weights that come with the package: `<builder>_<dataset>` -> file."""
    return named_nets.weights_in(WEIGHTS_FOLDER)


def find_weights(name: str, weights: str | PathLike[str]) -> Path:
    """A file's path, or the data set's name of weights shipped for segmenter `name` ("person").

    Raises FileNotFoundError that names what is shipped.
    """
    return named_nets.find_weights(name, weights, shipped_weights())


def create_segmenter(
    name: str, *, num_classes: int | None = None, weights: str | PathLike[str] | None = None, **overrides: Any
) -> Segmenter:
    """The segmenter called `name`.

    num_classes: None means as many as the weights file says, or 19. weights: a file of `save_segmenter`, or the data
    set's name of shipped weights ("person"). Other keywords override the builder's numbers. Raises ValueError for an
    unknown name or option and for weights of another segmenter or class count; FileNotFoundError for a missing file.
    """
    segmenter: Segmenter = named_nets.create_net(
        SEGMENTERS,
        name,
        overrides,
        num_classes=num_classes,
        default_classes=DEFAULT_CLASSES,
        weights=weights,
        shipped=shipped_weights(),
    )
    return segmenter


def read_saved(path: Path, name: str) -> SavedWords:
    """The words of a weights file for segmenter `name`; ValueError where it is another's, or they make no sense."""
    return named_nets.read_saved(SEGMENTERS, name, path)


def save_segmenter(segmenter: Segmenter, path: str | PathLike[str], *, half: bool = True) -> None:
    """Write safetensors that `create_segmenter(segmenter.name, weights=path)` reads back, options and class names too.

    half: float16 on disk. Raises as `backbones.named_nets.save_net`.
    """
    named_nets.save_net(SEGMENTERS, segmenter, path, half=half)
