"""torchvision's SSDLite in the place of one of our detectors, so that the same training, loader and scoring run it.

`register()` makes the name known to configs: `model: {name: ssdlite320_mobilenet_v3_large}`. From scratch, with
torchvision's own losses, anchors, suppression and normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from backbones.evaluation import in_evaluation
from detect.registry import DETECTORS
from detect.results import Detections, Target

NAME = "ssdlite320_mobilenet_v3_large"
SIDE = 320  # torchvision's net resizes whatever comes to it


class SSDLite(nn.Module):
    """Answers to what a training and a metric ask of a detector; torchvision counts the background as class 0."""

    def __init__(self, num_classes: int, input_size: Sequence[int]) -> None:
        super().__init__()
        self.name, self.num_classes, self.input_size = NAME, num_classes, tuple(input_size)
        self.options: dict[str, Any] = {}
        self.class_names = tuple(f"class {index}" for index in range(num_classes))
        self.inner = torchvision.models.get_model(
            NAME, weights=None, weights_backbone=None, num_classes=num_classes + 1
        )
        # What the inner net does itself, in the words of our weights files.
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 127.5))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 127.5))

    @property
    def backbone(self) -> nn.Module:
        """For a learning rate of its own."""
        return self.inner.backbone

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """torchvision's two, of pictures [N, 3, H, W] uint8; crowds are left out."""
        truths = [
            {"boxes": target.boxes[~target.is_crowd], "labels": target.labels[~target.is_crowd] + 1}
            for target in targets
        ]
        found = self.inner(list(images.float() / 255), truths)
        return {"loss_box": found["bbox_regression"], "loss_class": found["classification"]}

    @torch.no_grad()
    def predict(
        self, images: Tensor, *, score_threshold: float = 0.05, max_detections: int = 100, **_: Any
    ) -> list[Detections]:
        """Best first; torchvision's own suppression, whatever ours is asked to do."""
        with in_evaluation(self):
            found = self.inner(list(images.float() / 255))
        detections = (Detections(row["boxes"], row["scores"], row["labels"] - 1) for row in found)
        return [one[one.scores > score_threshold][:max_detections] for one in detections]


def build(*, num_classes: int, input_size: Sequence[int] = (SIDE, SIDE)) -> SSDLite:
    """The builder that `register` registers. ValueError for another size than 320 x 320."""
    if tuple(input_size) != (SIDE, SIDE):
        raise ValueError(f"{NAME} takes pictures of {SIDE} x {SIDE}, not {input_size[0]} x {input_size[1]}")
    return SSDLite(num_classes, input_size)


def register() -> None:
    """Make it a detector by name, in this process."""
    if NAME not in DETECTORS.module_dict:
        DETECTORS.register_module(name=NAME, module=build)
