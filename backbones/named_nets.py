"""Nets for a task by name, and their weights files: what detectors and segmenters have in common."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mmengine.registry import Registry

from .binary_layers import binary_words, read_binary, with_binary_layers
from .registry import check_overrides, find_builder, nearest, preset
from .task_net import TaskNet
from .weights import load_weights, read_metadata, save_weights

_LOGGER = logging.getLogger("backbones")


class SavedWords(NamedTuple):
    """What a weights file says beside its tensors: class names (none in a bare file), the builder's options, and which
    layers are binary (see `binary_layers`).
    """

    class_names: tuple[str, ...]
    options: dict[str, Any]
    binary: dict[str, Any] = {}  # noqa: RUF012 (nobody changes it)


def register_presets(registry: Registry, family: Callable[..., TaskNet], backbones: Iterable[str]) -> None:
    """Register `<family>_<backbone>` for each backbone: the family's builder with that choice made."""
    for backbone in backbones:
        registry.register_module(name=f"{family.__name__}_{backbone}", module=preset(family, backbone=backbone))


def weights_in(folder: Path) -> dict[str, Path]:
    """Weights that come with a package: `<builder>_<dataset>` -> file."""
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_weights(name: str, weights: str | PathLike[str], shipped: Mapping[str, Path]) -> Path:
    """A file's path, or the data set's name of weights in `shipped` for the net `name` ("person").

    Raises FileNotFoundError that names what is shipped.
    """
    path = Path(weights)
    for stem in (f"{name}_{weights}", str(weights)):
        if stem in shipped:
            return shipped[stem]
    if not path.is_file():
        own = [stem.removeprefix(f"{name}_") for stem in shipped if stem.startswith(f"{name}_")]
        words = f"shipped for {name}: {', '.join(own) or 'none'}"
        raise FileNotFoundError(f"no weights file {str(weights)!r}{nearest(str(weights), own)}; {words}")
    return path


def create_net(
    registry: Registry,
    name: str,
    options: Mapping[str, Any],
    *,
    num_classes: int | None,
    default_classes: int,
    weights: str | PathLike[str] | None,
    shipped: Mapping[str, Path],
    new_classes: bool = False,
) -> Any:
    """The net that `registry` builds under `name`, with the weights, class names and options of the file, if any.

    num_classes: None means as many as the file says, or `default_classes`. weights, shipped: as in `find_weights`.
    new_classes: the file's classes are others; the tensors whose shape the number of classes decides start anew, all
    others are taken, and the log "backbones" says so. Raises ValueError for an unknown name or option, and for weights
    of another net or class count; FileNotFoundError for a missing file.
    """
    if new_classes and (weights is None or num_classes is None):
        missing = "weights" if weights is None else "num_classes"
        raise ValueError(f"new_classes asks for other weights under new classes, but {missing} is not given")
    builder = find_builder(registry, name)
    check_overrides(name, builder, options)
    path = None if weights is None else find_weights(name, weights, shipped)
    saved = SavedWords((), {}) if path is None else read_saved(registry, name, path)
    class_names = () if new_classes else saved.class_names
    if num_classes is not None and class_names and len(class_names) != num_classes:
        raise ValueError(f"{path} has {len(class_names)} classes ({', '.join(class_names[:5])}), not {num_classes}")
    if num_classes is None:
        num_classes = len(class_names) or default_classes
    told = {**saved.options, **options}
    net: TaskNet = with_binary_layers(builder(num_classes=num_classes, **told), saved.binary, path)
    told.pop("backbone_weights", None)  # a place to start from, no part of the net
    net.name, net.options = name, told
    if class_names:
        net.class_names = class_names
    if path is not None and new_classes:
        other = with_binary_layers(builder(num_classes=num_classes + 1, **told), saved.binary, path)
        anew = _names_by_classes(net, other)
        _load(net, path, anew)
        _say_anew(path, saved, told, anew)
    elif path is not None:
        _load(net, path)
    return net


def _names_by_classes(net: TaskNet, other: TaskNet) -> list[str]:
    """The tensors of a net that another one, with one class more, has in another shape."""
    others = other.state_dict()
    return [name for name, tensor in net.state_dict().items() if tensor.shape != others[name].shape]


def _say_anew(path: Path, saved: SavedWords, told: Mapping[str, Any], anew: Collection[str]) -> None:
    of = f" of {', '.join(saved.class_names[:5])}" if saved.class_names else ""
    changed = [name for name, value in saved.options.items() if told[name] != value and name != "input_size"]
    options = f"; options that differ from the file's: {', '.join(changed)}" if changed else ""
    _LOGGER.warning("%s%s: everything is taken except %s, which start anew%s", path, of, ", ".join(anew), options)


def read_saved(registry: Registry, name: str, path: Path) -> SavedWords:
    """The words of a weights file for the net `name`; ValueError where it is another's, or they make no sense."""
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
        check_overrides(name, find_builder(registry, name), options)
    except ValueError as error:
        raise ValueError(f"{path}: in its metadata, {error}") from None
    return SavedWords(tuple(class_names), options, read_binary(metadata, path))


def _load(net: TaskNet, path: Path, keep: Collection[str] = ()) -> None:
    """Put the file's tensors into the net, except for those to `keep`; ValueError where there are more or fewer than
    it has.
    """
    report = load_weights(net, path, keep=keep)
    if report.unused:
        raise ValueError(f"{path} does not fit {net.name}: {report.unused[0]} has no place in it")
    net.backbone.input_mean = tuple(net.mean.flatten().tolist())
    net.backbone.input_std = tuple(net.std.flatten().tolist())


def write_options(name: str, options: Mapping[str, Any]) -> str:
    """A builder's options as a word of metadata; ValueError for one that is no number or word (a built backbone)."""
    for option, value in options.items():
        try:
            json.dumps(value)
        except TypeError:
            kind = getattr(value, "__name__", type(value).__name__)
            raise ValueError(
                f"option {option!r} of {name} is {kind}, which a file cannot hold; expected a name or numbers"
            ) from None
    return json.dumps(dict(options))


class NamedNet(Protocol):
    """What a weights file says of a net beside its tensors and which layers are binary."""

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    options: dict[str, Any]


def words_of(net: NamedNet, registry: Registry, kind: str) -> dict[str, str]:
    """The metadata that `read_saved` reads. ValueError for a net that could not be read back: one that `create_<kind>`
    did not make, or with other names than classes.
    """
    if net.name not in registry.module_dict:
        raise ValueError(f"a {kind} called {net.name!r} cannot be made again by name; use create_{kind}")
    if len(net.class_names) != net.num_classes:
        raise ValueError(f"{len(net.class_names)} class names for {net.num_classes} classes")
    return {
        "name": net.name,
        "class_names": json.dumps(net.class_names),
        "options": write_options(net.name, net.options),
        **(binary_words(net) if hasattr(net, "binary") else {}),  # also of a net that is being taught
    }


def save_net(registry: Registry, net: TaskNet, path: str | PathLike[str], *, half: bool) -> None:
    """Write safetensors that `create_net(registry, net.name, ...)` reads back, options and class names too.

    half: float16 on disk. The older file at `path` survives a failure. Raises as `save_weights` and `words_of`.
    """
    save_weights(net, path, metadata=words_of(net, registry, registry.name), half=half)
