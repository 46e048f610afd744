"""Detectors by name, and their weights files."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from mmengine.registry import Registry

from backbones import named_nets
from backbones.named_nets import SavedWords
from backbones.registry import list_names

from .two_stage import TwoStageDetector

DETECTORS = Registry("detector")
WEIGHTS_FOLDER = Path(__file__).parent / "weights"
DEFAULT_CLASSES = 80


def register_presets(family: Callable[..., TwoStageDetector], backbones: tuple[str, ...]) -> None:
    """Register `<family>_<backbone>` for each backbone: the family's builder with that choice made."""
    named_nets.register_presets(DETECTORS, family, backbones)


def list_detectors(pattern: str = "*") -> list[str]:
    """Names that `create_detector` takes, filtered by a shell-style pattern."""
    return list_names(DETECTORS, pattern)


def shipped_weights() -> dict[str, Path]:
    """Weights that come with the package: `<builder>_<dataset>` -> file."""
    return named_nets.weights_in(WEIGHTS_FOLDER)


def find_weights(name: str, weights: str | PathLike[str]) -> Path:
    """A file's path, or the data set's name of weights shipped for detector `name` ("person").

    Raises FileNotFoundError that names what is shipped.
    """
    return named_nets.find_weights(name, weights, shipped_weights())


def create_detector(
    name: str,
    *,
    num_classes: int | None = None,
    weights: str | PathLike[str] | None = None,
    new_classes: bool = False,
    **overrides: Any,
) -> TwoStageDetector:
    """The detector called `name`.

    num_classes: None means as many as the weights file says, or 80. weights: a file of `save_detector`, or the data
    set's name of shipped weights ("person"). new_classes: these weights are of other classes; what depends on them
    starts anew, and the log "backbones" says so. Other keywords override the builder's numbers. Raises ValueError for
    an unknown name or option and for weights of another detector or class count; FileNotFoundError for a missing file.
    """
    detector: TwoStageDetector = named_nets.create_net(
        DETECTORS,
        name,
        overrides,
        num_classes=num_classes,
        default_classes=DEFAULT_CLASSES,
        weights=weights,
        shipped=shipped_weights(),
        new_classes=new_classes,
    )
    return detector


def read_saved(path: Path, name: str) -> SavedWords:
    """The words of a weights file for detector `name`; ValueError where it is another's, or they make no sense."""
    return named_nets.read_saved(DETECTORS, name, path)


def save_detector(detector: TwoStageDetector, path: str | PathLike[str], *, half: bool = True) -> None:
    """Write safetensors that `create_detector(detector.name, weights=path)` reads back, options and class names too.

    half: float16 on disk. Raises as `backbones.named_nets.save_net`.
    """
    named_nets.save_net(DETECTORS, detector, path, half=half)
