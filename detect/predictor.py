"""A picture in, the objects in it out: what a user calls."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from backbones.fusion import fused_copy
from pictures.images import check_picture, resize_image

from .boxes import clip_boxes
from .nms import SUPPRESSIONS, select_detections
from .results import Detections, RawDetections
from .two_stage import check_counts, check_thresholds, checked_input_size


class Detector(Protocol):
    """What a predictor asks of a net, or of anything that answers like one."""

    class_names: tuple[str, ...]
    input_size: tuple[int, int]

    def __call__(self, images: Tensor) -> RawDetections:
        """images [1, 3, h, w] uint8 RGB -> boxes in their pixels and scores."""
        ...


class Predictor:
    """Finds the objects in a picture, whatever its size, and gives them in the picture's own pixels.

    A net is copied, made fast (batch norms folded, channels last) and kept in evaluation mode, so training the
    original goes on undisturbed and does not change the predictor. size: (height, width) of the net's input, by default
    what the net is meant for; a picture is resized to it without keeping its aspect ratio, as in training. Detections
    that score at most `score_threshold` are left out, and at most `max_detections` are kept. suppression: as in
    `detect.nms.select_detections`. Calling takes three steps, which can also be taken one by one: `prepare`, `infer`,
    `finish`.
    """

    def __init__(
        self,
        model: Detector,
        *,
        size: Sequence[int] | None = None,
        score_threshold: float = 0.5,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
        suppression: str = "soft",
    ) -> None:
        self.size = checked_input_size(model.input_size if size is None else size)
        check_thresholds(score_threshold=score_threshold, iou_threshold=iou_threshold)
        check_counts(max_detections=max_detections)
        if suppression not in SUPPRESSIONS:
            raise ValueError(f"suppression {suppression!r}: it is one of {', '.join(SUPPRESSIONS)}")
        self.class_names = tuple(model.class_names)
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold
        self.max_detections, self.suppression = max_detections, suppression
        self.device = torch.device("cpu")
        self._model = model
        if isinstance(model, nn.Module):
            self.device = next(model.parameters()).device
            self._model = fused_copy(model).to(memory_format=torch.channels_last)

    def __call__(self, image: np.ndarray) -> Detections:
        """image [H, W, 3] uint8 RGB -> its objects, best first, in its pixels. ValueError for another array."""
        return self.finish(self.infer(self.prepare(image)), (image.shape[0], image.shape[1]))

    def prepare(self, image: np.ndarray) -> Tensor:
        """image [H, W, 3] uint8 RGB -> [1, 3, h, w] uint8 on the net's device."""
        check_picture(image)
        return self.resized(image, self.size)

    def resized(self, image: np.ndarray, size: tuple[int, int]) -> Tensor:
        """image [H, W, 3] uint8 RGB, or a part of a picture -> [1, 3, h, w] uint8 at `size` on the net's device."""
        resized = np.require(resize_image(image, size), requirements=("C", "W"))
        # Seen as [1, 3, h, w], the array lies in memory just as `channels_last` has it: nothing is copied.
        return torch.from_numpy(resized).permute(2, 0, 1)[None].to(self.device)

    @torch.inference_mode()
    def infer(self, images: Tensor) -> RawDetections:
        """The net itself: what `prepare` gave -> its raw outputs, in pixels of the net's input."""
        return self._model(images)

    @torch.inference_mode()
    def finish(self, raw: RawDetections, picture_size: tuple[int, int]) -> Detections:
        """Raw outputs -> detections on the CPU, in the pixels of the picture of (height, width) and inside it."""
        found = self.select(raw, self.score_threshold, self.max_detections)
        (height, width), (net_height, net_width) = picture_size, self.size
        scaled = found.scaled(width / net_width, height / net_height)
        return Detections(clip_boxes(scaled.boxes, picture_size), scaled.scores, scaled.labels)

    @torch.inference_mode()
    def select(self, raw: RawDetections, score_threshold: float, max_detections: int) -> Detections:
        """Raw outputs -> detections on the CPU, in pixels of what the net saw."""
        return select_detections(
            RawDetections(raw.boxes.float().cpu(), raw.scores.float().cpu()),
            score_threshold=score_threshold,
            iou_threshold=self.iou_threshold,
            max_detections=max_detections,
            suppression=self.suppression,
        )[0]
