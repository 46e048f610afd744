"""Which net and which weights a user means who names both, one or none."""

from collections.abc import Mapping
from pathlib import Path

import detect
import joint
import segment
from backbones import named_nets
from backbones.registry import nearest
from backbones.weights import read_metadata
from compress import packed_file
from detect import TwoStageDetector, create_detector, list_detectors
from joint import JointNet, create_joint, list_joints
from segment import Segmenter, create_segmenter, list_segmenters

Net = TwoStageDetector | Segmenter | JointNet

_BEST_KNOWN = "_person"  # of the weights that are shipped, these are for a user who names none


def choose_weights(model: str | None, weights: str | None) -> tuple[str, Path]:
    """A net's name and its weights file from either, both or neither; ValueError where no choice is left."""
    shipped = {**detect.shipped_weights(), **segment.shipped_weights(), **joint.shipped_weights()}
    if model is not None and model not in shipped:
        refuse_weights_file(model)
        _check_name(model)
        return model, named_nets.find_weights(model, weights, shipped) if weights else _shipped_for(model, shipped)
    if model is not None and weights is not None:
        raise ValueError(f"{model} names shipped weights already; leave out --weights {weights}")
    if model is None and weights is None:
        path = _shipped_for("", detect.shipped_weights())
    else:
        path = shipped.get(model or weights or "") or _shipped_as(weights or "", shipped) or Path(weights or "")
    name = read_metadata(path).get("name")
    if name is None:
        raise ValueError(f"{path} does not say which net it is for; name the MODEL as well")
    return name, path


def create_net(name: str, weights: Path) -> Net:
    """The net of that name, whichever kind it is, with these weights."""
    if name in list_joints():
        return create_joint(name, weights=weights)
    if name in list_segmenters():
        return create_segmenter(name, weights=weights)
    return create_detector(name, weights=weights)


def is_shipped(path: Path) -> bool:
    """Whether a weights file is one that comes with swiftsight."""
    return any(path in floor.shipped_weights().values() for floor in (detect, segment, joint))


def refuse_weights_file(model: str, more: str = "") -> None:
    """ValueError where the word for a net is a file of weights; `more` ends its line."""
    if Path(model).suffix.lower() in (".safetensors", packed_file.SUFFIX):
        raise ValueError(f"{model} is a weights file; give it by --weights {model}{more}")


def _shipped_as(data_set: str, shipped: Mapping[str, Path]) -> Path | None:
    """The weights that the best known net, or else only one, has under a data set's name ("person"); None where no net
    has such. ValueError where several others do.
    """
    own = {stem.removesuffix(f"_{data_set}"): path for stem, path in shipped.items() if stem.endswith(f"_{data_set}")}
    names = [name for name in (*list_detectors(), *list_segmenters(), *list_joints()) if name in own]
    best_known = _shipped_for("", detect.shipped_weights()) if detect.shipped_weights() else None
    if best_known in own.values():
        return best_known
    if len(names) > 1:
        raise ValueError(f"several nets come with weights {data_set!r}; name the MODEL as well: {', '.join(names)}")
    return own[names[0]] if names else None


def _check_name(model: str) -> None:
    """ValueError, with the nearest name of all kinds, for a word that names no net."""
    names = [*list_detectors(), *list_segmenters(), *list_joints()]
    if model not in names:
        near = nearest(model, names) or f": there are {', '.join(names)}"
        raise ValueError(f"no detector, segmenter or joint net is called {model!r}{near}")


def _shipped_for(model: str, shipped: Mapping[str, Path]) -> Path:
    """The weights that are shipped for a net, or for anyone where it is ""; those that know persons first."""
    own = [stem for stem in shipped if not model or stem.startswith(f"{model}_")]
    if not own:
        known = f" (shipped are {', '.join(shipped)})" if shipped else ""
        raise ValueError(f"no weights come with swiftsight for {model or 'a demo'}{known}; name a MODEL and --weights")
    return shipped[min(own, key=lambda stem: (not stem.endswith(_BEST_KNOWN), stem))]
