"""The two-stage detector: features, proposals, then a second look at each proposal.

References: Ren et al., Faster R-CNN, NeurIPS 2015; ThunderNet and Light-Head R-CNN are two ways to furnish it.
Deviations: hard examples are chosen by the plain sum of class and box loss, whatever `box_weight` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from backbones import Backbone
from backbones.evaluation import in_evaluation
from backbones.task_net import TaskNet

from .boxes import areas, clip_boxes, decode_boxes
from .losses import BOX_LOSSES, HEAD_DEVIATIONS, head_losses, rpn_losses
from .nms import select_detections
from .rcnn_head import LightHead
from .results import Detections, DetectorOutputs, RawDetections, Target
from .rpn import RegionProposalNetwork, RPNOutput
from .sampling import ProposalSampling, sample_proposals

SIZE_STEP = 16  # one place of the stride-16 map; the stride-32 map rounds up (the paper trains at 240 too)


def checked_input_size(size: Sequence[int]) -> tuple[int, int]:
    """(height, width), both multiples of 16; ValueError, with the nearest that would do, for anything else."""
    if not hasattr(size, "__len__") or len(size) != 2 or any(side != int(side) or side < 1 for side in size):
        raise ValueError(f"size is {size!r}; expected (height, width) in pixels")
    height, width = (int(side) for side in size)
    if height % SIZE_STEP or width % SIZE_STEP:
        near = "x".join(str(max(SIZE_STEP, round(side / SIZE_STEP) * SIZE_STEP)) for side in (height, width))
        raise ValueError(f"size is {height}x{width}; both sides must be multiples of {SIZE_STEP} (nearest: {near})")
    return height, width


def check_counts(**counts: int) -> None:
    """ValueError for a number that is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; expected at least 1")


def check_thresholds(**thresholds: float) -> None:
    """ValueError for a number outside of 0..1."""
    for name, threshold in thresholds.items():
        if not 0 <= threshold <= 1:
            raise ValueError(f"{name} is {threshold}; expected a number in 0..1")


class NeckMaps(NamedTuple):
    """What a neck makes of the backbone's maps: proposals, what the RPN reads; thin, what the head reads in the end."""

    proposals: Tensor
    thin: Tensor


class TwoStageDetector(TaskNet):
    """backbone -> neck -> RPN -> refine -> RoI operator and head.

    neck: list of feature maps -> `NeckMaps`; refine: (the neck's thin map, the RPN's shared map) -> the thin map that
    the head reads, None where that is the neck's; both plain modules. box_weight: of the head's box loss.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: nn.Module,
        rpn: RegionProposalNetwork,
        refine: nn.Module | None,
        head: LightHead,
        *,
        num_classes: int,
        name: str = "",
        input_size: tuple[int, int] = (320, 320),
        test_proposals: int = 200,
        test_before_nms: int = 1000,
        rpn_samples: int = 256,
        rpn_positive_fraction: float = 0.5,
        rpn_positive_iou: float = 0.7,
        rpn_negative_iou: float = 0.3,
        sampling: ProposalSampling | None = None,
        box_loss: str = "smooth_l1",
        box_weight: float = 1.0,
    ) -> None:
        super().__init__(backbone, num_classes=num_classes, name=name, input_size=input_size)
        check_counts(test_proposals=test_proposals, test_before_nms=test_before_nms)
        if not 0 <= rpn_negative_iou <= rpn_positive_iou <= 1:
            raise ValueError(
                f"rpn_negative_iou {rpn_negative_iou}, rpn_positive_iou {rpn_positive_iou}: expected 0..1, rising"
            )
        if box_weight <= 0:
            raise ValueError(f"box_weight is {box_weight}; expected a number above 0")
        if box_loss not in BOX_LOSSES:
            raise ValueError(f"box_loss {box_loss!r}: it is one of {', '.join(BOX_LOSSES)}")
        self.neck, self.rpn, self.refine, self.head = neck, rpn, refine, head
        self.test_proposals, self.test_before_nms = test_proposals, test_before_nms
        self.rpn_samples, self.rpn_positive_fraction = rpn_samples, rpn_positive_fraction
        self.rpn_positive_iou, self.rpn_negative_iou = rpn_positive_iou, rpn_negative_iou
        self.sampling = sampling or ProposalSampling()
        self.box_loss, self.box_weight = box_loss, box_weight

    def normalize(self, images: Tensor) -> Tensor:
        """As in `TaskNet`; ValueError also for sides that are no multiples of 16."""
        normalized = super().normalize(images)
        checked_input_size(images.shape[2:])
        return normalized

    def ends(self) -> tuple[str, ...]:
        """What says where objects are, and which."""
        return ("rpn.objectness", "rpn.deltas", "head.classify", "head.regress")

    def forward(self, images: Tensor) -> RawDetections:
        """images [N, 3, H, W] uint8 or float, RGB 0..255, H and W multiples of 16 -> R proposals each."""
        features = self.backbone(self.normalize(images))
        return self.forward_features(features, (images.shape[-2], images.shape[-1]))

    def forward_features(self, features: Sequence[Tensor], size: tuple[int, int]) -> RawDetections:
        """`forward` on feature maps made elsewhere, of pictures of `size` (height, width)."""
        proposed, thin = self._look(features)
        proposals = self.rpn.propose(proposed, size, before=self.test_before_nms, count=self.test_proposals)
        class_logits, deltas = self.head(thin, proposals)
        boxes = clip_boxes(decode_boxes(deltas, proposals, HEAD_DEVIATIONS), size)
        # Padding, and what has no area, stays all zero.
        is_real = (areas(proposals) > 0) & (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        scores = class_logits.float().softmax(dim=-1)[..., :-1]
        return RawDetections(boxes.where(is_real[..., None], 0.0), scores.where(is_real[..., None], 0.0))

    def look(self, images: Tensor) -> tuple[RPNOutput, Tensor]:
        """What the RPN says of images as in `forward`, and the thin map that `head` reads for any boxes."""
        return self._look(self.backbone(self.normalize(images)))

    def _look(self, features: Sequence[Tensor]) -> tuple[RPNOutput, Tensor]:
        """What the RPN says, and the thin map that the head reads."""
        maps: NeckMaps = self.neck(features)
        proposed: RPNOutput = self.rpn(maps.proposals)
        return proposed, maps.thin if self.refine is None else self.refine(maps.thin, proposed.shared)

    def outputs(self, images: Tensor, targets: list[Target]) -> DetectorOutputs:
        """Every tensor that a loss needs; the proposals to learn from are drawn here. Images as in `forward`."""
        features = self.backbone(self.normalize(images))
        return self.outputs_from_features(features, (images.shape[-2], images.shape[-1]), targets)

    def outputs_from_features(
        self, features: Sequence[Tensor], size: tuple[int, int], targets: list[Target]
    ) -> DetectorOutputs:
        """`outputs` on feature maps made elsewhere. ValueError where the targets do not go with them."""
        self._check_targets(targets, len(features[0]))
        proposed, thin = self._look(features)
        setting = self.sampling
        proposals = self.rpn.propose(proposed, size, before=setting.before_nms, count=setting.proposals)
        sample = sample_proposals(
            proposals,
            targets,
            self.num_classes,
            setting,
            head=lambda boxes: self.head(thin.detach(), boxes),
            box_loss=self.box_loss,
        )
        class_logits, box_deltas = self.head(thin, sample.proposals)
        return DetectorOutputs(
            proposed.anchors, proposed.objectness, proposed.deltas, *sample, class_logits, box_deltas
        )

    def _check_targets(self, targets: list[Target], num_pictures: int) -> None:
        if len(targets) != num_pictures:
            raise ValueError(f"{len(targets)} targets came with {num_pictures} pictures")
        for target in targets:
            strange = target.labels[(target.labels < 0) | (target.labels >= self.num_classes)]
            if len(strange):
                expected = f"expected 0..{self.num_classes - 1}"
                raise ValueError(f"picture {target.image_id} has an object of class {int(strange[0])}; {expected}")

    def losses_from(self, outputs: DetectorOutputs, targets: list[Target]) -> dict[str, Tensor]:
        """Scalars named loss_*; their sum is what training minimises."""
        first = rpn_losses(
            outputs,
            targets,
            samples=self.rpn_samples,
            positive_fraction=self.rpn_positive_fraction,
            positive_iou=self.rpn_positive_iou,
            negative_iou=self.rpn_negative_iou,
        )
        return {**first, **head_losses(outputs, box_loss=self.box_loss, box_weight=self.box_weight)}

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """`losses_from(outputs(images, targets), targets)`."""
        return self.losses_from(self.outputs(images, targets), targets)

    @torch.no_grad()
    def predict(
        self,
        images: Tensor,
        *,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
        suppression: str = "soft",
    ) -> list[Detections]:
        """The objects in each picture, in input pixels, best first; always as in evaluation mode."""
        with in_evaluation(self):
            raw = self(images)
        return select_detections(
            raw,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            suppression=suppression,
        )
