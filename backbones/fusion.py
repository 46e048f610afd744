"""Batch norm folded into the convolution before it: the same function in fewer passes over the maps."""

import copy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from compress import make_plain_

Module = TypeVar("Module", bound=nn.Module)


def fused_copy(module: Module) -> Module:
    """A copy in evaluation mode in which each convolution has taken over the batch norm that follows it in a row, and
    layers of binary weights have become ordinary ones.

    Only neighbours in an `nn.Sequential` are folded; any other batch norm stays, in evaluation mode. The copy is for
    use, not for training or saving: it has other parameters than `module`, which is left as it was.
    """
    copied = copy.deepcopy(module).eval()
    make_plain_(copied)
    for row in copied.modules():
        if isinstance(row, nn.Sequential):
            _fold(row)
    return copied


def _fold(row: nn.Sequential) -> None:
    for (first_name, first), (second_name, second) in pairwise(list(row.named_children())):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            setattr(row, first_name, fuse_conv_bn_eval(first, second))
            setattr(row, second_name, nn.Identity())
