"""From a config to what every training needs: the optimizer and the loaders."""

from __future__ import annotations

import os
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import cv2
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.utils.data import DataLoader

from backbones.registry import nearest

from ..configuration.training_config import OptimizerConfig
from .sampler import TrainingSampler

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm)
Collate = Callable[[list[Any]], Any]


def create_optimizer(net: nn.Module, config: OptimizerConfig) -> Optimizer:
    """SGD or AdamW over groups: own learning rates by part and name, no weight decay on norms and biases.

    Raises ValueError for a rate that is set for a part or a pattern of names that the net does not have.
    """
    groups = _parameter_groups(net, config)
    if config.kind == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    return AdamW(groups, lr=config.lr, fused=True)


def _parameter_groups(net: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """One group for each learning rate with and without decay, the backbone's first."""
    plain = {id(parameter) for module in net.modules() for name, parameter in module.named_parameters(recurse=False)
             if name == "bias" or isinstance(module, _NORMS)}  # fmt: skip
    backbone = getattr(net, "backbone", None)
    if backbone is None and config.backbone_lr_factor != 1:
        raise ValueError("optimizer.backbone_lr_factor is set, but this net has no part called backbone")
    inside = {id(parameter) for parameter in backbone.parameters()} if backbone is not None else set()
    factors = _factors(net, config.lr_factors or {})
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            key = (id(parameter) not in inside, factors[name], id(parameter) in plain)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": groups[outside, factor, is_plain],
            "lr": config.lr * factor * (1.0 if outside else config.backbone_lr_factor),
            "weight_decay": 0.0 if is_plain else config.weight_decay,
        }
        for outside, factor, is_plain in sorted(groups)
    ]


def _factors(net: nn.Module, patterns: dict[str, float]) -> dict[str, float]:
    """Parameter name -> factor of the last pattern that matches it, or 1."""
    names = [name for name, _ in net.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = nearest(pattern, {f"{name.split('.')[0]}.*" for name in names})
            raise ValueError(f"optimizer.lr_factors: no parameter of this net is called {pattern!r}{near}")
    return {
        name: next((patterns[pattern] for pattern in reversed(patterns) if fnmatchcase(name, pattern)), 1.0)
        for name in names
    }


def training_loader(data: Any, sampler: TrainingSampler, workers: int, *, collate: Collate, pin: bool) -> DataLoader:
    """Batches as the sampler asks for them, from workers that live as long as the training."""
    return DataLoader(
        data,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),
    )


def validation_loader(
    data: Any, batch_size: int, workers: int, *, collate: Collate, share: tuple[int, int] = (0, 1)
) -> DataLoader:
    """All pictures in order, or a process's share (rank, count) of them, none of them twice.

    The generator keeps the loader away from torch's own random numbers.
    """
    return DataLoader(
        data,
        batch_size=batch_size,
        sampler=range(share[0], len(data), share[1]),
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),
    )


def _start_worker(_: int) -> None:
    """One thread each, and a process group of its own: Ctrl-C at the terminal then reaches the training alone."""
    cv2.setNumThreads(0)
    os.setpgrp()
