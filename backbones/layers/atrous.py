"""Stages that keep the size of their map, with the weights that they have.

Reference: Chen et al., DeepLab, TPAMI 2018, arXiv:1606.00915, section 3.1 (holes in place of strides).
Deviations: none; with dilation 1 there are no holes, and the units see less of the picture than before.
"""

from __future__ import annotations

from torch import nn

_UNIT_STRIDES = (None, 1, (1, 1))
_HELD = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def hold_stride_(stage: nn.Module, *, dilation: int = 1) -> None:
    """`stage` no longer makes its map smaller; its convolutions of more than one place get holes: `dilation` between
    their places. No weight changes. Raises ValueError for a layer that strides and is no convolution or pool; the stage
    is as it was then.
    """
    layers = list(stage.modules())
    for layer in layers:
        if not isinstance(layer, _HELD) and getattr(layer, "stride", None) not in _UNIT_STRIDES:
            raise ValueError(f"a stage with {type(layer).__name__} in it cannot keep the size of its map")
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
            if layer.kernel_size != (1, 1):
                rows, columns = layer.kernel_size
                layer.dilation = (dilation, dilation)
                layer.padding = (dilation * (rows // 2), dilation * (columns // 2))
        elif isinstance(layer, _HELD):
            layer.stride = 1
