"""ThunderNet: a two-stage detector for processors without a GPU.

Reference: Qin et al., ThunderNet: Towards Real-time Generic Object Detection, ICCV 2019, arXiv:1903.11752: section 3.1
(backbone), 3.2 (light RPN and head), Figure 3 (CEM), Figure 4 (SAM), Table 4 (multiply-adds).
Deviations: see rpn.py, rcnn_head.py, ps_roi_align.py and sampling.py for what the paper leaves open; the choices are
those that give its published multiply-adds (43 M for the RPN, 92 M for SAM and head). CEM's convolutions have a bias
and neither batch norm nor ReLU, as in the authors' release.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from backbones import Backbone, reach_strides
from backbones.base import FeatureInfo

from .ps_roi_align import PSRoIAlign
from .rcnn_head import LightHead
from .registry import DETECTORS, register_presets
from .rpn import RegionProposalNetwork
from .sampling import ProposalSampling
from .two_stage import TwoStageDetector, checked_input_size


class ContextEnhancementModule(nn.Module):
    """CEM: the stride-16 map, the stride-32 map doubled, and the whole picture's average, summed (Figure 3)."""

    def __init__(self, feature_info: Sequence[FeatureInfo], out_channels: int) -> None:
        super().__init__()
        middle, coarse = feature_info
        self.middle = nn.Conv2d(middle.channels, out_channels, 1)
        self.coarse = nn.Conv2d(coarse.channels, out_channels, 1)
        self.whole = nn.Conv2d(coarse.channels, out_channels, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """[C4 [N, c4, h, w], C5 [N, c5, ceil(h/2), ceil(w/2)]] -> [N, out_channels, h, w]."""
        middle, coarse = features
        doubled = F.interpolate(self.coarse(coarse), size=middle.shape[-2:], mode="nearest")
        whole = self.whole(coarse.mean((2, 3), keepdim=True))
        context: Tensor = self.middle(middle) + doubled + whole
        return context


class SpatialAttentionModule(nn.Module):
    """SAM: the RPN's shared map, turned into weights for each place and channel of the thin map (Figure 4)."""

    def __init__(self, rpn_channels: int, channels: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Conv2d(rpn_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, context: Tensor, shared: Tensor) -> Tensor:
        """context [N, channels, h, w], shared [N, rpn_channels, h, w] -> context weighted by 0..1."""
        return context * self.attention(shared).sigmoid()


@DETECTORS.register_module()
def thundernet(
    backbone: str | Backbone = "snet49",
    *,
    num_classes: int = 80,
    backbone_weights: str | PathLike[str] | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    input_size: Sequence[int] = (320, 320),
    bins: int = 7,
    thin_channels: int = 5,
    rpn_channels: int = 256,
    rpn_kernel_size: int = 5,
    fc_channels: int = 1024,
    anchor_scales: Sequence[float] = (32, 64, 128, 256, 512),
    anchor_ratios: Sequence[float] = (1 / 2, 3 / 4, 1, 4 / 3, 2),
    test_proposals: int = 200,
    test_before_nms: int = 1000,
    rpn_positive_iou: float = 0.7,
    rpn_negative_iou: float = 0.3,
    sampling: str = "ohem",
    train_proposals: int = 2000,
    train_before_nms: int = 2000,
    samples: int = 256,
    positive_fraction: float = 0.25,
    box_loss: str = "smooth_l1",
    roi_align: str = "operator",
) -> TwoStageDetector:
    """ThunderNet on any backbone; the defaults are the paper's where it says.

    backbone: extended to stride 32 where it ends at 16 (`backbones.reach_strides`). backbone_options: {"width": 0.6}.
    input_size: (height, width) the net is meant for; any multiple of 16 works. bins, thin_channels: the thin map has
    thin_channels * bins^2 = 245 channels. sampling "ohem" or "random": see `detect.sampling`. Raises ValueError for an
    unknown backbone or word and for a number that cannot be.
    """
    _check_counts(
        num_classes=num_classes,
        bins=bins,
        thin_channels=thin_channels,
        rpn_channels=rpn_channels,
        fc_channels=fc_channels,
        test_proposals=test_proposals,
        test_before_nms=test_before_nms,
    )
    _check_anchors(anchor_scales, anchor_ratios)
    if rpn_kernel_size % 2 == 0:
        raise ValueError(f"rpn_kernel_size is {rpn_kernel_size}; expected an odd number")
    if not 0 <= rpn_negative_iou <= rpn_positive_iou <= 1:
        raise ValueError(
            f"rpn_negative_iou {rpn_negative_iou}, rpn_positive_iou {rpn_positive_iou}: expected 0..1, rising"
        )
    backbone = reach_strides(backbone, (16, 32), weights=backbone_weights, options=backbone_options)
    height, width = checked_input_size(input_size)
    thin = thin_channels * bins * bins
    rpn = RegionProposalNetwork(
        thin,
        stride=16,
        channels=rpn_channels,
        kernel_size=rpn_kernel_size,
        anchor_scales=anchor_scales,
        anchor_ratios=anchor_ratios,
    )
    return TwoStageDetector(
        backbone,
        ContextEnhancementModule(backbone.feature_info, thin),
        rpn,
        SpatialAttentionModule(rpn_channels, thin),
        LightHead(PSRoIAlign(bins, 16, method=roi_align), thin, num_classes, fc_channels=fc_channels),
        num_classes=num_classes,
        input_size=(height, width),
        test_proposals=test_proposals,
        test_before_nms=test_before_nms,
        rpn_positive_iou=rpn_positive_iou,
        rpn_negative_iou=rpn_negative_iou,
        sampling=ProposalSampling(sampling, train_proposals, train_before_nms, samples, positive_fraction),
        box_loss=box_loss,
    )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; expected at least 1")


def _check_anchors(scales: Sequence[float], ratios: Sequence[float]) -> None:
    for name, values in (("anchor_scales", scales), ("anchor_ratios", ratios)):
        if not values or not all(value > 0 for value in values):
            raise ValueError(f"{name} is {list(values)}; expected at least one number, all above 0")


register_presets(
    thundernet,
    (
        "snet49",
        "snet146",
        "snet535",
        "shufflenet_v2_x0_5",
        "shufflenet_v2_x1_0",
        "shufflenet_v2_x1_5",
        "shufflenet_v2_x2_0",
    ),
)
