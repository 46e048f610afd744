"""A picture in, its objects and the class of each pixel out: what a user calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

import detect
import segment
from backbones.fusion import fused_copy
from detect.results import RawDetections

from .results import JointAnswer, RawJoint


class PartWords(Protocol):
    """What a predictor asks of one of the two."""

    class_names: tuple[str, ...]


class JointModel(Protocol):
    """What a predictor asks of a joint net, or of anything that answers like one."""

    input_size: tuple[int, int]

    @property
    def detector(self) -> PartWords:
        """Knows the classes of the boxes."""
        ...

    @property
    def segmenter(self) -> PartWords:
        """Knows the classes of the pixels."""
        ...

    def __call__(self, images: Tensor) -> RawJoint:
        """images [1, 3, h, w] uint8 RGB -> boxes in their pixels, scores, logits."""
        ...


class _Boxes:
    """What a joint model says of objects alone, as a `detect.predictor.Detector`."""

    def __init__(self, model: JointModel) -> None:
        self.model, self.class_names, self.input_size = model, model.detector.class_names, model.input_size

    def __call__(self, images: Tensor) -> RawDetections:
        return self.model(images).detections


class _Pixels:
    """What it says of pixels alone, as a `segment.predictor.PixelClassifier`."""

    def __init__(self, model: JointModel) -> None:
        self.model, self.class_names, self.input_size = model, model.segmenter.class_names, model.input_size

    def __call__(self, images: Tensor) -> Tensor:
        return self.model(images).logits


class Predictor:
    """Finds the objects in a picture and labels its pixels by one look, and answers in the picture's own pixels.

    A net is copied, made fast (batch norms folded, channels last) and kept in evaluation mode. size: (height, width) of
    the net's input, by default what the net is meant for; a picture is resized to it without keeping its aspect ratio,
    as a detector sees it. keep_scores: as in `segment.Predictor`; the rest as in `detect.Predictor`. Calling takes
    three steps, which can also be taken one by one: `prepare`, `infer`, `finish`. class_names: the detector's.
    """

    def __init__(
        self,
        model: JointModel,
        *,
        size: Sequence[int] | None = None,
        score_threshold: float = 0.5,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
        suppression: str = "soft",
        keep_scores: bool = False,
    ) -> None:
        self.device = torch.device("cpu")
        self._model = model
        if isinstance(model, nn.Module):
            self.device = next(model.parameters()).device
            self._model = fused_copy(model).to(memory_format=torch.channels_last)
        self.boxes = detect.Predictor(
            _Boxes(self._model),
            size=size,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            suppression=suppression,
        )
        self.pixels = segment.Predictor(_Pixels(self._model), size=self.boxes.size, keep_scores=keep_scores)
        self.size, self.class_names = self.boxes.size, self.boxes.class_names

    def __call__(self, image: np.ndarray) -> JointAnswer:
        """image [H, W, 3] uint8 RGB -> its objects, best first, and the class of each of its pixels. ValueError."""
        return self.finish(self.infer(self.prepare(image)), (image.shape[0], image.shape[1]))

    def prepare(self, image: np.ndarray) -> Tensor:
        """image [H, W, 3] uint8 RGB -> [1, 3, h, w] uint8 on the net's device."""
        return self.boxes.prepare(image).to(self.device)

    @torch.inference_mode()
    def infer(self, images: Tensor) -> RawJoint:
        """The net itself: what `prepare` gave -> its raw outputs."""
        return self._model(images)

    def parts(self, raw: RawJoint) -> tuple[RawDetections, Tensor]:
        """Raw outputs -> what `boxes` finishes, and what `pixels` finishes."""
        return raw.detections, raw.logits

    def finish(self, raw: RawJoint, picture_size: tuple[int, int]) -> JointAnswer:
        """Raw outputs -> the answer, on the CPU, in the pixels of the picture of (height, width)."""
        boxes, pixels = self.parts(raw)
        return JointAnswer(self.boxes.finish(boxes, picture_size), self.pixels.finish(pixels, picture_size))
