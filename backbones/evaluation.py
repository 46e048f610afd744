"""A while in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_evaluation(net: nn.Module) -> Iterator[None]:
    """`net` and all its parts in evaluation mode; afterwards each part as it was: some may be frozen on purpose."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
