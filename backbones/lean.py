"""A net for use: batch norms folded, and no channel shuffle left; the orders of channels lie in the weights.

References: Ma et al., ShuffleNet V2, ECCV 2018, arXiv:1807.11164, Figure 3; Zhang et al., ShuffleNet, CVPR 2018,
arXiv:1707.01083, Figure 2.
Deviations: none in what is computed. A shuffle only decides which channels the next unit works on. So each unit's
result is made in the order in which later units use it, a unit's input is put together from the pieces that are due,
and the 1x1 convolution that reads it has its columns in that order. Channels of a stage's map then lie in an order of
their own, which goes through pools and depthwise convolutions into the columns of the next dense convolution.
ShuffleNetV1 shuffles between two grouped convolutions: where the first one has groups, neither can take up the order
as it is, and the first is written as a dense one with zeros, at so many times the multiply-adds as there are groups.
XNOR layers, whose signs know no zero, stay there as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from compress import XNORConv2d

from .channel_order import OrderFollower
from .evaluation import in_evaluation
from .fusion import fused_copy
from .layers import ShuffleUnit
from .shufflenet_v1 import GroupedShuffleUnit

Net = TypeVar("Net", bound=nn.Module)
Source = tuple[int, int]  # a channel: number of the tensor that holds it, and its place there

_EXAMPLE = (1, 3, 64, 64)  # a picture that every net takes


class StagePlan(NamedTuple):
    """Where the channels of a stage come from. Tensors: 0 the first unit's shortcut, 1 + k the branch of unit k.

    orders: per tensor, its channels as they are made; sizes: per tensor, how many of them unit k + 1 works on, the last
    number those that only leave the stage; reads: per unit after the first, for each channel of its input in the order
    of the pieces, the column of its first convolution; leaves: for each channel of the stage's map as it lies, its
    number in the shuffled map.
    """

    orders: list[list[int]]
    sizes: list[list[int]]
    reads: list[list[int]]
    leaves: list[int]


def plan_stage(half: int, units: int) -> StagePlan:
    """The plan for `units` units, of which the first has stride 2, that each give `half` channels from their branch."""
    shuffled: list[Source] = [(tensor, channel) for channel in range(half) for tensor in (0, 1)]
    inputs: list[list[Source]] = []
    for unit in range(1, units):
        passed, worked = shuffled[:half], shuffled[half:]
        inputs.append(worked)
        shuffled = [each for channel in range(half) for each in (passed[channel], (unit + 1, channel))]
    used_by = {source: unit for unit, worked in enumerate(inputs) for source in worked}
    last = units - 1

    def moment(source: Source) -> int:
        return used_by.get(source, last)

    tensors = range(units + 1)
    orders = [sorted(range(half), key=lambda channel: (moment((tensor, channel)), channel)) for tensor in tensors]
    places = {(tensor, channel): place for tensor in tensors for place, channel in enumerate(orders[tensor])}
    sizes = [[sum(moment((tensor, c)) == unit for c in range(half)) for unit in range(units)] for tensor in tensors]

    def as_pieces(sources: Sequence[Source]) -> list[int]:
        return sorted(range(len(sources)), key=lambda index: (sources[index][0], places[sources[index]]))

    return StagePlan(orders, sizes, [as_pieces(worked) for worked in inputs], as_pieces(shuffled))


class ShuffleFreeStage(nn.Module):
    """A stage of `ShuffleUnit`s without their shuffles; channels leave in the order `leaves`, see `StagePlan`.

    restore: put the channels back into the shuffled order, for a reader that cannot take another.
    """

    def __init__(self, units: Sequence[ShuffleUnit]) -> None:
        super().__init__()
        shortcut = units[0].shortcut
        if shortcut is None or any(unit.shortcut is not None for unit in units[1:]):
            raise ValueError("the first unit of a stage, and no other, has stride 2")
        self.shortcut = shortcut
        self.branches = nn.ModuleList(unit.branch for unit in units)
        half = _last_conv(shortcut).out_channels
        plan = plan_stage(half, len(units))
        self.sizes, self.leaves = plan.sizes, plan.leaves
        self.restore = False
        for row, order in zip((shortcut, *self.branches), plan.orders, strict=True):
            _order_rows_(_last_conv(row), order)
        for branch, columns in zip(self.branches[1:], plan.reads, strict=True):
            first = next(part for part in branch.modules() if isinstance(part, nn.Conv2d))
            _order_columns_(first, columns)

    def forward(self, features: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, ceil(H/2), ceil(W/2)]."""
        pieces = [self._cut(0, self.shortcut(features))]
        worked = features
        for unit, branch in enumerate(self.branches):
            pieces.append(self._cut(unit + 1, branch(worked)))
            worked = torch.cat([piece[unit] for piece in pieces if unit in piece], dim=1)
        return worked[:, torch.tensor(self.leaves).argsort()] if self.restore else worked

    def _cut(self, tensor: int, features: Tensor) -> dict[int, Tensor]:
        """A result of the stage -> for each unit, by its number less 1, what it works on."""
        moments = [moment for moment, size in enumerate(self.sizes[tensor]) if size]
        sizes = [self.sizes[tensor][moment] for moment in moments]
        return dict(zip(moments, features.split(sizes, dim=1) if len(sizes) > 1 else [features], strict=True))


def lean_copy(net: Net, example: Tensor | None = None) -> Net:
    """A copy in evaluation mode with the norms folded and without channel shuffles; the same numbers come out.

    The copy runs once on `example`, pictures [N, 3, H, W] as `forward` takes them (black ones of 64 x 64 unless given),
    to see who reads the maps of the stages. What the net hands out, and what is read by anything but convolutions
    behind pools, activations, pads and enlargements, keeps its order. For use, not for training or saving.
    """
    copied = fused_copy(net)
    stages = []
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, GroupedShuffleUnit) and not _has_signs(child):
                setattr(parent, name, ShuffleFreeGroupedUnit(child))
            elif _is_stage(child):
                stages.append(ShuffleFreeStage([unit for unit in child.children() if isinstance(unit, ShuffleUnit)]))
                setattr(parent, name, stages[-1])
    if stages:
        _hand_orders_on(copied, stages, torch.zeros(_EXAMPLE) if example is None else example)
    return copied


def _hand_orders_on(net: nn.Module, stages: Sequence[ShuffleFreeStage], example: Tensor) -> None:
    """Gives the order in which each stage's channels lie to those who read them; where one cannot take it: restores."""
    follower = OrderFollower()
    hooks = [
        stage.register_forward_hook(lambda _stage, _inputs, features, number=number: follower.mark(features, number))
        for number, stage in enumerate(stages)
    ]
    try:
        with torch.inference_mode(), in_evaluation(net), follower:
            result = net(example)
    finally:
        for hook in hooks:
            hook.remove()
    follower.leave(result)
    for number in follower.to_restore:
        stages[number].restore = True
    for reading in follower.readings:
        if reading.stage not in follower.to_restore:
            order = torch.tensor(stages[reading.stage].leaves)
            reading.weight.data = reading.weight.data.index_select(reading.dim, order).contiguous()


def _is_stage(module: nn.Module) -> bool:
    units = list(module.children()) if isinstance(module, nn.Sequential) else []
    strides = [isinstance(unit, ShuffleUnit) and unit.shortcut is not None for unit in units]
    return bool(units) and all(isinstance(unit, ShuffleUnit) for unit in units) and strides[0] and not any(strides[1:])


def _has_signs(unit: nn.Module) -> bool:
    return any(isinstance(part, XNORConv2d) for part in unit.modules())


def _last_conv(row: nn.Module) -> nn.Conv2d:
    return [part for part in row.modules() if isinstance(part, nn.Conv2d)][-1]


def _order_columns_(convolution: nn.Conv2d, order: Sequence[int]) -> None:
    """The input channels of a convolution without groups in another order; those of the norm in an XNOR layer, too."""
    convolution.weight.data = convolution.weight.data[:, order].contiguous()
    norm = getattr(convolution, "norm", None)
    if isinstance(norm, nn.BatchNorm2d):
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert values is not None
            values.data = values.data[order]


def _order_rows_(convolution: nn.Conv2d, order: Sequence[int]) -> None:
    """The output channels of a convolution in another order."""
    for values in (convolution.weight, convolution.bias):
        if values is not None:
            values.data = values.data[list(order)].contiguous()


class ShuffleFreeGroupedUnit(nn.Module):
    """A `GroupedShuffleUnit` whose first convolution makes its channels in the order after the shuffle."""

    def __init__(self, unit: GroupedShuffleUnit) -> None:
        super().__init__()
        self.pool, self.squeeze, self.spread, self.act = unit.pool, unit.squeeze, unit.spread, unit.act
        convolution = _last_conv(self.squeeze)
        if unit.groups > 1:
            channels = torch.arange(convolution.out_channels)
            order = channels.view(unit.groups, -1).t().flatten().tolist()
            _make_dense_(convolution)
            _order_rows_(convolution, order)

    def forward(self, features: Tensor) -> Tensor:
        """As the unit that it is made of."""
        worked = self.spread(self.squeeze(features))
        joined = features + worked if self.pool is None else torch.cat((self.pool(features), worked), dim=1)
        result: Tensor = self.act(joined)
        return result


def _make_dense_(convolution: nn.Conv2d) -> None:
    """A grouped convolution as one without groups, zeros where there was no link."""
    if convolution.groups == 1:
        return
    rows = convolution.weight.data.chunk(convolution.groups)
    dense = torch.block_diag(*(row.flatten(1) for row in rows)) if convolution.kernel_size == (1, 1) else None
    if dense is None:
        raise ValueError(f"a grouped convolution of {convolution.kernel_size} is in front of a shuffle; expected 1x1")
    convolution.weight = nn.Parameter(dense[:, :, None, None].contiguous())
    convolution.groups = 1
