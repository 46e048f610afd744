"""Detectors with weights that nobody trained, made to answer like trained ones, so that timing them means something.

What a detector costs behind its convolutions depends on its scores: weights as they are drawn find nothing, or a
thousand things. Here norms get the statistics of real pictures, and scores are stretched until as many boxes are left
as pictures have objects.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torchvision
from torch import Tensor, nn

from detect import TwoStageDetector, create_detector
from detect.nms import suppression_for_onnx
from pictures.images import read_image, resize_image

SURVIVORS = (30, 70)
SCORE_THRESHOLD, IOU_THRESHOLD = 0.05, 0.5


def read_pictures(folder: Path, size: Sequence[int], count: int) -> np.ndarray:
    """The first pictures of a folder, [count, h, w, 3] uint8 RGB at `size`. ValueError where there are fewer."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:count]
    if len(paths) < count:
        raise ValueError(f"{folder} holds {len(paths)} pictures; expected at least {count}")
    return np.stack([resize_image(read_image(path), (size[0], size[1])) for path in paths])


def settle_norms(net: nn.Module, run: Callable[[], Any]) -> None:
    """Batch norms take the statistics of what `run` sends through the net."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    net.train()
    with torch.no_grad():
        run()
    net.eval()


def stretch(scale: Callable[[float], None], survivors: Callable[[], float]) -> float:
    """Makes scores wider or narrower until SURVIVORS boxes are left; gives how many there are. ValueError if never."""
    low, high = 1e-3, 100.0
    for _ in range(40):
        middle = (low * high) ** 0.5
        scale(middle)
        left = survivors()
        if SURVIVORS[0] <= left <= SURVIVORS[1]:
            return left
        low, high = (middle, high) if left < SURVIVORS[0] else (low, middle)
    raise ValueError(f"no scale of the scores leaves {SURVIVORS[0]} to {SURVIVORS[1]} boxes")


@torch.no_grad()
def lifelike_detector(name: str, pictures: np.ndarray, **options: Any) -> TwoStageDetector:
    """One of our detectors, for 80 classes, that leaves SURVIVORS boxes of the pictures [N, h, w, 3] on average."""
    torch.manual_seed(0)
    detector = create_detector(name, input_size=pictures.shape[1:3], **options)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    settle_norms(detector, lambda: detector(images))
    for layer, deviation in ((detector.rpn.objectness, 0.05), (detector.rpn.deltas, 0.03)):
        nn.init.normal_(layer.weight, std=deviation)
    drawn = torch.randn_like(detector.head.classify.weight)
    detector.head.classify.bias[-1] = 2.0  # background is what there is most of

    def survivors() -> float:
        found = detector.predict(images[:4], suppression="hard", score_threshold=SCORE_THRESHOLD)
        return float(np.mean([len(one) for one in found]))

    stretch(lambda factor: detector.head.classify.weight.copy_(drawn * factor), survivors)
    return detector


class SSDLiteParts(nn.Module):
    """torchvision's ssdlite320 up to its raw answers: [N, 320, 320, 3] uint8 -> logits [N, A, 91], deltas [N, A, 4]."""

    def __init__(self) -> None:
        super().__init__()
        net = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
        self.backbone, self.head = net.backbone, net.head
        features = list(self.backbone(torch.zeros(2, 3, 320, 320)).values())
        frame = torchvision.models.detection.image_list.ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)])
        self.anchors: Tensor = net.anchor_generator(frame, features)[0]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        maps = list(self.backbone((images.permute(0, 3, 1, 2).float() - 127.5) / 127.5).values())
        answers = self.head(maps)
        return answers["cls_logits"], answers["bbox_regression"]


class SSDLiteReader:
    """Raw answers of `SSDLiteParts` -> boxes, scores, labels, in few steps over whole arrays."""

    def __init__(self, anchors: Tensor) -> None:
        corners = anchors.numpy()
        self.sizes = corners[:, 2:] - corners[:, :2]
        self.centres = corners[:, :2] + self.sizes / 2

    def __call__(self, logits: np.ndarray, deltas: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Of one picture: [A, 91], [A, 4]; suppression at 0.55 and class by class, as torchvision's own."""
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        rows, labels = np.nonzero(weights[:, 1:] > SCORE_THRESHOLD * weights.sum(axis=1, keepdims=True))
        scores = weights[rows, labels + 1] / weights.sum(axis=1)[rows]
        centres = self.centres[rows] + deltas[rows, :2] / 10 * self.sizes[rows]
        halves = np.exp(deltas[rows, 2:] / 5) * self.sizes[rows] / 2
        boxes = torch.from_numpy(np.concatenate([centres - halves, centres + halves], 1).clip(0, 320))
        kept_scores, kept_labels = torch.from_numpy(scores), torch.from_numpy(labels)
        kept = torchvision.ops.batched_nms(boxes, kept_scores, kept_labels, 0.55)[:100]
        return boxes[kept], kept_scores[kept], kept_labels[kept]


@torch.no_grad()
def lifelike_ssdlite(pictures: np.ndarray) -> SSDLiteParts:
    """ssdlite320 for the pictures [N, 320, 320, 3], as `lifelike_detector`."""
    torch.manual_seed(0)
    net = SSDLiteParts()
    images = torch.from_numpy(pictures)
    settle_norms(net, lambda: net(images))
    last = [module[-1] for module in net.head.classification_head.module_list]
    drawn = [layer.weight.clone() for layer in last]
    for layer in last:
        layer.bias.view(-1, 91)[:, 0] = 4.0
    read = SSDLiteReader(net.anchors)

    def scale(factor: float) -> None:
        for layer, weight in zip(last, drawn, strict=True):
            layer.weight.copy_(weight * factor)

    def survivors() -> float:
        logits, deltas = (values.numpy() for values in net(images[:4]))
        return float(np.mean([len(read(one, two)[0]) for one, two in zip(logits, deltas, strict=True)]))

    stretch(scale, survivors)
    return net


def as_onnx(net: nn.Module, example: Tensor, *, native_suppression: bool = True) -> bytes:
    """The net, traced with this input, as an ONNX file for inputs of this very shape.

    native_suppression: by the format's own operator, and not by what torch's exporter makes of torchvision's.
    """
    with torch.no_grad():
        if native_suppression:
            with suppression_for_onnx():
                program: Any = torch.export.export(net, (example,))
        else:
            program = torch.export.export(net, (example,))
        exported = torch.onnx.export(program, dynamo=True, input_names=["images"], opset_version=18, verbose=False)
    assert exported is not None
    file = io.BytesIO()
    onnx.save_model(exported.model_proto, file)
    return file.getvalue()
