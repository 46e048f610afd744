"""The region proposal network: where something might be.

Reference: Ren et al., Faster R-CNN, NeurIPS 2015, arXiv:1506.01497, section 3.1; its light form from Qin et al.,
ThunderNet, arXiv:1903.11752, section 3.2 (5x5 depthwise, 1x1 to 256 channels).
Deviations: the trunk's two convolutions are followed by batch norm and ReLU, as in the authors' release (the paper does
not say). Objectness is a two-way softmax: with it the published multiply-adds come out (43 M), with a sigmoid not.
Anchors across the picture's edge are trained as well, where Faster R-CNN leaves them out.
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


class RegionProposalNetwork(nn.Module):
    """Scores and moves the anchors of one feature map, and proposes the best of them."""

    def __init__(
        self,
        in_channels: int,
        *,
        stride: int,
        channels: int = 256,
        kernel_size: int = 5,
        anchor_scales: Sequence[float] = (32, 64, 128, 256, 512),
        anchor_ratios: Sequence[float] = (1 / 2, 3 / 4, 1, 4 / 3, 2),
        nms_threshold: float = 0.7,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.nms_threshold = nms_threshold
        self.anchors = AnchorGrid(anchor_scales, anchor_ratios, stride)
        self.trunk = nn.Sequential(
            conv_norm_act(in_channels, in_channels, kernel_size, groups=in_channels),
            conv_norm_act(in_channels, channels, 1),
        )
        self.objectness = nn.Conv2d(channels, self.anchors.per_cell * 2, 1)
        self.deltas = nn.Conv2d(channels, self.anchors.per_cell * 4, 1)
        for layer in (self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:  # it never is; the annotation of Conv2d allows it
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> RPNOutput:
        """features [N, in_channels, h, w] -> scores and deltas for every anchor."""
        shared = self.trunk(features)
        objectness = self.objectness(shared).permute(0, 2, 3, 1).reshape(len(features), -1, 2)
        deltas = self.deltas(shared).permute(0, 2, 3, 1).reshape(len(features), -1, 4)
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
        kept = keep_mask(boxes, scores.masked_fill(~usable, -torch.inf), self.nms_threshold) & usable
        scores, places = scores.masked_fill(~kept, -torch.inf).topk(min(count, before), dim=1)
        boxes = boxes.gather(1, places[..., None].expand(-1, -1, 4))
        return boxes.masked_fill(~torch.isfinite(scores)[..., None], 0.0)
