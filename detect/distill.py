"""How a detector learns from another one: from its boxes with their scores, or from its second look at proposals.

References: Hinton et al., 2015, arXiv:1503.02531 (soft targets, temperature); Chen et al., Learning Efficient Object
Detection Models with Knowledge Distillation, NeurIPS 2017 (soft classes of proposals, hints); Beyer et al., Knowledge
distillation: A good teacher is patient and consistent, CVPR 2022, arXiv:2106.05237 (the teacher sees the very view).
Deviations: boxes are learnt from the truth and from the teacher's sure boxes, as objects; there is no bounded
regression. A teacher's score is taken for the probability of its class, and what is left for that of the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compress.distill import divergence, soft_loss, soften

from .boxes import areas, intersections, pairwise_iou
from .matching import CROWD_OVERLAP
from .results import DetectorOutputs, Target
from .rpn import RPNOutput

SAME_OBJECT = 0.5  # IoU from which two boxes of one class are of one object


class Taught(NamedTuple):
    """What is known of one picture, in pixels of the network's input: the truth, and what a teacher says of this view.

    boxes: [K, 4] xyxy; scores: [K] in 0..1; labels: [K] int64, 0..C-1; features: [channels, h, w] for each hint, over
    the whole view.
    """

    target: Target
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    features: tuple[Tensor, ...] = ()


class BoxLesson:
    """Boxes with scores, of any teacher: those that come with the pictures (`Taught`), or a net's own `predict`.

    - "loss_soft_class": the student's class of each of its proposals, against the best score that the teacher gives to
      a box of IoU `SAME_OBJECT` with it, softened by the temperature. weight 0 leaves it out.
    - A box of at least `object_score` that has an IoU of `SAME_OBJECT` with no object of its class is an object like
      any other: the truth of few data sets is complete. None adds none.
    - One of at least `ignore_score`, but less, is a region that speaks neither for nor against an object, unless it
      lies in an object already. None ignores nothing.

    Raises ValueError for numbers that cannot be.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        temperature: float = 1.0,
        weight: float = 1.0,
        object_score: float | None = 0.5,
        ignore_score: float | None = 0.25,
    ) -> None:
        _check_numbers(temperature, soft_weight=weight)
        for name, score in (("object_score", object_score), ("ignore_score", ignore_score)):
            if score is not None and not 0 < score <= 1:
                raise ValueError(f"{name} is {score}; expected above 0, at most 1, or none")
        if object_score is not None and ignore_score is not None and ignore_score > object_score:
            raise ValueError(f"ignore_score is {ignore_score}, object_score {object_score}; expected no more than that")
        self.num_classes, self.temperature, self.weight = num_classes, temperature, weight
        self.object_score, self.ignore_score = object_score, ignore_score

    def ask(self, teacher: Any, images: Tensor, truth: Sequence[Target] | Sequence[Taught]) -> list[Taught]:
        """The teacher's boxes beside the truth of each picture."""
        if teacher is None:
            return [_checked(known) for known in truth]
        found = teacher.predict(images, score_threshold=0.01, suppression="hard")
        return [
            Taught(known, each.boxes, each.scores, each.labels)
            for known, each in zip(truth, found, strict=True)
            if isinstance(known, Target)
        ]

    def truth(self, truth: Any, answer: Sequence[Taught]) -> list[Target]:  # noqa: ARG002 (it belongs to the interface)
        """What the student is to find."""
        return [complete(taught, self.object_score, self.ignore_score) for taught in answer]

    def losses(self, outputs: DetectorOutputs, answer: Sequence[Taught]) -> dict[str, Tensor]:
        """{"loss_soft_class": mean over the proposals}."""
        if not self.weight:
            return {}
        wanted = torch.stack(
            [
                box_opinions(proposals, taught, self.num_classes)
                for proposals, taught in zip(outputs.proposals, answer, strict=True)
            ]
        )
        each = divergence(outputs.class_logits, soften(wanted, self.temperature), self.temperature)
        return {"loss_soft_class": self.weight * _mean_over_proposals(each, outputs.proposals)}

    def features(self, answer: Sequence[Taught]) -> list[Tensor]:
        """[N, channels, h, w] for each hint."""
        return [torch.stack(maps) for maps in zip(*(taught.features for taught in answer), strict=True)]


class ProposalLesson:
    """A teacher of this project looks at the student's own proposals, and at its anchors.

    - "loss_soft_class": the student's class of each of its proposals, against the teacher's head on the same box.
    - "loss_soft_objectness": the student's RPN against the teacher's, anchor by anchor. Divided by how many
      anchors one of them takes for an object, each counted by its probability: nearly all are plain background.

    Either weight may be 0. Raises ValueError for numbers that cannot be, and, when it is asked, for a teacher with
    other anchors where objectness is to be learnt.
    """

    def __init__(self, *, temperature: float = 1.0, weight: float = 1.0, objectness_weight: float = 1.0) -> None:
        _check_numbers(temperature, soft_weight=weight, objectness_weight=objectness_weight)
        self.temperature, self.weight, self.objectness_weight = temperature, weight, objectness_weight

    def ask(self, teacher: Any, images: Tensor, truth: Any) -> Judge:  # noqa: ARG002 (it belongs to the interface)
        """The teacher's first look."""
        proposed, thin = teacher.look(images)
        return Judge(proposed, thin, teacher.head)

    def truth(self, truth: Any, answer: Judge) -> Any:  # noqa: ARG002 (it belongs to the interface)
        """As it is."""
        return truth

    def losses(self, outputs: DetectorOutputs, answer: Judge) -> dict[str, Tensor]:
        """Both terms."""
        losses = {}
        if self.weight:
            with torch.no_grad():
                judged, _ = answer.head(answer.thin, outputs.proposals)
            each = soft_loss(outputs.class_logits, judged, self.temperature)
            losses["loss_soft_class"] = self.weight * _mean_over_proposals(each, outputs.proposals)
        if self.objectness_weight:
            losses["loss_soft_objectness"] = self.objectness_weight * self._objectness(outputs, answer.proposed)
        return losses

    def _objectness(self, outputs: DetectorOutputs, proposed: RPNOutput) -> Tensor:
        if outputs.anchors.shape != proposed.anchors.shape or not torch.equal(outputs.anchors, proposed.anchors):
            counts = f"{len(proposed.anchors)}, the student {len(outputs.anchors)}"
            raise ValueError(f"the teacher has other anchors ({counts}); expected the same, or objectness_weight 0")
        each = soft_loss(outputs.objectness, proposed.objectness, self.temperature)
        objects = [
            logits.detach().float().softmax(dim=-1)[..., 1] for logits in (outputs.objectness, proposed.objectness)
        ]
        return each.sum() / torch.maximum(*objects).sum().clamp(min=1)

    def features(self, answer: Judge) -> Sequence[Tensor]:  # noqa: ARG002 (it belongs to the interface)
        """None: the teacher is a net that is asked."""
        return ()


class Judge(NamedTuple):
    """What a teacher saw at first, and the head for its second look."""

    proposed: RPNOutput
    thin: Tensor
    head: nn.Module


def box_opinions(proposals: Tensor, taught: Taught, num_classes: int) -> Tensor:
    """proposals [R, 4] -> [R, C + 1], the background last: what the teacher holds each of them for."""
    opinions = proposals.new_zeros(len(proposals), num_classes, dtype=torch.float32)
    if len(taught.boxes):
        overlaps = pairwise_iou(proposals, taught.boxes)
        scores = taught.scores.float().where(overlaps >= SAME_OBJECT, 0.0)
        opinions.scatter_reduce_(1, taught.labels.expand(len(proposals), -1), scores, "amax")
    total = opinions.sum(dim=1, keepdim=True)
    return torch.cat((opinions / total.clamp(min=1), (1 - total).clamp(min=0)), dim=1)


def complete(taught: Taught, object_score: float | None, ignore_score: float | None) -> Target:
    """The truth with the teacher's sure boxes as objects and its doubtful ones as crowds: see `BoxLesson`."""
    target = taught.target
    real = areas(taught.boxes) > 0
    objects, labels = target.boxes[~target.is_crowd], target.labels[~target.is_crowd]
    sure = real & (taught.scores >= object_score) if object_score is not None else torch.zeros_like(real)
    added = _new_objects(taught, sure, objects, labels)
    known = torch.cat((objects, taught.boxes[added]))
    doubtful = torch.zeros_like(real)
    if ignore_score is not None:
        inside = intersections(taught.boxes, known).amax(dim=1) if len(known) else taught.scores.new_zeros(len(real))
        apart = inside < CROWD_OVERLAP * areas(taught.boxes)
        doubtful = real & ~sure & (taught.scores >= ignore_score) & apart
    chosen = torch.cat((added, doubtful.nonzero()[:, 0]))
    return target._replace(
        boxes=torch.cat((target.boxes, taught.boxes[chosen].to(target.boxes.dtype))),
        labels=torch.cat((target.labels, taught.labels[chosen])),
        is_crowd=torch.cat((target.is_crowd, doubtful[chosen])),
    )


def _new_objects(taught: Taught, sure: Tensor, objects: Tensor, labels: Tensor) -> Tensor:
    """The places of the sure boxes that are of no object yet, best first, each object once."""
    added: list[int] = []
    candidates = sure.nonzero()[:, 0]
    for place in candidates[taught.scores[candidates].argsort(descending=True)].tolist():
        box, label = taught.boxes[place : place + 1], taught.labels[place]
        same = labels == label
        if not same.any() or pairwise_iou(box, objects[same]).amax() < SAME_OBJECT:
            added.append(place)
            objects, labels = torch.cat((objects, box)), torch.cat((labels, label[None]))
    return torch.tensor(added, dtype=torch.int64, device=sure.device)


def _mean_over_proposals(each: Tensor, proposals: Tensor) -> Tensor:
    """each [N, R] -> its mean over proposals [N, R, 4] that are no padding."""
    real = areas(proposals) > 0
    return each.where(real, 0.0).sum() / real.sum().clamp(min=1)


def _checked(known: Any) -> Taught:
    if not isinstance(known, Taught):
        raise ValueError(f"a picture came with {type(known).__name__}; expected Taught, as there is no teacher to ask")
    return known


def _check_numbers(temperature: float, **weights: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; expected a number above 0")
    for name, weight in weights.items():
        if weight < 0:
            raise ValueError(f"{name} is {weight}; expected a number from 0")
