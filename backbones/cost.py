"""What a net costs: parameters, multiply-adds, bytes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Cost(NamedTuple):
    """parameters: numbers (batch norm's scale and shift counted, running statistics not); multiply_adds: of
    convolutions and linear layers, for one picture; bytes: of the parameters as they are stored now.
    """

    parameters: int
    multiply_adds: int
    bytes: int


def _layer_multiply_adds(layer: nn.Module, output: Tensor) -> int:
    if isinstance(layer, nn.Conv2d):
        return output.numel() * layer.weight[0].numel()
    if isinstance(layer, nn.Linear):
        return output.numel() * layer.in_features
    return 0


def measure_cost_by_part(module: nn.Module, size: tuple[int, int], parts: tuple[str, ...] = ()) -> dict[str, Cost]:
    """The cost of each direct child named in `parts` and, under "total", of the whole, for one picture of `size`.

    The module runs once, in evaluation mode, on a black picture [1, 3, height, width].
    Raises ValueError for a part that is no child of the module.
    """
    children = dict(module.named_children())
    for part in parts:
        if part not in children:
            raise ValueError(f"{type(module).__name__} has no part {part!r}: it has {', '.join(children)}")
    counts: dict[str, int] = {}

    def count(name: str) -> Any:
        def hook(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            counts[name] = counts.get(name, 0) + _layer_multiply_adds(layer, output)

        return hook

    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count(name)) for name, layer in layers]
    modes = [(inner, inner.training) for inner in module.modules()]
    device = next(module.parameters()).device
    try:
        with torch.inference_mode():
            module.eval()(torch.zeros(1, 3, *size, device=device))
    finally:
        for inner, mode in modes:
            inner.training = mode
        for handle in handles:
            handle.remove()

    def cost(prefix: str, part: nn.Module) -> Cost:
        inside = (number for name, number in counts.items() if not prefix or name.startswith(prefix + "."))
        parameters = list(part.parameters())
        return Cost(
            sum(parameter.numel() for parameter in parameters),
            sum(inside),
            sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        )

    return {**{part: cost(part, children[part]) for part in parts}, "total": cost("", module)}


def measure_cost(module: nn.Module, size: tuple[int, int]) -> Cost:
    """The cost of the whole module for one picture of `size` (height, width)."""
    return measure_cost_by_part(module, size)["total"]
