"""What a net costs: parameters, multiply-adds, bytes."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .evaluation import in_evaluation


class Cost(NamedTuple):
    """parameters: numbers (batch norm's scale and shift counted, running statistics not); multiply_adds: of
    convolutions, transposed ones and linear layers, for one picture; bytes: of the parameters as they are stored now.
    Heads that only learn, whose parameters' names begin with "auxiliary", are not counted.
    """

    parameters: int
    multiply_adds: int
    bytes: int


@runtime_checkable
class CountsItself(Protocol):
    """A layer without convolutions inside that says what it costs."""

    def multiply_adds(self, output: Tensor) -> int:
        """Of the call that gave `output`."""


def _layer_multiply_adds(layer: nn.Module, output: Tensor) -> int:
    if isinstance(layer, nn.Conv2d):
        return output.numel() * layer.weight[0].numel()
    if isinstance(layer, nn.ConvTranspose2d):
        return output.numel() // prod(layer.stride) * prod(layer.kernel_size) * layer.in_channels // layer.groups
    if isinstance(layer, nn.Linear):
        return output.numel() * layer.in_features
    return int(layer.multiply_adds(output)) if isinstance(layer, CountsItself) else 0


def _is_counted(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | CountsItself)


def measure_cost_by_part(module: nn.Module, size: tuple[int, int], parts: tuple[str, ...] = ()) -> dict[str, Cost]:
    """The cost of each part in `parts` ("backbone", "backbone.stages") and, under "total", of the whole.

    For one picture of `size`: the module runs once, in evaluation mode, on a black one [1, 3, height, width].
    Raises ValueError for a part that the module does not have.
    """
    inner = dict(module.named_modules())
    for part in parts:
        if part not in inner:
            children = ", ".join(name for name, _ in module.named_children())
            raise ValueError(f"{type(module).__name__} has no part {part!r}: it has {children}")
    counts: dict[str, int] = {}

    def count(name: str) -> Any:
        def hook(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            counts[name] = counts.get(name, 0) + _layer_multiply_adds(layer, output)

        return hook

    handles = [layer.register_forward_hook(count(name)) for name, layer in module.named_modules() if _is_counted(layer)]
    device = next(module.parameters()).device
    try:
        with torch.inference_mode(), in_evaluation(module):
            module(torch.zeros(1, 3, *size, device=device))
    finally:
        for handle in handles:
            handle.remove()

    def cost(prefix: str, part: nn.Module) -> Cost:
        inside = (number for name, number in counts.items() if not prefix or f"{name}.".startswith(f"{prefix}."))
        parameters = [value for name, value in part.named_parameters() if not name.startswith("auxiliary")]
        return Cost(
            sum(parameter.numel() for parameter in parameters),
            sum(inside),
            sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        )

    return {**{part: cost(part, inner[part]) for part in parts}, "total": cost("", module)}


def measure_cost(module: nn.Module, size: tuple[int, int]) -> Cost:
    """The cost of the whole module for one picture of `size` (height, width)."""
    return measure_cost_by_part(module, size)["total"]
