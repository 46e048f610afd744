"""Detectors by name, and their weights files."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from mmengine.registry import Registry

from backbones import load_weights, read_metadata, save_weights
from backbones.registry import check_overrides, find_builder, list_names, nearest

from .two_stage import TwoStageDetector

DETECTORS = Registry("detector")
WEIGHTS_FOLDER = Path(__file__).parent / "weights"
DEFAULT_CLASSES = 80


def register_presets(family: Callable[..., TwoStageDetector], backbones: tuple[str, ...]) -> None:
    """Register `<family>_<backbone>` for each backbone: the family's builder with that choice made."""
    for backbone in backbones:
        DETECTORS.register_module(name=f"{family.__name__}_{backbone}", module=_preset(family, backbone))


def _preset(family: Callable[..., TwoStageDetector], backbone: str) -> Any:
    """`family` with its first argument given, as a function whose signature shows the rest."""
    chosen = partial(family, backbone)

    def build(**options: Any) -> TwoStageDetector:
        return chosen(**options)

    preset: Any = build
    preset.__signature__ = inspect.signature(chosen, eval_str=True)
    return preset


def list_detectors(pattern: str = "*") -> list[str]:
    """Names that `create_detector` takes, filtered by a shell-style pattern."""
    return list_names(DETECTORS, pattern)


def shipped_weights() -> dict[str, Path]:
    """Weights that come with the package: `<builder>_<dataset>` -> file."""
    return {path.stem: path for path in sorted(WEIGHTS_FOLDER.glob("*.safetensors"))}


def find_weights(name: str, weights: str | PathLike[str]) -> Path:
    """A file's path, or the data set's name of weights shipped for detector `name` ("person").

    Raises FileNotFoundError that names what is shipped.
    """
    path, shipped = Path(weights), shipped_weights()
    for stem in (f"{name}_{weights}", str(weights)):
        if stem in shipped:
            return shipped[stem]
    if not path.is_file():
        own = [stem.removeprefix(f"{name}_") for stem in shipped if stem.startswith(f"{name}_")]
        words = f"shipped for {name}: {', '.join(own) or 'none'}"
        raise FileNotFoundError(f"no weights file {str(weights)!r}{nearest(str(weights), own)}; {words}")
    return path


def create_detector(
    name: str, *, num_classes: int | None = None, weights: str | PathLike[str] | None = None, **overrides: Any
) -> TwoStageDetector:
    """The detector called `name`.

    num_classes: None means as many as the weights file says, or 80. weights: a file of `save_detector`, or the data
    set's name of shipped weights ("person"). Other keywords override the builder's numbers. Raises ValueError for an
    unknown name or option and for weights of another detector or class count; FileNotFoundError for a missing file.
    """
    builder = find_builder(DETECTORS, name)
    check_overrides(name, builder, overrides)
    metadata: dict[str, str] = {}
    if weights is not None:
        path = find_weights(name, weights)
        metadata = read_metadata(path)
        made_by = metadata.get("name", name)
        if made_by != name:
            raise ValueError(f"{path} holds weights of {made_by}, not of {name}")
    class_names = tuple(json.loads(metadata.get("class_names", "[]")))
    if num_classes is not None and class_names and len(class_names) != num_classes:
        raise ValueError(f"{path} has {len(class_names)} classes ({', '.join(class_names[:5])}), not {num_classes}")
    saved = json.loads(metadata.get("options", "{}"))
    detector: TwoStageDetector = builder(
        num_classes=num_classes or len(class_names) or DEFAULT_CLASSES, **{**saved, **overrides}
    )
    options = {**saved, **overrides}
    options.pop("backbone_weights", None)  # a place to start from, no part of the net
    detector.name, detector.options = name, options
    if class_names:
        detector.class_names = class_names
    if weights is not None:
        load_weights(detector, path)
    return detector


def save_detector(detector: TwoStageDetector, path: str | PathLike[str], *, half: bool = True) -> None:
    """Write safetensors that `create_detector(detector.name, weights=path)` reads back, options and class names too.

    half: float16 on disk. The older file at `path`, if any, survives a failure. Raises as `save_weights`.
    """
    metadata = {
        "name": detector.name,
        "class_names": json.dumps(detector.class_names),
        "options": json.dumps(detector.options),
    }
    save_weights(detector, path, metadata=metadata, half=half)
