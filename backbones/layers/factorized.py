"""Convolutions taken apart: layers that stand where a 3x3 convolution would, for a fraction of its multiply-adds.

Reference: Wang, Liu, Foroosh, Design of Efficient Convolutional Layers using Single Intra-channel Convolution,
Topological Subdivisioning and Spatial "Bottleneck" Structure, arXiv:1608.04337, Algorithms 3 and 4. Beside its layers
stand those that it is compared with: depthwise-separable (arXiv:1704.04861, Figure 3) and grouped with a channel
shuffle (arXiv:1707.01083, Figure 1).
Deviations, each where the stored sources leave a choice open:
- Norms: Algorithm 3 holds none, so none stands inside; the one that follows the convolution follows the layer.
- A step that changes the number of channels or the size cannot add its input. It is the first one; it takes the stride
  in its depthwise convolution, has no residual, and keeps the ReLU.
- Topology: the channel tensor is the most even one, the window half of each side, rounded up: a quarter of the links in
  two dimensions, an eighth in three. A step that changes the number of channels has no such tensor on both sides; its
  projection is full.
- Spatial bottleneck: the kernel of the convolution is `kernel_size`, that of the transposed one its stride. A map that
  the stride does not divide is padded with zeros at its right and lower edge, and the answer cropped. A layer that
  halves brings the map back to `reduction / stride` only. There is no ReLU inside. Among `CONVOLUTIONS` the kernel is 3
  at reduction 2, so that windows overlap as those of the convolution it replaces; with 2 no stack of such layers would
  ever look across the borders of its 2x2 cells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .conv import ConvFactory, conv_norm_act

Projection = Callable[[int], nn.Module]  # channels -> a linear layer from as many channels to as many


def standard(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """What all others stand for: h w 9 m n multiply-adds for m channels in, n out and a map of h x w out."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def depthwise_separable(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """MobileNetV1's: depthwise 3x3, batch norm, ReLU, then 1x1. h w m (9 + n) multiply-adds."""
    pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(*conv_norm_act(in_channels, in_channels, 3, stride, groups=in_channels), pointwise)


def grouped_shuffle(in_channels: int, out_channels: int, stride: int = 1, *, groups: int = 4) -> nn.Sequential:
    """A 3x3 convolution in groups, whose outputs are dealt to all groups of the next one. h w 9 m n / groups."""
    if in_channels % groups or out_channels % groups:
        raise ValueError(f"{groups} groups do not divide {in_channels} channels in and {out_channels} out")
    grouped = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, groups=groups, bias=False)
    return nn.Sequential(grouped, nn.ChannelShuffle(groups))


class _IntraChannelStep(nn.Module):
    """One basis of Algorithm 3: depthwise convolution, projection, the input added where it fits, ReLU."""

    def __init__(self, spatial: nn.Module, project: nn.Module, *, residual: bool) -> None:
        super().__init__()
        self.spatial = spatial
        self.project = project
        self._residual = residual

    def forward(self, features: Tensor) -> Tensor:
        """ReLU(features + made), or ReLU(made)."""
        made: Tensor = self.project(self.spatial(features))
        return F.relu(features + made if self._residual else made)


class SingleIntraChannelConv2d(nn.Sequential):
    """Algorithm 3: `bases` residual steps of a depthwise k x k convolution and a linear projection, ReLU after each.

    [N, in_channels, H, W] -> [N, out_channels, ceil(H/stride), ceil(W/stride)]; h w (m k^2 + m n) multiply-adds for
    the first step and h w (n k^2 + n n) for each further one, of m channels in and n out. project: what makes the
    projection of a step that keeps its channels, 1x1 unless given; topology makes it h w n prod(window).
    Raises ValueError for an even kernel and for less than one basis.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        kernel_size: int = 3,
        bases: int = 1,
        project: Projection | None = None,
    ) -> None:
        if kernel_size % 2 == 0 or bases < 1:
            raise ValueError(f"an odd kernel_size and at least one basis are needed, not {kernel_size} and {bases}")
        steps = []
        for channels, step_stride in [(in_channels, stride)] + [(out_channels, 1)] * (bases - 1):
            keeps_channels = channels == out_channels
            spatial = nn.Conv2d(
                channels, channels, kernel_size, step_stride, kernel_size // 2, groups=channels, bias=False
            )
            linear = (
                project(channels) if project and keeps_channels else nn.Conv2d(channels, out_channels, 1, bias=False)
            )
            steps.append(_IntraChannelStep(spatial, linear, residual=keeps_channels and step_stride == 1))
        super().__init__(*steps)


class TopologicalConv2d(nn.Module):
    """Algorithm 4: channels lie in a tensor of `shape`, and each sees only the `window` that begins at its own place.

    [N, C, H, W] -> the same shape, C = prod(shape): channel (j_1 .. j_s) sums k x k convolutions of the channels
    ((j_1 + i_1) mod shape_1, ..) for 0 <= i_t < window_t. h w k^2 C prod(window) multiply-adds by this definition.
    They are carried out as one dense convolution whose other weights are zero: of all ways that were timed the fastest
    on a processor, at the cost of the standard convolution (docs/factorized.md). So the layer saves weights, not time.
    Raises ValueError for an even kernel and for a window that does not lie in its tensor.
    """

    sources: Tensor  # [C, prod(window)] int64: the channels that each output channel sums over

    def __init__(self, shape: Sequence[int], window: Sequence[int], kernel_size: int = 3) -> None:
        super().__init__()
        if len(shape) != len(window) or any(not 1 <= part <= side for side, part in zip(shape, window, strict=False)):
            raise ValueError(f"a window of {tuple(window)} does not lie in a channel tensor of {tuple(shape)}")
        if kernel_size % 2 == 0:
            raise ValueError(f"an odd kernel_size is needed, not {kernel_size}")
        self.channels = math.prod(shape)
        self.weight = nn.Parameter(torch.empty(self.channels, math.prod(window), kernel_size, kernel_size))
        self.register_buffer("sources", _window_channels(shape, window), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As torch's own convolutions begin, for the links that there are."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, features: Tensor) -> Tensor:
        """The links written into an else empty dense weight, and one convolution with it."""
        kernel_size = self.weight.shape[-1]
        links = self.weight.flatten(2)
        places = self.sources.unsqueeze(2).expand_as(links)
        dense = links.new_zeros(self.channels, self.channels, kernel_size**2).scatter(1, places, links)
        return F.conv2d(features, dense.unflatten(2, (kernel_size, kernel_size)), padding=kernel_size // 2)

    def multiply_adds(self, output: Tensor) -> int:
        """Of the definition; `backbones.cost` asks for them."""
        return output.numel() * self.weight[0].numel()

    def extra_repr(self) -> str:
        """What `print` shows of the layer."""
        channels, links, kernel_size, _ = self.weight.shape
        return f"{channels}, links={links}, kernel_size={kernel_size}"


def _window_channels(shape: Sequence[int], window: Sequence[int]) -> Tensor:
    """[prod(shape), prod(window)]: in each row the channels of the window that begins there, with wrap-around."""
    channels = torch.arange(math.prod(shape)).view(*shape)
    dims = tuple(range(len(shape)))
    shifts = itertools.product(*(range(part) for part in window))
    return torch.stack([channels.roll([-step for step in shift], dims).flatten() for shift in shifts], dim=1)


def topological(channels: int, kernel_size: int = 3, *, dimensions: int = 2) -> TopologicalConv2d:
    """Topological subdivision in the most even channel tensor, with half of each of its sides as the window."""
    shape = channel_tensor(channels, dimensions)
    return TopologicalConv2d(shape, [math.ceil(side / 2) for side in shape], kernel_size)


def channel_tensor(channels: int, dimensions: int) -> tuple[int, ...]:
    """Sides whose product is `channels`, smallest first: 128 -> (8, 16) in two dimensions, (4, 4, 8) in three."""
    if dimensions == 1:
        return (channels,)
    side = max(side for side in range(1, channels + 1) if channels % side == 0 and side**dimensions <= channels)
    return (side, *channel_tensor(channels // side, dimensions - 1))


class SpatialBottleneck(nn.Module):
    """A map made small, mixed there, and brought back: stride-k depthwise convolution, 1x1, depthwise transposed one.

    [N, in_channels, H, W] -> [N, out_channels, ceil(H/stride), ceil(W/stride)], with the input added where it fits.
    With stride 1, m channels in, n out and sides that `reduction` = k divides: h w m (kernel_size / k)^2 + h w m n /
    k^2 + h w n multiply-adds. kernel_size: of the first convolution, `reduction` unless given.
    Raises ValueError where `stride` does not divide `reduction` and where the kernel leaves gaps.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        reduction: int = 2,
        kernel_size: int | None = None,
    ) -> None:
        super().__init__()
        kernel_size = reduction if kernel_size is None else kernel_size
        if reduction % stride or kernel_size < reduction:
            raise ValueError(f"a reduction by {reduction} fits neither stride {stride} with kernel_size {kernel_size}")
        padding = (kernel_size - reduction + 1) // 2
        self.reduce = nn.Conv2d(
            in_channels, in_channels, kernel_size, reduction, padding, groups=in_channels, bias=False
        )
        self.project = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        growth = reduction // stride
        self.restore = (
            nn.ConvTranspose2d(out_channels, out_channels, growth, growth, groups=out_channels, bias=False)
            if growth > 1
            else nn.Identity()
        )
        self._reduction, self._stride = reduction, stride
        self._residual = in_channels == out_channels and stride == 1

    def forward(self, features: Tensor) -> Tensor:
        """Reduced, mixed, restored, cropped to the map's own size."""
        height, width = features.shape[-2:]
        below, right = -height % self._reduction, -width % self._reduction
        padded = F.pad(features, (0, right, 0, below)) if below or right else features
        restored: Tensor = self.restore(self.project(self.reduce(padded)))
        made = restored[..., : -(-height // self._stride), : -(-width // self._stride)]
        return features + made if self._residual else made


def _sic_topology(in_channels: int, out_channels: int, stride: int = 1) -> SingleIntraChannelConv2d:
    """SIC whose projection links each channel with a quarter of all, in two dimensions."""
    return SingleIntraChannelConv2d(in_channels, out_channels, stride, project=partial(topological, kernel_size=1))


CONVOLUTIONS: dict[str, ConvFactory] = {
    "standard": standard,
    "depthwise_separable": depthwise_separable,
    "sic": SingleIntraChannelConv2d,
    "sic_b2": partial(SingleIntraChannelConv2d, bases=2),
    "sic_b4": partial(SingleIntraChannelConv2d, bases=4),
    "sic_topology": _sic_topology,
    "spatial_bottleneck": partial(SpatialBottleneck, kernel_size=3),
    "grouped_shuffle": grouped_shuffle,
}
