"""What every net for a task holds beside its layers: its name, its classes, and how its pictures are normalised."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import Backbone
from .binary_layers import BinaryChoice


class TaskNet(BinaryChoice):
    """A detector or segmenter on a backbone.

    name, options (what the builder was told), class_names, input_size (height, width) and `binary` go along in a
    weights file. Pictures come as RGB 0..255; mean and deviation are buffers, so nobody can normalise differently.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, *, num_classes: int, name: str, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.name, self.num_classes, self.input_size = name, num_classes, input_size
        self.options: dict[str, Any] = {}
        self.class_names: tuple[str, ...] = tuple(f"class {index}" for index in range(num_classes))
        self.register_buffer("mean", torch.tensor(backbone.input_mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.input_std).view(1, 3, 1, 1))

    def normalize(self, images: Tensor) -> Tensor:
        """images [N, 3, H, W] uint8 or float, RGB 0..255 -> the backbone's input. ValueError for another shape."""
        if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
            raise ValueError(f"images have shape {list(images.shape)}; expected [N, 3, H, W], no side 0")
        return (images.to(self.mean.dtype) - self.mean) / self.std
