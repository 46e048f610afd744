"""Which detector and which weights a user means who names both, one or none."""

from pathlib import Path

from backbones.registry import find_builder
from backbones.weights import read_metadata
from detect import shipped_weights
from detect.registry import DETECTORS, find_weights

_BEST_KNOWN = "_person"  # of the weights that are shipped, these are for a user who names none


def choose_weights(model: str | None, weights: str | None) -> tuple[str, Path]:
    """A detector's name and its weights file from either, both or neither; ValueError where no choice is left."""
    shipped = shipped_weights()
    if model is not None and model not in shipped:
        find_builder(DETECTORS, model)
        return model, find_weights(model, weights) if weights else _shipped_for(model)
    if model is not None and weights is not None:
        raise ValueError(f"{model} names shipped weights already; leave out --weights {weights}")
    path = shipped.get(model or weights or "") or (Path(weights) if weights else _shipped_for(""))
    name = read_metadata(path).get("name")
    if name is None:
        raise ValueError(f"{path} does not say which detector it is for; name the MODEL as well")
    return name, path


def _shipped_for(model: str) -> Path:
    """The weights that are shipped for a detector, or for anyone where it is ""; those that find persons first."""
    shipped = shipped_weights()
    own = [stem for stem in shipped if not model or stem.startswith(f"{model}_")]
    if not own:
        known = f" (shipped are {', '.join(shipped)})" if shipped else ""
        raise ValueError(f"no weights come with swiftsight for {model or 'a demo'}{known}; name a MODEL and --weights")
    return shipped[min(own, key=lambda stem: (not stem.endswith(_BEST_KNOWN), stem))]
