"""The layers of a net whose weights are worth compressing: convolutions and linear layers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor, nn

Value = TypeVar("Value")

FULLY_CONNECTED, CONVOLUTION = "fc", "conv"
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Layer(NamedTuple):
    """A layer's name in the net, its weights, and its kind: "fc" or "conv". Biases are not compressed."""

    name: str
    weight: Tensor
    kind: str

    @property
    def key(self) -> str:
        """The name of the weights in the net's state dict."""
        return f"{self.name}.weight" if self.name else "weight"


def layers_of(net: nn.Module, skip: Sequence[str] = ()) -> list[Layer]:
    """The convolutions and linear layers, in the net's own order; weights that several layers share count once.

    skip: layers, or parts of the net, that are left alone ("head", "backbone.stages.0"). ValueError for a name that the
    net does not have, and where no layer is left.
    """
    parts = [name for name, _ in net.named_modules()]
    for name in skip:
        if name not in parts or not name:
            raise ValueError(f"this net has no part called {name!r}{_near(name, parts)}")
    found, seen = [], set()
    for name, module in net.named_modules():
        skipped = any(name == part or name.startswith(f"{part}.") for part in skip)
        if not isinstance(module, (*_CONVOLUTIONS, nn.Linear)) or skipped or id(module.weight) in seen:
            continue
        seen.add(id(module.weight))
        found.append(Layer(name, module.weight, FULLY_CONNECTED if isinstance(module, nn.Linear) else CONVOLUTION))
    if not found:
        raise ValueError(f"{type(net).__name__} has no convolution or linear layer to compress")
    return found


def value_for(layer: Layer, values: Value | Mapping[str, Value], what: str) -> Value:
    """One value for all layers, or that of the layer's name, else of its kind, in a mapping. ValueError if neither."""
    if not isinstance(values, Mapping):
        return values
    for key in (layer.name, layer.kind):
        if key in values:
            found: Value = values[key]
            return found
    raise ValueError(f"{what} says nothing for {layer.name}; expected its name or {layer.kind!r} among the keys")


def check_keys(layers: Sequence[Layer], values: object, what: str) -> None:
    """ValueError for a key that is neither a layer's name nor a kind."""
    known = [*(layer.name for layer in layers), FULLY_CONNECTED, CONVOLUTION]
    for key in values if isinstance(values, Mapping) else ():
        if key not in known:
            raise ValueError(f"{what} names {key!r}, which is no layer{_near(key, known)}")


def _near(name: str, names: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(names), n=1, cutoff=0.4)
    return f" (nearest: {matches[0]!r})" if matches else ""
