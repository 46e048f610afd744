"""Any detector and any segmenter of this project on one backbone: two are built, and their backbones become one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from mmengine.registry import Registry

from backbones import Backbone, reach_strides
from backbones.registry import find_builder, preset
from detect import TwoStageDetector, create_detector
from detect.registry import DETECTORS
from segment import Segmenter, create_segmenter
from segment.registry import SEGMENTERS

from .joint_net import JointNet
from .registry import JOINTS, PARTS

# Those of the presets; the families `joint_thundernet_bisenet` and `joint` take any.
BACKBONES = ("snet49", "snet146", "snet535", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "resnet18", "xception39")


@JOINTS.register_module()
def joint(
    backbone: str = "snet49",
    *,
    detector: str = "thundernet",
    segmenter: str = "bisenet",
    detector_classes: int | None = None,
    segmenter_classes: int | None = None,
    detector_weights: str | PathLike[str] | None = None,
    segmenter_weights: str | PathLike[str] | None = None,
    detector_options: Mapping[str, Any] | None = None,
    segmenter_options: Mapping[str, Any] | None = None,
    backbone_weights: str | PathLike[str] | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    backbone_of: Literal["detector", "segmenter"] = "detector",
    input_size: Sequence[int] | None = None,
    segmenter_weight: float = 1.0,
) -> JointNet:
    """A detector and a segmenter on one pass of a backbone whose maps both can read.

    detector, segmenter: families ("thundernet"), or nets that are bound to this backbone. *_classes, *_weights,
    *_options: as `create_detector` and `create_segmenter` take them; the weights are of nets that were trained alone.
    backbone_of: whose backbone and normalisation are kept; the other part then has to learn to read it.
    backbone_weights: for that backbone, where it has no others; backbone_options: its own. input_size: (height, width)
    the net is meant for, multiples of 16; None means the detector's. segmenter_weight: see `JointNet`. Raises
    ValueError where the two do not go together.
    """
    if backbone_of not in PARTS:
        raise ValueError(f"backbone_of is {backbone_of!r}; expected {' or '.join(PARTS)}")
    common = {} if backbone_options is None else {"backbone_options": dict(backbone_options)}
    first = {} if backbone_weights is None else {"backbone_weights": backbone_weights}
    finder: TwoStageDetector = create_detector(
        num_classes=detector_classes,
        weights=detector_weights,
        **_words(DETECTORS, detector, backbone, {**common, **(first if backbone_of == "detector" else {})}),
        **(detector_options or {}),
    )
    labeller: Segmenter = create_segmenter(
        num_classes=segmenter_classes,
        weights=segmenter_weights,
        **_words(SEGMENTERS, segmenter, backbone, {**common, **(first if backbone_of == "segmenter" else {})}),
        **(segmenter_options or {}),
    )
    _check_backbones({"detector": finder, "segmenter": labeller}, backbone_options)
    if detector_weights is not None and segmenter_weights is not None:
        _check_normalisation(finder, labeller)
    owner, other = (finder, labeller) if backbone_of == "detector" else (labeller, finder)
    whole = _one_backbone(backbone, backbone_options, owner.backbone, other.backbone)
    height, width = finder.input_size if input_size is None else input_size
    return JointNet(whole, finder, labeller, input_size=(height, width), segmenter_weight=segmenter_weight)


def _words(registry: Registry, word: str, backbone: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What `create_*` is told to build what `word` means: the preset for this backbone, the family with it, or a net
    that is bound to one backbone.
    """
    name = f"{word}_{backbone}"
    if name in registry.module_dict:
        return {"name": name, **options}
    known = inspect.signature(find_builder(registry, word)).parameters
    own: dict[str, Any] = {"backbone": backbone} if "backbone" in known else {}
    return {"name": word, **own, **{option: value for option, value in options.items() if option in known}}


def _check_backbones(
    parts: Mapping[str, TwoStageDetector | Segmenter], backbone_options: Mapping[str, Any] | None
) -> None:
    """ValueError for a part whose backbone would become another function of the same tensors."""
    wanted = dict(backbone_options or {})
    for name, part in parts.items():
        if part.binary:
            raise ValueError(f"the {name}'s weights are binary; a joint net is made of real layers")
        own = part.options.get("backbone_options") or {}
        if own and own != wanted:  # a net that is bound to a backbone has none of its own
            raise ValueError(f"the {name}'s backbone has the options {own}; expected the joint net's, {wanted}")


def _check_normalisation(detector: TwoStageDetector, segmenter: Segmenter) -> None:
    """ValueError where the weights of the two were trained on pictures that were normalised in different ways."""
    for name in ("mean", "std"):
        theirs, others = (
            [round(value, 2) for value in getattr(part, name).flatten().tolist()] for part in (detector, segmenter)
        )
        if theirs != others:
            said = f"the detector's weights expect pictures with {name} {theirs}, the segmenter's {others}"
            raise ValueError(f"{said}; expected weights of nets on one backbone")


def _one_backbone(name: str, options: Mapping[str, Any] | None, owner: Backbone, other: Backbone) -> Backbone:
    """The backbone `name` with the maps that either reads and the owner's weights, the other's where it has none.

    ValueError where the two are not that net.
    """
    strides = {info.stride for part in (owner, other) for info in part.feature_info}
    whole = reach_strides(name, sorted(strides), options=options)
    shapes = {key: tensor.shape for key, tensor in whole.state_dict().items()}
    for part in (other, owner):
        state = part.state_dict()
        strange = [key for key, tensor in state.items() if shapes.get(key) != tensor.shape]
        if strange:
            raise ValueError(f"a part is not on {name}: its {strange[0]} is {list(state[strange[0]].shape)} there")
        whole.load_state_dict(state, strict=False)
    whole.input_mean, whole.input_std = owner.input_mean, owner.input_std
    return whole


def _register_presets(detector: str, segmenter: str) -> None:
    """`joint_<detector>_<segmenter>`, and with the names of backbones behind."""
    family = preset(joint, detector=detector, segmenter=segmenter)
    name = f"joint_{detector}_{segmenter}"
    JOINTS.register_module(name=name, module=family)
    for backbone in BACKBONES:
        JOINTS.register_module(name=f"{name}_{backbone}", module=preset(family, backbone=backbone))


_register_presets("thundernet", "bisenet")
