"""Published checkpoints, rewritten for this project's nets.

torchvision's files differ from ours in their names alone (torchvision_names.py).

FastestDet's ShuffleNetV2 trunk (github.com/dog-qiuqiu/FastestDet, BSD-3-Clause) follows the shuffle of the authors' own
release: a unit of stride 1 takes the even channels past its branch and the odd ones through it, and leaves the two side
by side. Our units split into halves on entry and interleave on exit. Both are the same net with the channels in another
order, and `convert_shuffle_trunk` finds that order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .base import IMAGENET_MEAN, IMAGENET_STD
from .torchvision_names import our_names


class PublishedWeights(NamedTuple):
    """A state dict under the names of our `Classifier` ("backbone.", "head."); ours -> the publisher's name of each.

    input_mean, input_std: the normalisation (RGB, 0..255) it expects. channel_orders: per stage of a trunk whose
    channels were permuted, our channel -> theirs.
    """

    publisher: str
    state: dict[str, Tensor]
    names: dict[str, str]
    input_mean: tuple[float, float, float]
    input_std: tuple[float, float, float]
    channel_orders: Mapping[str, Tensor] = {}


def convert_published(state: Mapping[str, Tensor]) -> PublishedWeights | None:
    """The checkpoint in our names if it is one that we know, else None. KeyError where it is not whole."""
    if "first_conv.0.weight" in state and any(".branch_main." in name for name in state):
        return convert_shuffle_trunk(state)
    names = our_names(state)
    if not names:
        return None
    ours = {name: state[theirs] for name, theirs in names.items()}
    return PublishedWeights("torchvision", ours, names, IMAGENET_MEAN, IMAGENET_STD)


def _order_by_lifetime(half: int, ours: range, theirs: range) -> Tensor:
    """Which of their new channels becomes which of ours: [half], our j-th new channel is their order[j]-th.

    A channel is passed on for some units and then goes through a branch. Where it stands when it is made decides how
    long that takes: theirs is passed while its place is even, and the place then halves; ours is passed while its
    place is below `half`, and the place then doubles. Channels of equal lifetime are interchangeable, so both sides are
    sorted by it. Place 0 is never used up.
    """

    def our_lifetime(place: int) -> int:
        units = 0
        while 0 < place < half:
            place, units = place * 2, units + 1
        return units if place else half

    def their_lifetime(place: int) -> int:
        units = 0
        while place and place % 2 == 0:
            place, units = place // 2, units + 1
        return units if place else half

    our_sorted = sorted(range(half), key=lambda j: our_lifetime(ours[j]))
    their_sorted = sorted(range(half), key=lambda j: their_lifetime(theirs[j]))
    order = torch.empty(half, dtype=torch.long)
    order[torch.tensor(our_sorted)] = torch.tensor(their_sorted)
    return order


class _Trunk:
    """The trunk's tensors, going over into ours one convolution with its batch norm at a time."""

    def __init__(self, source: Mapping[str, Tensor]) -> None:
        self.source = source
        self.state: dict[str, Tensor] = {}
        self.names: dict[str, str] = {}

    def copy(
        self, conv: str, norm: str, prefix: str, *, rows: Tensor | None = None, columns: Tensor | None = None
    ) -> None:
        """Output channels in the order `rows`, input channels in `columns`; None: as they are."""
        weight = self.source[f"{conv}.weight"]
        if columns is not None:
            weight = weight[:, columns]
        self._put(f"{prefix}.0.weight", f"{conv}.weight", weight if rows is None else weight[rows])
        for part in ("weight", "bias", "running_mean", "running_var"):
            value = self.source[f"{norm}.{part}"]
            self._put(f"{prefix}.1.{part}", f"{norm}.{part}", value if rows is None else value[rows])
        counter = f"{norm}.num_batches_tracked"
        if counter in self.source:
            self._put(f"{prefix}.1.num_batches_tracked", counter, self.source[counter])

    def _put(self, ours: str, theirs: str, value: Tensor) -> None:
        self.state[f"backbone.{ours}"] = value
        self.names[f"backbone.{ours}"] = theirs


def convert_shuffle_trunk(source: Mapping[str, Tensor]) -> PublishedWeights:
    """FastestDet's trunk (`first_conv`, `stage2` to `stage4`) as the state of our ShuffleNetV2.

    Its input is BGR / 255: the first convolution's input channels are turned round, and the division is left to
    the normalisation (mean 0, deviation 255).
    """
    trunk = _Trunk(source)
    orders: dict[str, Tensor] = {}
    trunk.copy("first_conv.0", "first_conv.1", "stages.0", columns=torch.tensor([2, 1, 0]))
    order = torch.arange(len(source["first_conv.0.weight"]))  # our channel -> theirs
    for number, stage in enumerate(("stage2", "stage3", "stage4"), start=2):
        units = sorted({int(name.split(".")[1]) for name in source if name.startswith(f"{stage}.")})
        for unit in units:
            main, prefix = f"{stage}.{unit}.branch_main", f"stages.{number}.{unit}"
            half = len(source[f"{main}.5.weight"])
            new_branch = _order_by_lifetime(half, range(1, 2 * half, 2), range(half, 2 * half))
            if unit == 0:
                proj = f"{stage}.{unit}.branch_proj"
                passed = _order_by_lifetime(half, range(0, 2 * half, 2), range(half))
                trunk.copy(f"{proj}.0", f"{proj}.1", f"{prefix}.shortcut.0", rows=order)
                trunk.copy(f"{proj}.2", f"{proj}.3", f"{prefix}.shortcut.1", rows=passed, columns=order)
                worked = order
            else:
                passed, worked = order[:half] // 2, order[half:] // 2  # even places pass, odd ones are worked on
            trunk.copy(f"{main}.0", f"{main}.1", f"{prefix}.branch.0", columns=worked)
            trunk.copy(f"{main}.3", f"{main}.4", f"{prefix}.branch.1")
            trunk.copy(f"{main}.5", f"{main}.6", f"{prefix}.branch.2", rows=new_branch)
            order = torch.stack((passed, half + new_branch), dim=1).flatten()  # we interleave, they append
        orders[stage] = order
    mean, std = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
    return PublishedWeights("FastestDet", trunk.state, trunk.names, mean, std, orders)
