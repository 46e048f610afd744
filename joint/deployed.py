"""A joint net as it is exported: pictures in, final boxes and the class of each pixel out, one backbone inside."""

from __future__ import annotations

from torch import Tensor, nn

from backbones.lean import lean_copy
from detect.deployed import DeployedDetector, normalized_rows
from segment.deployed import DeployedSegmenter

from .joint_net import JointNet


class DeployedJoint(nn.Module):
    """What `DeployedDetector` and `DeployedSegmenter` say of the same pictures, from one pass of the backbone.

    Works on a copy; the net is left as it was. Settings as in the two.
    """

    def __init__(
        self,
        net: JointNet,
        *,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
        roi_align: str = "grid_sample",
        keep_scores: bool = False,
    ) -> None:
        super().__init__()
        self.net = lean_copy(net)
        self.boxes = DeployedDetector(
            self.net.detector,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            roi_align=roi_align,
            prepared=True,
        )
        self.pixels = DeployedSegmenter(self.net.segmenter, keep_scores=keep_scores, prepared=True)

    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, ...]:
        """images [N, 3, h, w] uint8 or float, RGB 0..255, h and w multiples of 16 -> boxes [N, K, 4] xyxy in input
        pixels, scores [N, K], labels [N, K] int64, counts [N] int64, as `DeployedDetector` gives them, then the classes
        [N, H, W] uint8 of the pixels and, if kept, their scores [N, C, H, W]. size: (H, W) of these, by default (h, w).
        """
        seen = (images.shape[-2], images.shape[-1])
        normalized = normalized_rows(images, self.net.detector.mean, self.net.detector.std)
        for_boxes, for_pixels = self.net.features(normalized)
        logits = self.pixels.segmenter.forward_features(for_pixels, seen)
        return (*self.boxes.answers(for_boxes, seen), *self.pixels.answers(logits, size))
