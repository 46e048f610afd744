"""Magnitude pruning: the smallest weights become zero and stay zero while the others go on learning.

**Reference**: Han et al., Learning both Weights and Connections for Efficient Neural Networks, NIPS 2015,
arXiv:1506.02626. The gradual schedule is that of Zhu and Gupta, To Prune, or Not to Prune, 2017, arXiv:1710.01878; the
comparison across layers that of Lee et al., Layer-Adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021,
arXiv:2010.07611.

**Deviations**: besides the threshold of the paper, a multiple of the layer's deviation, a target density may be given,
for each layer or for the whole net.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from .layers import Layer, check_keys, layers_of, value_for

SCOPES = ("layer", "net")


class Pruning:
    """Which weights of a net are kept.

    masks: name in the state dict -> bool tensor in the weights' shape, True for what is kept.
    """

    def __init__(self, layers: Sequence[Layer], masks: Mapping[str, Tensor]) -> None:
        self.layers = tuple(layers)
        self.masks = dict(masks)
        self._handles: list[RemovableHandle] = []

    @property
    def density(self) -> float:
        """The part of the layers' weights that is kept, 0..1."""
        kept = sum(int(mask.sum()) for mask in self.masks.values())
        return kept / sum(mask.numel() for mask in self.masks.values())

    @torch.no_grad()
    def apply_(self) -> None:
        """Make what is pruned zero (again)."""
        for layer in self.layers:
            layer.weight.masked_fill_(~self._mask(layer), 0.0)

    def hold(self, optimizer: Optimizer) -> None:
        """From here on the pruned weights get no gradient, and are zero after each step of the optimizer."""
        learning = [layer for layer in self.layers if layer.weight.requires_grad]
        self._handles += [layer.weight.register_hook(self._without_pruned(layer)) for layer in learning]
        self._handles.append(optimizer.register_step_post_hook(lambda *_: self.apply_()))

    def release(self) -> None:
        """Let the pruned weights learn again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _without_pruned(self, layer: Layer) -> Any:
        return lambda gradient: gradient.masked_fill(~self._mask(layer), 0.0)

    def _mask(self, layer: Layer) -> Tensor:
        """On the weights' device: the net may have moved."""
        mask = self.masks[layer.key]
        if mask.device != layer.weight.device:
            mask = self.masks[layer.key] = mask.to(layer.weight.device)
        return mask


def prune_(
    net: nn.Module,
    *,
    density: float | Mapping[str, float] | None = None,
    quality: float | Mapping[str, float] | None = None,
    scope: str = "layer",
    skip: Sequence[str] = (),
) -> Pruning:
    """Make the smallest weights of the convolutions and linear layers zero; give what is kept.

    density: the part to keep, 0..1; one number, or one by layer name or kind ("fc", "conv"). With scope "net" it is one
    number for all layers together; a layer then loses the more, the less its small weights add to its large ones.
    quality: instead of that, keep what is larger than this multiple of the layer's deviation; weights that are zero
    already do not count in it. skip: as in `layers_of`. Called again with less, the pruning goes on.
    Raises ValueError for numbers out of range and for names that the net does not have.
    """
    layers = layers_of(net, skip)
    if scope not in SCOPES:
        raise ValueError(f"scope {scope!r}: expected one of {', '.join(SCOPES)}")
    if (density is None) == (quality is None):
        raise ValueError("expected either density or quality")
    if quality is not None:
        masks = _above_deviation(layers, quality)
    elif scope == "net":
        if isinstance(density, Mapping):
            raise ValueError("density for the whole net is one number, not a mapping")
        masks = _largest_of_net(layers, _checked(density))
    else:
        masks = _largest_of_each(layers, density)
    pruning = Pruning(layers, masks)
    pruning.apply_()
    return pruning


def pruning_of(net: nn.Module, skip: Sequence[str] = ()) -> Pruning:
    """The pruning that a net has undergone: what is zero in it counts as pruned."""
    layers = layers_of(net, skip)
    return Pruning(layers, {layer.key: layer.weight.detach() != 0 for layer in layers})


def gradual_density(step: int, *, begin: int, end: int, final: float, initial: float = 1.0) -> float:
    """The density at a training step: `initial` until `begin`, falling by a cubic law, quickly at first, to `final` at
    `end` (Zhu and Gupta, equation 1).
    """
    if not begin < end:
        raise ValueError(f"the schedule begins at step {begin} and ends at {end}; expected a later end")
    left = 1 - min(max((step - begin) / (end - begin), 0.0), 1.0)
    return final + (initial - final) * left**3


def _checked(density: object) -> float:
    if not isinstance(density, (int, float)) or not 0 < density <= 1:
        raise ValueError(f"density {density}: expected more than 0, at most 1")
    return float(density)


def _largest_of_each(layers: Sequence[Layer], density: object) -> dict[str, Tensor]:
    check_keys(layers, density, "density")
    masks = {}
    for layer in layers:
        part = _checked(value_for(layer, density, "density"))
        kept = max(1, round(part * layer.weight.numel()))
        masks[layer.key] = _largest(layer.weight.detach().abs().flatten(), kept).view(layer.weight.shape)
    return masks


def _largest_of_net(layers: Sequence[Layer], density: float) -> dict[str, Tensor]:
    scores = torch.cat([_share_of_what_is_left(layer.weight.detach().flatten()) for layer in layers])
    kept = _largest(scores, max(1, round(density * len(scores))))
    parts = kept.split([layer.weight.numel() for layer in layers])
    return {layer.key: part.view(layer.weight.shape) for layer, part in zip(layers, parts, strict=True)}


def _share_of_what_is_left(weights: Tensor) -> Tensor:
    """Each weight's square over the sum of the squares that are not smaller: 1 for a layer's largest weight, so that no
    layer is emptied, the same for a layer that is scaled as a whole, and not changed by pruning what is smaller.
    """
    squares, order = weights.double().square().sort(descending=True)
    shares = squares / squares.cumsum(0).clamp_min(torch.finfo(squares.dtype).tiny)
    return torch.empty_like(shares).scatter_(0, order, shares)


def _largest(scores: Tensor, count: int) -> Tensor:
    """scores [n] -> bool [n] with exactly `count` True."""
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[scores.topk(count, sorted=False).indices] = True
    return mask


def _above_deviation(layers: Sequence[Layer], quality: object) -> dict[str, Tensor]:
    check_keys(layers, quality, "quality")
    masks = {}
    for layer in layers:
        multiple = value_for(layer, quality, "quality")
        if not isinstance(multiple, (int, float)) or not multiple >= 0:
            raise ValueError(f"quality {multiple}: expected 0 or more")
        weight = layer.weight.detach()
        alive = weight[weight != 0]
        deviation = alive.std(correction=0) if alive.numel() else weight.new_zeros(())
        masks[layer.key] = weight.abs() > multiple * deviation
    return masks
