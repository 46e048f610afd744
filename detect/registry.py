"""Detectors by name, and their weights files."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

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
    path = None if weights is None else find_weights(name, weights)
    saved = SavedDetector((), {}) if path is None else read_saved(path, name)
    class_names = saved.class_names
    if num_classes is not None and class_names and len(class_names) != num_classes:
        raise ValueError(f"{path} has {len(class_names)} classes ({', '.join(class_names[:5])}), not {num_classes}")
    if num_classes is None:
        num_classes = len(class_names) or DEFAULT_CLASSES
    options = {**saved.options, **overrides}
    detector: TwoStageDetector = builder(num_classes=num_classes, **options)
    options.pop("backbone_weights", None)  # a place to start from, no part of the net
    detector.name, detector.options = name, options
    if class_names:
        detector.class_names = class_names
    if path is not None:
        _load(detector, path)
    return detector


class SavedDetector(NamedTuple):
    """What a weights file says beside its tensors: class names (none in a bare file), and the builder's options."""

    class_names: tuple[str, ...]
    options: dict[str, Any]


def read_saved(path: Path, name: str) -> SavedDetector:
    """The words of a weights file for detector `name`; ValueError where it is another's, or they make no sense."""
    metadata = read_metadata(path)
    made_by = metadata.get("name", name)
    if made_by != name:
        raise ValueError(f"{path} holds weights of {made_by}, not of {name}")
    try:
        class_names = json.loads(metadata.get("class_names", "[]"))
        options = json.loads(metadata.get("options", "{}"))
    except ValueError:
        raise ValueError(f"{path}: its metadata is no JSON") from None
    if not isinstance(class_names, list) or not all(isinstance(word, str) for word in class_names):
        raise ValueError(f"{path}: its metadata gives class_names {class_names!r}; expected a list of names")
    if not isinstance(options, dict) or {"num_classes", "backbone_weights"} & set(options):
        raise ValueError(f"{path}: its metadata gives options {options!r}; expected the builder's own")
    try:
        check_overrides(name, find_builder(DETECTORS, name), options)
    except ValueError as error:
        raise ValueError(f"{path}: in its metadata, {error}") from None
    return SavedDetector(tuple(class_names), options)


def _load(detector: TwoStageDetector, path: Path) -> None:
    """Put the file's tensors into the net; ValueError where there are more or fewer than it has."""
    report = load_weights(detector, path)
    if report.unused:
        raise ValueError(f"{path} does not fit {detector.name}: {report.unused[0]} has no place in it")
    backbone = detector.backbone
    backbone.input_mean = tuple(detector.mean.flatten().tolist())
    backbone.input_std = tuple(detector.std.flatten().tolist())


def save_detector(detector: TwoStageDetector, path: str | PathLike[str], *, half: bool = True) -> None:
    """Write safetensors that `create_detector(detector.name, weights=path)` reads back, options and class names too.

    half: float16 on disk. The older file at `path`, if any, survives a failure. Raises as `save_weights`, and
    ValueError for a net that could not be read back: one that `create_detector` did not make, or with other names than
    classes.
    """
    if detector.name not in DETECTORS.module_dict:
        raise ValueError(f"a detector called {detector.name!r} cannot be made again by name; use create_detector")
    if len(detector.class_names) != detector.num_classes:
        raise ValueError(f"{len(detector.class_names)} class names for {detector.num_classes} classes")
    try:
        options = json.dumps(detector.options)
    except TypeError:
        raise ValueError(
            f"the options of {detector.name} hold more than numbers and words: {detector.options}"
        ) from None
    metadata = {
        "name": detector.name,
        "class_names": json.dumps(detector.class_names),
        "options": options,
    }
    save_weights(detector, path, metadata=metadata, half=half)
