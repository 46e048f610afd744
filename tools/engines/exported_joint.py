"""An exported joint net in the place of one that torch runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from joint.results import JointAnswer

from .exported import Answers, ExportedDetector, ExportedNet, ExportedSegmenter
from .exported_words import DETECTION, JOINT, SEGMENTATION
from .picture_graph import DETECTION_OUTPUTS

_BOX_OUTPUTS = len(DETECTION_OUTPUTS)  # the others are of pixels


class _Part(ExportedNet):
    """The file as if it gave one kind of answer alone; never run."""

    def __init__(self, whole: ExportedNet, task: str) -> None:
        names = whole.words.class_names if task == DETECTION else whole.words.pixel_class_names
        # One look for both: pixels are seen as boxes are, stretched.
        self.words = replace(whole.words, task=task, class_names=names, free_size=False)
        self.name, self.engine = whole.name, whole.engine


class ExportedJoint:
    """An exported joint net as a `FramePredictor`: one run of the file, boxes and the class of each pixel.

    size: (height, width) that the net sees, where the file leaves it open. Raises ValueError for a file of another kind
    of net, and as `ExportedDetector` and `ExportedSegmenter`.
    """

    def __init__(
        self,
        net: ExportedNet,
        *,
        size: Sequence[int] | None = None,
        score_threshold: float = 0.5,
        keep_scores: bool = False,
    ) -> None:
        if net.words.task != JOINT:
            raise ValueError(f"the exported {net.words.net} does one thing alone; expected a joint net")
        self.net, self.class_names, self.device = net, net.words.class_names, torch.device("cpu")
        self.size = net.check_size(net.words.input_size if size is None else size)
        seen = _Part(net, DETECTION), _Part(net, SEGMENTATION)
        for part in seen:
            part.words = replace(part.words, input_size=self.size)
        self.boxes = ExportedDetector(seen[0], score_threshold=score_threshold)
        self.pixels = ExportedSegmenter(seen[1], keep_scores=keep_scores)

    def __call__(self, image: np.ndarray) -> JointAnswer:
        """image [H, W, 3] uint8 RGB -> its objects, best first, and the class of each of its pixels."""
        return self.finish(self.infer(self.prepare(image)), (image.shape[0], image.shape[1]))

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """image [H, W, 3] uint8 RGB -> [1, 3, h, w], resized unless the file does that."""
        return self.boxes.prepare(image)

    def infer(self, images: np.ndarray) -> Answers:
        """What `prepare` gave -> what the file gives."""
        return self.net(images)

    def parts(self, raw: Answers) -> tuple[Answers, Answers]:
        """What the file gave -> what `boxes` finishes, and what `pixels` finishes."""
        return raw[:_BOX_OUTPUTS], raw[_BOX_OUTPUTS:]

    def finish(self, raw: Answers, picture_size: tuple[int, int]) -> JointAnswer:
        """What the file gave -> the answer in the pixels of the picture of (height, width)."""
        boxes, pixels = self.parts(raw)
        return JointAnswer(self.boxes.finish(boxes, picture_size), self.pixels.finish(pixels, picture_size))
