"""Light-Head R-CNN: a thin map from a large separable convolution, and one fully connected layer on it.

Reference: Li et al., Light-Head R-CNN: In Defense of Two-Stage Object Detector, 2017, arXiv:1711.07264: section 3.2
(thin map, Figure 3: large separable convolution; RPN), section 4 (settings L and S, OHEM, the doubled box loss).
Deviations: the paper does not say at which stride setting S reads its thin map. Its backbone ends at 32 and S goes
without dilation, so 32 is the default here; `thin_stride=16` takes the stride out of the last stage, as others have
read it. A ReLU follows the large separable convolution, the RPN's suppression starts from 12,000 anchors in training
and 6,000 at test, and both are the authors' code's. Boxes are shared by the classes, as the paper says; that code has a
box per class. Their code takes the maximum of an RoI's samples (`roi_operator="align_max"`). What the paper freezes
(the first stages, all batch norms) is a choice of the training, not of the net. Pictures are stretched to the input
size, where the paper keeps their shape (shorter side 800, longer at most 1200), and `predict` suppresses by Soft-NMS
unless it is told otherwise, where the paper suppresses at an IoU of 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

from torch import Tensor, nn

from backbones import Backbone, reach_strides
from backbones.base import FeatureInfo
from backbones.registry import nearest, preset

from .ps_roi_align import create_roi_operator
from .rcnn_head import LightHead
from .registry import DETECTORS, register_presets
from .rpn import RegionProposalNetwork, plain_trunk
from .sampling import ProposalSampling
from .two_stage import NeckMaps, TwoStageDetector, check_counts, checked_input_size


class Setting(NamedTuple):
    """What differs between the paper's two settings: channels inside the large separable convolution (C_mid) and of
    the RPN; the stride of the thin map, and the dilation that makes up for a stride taken out of the last stage.
    """

    middle_channels: int
    rpn_channels: int
    thin_stride: int
    dilation: int


SETTINGS = {"S": Setting(64, 256, 32, 1), "L": Setting(256, 512, 16, 2)}
RPN_STRIDE = 16


class LargeSeparableConv(nn.Module):
    """k x 1 then 1 x k, beside it 1 x k then k x 1, summed, then ReLU (Figure 3); no norm, biases in all four.

    [N, in_channels, h, w] -> [N, out_channels, h, w], `middle_channels` between the two of a branch.
    Raises ValueError for a kernel that is not odd.
    """

    def __init__(self, in_channels: int, middle_channels: int, out_channels: int, *, kernel_size: int = 15) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; expected an odd number above 0")
        tall, wide = (kernel_size, 1), (1, kernel_size)
        reach = kernel_size // 2
        self.tall_first = nn.Sequential(
            nn.Conv2d(in_channels, middle_channels, tall, padding=(reach, 0)),
            nn.Conv2d(middle_channels, out_channels, wide, padding=(0, reach)),
        )
        self.wide_first = nn.Sequential(
            nn.Conv2d(in_channels, middle_channels, wide, padding=(0, reach)),
            nn.Conv2d(middle_channels, out_channels, tall, padding=(reach, 0)),
        )
        self.act = nn.ReLU(inplace=True)
        for name, parameter in self.named_parameters():
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.normal_(parameter, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        summed: Tensor = self.act(self.tall_first(features) + self.wide_first(features))
        return summed


class LightHeadNeck(nn.Module):
    """The RPN reads the first of two maps as it is, the head a thin map made of the second."""

    def __init__(
        self, feature_info: Sequence[FeatureInfo], middle_channels: int, out_channels: int, *, kernel_size: int
    ) -> None:
        super().__init__()
        self.thin = LargeSeparableConv(feature_info[1].channels, middle_channels, out_channels, kernel_size=kernel_size)

    def forward(self, features: Sequence[Tensor]) -> NeckMaps:
        """[C4 [N, c4, h, w], C5] -> C4 and [N, out_channels, as C5]."""
        middle, coarse = features
        return NeckMaps(middle, self.thin(coarse))


@DETECTORS.register_module()
def light_head_rcnn(
    backbone: str | Backbone = "xception145",
    *,
    setting: str = "S",
    num_classes: int = 80,
    backbone_weights: str | PathLike[str] | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    input_size: Sequence[int] = (800, 1200),
    thin_stride: int | None = None,
    dilation: int | None = None,
    middle_channels: int | None = None,
    kernel_size: int = 15,
    bins: int = 7,
    thin_channels: int = 10,
    rpn_channels: int | None = None,
    fc_channels: int = 2048,
    anchor_scales: Sequence[float] = (32, 64, 128, 256, 512),
    anchor_ratios: Sequence[float] = (1 / 2, 1, 2),
    test_proposals: int = 1000,
    test_before_nms: int = 6000,
    rpn_positive_iou: float = 0.7,
    rpn_negative_iou: float = 0.3,
    sampling: str = "ohem",
    train_proposals: int = 2000,
    train_before_nms: int = 12000,
    samples: int = 256,
    positive_fraction: float = 0.25,
    box_loss: str = "smooth_l1",
    box_weight: float = 2.0,
    roi_operator: str = "align",
    roi_align: str = "operator",
) -> TwoStageDetector:
    """Light-Head R-CNN on any backbone; the defaults are the paper's where it says.

    backbone: extended to stride 32 where it ends at 16. setting "S" (small: C_mid 64, RPN of 256 channels, thin map at
    stride 32) or "L" (large: 256, 512, stride 16 with dilation 2): what thin_stride, dilation, middle_channels (C_mid)
    and rpn_channels are where they are None. thin_stride 16: the last stage, also one that was appended, does not
    stride. input_size: (height, width) the net is meant for; any multiple of 16 works. bins, thin_channels: the thin
    map has thin_channels * bins^2 = 490 channels. The rest as in `thundernet`. Raises ValueError for an unknown
    backbone or word and for a number that cannot be.
    """
    chosen = _settle(setting, middle_channels, rpn_channels, thin_stride, dilation)
    check_counts(num_classes=num_classes, bins=bins, thin_channels=thin_channels, fc_channels=fc_channels)
    backbone = reach_strides(backbone, (RPN_STRIDE, 32), weights=backbone_weights, options=backbone_options)
    if chosen.thin_stride == RPN_STRIDE:
        backbone.hold_last_stride(dilation=chosen.dilation)
    height, width = checked_input_size(input_size)
    thin = thin_channels * bins * bins
    rpn = RegionProposalNetwork(
        plain_trunk(backbone.feature_info[0].channels, chosen.rpn_channels),
        chosen.rpn_channels,
        stride=RPN_STRIDE,
        anchor_scales=anchor_scales,
        anchor_ratios=anchor_ratios,
    )
    operator = create_roi_operator(roi_operator, bins, chosen.thin_stride, method=roi_align)
    return TwoStageDetector(
        backbone,
        LightHeadNeck(backbone.feature_info, chosen.middle_channels, thin, kernel_size=kernel_size),
        rpn,
        None,
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


def _settle(
    setting: str, middle_channels: int | None, rpn_channels: int | None, thin_stride: int | None, dilation: int | None
) -> Setting:
    """The setting of that name, with those numbers in its place that are given. ValueError for what cannot be."""
    if setting not in SETTINGS:
        raise ValueError(f"setting {setting!r}{nearest(setting, SETTINGS)}: it is one of {', '.join(SETTINGS)}")
    given = zip(Setting._fields, (middle_channels, rpn_channels, thin_stride, dilation), strict=True)
    chosen = SETTINGS[setting]._replace(**{name: value for name, value in given if value is not None})
    if chosen.thin_stride not in (RPN_STRIDE, 2 * RPN_STRIDE):
        raise ValueError(f"thin_stride is {chosen.thin_stride!r}; expected {RPN_STRIDE} or {2 * RPN_STRIDE}")
    if dilation is not None and chosen.thin_stride != RPN_STRIDE:
        raise ValueError(f"dilation is {dilation}, but with thin_stride {chosen.thin_stride} no stage is dilated")
    check_counts(**chosen._asdict())
    return chosen


register_presets(
    light_head_rcnn,
    (
        "xception145",
        "snet49",
        "snet146",
        "snet535",
        "shufflenet_v2_x0_5",
        "shufflenet_v2_x1_0",
        "shufflenet_v2_x1_5",
        "shufflenet_v2_x2_0",
    ),
)

for _backbone in ("resnet50", "resnet101"):
    DETECTORS.register_module(
        name=f"light_head_rcnn_{_backbone}", module=preset(light_head_rcnn, backbone=_backbone, setting="L")
    )
