"""What a joint net takes and gives: the truth of both kinds, raw outputs, and the answer that a user holds.

Named tuples cross devices and `torch.export`; the frozen dataclass is for people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from detect.results import Detections, DetectorOutputs, RawDetections, Target
from segment.results import Segmentation, SegmenterOutputs


class JointTruth(NamedTuple):
    """What is known of the pictures of a batch, one entry each.

    targets: boxes, None for a picture whose objects nobody marked; labels: [H, W] int64 classes, 255 = ignore, None for
    a picture whose pixels nobody labelled. None in place of a list: no picture of the batch has any.
    """

    targets: Sequence[Target | None] | None = None
    labels: Sequence[Tensor | None] | Tensor | None = None


class RawJoint(NamedTuple):
    """What `forward` gives: the detector's raw boxes and scores, and the segmenter's logits [N, C, H, W]."""

    detections: RawDetections
    logits: Tensor


class JointOutputs(NamedTuple):
    """Every tensor that a loss needs, of the pictures that have such truth; None where none of the batch has."""

    detector: DetectorOutputs | None
    segmenter: SegmenterOutputs | None


@dataclass(frozen=True, eq=False)
class JointAnswer:
    """The objects in one picture and the class of each of its pixels, both in the same pixels."""

    detections: Detections
    segmentation: Segmentation

    def to(self, device: torch.device | str) -> JointAnswer:
        """The same on another device."""
        return JointAnswer(self.detections.to(device), self.segmentation.to(device))
