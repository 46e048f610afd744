"""From a config to built objects: the net, the data, the optimizer. Every key is checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.utils.data import DataLoader

import detect
from backbones.registry import find_builder
from detect.formats.coco import CocoDetection, collate, read_split
from detect.registry import DETECTORS
from detect.transforms import Resize, SSDAugmentation, Transform

from .config import OptimizerConfig, PartConfig, TrainingConfig
from .sampler import TrainingSampler
from .schema import arguments, convert

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm)


def open_data(
    part: PartConfig, class_names: tuple[str, ...] | None, transform: Transform, *, cache: bool = False
) -> CocoDetection:
    """A part of the data as a data set. Raises what `CocoDetection` raises."""
    names = None if part.file_names is None else read_split(part.file_names)
    return CocoDetection(
        part.annotations, part.images, class_names=class_names, file_names=names, transform=transform, cache=cache
    )


def training_data(config: TrainingConfig) -> CocoDetection:
    """Augmented pictures for the training sampler's requests."""
    augmentation = SSDAugmentation(**arguments(SSDAugmentation, config.augmentation, "augmentation"))
    return open_data(config.data.train, config.data.class_names, augmentation, cache=config.data.cache)


def validation_data(config: TrainingConfig, class_names: tuple[str, ...]) -> CocoDetection:
    """Whole pictures at the evaluation's size."""
    return open_data(config.data.val, class_names, Resize(config.eval_size), cache=config.data.cache)


def create_net(config: TrainingConfig, class_names: tuple[str, ...]) -> nn.Module:
    """The config's detector for these classes. ValueError for an option that its builder does not have."""
    options: dict[str, Any] = dict(config.model)
    name = str(options.pop("name"))
    for key, source in (("num_classes", "data.class_names"), ("input_size", "eval_size")):
        if key in options:
            raise ValueError(f"model.{key} follows from {source}; set that instead")
    weights = _weights(options.pop("weights", None))
    checked = arguments(find_builder(DETECTORS, name), options, "model")
    net = detect.create_detector(
        name, num_classes=len(class_names), weights=weights, input_size=config.eval_size, **checked
    )
    net.class_names = class_names
    return net


def _weights(value: Any) -> Any:
    """A word ("person") for shipped weights, else a path that may be relative to the config's folder."""
    if isinstance(value, str) and not Path(value).suffix and os.sep not in value:
        return str(value)
    return convert(value, Path | None, "model.weights")


def create_optimizer(net: nn.Module, config: OptimizerConfig) -> Optimizer:
    """SGD or AdamW over groups: the backbone's own learning rate, no weight decay on norms and biases."""
    groups = list(_parameter_groups(net, config))
    if config.kind == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    return AdamW(groups, lr=config.lr, fused=True)


def _parameter_groups(net: nn.Module, config: OptimizerConfig) -> Iterator[dict[str, Any]]:
    """Groups with parameters in them, the backbone's first."""
    plain = {id(parameter) for module in net.modules() for name, parameter in module.named_parameters(recurse=False)
             if name == "bias" or isinstance(module, _NORMS)}  # fmt: skip
    backbone = getattr(net, "backbone", None)
    if backbone is None and config.backbone_lr_factor != 1:
        raise ValueError("optimizer.backbone_lr_factor is set, but this net has no part called backbone")
    inside = {id(parameter) for parameter in backbone.parameters()} if backbone is not None else set()
    for in_backbone in (True, False):
        rate = config.lr * (config.backbone_lr_factor if in_backbone else 1.0)
        for decays in (True, False):
            chosen = [
                parameter
                for parameter in net.parameters()
                if parameter.requires_grad
                and (id(parameter) in inside) == in_backbone
                and (id(parameter) not in plain) == decays
            ]
            if chosen:
                yield {"params": chosen, "lr": rate, "weight_decay": config.weight_decay if decays else 0.0}


def training_loader(data: CocoDetection, sampler: TrainingSampler, workers: int, *, pin: bool) -> DataLoader:
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


def validation_loader(data: CocoDetection, batch_size: int, workers: int) -> DataLoader:
    """All pictures in order. The generator keeps the loader away from torch's own random numbers."""
    return DataLoader(
        data,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),
    )


def _start_worker(_: int) -> None:
    """One thread each, and a process group of its own: Ctrl-C at the terminal then reaches the training alone."""
    cv2.setNumThreads(0)
    os.setpgrp()
