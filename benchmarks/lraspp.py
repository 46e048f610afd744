"""swiftsight with one net more, torchvision's `lraspp_mobilenet_v3_large`, to compare with on equal terms.

    python benchmarks/lraspp.py train configs/segment/bisenet_xception39_camvid.yaml \
        --set model.name=lraspp_mobilenet_v3_large --set epochs=200 --work-dir runs/lraspp
    python benchmarks/lraspp.py eval configs/segment/bisenet_xception39_camvid.yaml runs/lraspp/best.safetensors \
        --set model.name=lraspp_mobilenet_v3_large --split test

All verbs of `swiftsight` work: data, augmentation, loss, schedule and metric are those of our own nets. The net is
built by torchvision, from scratch; its small map is enlarged as ours are, corners on corners.

Reference: Howard et al., Searching for MobileNetV3, ICCV 2019, arXiv:1905.02244, section 6.4 (R-ASPP Lite).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from swiftsight_tools.cli import main
from torch import Tensor, nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large as build

from backbones.base import IMAGENET_MEAN, IMAGENET_STD
from segment.base import Segmenter
from segment.losses import PixelLoss
from segment.registry import SEGMENTERS


class MapsAsList(nn.Module):
    """torchvision's dictionary of two maps as a list, under the normalisation of its backbone."""

    input_mean, input_std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.body = backbone

    def forward(self, images: Tensor) -> list[Tensor]:
        """images [N, 3, H, W], normalised -> [N, 40, H/8, W/8] and [N, 960, H/16, W/16]."""
        maps = self.body(images)
        return [maps["low"], maps["high"]]


class HeadOfList(nn.Module):
    """torchvision's head on such a list."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """-> [logits [N, C, H/8, W/8]]."""
        low, high = features
        return [self.head({"low": low, "high": high})]


@SEGMENTERS.register_module()
def lraspp_mobilenet_v3_large(
    *,
    num_classes: int = 19,
    input_size: Sequence[int] = (768, 1536),
    pixels: str = "all",
    class_weights: Sequence[float] | None = None,
) -> Segmenter:
    """torchvision's net, not pre-trained, with the loss of ours."""
    net = build(weights=None, weights_backbone=None, num_classes=num_classes)
    height, width = input_size
    return Segmenter(
        MapsAsList(net.backbone),
        HeadOfList(net.classifier),
        nn.Identity(),
        num_classes=num_classes,
        loss=PixelLoss(pixels, class_weights=class_weights),
        input_size=(int(height), int(width)),
    )


if __name__ == "__main__":
    sys.exit(main())
