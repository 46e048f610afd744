"""Who reads the channels of a map, seen while a net runs: what must be known before they may lie in another order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class Reading(NamedTuple):
    """A weight or bias whose `dim` goes along the channels of map number `stage`."""

    weight: Tensor
    dim: int
    stage: int


# What works on each channel by itself and leaves it in its place.
_CHANNEL_BY_CHANNEL = {
    F.relu,
    F.relu6,
    F.hardtanh,
    F.dropout,
    F.max_pool2d,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    F.interpolate,
    torch.relu,
    torch.relu_,
}
_AVERAGES = {torch.mean, Tensor.mean}
_FLATTENINGS = {torch.flatten, Tensor.flatten}
_PLACE_DIMS = {2, 3, -1, -2}


class OrderFollower(TorchFunctionMode):
    """While a net runs under it: which weights read the channels of which marked map, and which maps go elsewhere.

    readings: the weights, each once. to_restore: numbers of the maps that something reads which is neither a
    convolution or linear layer nor what leads to one channel by channel; those channels must stay where they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readings: list[Reading] = []
        self.to_restore: set[int] = set()
        self._stage_of: dict[int, int] = {}  # by a tensor's identity
        self._alive: list[Tensor] = []  # so that no identity is given twice

    def mark(self, features: Tensor, stage: int) -> None:
        """`features` [N, C, H, W] are map number `stage`, or have its channels in the same order."""
        self._stage_of[id(features)] = stage
        self._alive.append(features)

    def leave(self, result: Any) -> None:
        """`result`, whatever holds tensors, is handed out: marked maps in it must keep their order."""
        self.to_restore |= self._stages_in(result)

    def _stages_in(self, values: Any) -> set[int]:
        return {self._stage_of[id(value)] for value in tree_leaves(values) if id(value) in self._stage_of}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the function, and notes what it does with marked maps."""
        words = kwargs or {}
        stages = self._stages_in((args, words))
        result = func(*args, **words)
        if not stages or not any(isinstance(value, Tensor) for value in tree_leaves(result)):
            return result
        if len(stages) > 1 or not self._follow(func, args, words, result):
            self.to_restore |= stages
        return result

    def _follow(self, func: Callable[..., Any], args: Sequence[Any], words: dict[str, Any], result: Any) -> bool:
        """Whether the order can go through this function; what has it, and what reads it, is noted."""
        stage = self._stage_of.get(id(args[0])) if args else None
        if stage is None:
            return False
        if func in (torch.conv2d, F.conv2d, F.linear):
            return self._read(func, args, words, result, stage)
        places_only = (
            func in _CHANNEL_BY_CHANNEL
            or (func in _AVERAGES and set(_dims(args, words)) <= _PLACE_DIMS)
            or (func is F.pad and len(args[1]) <= 4)
            or (func in _FLATTENINGS and result.shape == args[0].shape[:2])
        )
        if places_only:
            self.mark(result, stage)
        return places_only

    def _read(
        self, func: Callable[..., Any], args: Sequence[Any], words: dict[str, Any], result: Tensor, stage: int
    ) -> bool:
        weight = args[1] if len(args) > 1 else words["weight"]
        bias = args[2] if len(args) > 2 else words.get("bias")
        groups = 1 if func is F.linear else args[6] if len(args) > 6 else words.get("groups", 1)
        if groups == 1:
            return self._note(weight, 1, stage)
        if not groups == weight.shape[0] == args[0].shape[1]:
            return False
        self.mark(result, stage)
        return self._note(weight, 0, stage) and (bias is None or self._note(bias, 0, stage))

    def _note(self, weight: Tensor, dim: int, stage: int) -> bool:
        """False where the weight reads another map as well: it can follow one order only."""
        known = [reading for reading in self.readings if reading.weight is weight and reading.dim == dim]
        if not known:
            self.readings.append(Reading(weight, dim, stage))
            return True
        if known[0].stage == stage:
            return True
        self.to_restore.add(known[0].stage)
        return False


def _dims(args: Sequence[Any], words: dict[str, Any]) -> Sequence[int]:
    """The dimensions that a mean goes over; channel's own where all are meant."""
    dims = args[1] if len(args) > 1 else words.get("dim")
    if dims is None:
        return (1,)
    return (dims,) if isinstance(dims, int) else tuple(dims)
