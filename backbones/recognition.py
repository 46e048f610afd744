"""Which of our nets a state dict belongs to: for the message where it was offered to another one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from .catalogue import CATALOGUE, ROWS


def recognize(state: Mapping[str, Tensor]) -> str | None:
    """The name of the backbone whose tensors stand in `state` under "backbone.stages." or "stages.", None if no one's.

    All of them must be there with their shapes, and no others. Where two nets have the same, the catalogue's first.
    """
    came = {name.removeprefix("backbone."): value for name, value in state.items()}
    shapes = _shapes(came)
    return next((row.name for row in ROWS if shapes and _row_shapes(row.name) == shapes), None)


@cache
def _row_shapes(name: str) -> dict[str, torch.Size]:
    """Of the catalogue's net."""
    row = CATALOGUE[name]
    with torch.device("meta"):  # shapes alone: no memory, no random numbers
        return _shapes(row.build(**row.options).state_dict())


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """By name; without the counters, which older files lack."""
    return {
        name: value.shape
        for name, value in state.items()
        if name.startswith("stages.") and not name.endswith("num_batches_tracked")
    }
