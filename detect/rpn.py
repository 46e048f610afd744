"""The region proposal network: where something might be.

Reference: Ren et al., Faster R-CNN, NeurIPS 2015, arXiv:1506.01497, section 3.1; its light form from Qin et al.,
ThunderNet, arXiv:1903.11752, section 3.2 (5x5 depthwise, 1x1 to 256 channels).
Deviations: the light trunk's two convolutions are followed by batch norm and ReLU, as in the authors' release (the
paper does not say); the plain trunk has a bias and no norm, as in Faster R-CNN. Objectness is a two-way softmax: with
it ThunderNet's published multiply-adds come out (43 M), with a sigmoid not. Anchors across the picture's edge are
trained as well, where Faster R-CNN leaves them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from backbones.layers import conv_norm_act

from .anchors import AnchorGrid
from .boxes import clip_boxes, decode_boxes
from .nms import keep_mask


class RPNOutput(NamedTuple):
    """shared: [N, channels, h, w], the map behind both answers; objectness: [N, A, 2] logits (background, object);
    deltas: [N, A, 4]; anchors: [A, 4], in the same order.
    """

    shared: Tensor
    objectness: Tensor
    deltas: Tensor
    anchors: Tensor


def light_trunk(in_channels: int, channels: int = 256, kernel_size: int = 5) -> nn.Sequential:
    """ThunderNet's: a depthwise and a 1x1 convolution. ValueError for a kernel that is not odd."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"rpn_kernel_size is {kernel_size}; expected an odd number above 0")
    return nn.Sequential(
        conv_norm_act(in_channels, in_channels, kernel_size, groups=in_channels),
        conv_norm_act(in_channels, channels, 1),
    )


def plain_trunk(in_channels: int, channels: int = 256) -> nn.Sequential:
    """Faster R-CNN's and Light-Head R-CNN's: a 3x3 convolution and ReLU."""
    convolution = nn.Conv2d(in_channels, channels, 3, padding=1)
    _initialize(convolution)
    return nn.Sequential(convolution, nn.ReLU(inplace=True))


def _initialize(convolution: nn.Conv2d) -> None:
    nn.init.normal_(convolution.weight, std=0.01)
    if convolution.bias is not None:  # it never is; the annotation of Conv2d allows it
        nn.init.zeros_(convolution.bias)


class RegionProposalNetwork(nn.Module):
    """Scores and moves the anchors of one feature map, and proposes the best of them.

    trunk: the feature map -> a map of as many places and `channels`, which both answers are made from.
    """

    def __init__(
        self,
        trunk: nn.Module,
        channels: int,
        *,
        stride: int,
        anchor_scales: Sequence[float] = (32, 64, 128, 256, 512),
        anchor_ratios: Sequence[float] = (1 / 2, 3 / 4, 1, 4 / 3, 2),
        nms_threshold: float = 0.7,
    ) -> None:
        super().__init__()
        self.nms_threshold = nms_threshold
        self.anchors = AnchorGrid(anchor_scales, anchor_ratios, stride)
        self.trunk = trunk
        self.objectness = nn.Conv2d(channels, self.anchors.per_cell * 2, 1)
        self.deltas = nn.Conv2d(channels, self.anchors.per_cell * 4, 1)
        for layer in (self.objectness, self.deltas):
            _initialize(layer)

    def forward(self, features: Tensor) -> RPNOutput:
        """features, as the trunk takes them -> scores and deltas for every anchor."""
        shared = self.trunk(features)
        objectness = self.objectness(shared).permute(0, 2, 3, 1).reshape(features.shape[0], -1, 2)
        deltas = self.deltas(shared).permute(0, 2, 3, 1).reshape(features.shape[0], -1, 4)
        return RPNOutput(shared, objectness, deltas, self.anchors(features.shape[-2:]))

    def propose(self, output: RPNOutput, size: tuple[int, int], *, before: int, count: int) -> Tensor:
        """The best `count` boxes of each picture [N, R, 4], best first, clipped to `size` (height, width), no gradient.

        The best `before` anchors go into the suppression; what it leaves is filled up with all-zero boxes. R is `count`
        or, where there are fewer, `before` or the number of anchors. Boxes without area and those that are not finite
        are no proposals: PSRoIAlign would read beyond the map for them.
        """
        objectness = output.objectness.detach().float()
        scores = objectness[..., 1] - objectness[..., 0]
        before = min(before, scores.shape[1])
        scores, places = scores.topk(before, dim=1)
        deltas = output.deltas.detach().float().gather(1, places[..., None].expand(-1, -1, 4))
        boxes = clip_boxes(decode_boxes(deltas, output.anchors[places].float()), size)
        usable = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1]) & torch.isfinite(scores)
        boxes = boxes.where(usable[..., None], 0.0)
        kept = usable
        if not boxes.is_meta:  # there only shapes are asked for
            kept = keep_mask(boxes, scores.masked_fill(~usable, -torch.inf), self.nms_threshold) & usable
        scores, places = scores.masked_fill(~kept, -torch.inf).topk(min(count, before), dim=1)
        boxes = boxes.gather(1, places[..., None].expand(-1, -1, 4))
        return boxes.masked_fill(~torch.isfinite(scores)[..., None], 0.0)
