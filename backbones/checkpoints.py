"""Published checkpoints, rewritten for this project's nets.

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


class PublishedWeights(NamedTuple):
    """A state dict for our net; the normalisation (RGB, 0..255) it expects; per stage, our channel -> theirs."""

    state: dict[str, Tensor]
    input_mean: tuple[float, float, float]
    input_std: tuple[float, float, float]
    channel_orders: dict[str, Tensor]


def convert_published(state: Mapping[str, Tensor]) -> PublishedWeights | None:
    """The checkpoint in our names if it is one that we know, else None."""
    if "first_conv.0.weight" in state and any(".branch_main." in name for name in state):
        return convert_shuffle_trunk(state)
    return None


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


def _copy_conv_norm(
    source: Mapping[str, Tensor],
    names: tuple[str, str],
    target: dict[str, Tensor],
    prefix: str,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
) -> None:
    """One convolution and its batch norm, output channels taken in the order `rows`, input channels in `columns`."""
    weight = source[f"{names[0]}.weight"]
    if columns is not None:
        weight = weight[:, columns]
    target[f"{prefix}.0.weight"] = weight if rows is None else weight[rows]
    for part in ("weight", "bias", "running_mean", "running_var"):
        value = source[f"{names[1]}.{part}"]
        target[f"{prefix}.1.{part}"] = value if rows is None else value[rows]


def convert_shuffle_trunk(source: Mapping[str, Tensor]) -> PublishedWeights:
    """FastestDet's trunk (`first_conv`, `stage2` to `stage4`) as the state of our ShuffleNetV2.

    Its input is BGR / 255: the first convolution's input channels are turned round, and the division is left to
    the normalisation (mean 0, deviation 255).
    """
    state: dict[str, Tensor] = {}
    orders: dict[str, Tensor] = {}
    _copy_conv_norm(source, ("first_conv.0", "first_conv.1"), state, "stages.0", columns=torch.tensor([2, 1, 0]))
    order = torch.arange(len(state["stages.0.0.weight"]))  # our channel -> theirs
    for number, stage in enumerate(("stage2", "stage3", "stage4"), start=2):
        units = sorted({int(name.split(".")[1]) for name in source if name.startswith(f"{stage}.")})
        for unit in units:
            main, prefix = f"{stage}.{unit}.branch_main", f"stages.{number}.{unit}"
            half = len(source[f"{main}.5.weight"])
            new_branch = _order_by_lifetime(half, range(1, 2 * half, 2), range(half, 2 * half))
            if unit == 0:
                proj = f"{stage}.{unit}.branch_proj"
                passed = _order_by_lifetime(half, range(0, 2 * half, 2), range(half))
                _copy_conv_norm(source, (f"{proj}.0", f"{proj}.1"), state, f"{prefix}.shortcut.0", rows=order)
                _copy_conv_norm(
                    source, (f"{proj}.2", f"{proj}.3"), state, f"{prefix}.shortcut.1", rows=passed, columns=order
                )
                worked = order
            else:
                passed, worked = order[:half] // 2, order[half:] // 2  # even places pass, odd ones are worked on
            _copy_conv_norm(source, (f"{main}.0", f"{main}.1"), state, f"{prefix}.branch.0", columns=worked)
            _copy_conv_norm(source, (f"{main}.3", f"{main}.4"), state, f"{prefix}.branch.1")
            _copy_conv_norm(source, (f"{main}.5", f"{main}.6"), state, f"{prefix}.branch.2", rows=new_branch)
            order = torch.stack((passed, half + new_branch), dim=1).flatten()  # we interleave, they append
        orders[stage] = order
    return PublishedWeights(state, (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), orders)
