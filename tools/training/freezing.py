"""Parts of a net that a training leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from backbones.registry import nearest

# What keeps running statistics, and would go on changing in training mode whatever its parameters do.
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def freeze(net: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Let nothing below the parts of these names learn ("backbone", "backbone.stages.0"); gives the norms in them,
    which have to stay in evaluation mode.

    Raises ValueError for a name that the net does not have, and where nothing is left to learn.
    """
    parts = dict(net.named_modules())
    norms: list[nn.Module] = []
    for name in names:
        if name not in parts or not name:
            raise ValueError(f"this net has no part called {name!r}{_near(name, parts)}")
        parts[name].requires_grad_(False)
        norms += [module for module in parts[name].modules() if isinstance(module, BATCH_NORMS)]
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise ValueError(f"with {', '.join(names)} frozen nothing is left to learn")
    return norms


def _near(name: str, parts: dict[str, nn.Module]) -> str:
    """The nearest name as deep in the net as this one, else what there is at the top."""
    depth = name.count(".")
    near = nearest(name, [part for part in parts if part and part.count(".") == depth])
    return near or f"; expected one of {', '.join(part for part in parts if part and '.' not in part)}, or a part in it"
