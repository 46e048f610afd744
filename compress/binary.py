"""Layers whose weights, or weights and inputs, are -1 or +1 times a scale while the real weights go on learning.

**Reference**: Rastegari et al., XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks, ECCV
2016, arXiv:1603.05279: section 3.1 (binary weights), section 3.2 (binary inputs, the block's order). The exact gradient
of the scaled weights is derived in the notes of jiecaoyu/XNOR-Net-PyTorch.

**Deviations**: the gradient of the scaled weights is the exact one, (1/n) sign(W_i) sum_j(g_j sign(W_j)) +
alpha g_i 1[|W_i| < 1]; the paper has g_i (1/n + alpha dsign/dW_i), which takes the scale's share from g_i alone. The
derivative of sign is 1[|r| < 1], as in the authors' code; the paper prints a factor r before it. Weights are neither
centred nor clamped before each step, as that code does beyond the paper. The norm of a block has weights of its own,
and a layer's bias, where it has one, stays. K is off unless asked for: the authors' code has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .layers import layers_of

MODES = ("bwn", "xnor")
_NORM_EPS = 1e-4  # the authors' code


class _Sign(torch.autograd.Function):
    """-1 or +1, and the gradient passed on where the number lies between them."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor) -> Tensor:
        ctx.save_for_backward(numbers)
        return (numbers >= 0).to(numbers.dtype) * 2 - 1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (numbers,) = ctx.saved_tensors
        return gradient * (numbers.abs() < 1)


def sign(numbers: Tensor) -> Tensor:
    """+1 for 0 and more, else -1. The gradient passes straight through where |number| < 1, and is 0 elsewhere."""
    signs: Tensor = _Sign.apply(numbers)
    return signs


def binary_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [O, ...] -> its signs, and for each filter the scale alpha, the mean of its |weights|, [O, 1, ...].

    Their product is the best approximation of the filter by one number and signs (section 3.1, equations 3 to 6). The
    mean is taken in double precision: of filters that are alpha times signs already it is that alpha, to the last bit.
    """
    means = weight.abs().mean(dim=tuple(range(1, weight.dim())), keepdim=True, dtype=torch.float64)
    return sign(weight), means.to(weight.dtype)


class BinaryWeightConv2d(nn.Conv2d):
    """A convolution with weights alpha sign(W); W is what it keeps and learns, under the same names as `nn.Conv2d`."""

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs [N, C, H, W] -> [N, O, H', W']."""
        signs, scales = binary_weights(self.weight)
        return self._conv_forward(inputs, signs * scales, self.bias)


class BinaryWeightLinear(nn.Linear):
    """A linear layer with weights alpha sign(W); W is what it keeps and learns, under the same names as `nn.Linear`."""

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs [..., C] -> [..., O]."""
        signs, scales = binary_weights(self.weight)
        return F.linear(inputs, signs * scales, self.bias)


class XNORConv2d(nn.Conv2d):
    """Norm, signs, convolution with signs, times alpha: the first three parts of an XNOR block; pooling comes behind.

    The norm in front decides which inputs are negative: behind a ReLU none would be. input_norm: False where the inputs
    come from a norm already. scale_inputs: times K, at each place the mean of the |inputs| that the filter covers; with
    groups each group has its own. Padding is with zeros, neither -1 nor +1. Other keywords are those of `nn.Conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        input_norm: bool = True,
        scale_inputs: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **options)
        if self.padding_mode != "zeros":
            raise ValueError(f"padding_mode is {self.padding_mode!r}; an XNOR convolution pads with zeros")
        self.norm = nn.BatchNorm2d(in_channels, eps=_NORM_EPS).to(self.weight) if input_norm else nn.Identity()
        self.scale_inputs = scale_inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs [N, C, H, W] -> [N, O, H', W']."""
        normed = self.norm(inputs)
        signs, scales = binary_weights(self.weight)
        outputs = self._conv_forward(sign(normed), signs, None) * scales.view(-1, 1, 1)
        if self.scale_inputs:
            outputs = outputs * self.input_scales(normed)
        return outputs if self.bias is None else outputs + self.bias.view(-1, 1, 1)

    def input_scales(self, normed: Tensor) -> Tensor:
        """K [N, O, H', W'] of what goes in, behind the norm (section 3.2): the same for all filters of a group."""
        means = normed.unflatten(1, (self.groups, -1)).abs().mean(dim=2)
        box = means.new_full((self.groups, 1, *self.kernel_size), 1 / (self.kernel_size[0] * self.kernel_size[1]))
        scales = F.conv2d(means, box, None, self.stride, self.padding, self.dilation, self.groups)
        return scales.repeat_interleave(self.out_channels // self.groups, dim=1)


class XNORLinear(nn.Linear):
    """Norm, signs, product with signs, times alpha. input_norm, scale_inputs: as in `XNORConv2d`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        input_norm: bool = True,
        scale_inputs: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(in_features, out_features, **options)
        self.norm = nn.BatchNorm1d(in_features, eps=_NORM_EPS).to(self.weight) if input_norm else nn.Identity()
        self.scale_inputs = scale_inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs [N, C] -> [N, O]."""
        normed = self.norm(inputs)
        signs, scales = binary_weights(self.weight)
        outputs = F.linear(sign(normed), signs) * scales.view(-1)
        if self.scale_inputs:
            outputs = outputs * normed.abs().mean(dim=1, keepdim=True)
        return outputs if self.bias is None else outputs + self.bias


def binarize_(
    model: nn.Module,
    mode: str = "bwn",
    skip: Sequence[str] | None = None,
    *,
    keep_ends: bool = True,
    scale_inputs: bool = False,
) -> tuple[str, ...]:
    """Put binary layers in the place of the model's convolutions (2-D) and linear layers; the names of those.

    mode: "bwn", binary weights, or "xnor", binary weights and inputs. The weights stay the model's own, under their
    names; an XNOR layer adds a norm, whose numbers stand under <layer>.norm. So load real weights before, and those
    that binary layers learned after. skip: layers, or parts of the model, that stay real, besides the first and the
    last one, in the order in which the model holds them; keep_ends: False makes those binary too. Depthwise
    convolutions stay real: their few weights save nothing, and a filter of 9 inputs has nothing to count. Other grouped
    ones become binary, with a scale a filter. A layer of another class than `nn.Conv2d` and `nn.Linear` is left alone.
    scale_inputs: the K of XNOR layers.

    Raises ValueError for another mode, a name that the model does not have, and a model in which nothing is left to do.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; expected one of {', '.join(MODES)}")
    if scale_inputs and mode != "xnor":
        raise ValueError(f"scale_inputs is for mode 'xnor'; {mode!r} leaves the inputs as they are")
    everything = [layer.name for layer in layers_of(model)]
    ends = {everything[0], everything[-1]} if keep_ends else set()
    wanted = {id(layer.weight) for layer in layers_of(model, skip or ()) if layer.name not in ends}
    layers = {
        name: part
        for name, part in model.named_modules()
        if name and _can_be_binary(part) and id(part.weight) in wanted
    }
    if not layers:
        kept = " between the first and the last layer" if keep_ends else ""
        raise ValueError(f"{type(model).__name__} has no layer to make binary{kept}; expected nn.Conv2d or nn.Linear")
    made = {id(layer): _binary_form(layer, mode, scale_inputs) for layer in layers.values()}
    replace_modules(model, made)
    return tuple(layers)


def _can_be_binary(layer: nn.Module) -> bool:
    if type(layer) is nn.Conv2d:
        return layer.in_channels > layer.groups or layer.groups == 1
    return type(layer) is nn.Linear


def _binary_form(layer: nn.Module, mode: str, scale_inputs: bool) -> nn.Module:
    """The binary layer that takes over the parameters of a convolution or linear layer."""
    if mode == "bwn":
        return _remade(layer, BinaryWeightConv2d, BinaryWeightLinear)
    return _remade(layer, XNORConv2d, XNORLinear, scale_inputs=scale_inputs)


def _remade(layer: nn.Module, conv: type[nn.Conv2d], linear: type[nn.Linear], **options: Any) -> nn.Module:
    """A layer of one of these kinds, with the shape and the parameters of another."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    options |= {"bias": layer.bias is not None, "device": layer.weight.device, "dtype": layer.weight.dtype}
    made: nn.Conv2d | nn.Linear
    if isinstance(layer, nn.Conv2d):
        places = ("stride", "padding", "dilation", "groups", "padding_mode")
        options |= {name: getattr(layer, name) for name in places}
        made = conv(layer.in_channels, layer.out_channels, (layer.kernel_size[0], layer.kernel_size[1]), **options)
    else:
        made = linear(layer.in_features, layer.out_features, **options)
    made.weight, made.bias = layer.weight, layer.bias
    return made.train(layer.training)


def is_binary(layer: nn.Module) -> bool:
    """Whether it is a layer of this module, with real weights behind its signs."""
    return isinstance(layer, BinaryWeightConv2d | BinaryWeightLinear | XNORConv2d | XNORLinear)


@torch.no_grad()
def settle_binary_(model: nn.Module) -> None:
    """Give the model's binary layers the weights that they compute with, alpha sign(W), in the place of the real ones.

    Every output stays what it is, to the last bit. A packed file then holds a bit a weight.
    """
    for layer in model.modules():
        if is_binary(layer):
            assert isinstance(layer.weight, Tensor)
            signs, scales = binary_weights(layer.weight)
            layer.weight.copy_(signs * scales)


def make_plain_(model: nn.Module) -> None:
    """Put ordinary layers in the place of those with binary weights and real inputs: the same outputs, to the last bit,
    for less work. XNOR layers are left as they are.
    """
    layers = [part for part in model.modules() if isinstance(part, BinaryWeightConv2d | BinaryWeightLinear)]
    for layer in layers:
        settle_binary_(layer)
    replace_modules(model, {id(layer): _remade(layer, nn.Conv2d, nn.Linear) for layer in layers})


def replace_modules(model: nn.Module, made: Mapping[int, nn.Module]) -> None:
    """Put `made[id(part)]` in the place of each part of the model, in every place where it stands."""
    for name, part in list(model.named_modules(remove_duplicate=False)):
        if id(part) in made:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, made[id(part)])
