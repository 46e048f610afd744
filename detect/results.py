"""What detectors take and give: ground truth, raw outputs, and the detections that a user holds.

Named tuples cross devices and `torch.export`; the frozen dataclass is for people.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Target(NamedTuple):
    """Ground truth of one picture, in pixels of the network's input.

    boxes: [M, 4] xyxy, 0 <= x1 < x2 <= W; labels: [M] int64, 0..C-1; is_crowd: [M] bool, ignored by the losses and
    honoured by the metric; original_size: (height, width) of the picture on disk.
    """

    boxes: Tensor
    labels: Tensor
    is_crowd: Tensor
    image_id: int
    original_size: tuple[int, int]


class RawDetections(NamedTuple):
    """What `forward` gives: fixed shapes, no class-wise suppression yet.

    boxes: [N, R, 4] xyxy in input pixels, padded rows all zero; scores: [N, R, C], the background removed.
    """

    boxes: Tensor
    scores: Tensor


class DetectorOutputs(NamedTuple):
    """Every tensor that a loss needs; A anchors, R proposals drawn for the box head, C classes.

    anchors: [A, 4]; objectness: [N, A, 2] logits (background, object); anchor_deltas: [N, A, 4];
    proposals: [N, R, 4]; proposal_labels: [N, R] int64, C for background and -1 for "not counted";
    proposal_boxes: [N, R, 4] the ground truth that each proposal was matched to;
    class_logits: [N, R, C + 1], the background last; box_deltas: [N, R, 4].
    """

    anchors: Tensor
    objectness: Tensor
    anchor_deltas: Tensor
    proposals: Tensor
    proposal_labels: Tensor
    proposal_boxes: Tensor
    class_logits: Tensor
    box_deltas: Tensor


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one picture, best first.

    boxes: [K, 4] xyxy in the pixels of whatever picture the maker names; scores: [K] in 0..1, falling;
    labels: [K] int64 class indices. Raises ValueError where the shapes disagree.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        count = len(self.scores) if self.scores.ndim == 1 else -1
        if self.boxes.shape != (count, 4) or self.labels.shape != (count,):
            shapes = [tuple(part.shape) for part in (self.boxes, self.scores, self.labels)]
            raise ValueError(f"boxes, scores and labels have shapes {shapes}; expected [K, 4], [K] and [K]")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Any) -> Detections:
        """Choose by mask, slice, list or place: `detections[detections.scores > 0.5]`, `detections[0]`."""
        if not isinstance(index, slice | list) and getattr(index, "ndim", 0) == 0:
            index = [operator.index(index)]
        return Detections(self.boxes[index], self.scores[index], self.labels[index])

    def scaled(self, fx: float, fy: float) -> Detections:
        """The same objects in a picture that is `fx` times as wide and `fy` times as high."""
        factors = torch.tensor([fx, fy, fx, fy], dtype=self.boxes.dtype, device=self.boxes.device)
        return Detections(self.boxes * factors, self.scores, self.labels)

    def to(self, device: torch.device | str) -> Detections:
        """The same objects on another device."""
        return Detections(self.boxes.to(device), self.scores.to(device), self.labels.to(device))
