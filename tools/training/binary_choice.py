"""Layers made binary as a config says, behind the weights that the net starts from."""

from __future__ import annotations

import dataclasses
from typing import Any

from backbones.binary_layers import BinaryChoice

from ..configuration.training_config import BinarizeConfig


def choose_layers(net: BinaryChoice, binarize: BinarizeConfig | None, start: object, *, scored: object = None) -> None:
    """Make the net's layers binary where the config says so and they are not yet.

    start: the weights that the net begins with; scored: or those that are only scored, which say themselves what they
    are of where the config says nothing. ValueError where they are of other layers than the config says.
    """
    wanted: dict[str, Any] = {**dataclasses.asdict(binarize), "skip": list(binarize.skip)} if binarize else {}
    if scored and not wanted:
        return
    if wanted and not net.binary and not scored:
        net.binarize_(**wanted)
    if wanted != net.binary:
        held = f"binarize {net.binary}" if net.binary else "real layers"
        raise ValueError(f"{scored or start} is of {held}; the config says binarize: {wanted or 'nothing'}")
