"""Joint nets by name, and their weights files."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.registry import Registry

from backbones import load_weights, named_nets, read_metadata, save_weights
from backbones.named_nets import write_options
from backbones.registry import check_overrides, find_builder, list_names
from detect import TwoStageDetector, create_detector
from segment import Segmenter, create_segmenter

from .joint_net import JointNet

JOINTS = Registry("joint net")
WEIGHTS_FOLDER = Path(__file__).parent / "weights"
PARTS = ("detector", "segmenter")
_SOURCES = (
    "backbone_weights",
    "detector_weights",
    "segmenter_weights",
    "backbone_of",
)  # to start from, no part of a net
_GIVEN_BY_JOINT = ("backbone", "backbone_options", "input_size")  # of a part's options


class SavedJoint(NamedTuple):
    """What a weights file says beside its tensors: the class names of both parts, and the builder's options."""

    detector_names: tuple[str, ...]
    segmenter_names: tuple[str, ...]
    options: dict[str, Any]


def list_joints(pattern: str = "*") -> list[str]:
    """Names that `create_joint` takes, filtered by a shell-style pattern."""
    return list_names(JOINTS, pattern)


def shipped_weights() -> dict[str, Path]:
    """Weights that come with the package: `<builder>_<dataset>` -> file."""
    return named_nets.weights_in(WEIGHTS_FOLDER)


def find_weights(name: str, weights: str | PathLike[str]) -> Path:
    """A file's path, or the data set's name of weights shipped for the joint net `name` ("person").

    Raises FileNotFoundError that names what is shipped.
    """
    return named_nets.find_weights(name, weights, shipped_weights())


def create_joint(name: str, *, weights: str | PathLike[str] | None = None, **overrides: Any) -> JointNet:
    """The joint net called `name`.

    weights: a file of `save_joint`, or the data set's name of shipped weights ("person"); it says both parts' classes
    and options. Other keywords override the builder's (`joint.pairing.joint`), such as detector_weights and
    segmenter_weights of nets that were trained alone. Raises ValueError for an unknown name or option and for weights
    of another net or other classes; FileNotFoundError for a missing file.
    """
    builder = find_builder(JOINTS, name)
    check_overrides(name, builder, overrides)
    if weights is None:
        return _named(builder(**overrides), name, overrides)
    odd = [word for word in _SOURCES if overrides.get(word) is not None]
    if odd:
        raise ValueError(f"weights of the whole net came together with {odd[0]}; expected one or the other")
    path = find_weights(name, weights)
    saved = read_saved(path, name)
    told: dict[str, Any] = {**saved.options, **overrides}
    for part, names in zip(PARTS, (saved.detector_names, saved.segmenter_names), strict=True):
        options = f"{part}_options"
        told[options] = {**saved.options.get(options, {}), **(overrides.get(options) or {})}
        told[f"{part}_classes"] = _agreed_count(path, part, names, overrides.get(f"{part}_classes"))
    net = _named(builder(**told), name, told)
    net.detector.class_names, net.segmenter.class_names = saved.detector_names, saved.segmenter_names
    _load(net, path)
    return net


def _agreed_count(path: Path, part: str, names: Collection[str], wanted: int | None) -> int:
    """How many classes the part has. ValueError where that is not what was asked for."""
    if wanted not in (None, len(names)):
        raise ValueError(f"{path}: its {part} has {len(names)} classes, not {wanted}")
    return len(names)


def _named(net: JointNet, name: str, told: Mapping[str, Any]) -> JointNet:
    """The net with its name and with all that its builder has to be told to make it again."""
    net.name = name
    net.options = {
        word: value for word, value in told.items() if word not in _SOURCES and not word.endswith("_classes")
    }
    net.options["input_size"] = list(net.input_size)
    for part, built in zip(PARTS, (net.detector, net.segmenter), strict=True):
        own = {option: value for option, value in built.options.items() if option not in _GIVEN_BY_JOINT}
        net.options[f"{part}_options"] = own
    return net


def read_saved(path: Path, name: str) -> SavedJoint:
    """The words of a weights file for the joint net `name`; ValueError where it is another's, or they make no sense."""
    metadata = read_metadata(path)
    if metadata.get("name") != name:
        raise ValueError(
            f"{path} holds weights of {metadata.get('name', 'a net that it does not name')}, not of {name}"
        )
    try:
        options = json.loads(metadata.get("options", "{}"))
        names = [json.loads(metadata[f"{part}_class_names"]) for part in PARTS]
    except (ValueError, KeyError):
        raise ValueError(f"{path}: its metadata lacks the class names, or is no JSON") from None
    for part, found in zip(PARTS, names, strict=True):
        if not isinstance(found, list) or not found or not all(isinstance(word, str) for word in found):
            raise ValueError(f"{path}: its metadata gives {part}_class_names {found!r}; expected a list of names")
    if not isinstance(options, dict) or not all(isinstance(options.get(f"{part}_options"), dict) for part in PARTS):
        raise ValueError(f"{path}: its metadata gives options {options!r}; expected the builder's own, and both parts'")
    try:
        check_overrides(name, find_builder(JOINTS, name), options)
    except ValueError as error:
        raise ValueError(f"{path}: in its metadata, {error}") from None
    return SavedJoint(tuple(names[0]), tuple(names[1]), options)


def _load(net: JointNet, path: Path) -> None:
    report = load_weights(net, path)
    if report.unused:
        raise ValueError(f"{path} does not fit {net.name}: {report.unused[0]} has no place in it")
    net.backbone.input_mean = tuple(net.detector.mean.flatten().tolist())
    net.backbone.input_std = tuple(net.detector.std.flatten().tolist())


def save_joint(net: JointNet, path: str | PathLike[str], *, half: bool = True) -> None:
    """Write safetensors that `create_joint(net.name, weights=path)` reads back, options and class names too.

    half: float16 on disk. Raises ValueError for a net that could not be read back: one that `create_joint` did not
    make, or with other names than classes; and as `backbones.save_weights`.
    """
    if net.name not in JOINTS.module_dict:
        raise ValueError(f"a joint net called {net.name!r} cannot be made again by name; use create_joint")
    metadata = {"name": net.name, "options": write_options(net.name, net.options)}
    for part, built in zip(PARTS, (net.detector, net.segmenter), strict=True):
        if len(built.class_names) != built.num_classes:
            raise ValueError(f"{len(built.class_names)} class names for the {part}'s {built.num_classes} classes")
        metadata[f"{part}_class_names"] = json.dumps(built.class_names)
    save_weights(net, path, metadata=metadata, half=half)


def apart(net: JointNet) -> tuple[TwoStageDetector, Segmenter]:
    """The two of a joint net as nets of their own with its weights, each with a backbone of its own.

    They answer as the joint net does, and can be saved as any detector and segmenter.
    """
    made: list[Any] = []
    for part, create in ((net.detector, create_detector), (net.segmenter, create_segmenter)):
        options = {**part.options, "input_size": net.input_size}
        alone = create(part.name, num_classes=part.num_classes, **options)
        alone.class_names = part.class_names
        places = alone.state_dict()
        state = {f"backbone.{key}": tensor for key, tensor in net.backbone.state_dict().items()}
        state = {**{key: tensor for key, tensor in state.items() if key in places}, **part.state_dict()}
        alone.load_state_dict(state)
        alone.backbone.input_mean, alone.backbone.input_std = net.backbone.input_mean, net.backbone.input_std
        made.append(alone.train(net.training))
    return made[0], made[1]
