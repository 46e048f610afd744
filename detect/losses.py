"""The four losses of a two-stage detector.

Reference: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1.2. ThunderNet's paper does not state its losses; all four
weigh 1.0, as in the authors' release. Light-Head R-CNN doubles the head's box loss (arXiv:1711.07264, section 4.1).
GIoU: Rezatofighi et al., CVPR 2019, arXiv:1902.09630; `GIOU_WEIGHT` is mmdetection's for Faster R-CNN: without it a
loss of 0 to 2 for a box would push its offsets a tenth as hard as smooth L1 on divided offsets.
Deviations: smooth L1 as in Faster R-CNN, where the release has plain L1; a box loss is divided by the number of all
examples, not of the positive ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from .boxes import decode_boxes, encode_boxes
from .matching import IGNORED, draw_sample, match
from .results import DetectorOutputs, Target

BOX_LOSSES = ("smooth_l1", "giou")
HEAD_DEVIATIONS = (0.1, 0.1, 0.2, 0.2)
SMOOTH_L1_RPN = 1 / 9
GIOU_WEIGHT = 10.0


def rpn_losses(
    outputs: DetectorOutputs,
    targets: list[Target],
    *,
    samples: int,
    positive_fraction: float,
    positive_iou: float,
    negative_iou: float,
) -> dict[str, Tensor]:
    """Objectness over `samples` anchors of each picture drawn at random, and boxes of the positive ones among them."""
    logits, wanted, deltas, anchors, boxes = [], [], [], [], []
    for picture, target in enumerate(targets):
        found = match(outputs.anchors, target, positive_iou=positive_iou, negative_iou=negative_iou, low_quality=True)
        positives, negatives = draw_sample(found, samples, positive_fraction)
        chosen = torch.cat((positives, negatives))
        logits.append(outputs.objectness[picture, chosen])
        wanted.append(found.is_positive[chosen].long())
        deltas.append(outputs.anchor_deltas[picture, positives])
        anchors.append(outputs.anchors[positives])
        boxes.append(target.boxes[found.truth[positives]])
    objectness = F.cross_entropy(torch.cat(logits).float(), torch.cat(wanted), reduction="sum")
    truth = encode_boxes(torch.cat(boxes), torch.cat(anchors))
    box = F.smooth_l1_loss(torch.cat(deltas).float(), truth, beta=SMOOTH_L1_RPN, reduction="sum")
    count = max(1, sum(len(part) for part in wanted))
    return {"loss_rpn_objectness": objectness / count, "loss_rpn_box": box / count}


def head_losses_each(
    class_logits: Tensor, box_deltas: Tensor, proposals: Tensor, labels: Tensor, boxes: Tensor, *, box_loss: str
) -> tuple[Tensor, Tensor]:
    """Class and box loss of every proposal: all inputs [..., K], results [...]; zero where the label is `IGNORED`.

    labels: the class index, C for background (no box loss), `IGNORED` for neither.
    """
    background = class_logits.shape[-1] - 1
    flat = F.cross_entropy(
        class_logits.flatten(0, -2).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    places = ((labels >= 0) & (labels < background)).nonzero(as_tuple=True)
    chosen, truth, deltas = proposals[places], boxes[places], box_deltas[places].float()
    if box_loss == "giou":
        decoded = decode_boxes(deltas, chosen, HEAD_DEVIATIONS)
        found = GIOU_WEIGHT * generalized_box_iou_loss(decoded, truth, reduction="none")
    else:
        encoded = encode_boxes(truth, chosen, HEAD_DEVIATIONS)
        found = F.smooth_l1_loss(deltas, encoded, reduction="none").sum(dim=-1)
    return flat.view_as(labels), torch.zeros_like(labels, dtype=found.dtype).index_put(places, found)


def head_losses(outputs: DetectorOutputs, *, box_loss: str, box_weight: float = 1.0) -> dict[str, Tensor]:
    """Both losses summed over the counted proposals, divided by their number; the boxes' times `box_weight`."""
    classes, boxes = head_losses_each(
        outputs.class_logits,
        outputs.box_deltas,
        outputs.proposals,
        outputs.proposal_labels,
        outputs.proposal_boxes,
        box_loss=box_loss,
    )
    count = (outputs.proposal_labels != IGNORED).sum().clamp(min=1)
    return {"loss_class": classes.sum() / count, "loss_box": box_weight * boxes.sum() / count}
