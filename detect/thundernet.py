"""ThunderNet: a two-stage detector for processors without a GPU.

Reference: Qin et al., ThunderNet: Towards Real-time Generic Object Detection, ICCV 2019, arXiv:1903.11752: section 3.1
(backbone), 3.2 (light RPN and head), Figure 3 (CEM), Figure 4 (SAM), Table 4 (multiply-adds).
Deviations: see rpn.py, rcnn_head.py, ps_roi_align.py and sampling.py for what the paper leaves open; the choices are
those that give its published multiply-adds (43 M for the RPN, 92 M for SAM and head). CEM's convolutions have a bias
and neither batch norm nor ReLU, as in the authors' release, and start from He's normal numbers (the paper is silent).
Without CEM the stride-16 map alone is read; the paper does not say which map its ablation's baseline takes. 1,000
anchors go into the suppression at test, where the release takes 2,000 (`test_before_nms`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from backbones import Backbone, reach_strides
from backbones.base import FeatureInfo

from .ps_roi_align import create_roi_operator
from .rcnn_head import LightHead
from .registry import DETECTORS, register_presets
from .rpn import RegionProposalNetwork, light_trunk
from .sampling import ProposalSampling
from .two_stage import NeckMaps, TwoStageDetector, check_counts, checked_input_size


class ContextEnhancementModule(nn.Module):
    """CEM: the stride-16 map, the stride-32 map doubled, and the whole picture's average, summed (Figure 3).

    RPN and head read the same map.
    """

    def __init__(self, feature_info: Sequence[FeatureInfo], out_channels: int) -> None:
        super().__init__()
        middle, coarse = feature_info
        self.middle = nn.Conv2d(middle.channels, out_channels, 1)
        self.coarse = nn.Conv2d(coarse.channels, out_channels, 1)
        self.whole = nn.Conv2d(coarse.channels, out_channels, 1)
        for layer in (self.middle, self.coarse, self.whole):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            if layer.bias is not None:  # it never is; the annotation of Conv2d allows it
                nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor]) -> NeckMaps:
        """[C4 [N, c4, h, w], C5 [N, c5, ceil(h/2), ceil(w/2)]] -> twice [N, out_channels, h, w]."""
        middle, coarse = features
        doubled = F.interpolate(self.coarse(coarse), size=middle.shape[-2:], mode="nearest")
        whole = self.whole(coarse.mean((2, 3), keepdim=True))
        context = self.middle(middle) + doubled + whole
        return NeckMaps(context, context)


class SingleMapNeck(nn.Module):
    """What stands where CEM is left out: the stride-16 map through a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.middle = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features: Sequence[Tensor]) -> NeckMaps:
        """[C4 [N, c4, h, w]] -> twice [N, out_channels, h, w]."""
        thin = self.middle(features[0])
        return NeckMaps(thin, thin)


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
    context_enhancement: bool = True,
    spatial_attention: bool = True,
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
    box_weight: float = 1.0,
    roi_operator: str = "align",
    roi_align: str = "operator",
) -> TwoStageDetector:
    """ThunderNet on any backbone; the defaults are the paper's where it says.

    backbone: extended to stride 32 where it ends at 16 (`backbones.reach_strides`). backbone_options: {"width": 0.6}.
    input_size: (height, width) the net is meant for; any multiple of 16 works. bins, thin_channels: the thin map has
    thin_channels * bins^2 = 245 channels. context_enhancement False: no CEM, the stride-16 map through a 1x1
    convolution in its place, and no stage behind that map, which nobody would read; spatial_attention False: no SAM.
    (After the paper's ablations, whose net without CEM costs too much to have lost its last stage as well.)
    sampling "ohem" or "random": see `detect.sampling`. roi_operator "align", "align_max" or "pool", roi_align: how it
    is computed (`detect.ps_roi_align`). Raises ValueError for an unknown backbone or word and for a number that cannot
    be.
    """
    check_counts(num_classes=num_classes, bins=bins, thin_channels=thin_channels)
    check_counts(rpn_channels=rpn_channels, fc_channels=fc_channels)
    strides = (16, 32) if context_enhancement else (16,)
    backbone = reach_strides(backbone, strides, weights=backbone_weights, options=backbone_options)
    height, width = checked_input_size(input_size)
    thin = thin_channels * bins * bins
    rpn = RegionProposalNetwork(
        light_trunk(thin, rpn_channels, rpn_kernel_size),
        rpn_channels,
        stride=16,
        anchor_scales=anchor_scales,
        anchor_ratios=anchor_ratios,
    )
    operator = create_roi_operator(roi_operator, bins, 16, method=roi_align)
    return TwoStageDetector(
        backbone,
        ContextEnhancementModule(backbone.feature_info, thin)
        if context_enhancement
        else SingleMapNeck(backbone.feature_info[0].channels, thin),
        rpn,
        SpatialAttentionModule(rpn_channels, thin) if spatial_attention else None,
        LightHead(operator, thin, num_classes, fc_channels=fc_channels),
        num_classes=num_classes,
        input_size=(height, width),
        test_proposals=test_proposals,
        test_before_nms=test_before_nms,
        rpn_positive_iou=rpn_positive_iou,
        rpn_negative_iou=rpn_negative_iou,
        sampling=ProposalSampling(sampling, train_proposals, train_before_nms, samples, positive_fraction),
        box_loss=box_loss,
        box_weight=box_weight,
    )


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
