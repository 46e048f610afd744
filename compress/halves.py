"""Numbers of a net that half precision can hold as well: two bytes each in a packed file, instead of four."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import layers_of

_MOST_MOVED = 1e-3


def nearest_halves(values: Tensor) -> Tensor:
    """float32 values rounded to what float16 can hold; as they were where that would move one by over 0.1 % of the
    largest, make a number zero, or is not finite.
    """
    if values.numel() == 0 or values.dtype != torch.float32:
        return values
    rounded = values.half().float()
    close = (rounded - values).abs().max() <= _MOST_MOVED * values.abs().max()
    return rounded if close and torch.equal(rounded == 0, values == 0) else values


@torch.no_grad()
def round_others_(net: nn.Module) -> None:
    """Round what is not a convolution's or linear layer's weights (norms, biases, buffers) to half precision, a tensor
    at a time, as `nearest_halves` does. The net then is what a packed file of two bytes a number holds exactly.
    """
    weights = {layer.key for layer in layers_of(net)}
    for name, tensor in net.state_dict().items():
        if name not in weights:
            tensor.copy_(nearest_halves(tensor))
