"""Binary layers for use: weights as bits, and XNOR layers that count bits instead of multiplying.

**Reference**: Rastegari et al., XNOR-Net, ECCV 2016, arXiv:1603.05279, sections 3.1 and 3.2.

**Deviations**: see `xnor_kernel`. The norm in front of the signs stays a norm of floats.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .binary import BinaryWeightConv2d, BinaryWeightLinear, XNORConv2d, XNORLinear, binary_weights, replace_modules
from .xnor_filters import Filters, Window, pack_bits, unpack_bits


class _Bits(nn.Module):
    """Weights as bits: `bits` [O, ceil(n / 8)] uint8, `scales` and `bias` [O], and no parameter.

    What running needs besides is made of them at the first call, and is not saved.
    """

    bits: Tensor
    scales: Tensor
    bias: Tensor

    @torch.no_grad()
    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        signs, scales = binary_weights(layer.weight)
        bias = torch.zeros(len(signs)) if layer.bias is None else layer.bias
        self.weight_shape = tuple(layer.weight.shape)
        self.register_buffer("bits", pack_bits(signs.flatten(1)))
        self.register_buffer("scales", scales.flatten().float().cpu())
        self.register_buffer("bias", bias.detach().float().cpu().clone())
        self.made: Any = None
        self.register_load_state_dict_post_hook(_forget_made)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes over."""
        return {**self.__dict__, "made": None}

    def signs(self) -> Tensor:
        """The weights' signs, +1 or -1, in the shape of the weights."""
        return unpack_bits(self.bits, math.prod(self.weight_shape[1:])).view(self.weight_shape)

    def weight(self) -> Tensor:
        """The weights as numbers."""
        if self.made is None:
            self.made = self.signs() * self.scales.view(-1, *[1] * (len(self.weight_shape) - 1))
        weight: Tensor = self.made
        return weight


def _forget_made(layer: nn.Module, _keys: Any) -> None:
    assert isinstance(layer, _Bits)
    layer.made = None


class BitWeightConv2d(_Bits):
    """A `BinaryWeightConv2d` for use: its inputs are real, so its convolution is torch's."""

    def __init__(self, layer: BinaryWeightConv2d) -> None:
        super().__init__(layer)
        if layer.padding_mode != "zeros":
            raise ValueError(f"padding_mode is {layer.padding_mode!r}; a layer of bits pads with zeros")
        self.stride, self.padding = layer.stride, layer.padding
        self.dilation, self.groups = layer.dilation, layer.groups

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs [N, C, H, W] -> [N, O, H', W']."""
        return F.conv2d(inputs, self.weight(), self.bias, self.stride, self.padding, self.dilation, self.groups)


class BitWeightLinear(_Bits):
    """A `BinaryWeightLinear` for use: its inputs are real, so its product is torch's."""

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs [..., C] -> [..., O]."""
        return F.linear(inputs, self.weight(), self.bias)


class _XNORBits(_Bits):
    """What the XNOR layers for use have in common: a norm, and filters that count."""

    def __init__(self, layer: XNORConv2d | XNORLinear, window: Window, groups: int) -> None:
        super().__init__(layer)
        self.norm, self.scale_inputs, self.window, self.groups = layer.norm, layer.scale_inputs, window, groups

    def filters(self) -> list[Filters]:
        """Those of each group."""
        if self.made is None:
            signs = self.signs().view(len(self.bits), self.weight_shape[1], *self.window.kernel_size)
            groups = zip(*(part.chunk(self.groups) for part in (signs, self.scales, self.bias)), strict=True)
            self.made = [
                Filters(own, scales, bias, self.window, scale_inputs=self.scale_inputs) for own, scales, bias in groups
            ]
        filters: list[Filters] = self.made
        return filters

    def multiply(self, normed: Tensor) -> Tensor:
        """[N, C, H, W] behind the norm -> [N, O, H', W']. ValueError for another type, device or shape."""
        count, _, height, width = _shape_of(normed, self.weight_shape[1] * self.groups)
        size = self.window.out_size(height, width)
        outputs = normed.new_empty(count, self.weight_shape[0], *size)
        filters = self.filters()
        if outputs.numel() == 0:
            return outputs
        if len(filters) == 1:
            filters[0].multiply(normed, outputs)
            return outputs
        for own, inputs, part in zip(filters, normed.chunk(self.groups, 1), outputs.chunk(self.groups, 1), strict=True):
            own.multiply(inputs, part)
        return outputs


def _shape_of(inputs: Tensor, channels: int) -> tuple[int, int, int, int]:
    if inputs.dtype is not torch.float32 or not inputs.is_cpu:
        raise ValueError(f"inputs are {inputs.dtype} on {inputs.device}; expected torch.float32 on the CPU")
    shape = inputs.shape
    if len(shape) != 4 or shape[1] != channels:
        raise ValueError(f"inputs have shape {list(shape)}; expected {channels} channels")
    return shape[0], shape[1], shape[2], shape[3]


class XNORBitConv2d(_XNORBits):
    """An `XNORConv2d` for use on the CPU: the same numbers, made by counting bits. It passes no gradient on."""

    def __init__(self, layer: XNORConv2d) -> None:
        window = Window(_pair(layer.kernel_size), _pair(layer.stride), layer.padding, _pair(layer.dilation))
        super().__init__(layer, window, layer.groups)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs [N, C, H, W] float32 -> [N, O, H', W']. ValueError for another type or device, or too small a map."""
        return self.multiply(self.norm(inputs))


class XNORBitLinear(_XNORBits):
    """An `XNORLinear` for use on the CPU: a convolution over a row with a pixel for each input. No gradient either."""

    def __init__(self, layer: XNORLinear) -> None:
        super().__init__(layer, Window((1, 1), (1, 1), (0, 0), (1, 1)), 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs [N, C] float32 -> [N, O]. ValueError for another type, device or shape."""
        if not len(inputs):
            return inputs.new_empty(0, self.multiply(inputs.new_zeros(1, inputs.shape[1], 1, 1)).shape[1])
        return self.multiply(self.norm(inputs).t()[None, :, None])[0, :, 0].t()


def _pair(numbers: tuple[int, ...]) -> tuple[int, int]:
    return numbers[0], numbers[1]


_FORMS: dict[type[nn.Module], Callable[[Any], _Bits]] = {
    BinaryWeightConv2d: BitWeightConv2d,
    BinaryWeightLinear: BitWeightLinear,
    XNORConv2d: XNORBitConv2d,
    XNORLinear: XNORBitLinear,
}


def deploy_bits(model: nn.Module) -> nn.Module:
    """A copy of the model for use on the CPU, in evaluation mode, whose binary layers hold bits and no real weights.

    A binary weight takes one bit in a file of the copy's state dict, which goes into the copy of any model that was
    made in the same way. In memory the same is true of XNOR layers; weights of layers with real inputs become numbers
    again when they first run. ValueError for a model without binary layers.
    """
    used = copy.deepcopy(model).cpu().eval()
    made = {id(part): _FORMS[type(part)](part).eval() for part in used.modules() if type(part) in _FORMS}
    if not made:
        raise ValueError(f"{type(model).__name__} has no binary layer; binarize_ makes some")
    if id(used) in made:
        return made[id(used)]
    replace_modules(used, made)
    return used


def holds_bits(model: nn.Module) -> bool:
    """Whether `deploy_bits` made it."""
    return any(isinstance(part, _Bits) for part in model.modules())
