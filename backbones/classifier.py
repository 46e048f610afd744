"""A classifier on a backbone: for pre-training and for parity with published nets."""

from __future__ import annotations

from torch import Tensor, nn

from .base import Backbone
from .layers import conv_norm_act


class Classifier(nn.Module):
    """Backbone, the 1x1 convolution that the net's classifier has (if any), global average, fully connected layer."""

    def __init__(self, backbone: Backbone, *, num_classes: int = 1000) -> None:
        super().__init__()
        self.backbone = backbone
        channels = backbone.feature_info[-1].channels
        last = backbone.classifier_channels
        self.last = nn.Identity() if last is None else conv_norm_act(channels, last, 1)
        self.fc = nn.Linear(channels if last is None else last, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """images [N, 3, H, W], normalised -> logits [N, num_classes]."""
        features: Tensor = self.last(self.backbone(images)[-1])
        logits: Tensor = self.fc(features.mean((2, 3)))
        return logits
