"""Nets of others for `cpu_peers.py`: what of them an engine runs, and how their raw answers are read.

As in `lifelike_nets`, what has no weights gets statistics of the pictures and stretched scores.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from lifelike_nets import SCORE_THRESHOLD, settle_norms, stretch
from segmenters import Peer
from swiftsight_tools.peer_detectors import select
from torch import Tensor, nn

FASTER_SIZE = (320, 427)  # of 480 x 640, COCO's commonest picture, by the net's own rule
YOLO = "yolo11n"


class FasterRCNNParts(nn.Module):
    """torchvision's fasterrcnn_mobilenet_v3_large_320_fpn without its resizing: [1, 320, 427, 3] uint8 -> boxes [K, 4],
    scores [K], labels [K]; suppression inside.
    """

    def __init__(self) -> None:
        super().__init__()
        build = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn
        net = build(weights=None, weights_backbone=None)
        self.backbone, self.rpn, self.roi_heads = net.backbone, net.rpn, net.roi_heads
        self.mean, self.std = (255 * torch.tensor(each) for each in (net.transform.image_mean, net.transform.image_std))

    def normalized(self, images: Tensor) -> Tensor:
        """-> [1, 3, 320, 448]: to a multiple of 32, as the net's own transform pads."""
        seen = ((images.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        return F.pad(seen, (0, -FASTER_SIZE[1] % 32))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        seen = self.normalized(images)
        frame = torchvision.models.detection.image_list.ImageList(seen, [FASTER_SIZE])
        maps = self.backbone(seen)
        found = self.roi_heads(maps, self.rpn(frame, maps)[0], [FASTER_SIZE])[0][0]
        return found["boxes"], found["scores"], found["labels"]


@torch.no_grad()
def lifelike_faster_rcnn(pictures: np.ndarray) -> FasterRCNNParts:
    """For the pictures [N, *FASTER_SIZE, 3], as `lifelike_detector`."""
    torch.manual_seed(0)
    images = torch.from_numpy(pictures)
    net = FasterRCNNParts()
    settle_norms(net, lambda: net.backbone(net.normalized(images)))
    scores = net.roi_heads.box_predictor.cls_score
    drawn = torch.randn_like(scores.weight)
    scores.bias[0] = 2.0  # background is what there is most of
    stretch(
        lambda factor: scores.weight.copy_(drawn * factor),
        lambda: statistics.fmean(len(net(image[None])[0]) for image in images[:4]),
    )
    return net


def as_traced_onnx(net: nn.Module, example: Tensor) -> bytes:
    """By the older exporter, for torchvision's Faster R-CNN: `torch.export` refuses its counts that depend on data."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        torch.onnx.export(net, (example,), path, dynamo=False, opset_version=17, input_names=["images"])
        return path.read_bytes()


class YoloParts(nn.Module):
    """A net of the user's ultralytics, made here and not downloaded: [1, 320, 320, 3] uint8 -> [1, 4 + 80, K], boxes as
    centres and sides in pixels, then scores.
    """

    def __init__(self, pictures: np.ndarray) -> None:
        super().__init__()
        from ultralytics.nn.tasks import DetectionModel

        torch.manual_seed(0)
        self.net = DetectionModel(f"{YOLO}.yaml", verbose=False)
        images = torch.from_numpy(pictures)
        settle_norms(self, lambda: self(images))
        head = self.net.model[-1]
        head.export, head.format = True, "onnx"
        last = [branch[-1] for branch in head.cv3]
        drawn = [torch.randn_like(layer.weight) for layer in last]

        def scale(factor: float) -> None:
            for layer, weight in zip(last, drawn, strict=True):
                layer.weight.copy_(weight * factor)
                layer.bias.fill_(-8.0)

        with torch.no_grad():
            stretch(scale, lambda: statistics.fmean(len(read_yolo(self(image[None]).numpy())) for image in images[:4]))
        self.net.fuse(verbose=False)

    def forward(self, images: Tensor) -> Any:
        """See the class."""
        return self.net(images.permute(0, 3, 1, 2).float() / 255)


def read_yolo(answer: np.ndarray) -> np.ndarray:
    """What `YoloParts` gives -> boxes [K, 4] xyxy, suppressed at 0.7 as ultralytics does by default."""
    centres, halves = answer[0, :2].T, answer[0, 2:4].T / 2
    boxes = np.concatenate([centres - halves, centres + halves], 1)
    return select(boxes, answer[0, 4:].T, 0.7, SCORE_THRESHOLD).boxes.numpy()


class LRASPPLabels(nn.Module):
    """torchvision's LRASPP, batch norms folded: [1, h, w, 3] uint8 -> labels [1, h, w] uint8."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Peer().fuse()

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.net(images.permute(0, 3, 1, 2)).argmax(dim=1).to(torch.uint8)
