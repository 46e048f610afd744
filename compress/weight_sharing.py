"""Weight sharing: the weights of a layer take a few values, found by k-means, which then learn together.

**Reference**: Han et al., Deep Compression, ICLR 2016, arXiv:1510.00149, section 3.

**Deviations**: the shared values are rounded to half precision unless told otherwise, which halves the codebooks in a
file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from .halves import nearest_halves
from .layers import CONVOLUTION, FULLY_CONNECTED, Layer, check_keys, layers_of, value_for

PAPER_BITS: Mapping[str, int] = {CONVOLUTION: 8, FULLY_CONNECTED: 5}
STARTS = ("linear", "density", "random")
MOST_BITS = 8
_MOST_ROUNDS = 300


def cluster(
    values: np.ndarray, count: int, *, start: str = "linear", seed: int = 0, rounds: int = _MOST_ROUNDS
) -> np.ndarray:
    """values [n], in any order -> at most `count` centroids [k], rising, float64: Lloyd's k-means on a line.

    start (section 3.2 of the paper): "linear" begins with equal steps between the smallest and the largest value,
    "density" with equal shares of the values, "random" with values drawn by `seed`. The values are sorted once; after
    that a round costs `count` searches in them, and the result is that of plain k-means. Centroids without values are
    left out. rounds: the most there may be; it usually ends earlier, when nothing changes any more.
    """
    if start not in STARTS:
        raise ValueError(f"start {start!r}: expected one of {', '.join(STARTS)}")
    if count < 1 or len(values) == 0:
        raise ValueError(f"{count} clusters of {len(values)} values: expected at least one of both")
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids = _first_centroids(ordered, count, start, seed)
    borders = np.empty(0, dtype=np.int64)
    for _ in range(rounds):
        before, borders = borders, _borders(ordered, centroids)
        if np.array_equal(before, borders):
            break
        sizes = np.diff(borders)
        centroids = np.where(sizes > 0, np.diff(sums[borders]) / np.maximum(sizes, 1), centroids)
    return centroids[np.diff(_borders(ordered, centroids)) > 0]


def _first_centroids(ordered: np.ndarray, count: int, start: str, seed: int) -> np.ndarray:
    if start == "linear":
        return np.linspace(ordered[0], ordered[-1], count)
    if start == "density":
        shares = (np.arange(count) + 0.5) / count
        return ordered[(shares * len(ordered)).astype(np.int64)]
    return np.sort(np.random.default_rng(seed).choice(ordered, min(count, len(ordered)), replace=False))


def _borders(ordered: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Where each centroid's values begin in `ordered`, and where the last ones end: [k + 1]."""
    middles = (centroids[1:] + centroids[:-1]) / 2
    return np.concatenate([[0], np.searchsorted(ordered, middles, side="right"), [len(ordered)]])


class Sharing:
    """Which weights of a net share a value.

    indices: name in the state dict -> int64 tensor in the weights' shape: 0 for weights that are zero and stay so,
    1..k for the layer's values.
    """

    def __init__(self, layers: Sequence[Layer], indices: Mapping[str, Tensor]) -> None:
        self.layers = tuple(layers)
        self.indices = dict(indices)
        self._members = {layer.key: _one_of_each(self.indices[layer.key]) for layer in layers}
        self._handles: list[RemovableHandle] = []

    def codebook(self, layer: Layer) -> Tensor:
        """The layer's values as they are now, [k + 1], with the zero before them."""
        values = layer.weight.detach().reshape(-1)[self._on_device(layer)[1]]
        return torch.cat([values.new_zeros(1), values])

    @torch.no_grad()
    def apply_(self) -> None:
        """Give all weights of a cluster the value of one of them again: rounding may have driven them apart."""
        for layer in self.layers:
            layer.weight.copy_(self.codebook(layer)[self._on_device(layer)[0]])

    @torch.no_grad()
    def round_(self) -> None:
        """Round the shared values to half precision, in layers where that moves none by over 0.1 % of the largest."""
        for layer in self.layers:
            layer.weight.copy_(nearest_halves(self.codebook(layer))[self._on_device(layer)[0]])

    def hold(self, optimizer: Optimizer) -> None:
        """From here on each weight gets the sum of its cluster's gradients (section 3.3), so that the shared values
        learn, and weights that are zero get none. A step with plain SGD then is c_k -= lr * sum, as in the paper.

        What the optimizer remembers of these weights (momenta) is forgotten: it was of each for itself.
        """
        learning = [layer for layer in self.layers if layer.weight.requires_grad]
        for layer in learning:
            optimizer.state.pop(layer.weight, None)
        self._handles += [layer.weight.register_hook(self._summed(layer)) for layer in learning]
        self._handles.append(optimizer.register_step_post_hook(lambda *_: self.apply_()))

    def release(self) -> None:
        """Let every weight learn for itself again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _summed(self, layer: Layer) -> Any:
        def by_cluster(gradient: Tensor) -> Tensor:
            indices, members = self._on_device(layer)
            sums = gradient.new_zeros(len(members) + 1)
            sums.index_add_(0, indices.reshape(-1), gradient.reshape(-1))
            sums[0] = 0.0
            return sums[indices]

        return by_cluster

    def _on_device(self, layer: Layer) -> tuple[Tensor, Tensor]:
        indices, members, device = self.indices[layer.key], self._members[layer.key], layer.weight.device
        if indices.device != device:
            indices, members = indices.to(device), members.to(device)
            self.indices[layer.key], self._members[layer.key] = indices, members
        return indices, members


def share_(
    net: nn.Module,
    *,
    bits: int | Mapping[str, int] = PAPER_BITS,
    start: str = "linear",
    seed: int = 0,
    half: bool = True,
    skip: Sequence[str] = (),
) -> Sharing:
    """Let the weights of each convolution and linear layer take few values; give who shares with whom.

    bits: a layer has at most 2^bits values, 1..8; one number, or one by layer name or kind ("fc", "conv"). Weights that
    are zero stay zero; where there are any, zero is one of the values. start, seed: as in `cluster`. half: then
    `Sharing.round_`. skip: as in `layers_of`.
    Raises ValueError for numbers out of range, names that the net does not have, and weights that are not finite.
    """
    layers = layers_of(net, skip)
    check_keys(layers, bits, "bits")
    indices = {}
    for layer in layers:
        width = value_for(layer, bits, "bits")
        if not isinstance(width, int) or not 1 <= width <= MOST_BITS:
            raise ValueError(f"{width} bits for {layer.name}: expected a whole number from 1 to {MOST_BITS}")
        indices[layer.key] = _share_layer(layer, 2**width, start, seed)
    sharing = Sharing(layers, indices)
    if half:
        sharing.round_()
    return sharing


def sharing_of(net: nn.Module, skip: Sequence[str] = ()) -> Sharing:
    """The sharing that a net has undergone: weights of a layer with the same value learn together, zeros stay."""
    layers = layers_of(net, skip)
    indices = {}
    for layer in layers:
        weight = layer.weight.detach()
        kept = weight != 0
        found = torch.zeros_like(weight, dtype=torch.int64)
        found[kept] = torch.unique(weight[kept], return_inverse=True)[1] + 1
        indices[layer.key] = found
    return Sharing(layers, indices)


@torch.no_grad()
def _share_layer(layer: Layer, count: int, start: str, seed: int) -> Tensor:
    weights = layer.weight.detach().cpu().reshape(-1).numpy()
    if not np.isfinite(weights).all():
        raise ValueError(f"the weights of {layer.name} are not all finite")
    kept = weights != 0
    indices = np.zeros(len(weights), dtype=np.int64)
    if kept.any():
        centroids = cluster(weights[kept], count if kept.all() else count - 1, start=start, seed=seed)
        middles = (centroids[1:] + centroids[:-1]) / 2
        indices[kept] = np.searchsorted(middles, weights[kept], side="left") + 1
        values = np.concatenate([[0.0], centroids]).astype(np.float32)
        layer.weight.copy_(torch.from_numpy(values[indices]).view(layer.weight.shape))
    return torch.from_numpy(indices).view(layer.weight.shape)


def _one_of_each(indices: Tensor) -> Tensor:
    """The place of one weight of each cluster 1..k, [k]."""
    flat = indices.reshape(-1)
    places = torch.zeros(int(flat.max()) + 1, dtype=torch.int64)
    places[flat] = torch.arange(len(flat))
    return places[1:]
