"""Small detectors that others trained on COCO, as ONNX files: to race against, and to learn from.

What each file wants and gives was found out by scoring it: read as here, they reach the figures that others measured.
Needs onnxruntime, and onnx where features are asked for (the extra `fast`).
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms

from backbones.registry import nearest
from detect.results import Detections

from .fast_packages import load_package

SCORE_THRESHOLD = 0.01  # low, because AP counts the whole curve
MAX_DETECTIONS = 100

COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


class Look(NamedTuple):
    """detections: in the picture's own pixels; features: [channels, h, w] of each part that was asked for, over the
    whole picture, of the same size whatever the picture's proportion is.
    """

    detections: Detections
    features: tuple[Tensor, ...]


class PeerDetector:
    """An ONNX detector of COCO's classes, on the processor.

    class_names: which of them it answers for; labels are places in it. parts: names of tensors inside the graph, whose
    values `look` gives. A process that was forked or sent a copy opens the file anew. Raises OSError or ValueError for
    a file, class or part that is not there.
    """

    side: ClassVar[int]  # of the square that the file takes
    keeps_proportion: ClassVar[bool]  # the picture in the top left corner, or stretched
    iou_threshold: ClassVar[float]  # of the suppression

    device = torch.device("cpu")

    def __init__(
        self,
        path: Path,
        threads: int = 1,
        score_threshold: float = SCORE_THRESHOLD,
        *,
        class_names: Sequence[str] = ("person",),
        parts: Sequence[str] = (),
    ) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"no detector at {path}")
        for name in class_names:
            if name not in COCO_CLASSES:
                raise ValueError(f"{path.name} knows COCO's 80 classes, but not {name!r}{nearest(name, COCO_CLASSES)}")
        self.path, self.parts, self.threads, self.score_threshold = path, tuple(parts), threads, score_threshold
        self.class_names = tuple(class_names)
        self._columns = [COCO_CLASSES.index(name) for name in class_names]
        self._session: Any = None
        self._opened_by = 0
        self.part_channels = tuple(
            int(value.shape[1]) for value in self.infer(np.zeros((1, 3, self.side, self.side), np.float32))[1:]
        )
        self._session = None  # nothing of onnxruntime's to be forked

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_session": None}

    def __call__(self, image: np.ndarray) -> Detections:
        """Objects in `image` [H, W, 3] uint8 RGB, best first, in its own pixels."""
        return self.finish(self.infer(self.prepare(image)), image.shape[:2])

    def prepare(self, image: np.ndarray, shape: Sequence[int] | None = None) -> np.ndarray:
        """image [H, W, 3] uint8 RGB, of the proportion `shape` (its own) -> what the file takes, [1, 3, side, side]."""
        height, width = self._drawn_size(shape or image.shape)
        return self._fill(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))

    def infer(self, images: np.ndarray, /) -> list[np.ndarray]:
        """What `prepare` gave -> the file's answer, then each part."""
        if self._session is None or self._opened_by != os.getpid():
            self._session, self._opened_by = _open(self.path, self.parts, self.threads), os.getpid()
        values: list[np.ndarray] = self._session.run(None, {self._session.get_inputs()[0].name: images})
        return values

    def finish(
        self, raw: list[np.ndarray], picture_size: Sequence[int], shape: Sequence[int] | None = None
    ) -> Detections:
        """What `infer` gave -> objects in pixels of a picture of `picture_size` (height, width), drawn as `shape`."""
        height, width = self._drawn_size(shape or picture_size)
        boxes, scores = self._read(raw[0][0])
        factors = np.array([picture_size[1] / width, picture_size[0] / height] * 2, np.float32)
        return select(boxes * factors, scores[:, self._columns], self.iou_threshold, self.score_threshold)

    def look(self, image: np.ndarray, shape: Sequence[int] | None = None) -> Look:
        """The objects in `image` [H, W, 3] uint8 RGB, and the features.

        shape: (height, width) in proportion to how high and wide the picture was before somebody stretched it.
        """
        raw = self.infer(self.prepare(image, shape))
        size = self._drawn_size(shape or image.shape)
        features = tuple(self._seen(values, size) for values in raw[1:])
        return Look(self.finish(raw, image.shape[:2], shape), features)

    @abstractmethod
    def _fill(self, resized: np.ndarray) -> np.ndarray:
        """[h, w, 3] uint8 RGB as large as it is drawn -> what the file takes, [1, 3, side, side]."""

    @abstractmethod
    def _read(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the file gives -> boxes [K, 4] xyxy in its own pixels, scores [K, 80]."""

    def _drawn_size(self, size: Sequence[int]) -> tuple[int, int]:
        """(height, width) of a picture on the square."""
        if not self.keeps_proportion:
            return self.side, self.side
        scale = min(self.side / size[0], self.side / size[1])
        return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))

    def _seen(self, values: np.ndarray, size: tuple[int, int]) -> Tensor:
        """The part of a map [1, C, h, w] of the square that lies over the picture, enlarged to [C, h, w]."""
        rows, columns = (
            max(1, round(length * part / self.side)) for length, part in zip(values.shape[2:], size, strict=True)
        )
        part = torch.from_numpy(values[:, :, :rows, :columns])
        if part.shape == values.shape:
            return part[0]
        return F.interpolate(part, size=values.shape[2:], mode="bilinear", align_corners=False)[0]


class YoloxNano(PeerDetector):
    """YOLOX-nano at 416: the rest of the square grey; BGR 0..255."""

    side = 416
    keeps_proportion = True
    iou_threshold = 0.65

    def _fill(self, resized: np.ndarray) -> np.ndarray:
        canvas = np.full((self.side, self.side, 3), 114, np.float32)
        canvas[: resized.shape[0], : resized.shape[1]] = resized[:, :, ::-1]
        return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None])

    def _read(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cells, strides = _cells(self.side)
        centres = (output[:, :2] + cells) * strides
        halves = np.exp(output[:, 2:4]) * strides / 2
        return np.concatenate([centres - halves, centres + halves], 1), output[:, 4:5] * output[:, 5:]


class FastestDet(PeerDetector):
    """FastestDet at 352: BGR 0..1; one map of 22 x 22 cells, each of which speaks for its best class only."""

    side = 352
    keeps_proportion = False
    iou_threshold = 0.45

    def _fill(self, resized: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(resized[:, :, ::-1].transpose(2, 0, 1)[None], np.float32) / 255

    def _read(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cells = output.reshape(85, -1)
        count = int(cells.shape[1] ** 0.5)
        rows, columns = np.divmod(np.arange(count * count, dtype=np.float32), count)
        centres = np.stack([columns + np.tanh(cells[1]), rows + np.tanh(cells[2])], 1) / count
        halves = 0.5 / (1 + np.exp(-cells[3:5].T))
        boxes = np.concatenate([centres - halves, centres + halves], 1) * self.side
        scores = cells[0] ** 0.6 * cells[5:] ** 0.4
        scores[np.arange(80)[:, None] != cells[5:].argmax(0)] = 0
        return boxes.astype(np.float32), scores.T


PEERS: dict[str, type[PeerDetector]] = {"yolox_nano": YoloxNano, "fastestdet": FastestDet}


def select(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float, score_threshold: float) -> Detections:
    """boxes [K, 4] xyxy, scores [K, C] -> the best of them after the suppression within each class."""
    places, labels = np.nonzero(scores > score_threshold)
    kept_boxes, kept_scores = torch.from_numpy(boxes[places]), torch.from_numpy(scores[places, labels])
    kept_labels = torch.from_numpy(labels)
    order = batched_nms(kept_boxes, kept_scores, kept_labels, iou_threshold)[:MAX_DETECTIONS]
    return Detections(kept_boxes[order], kept_scores[order], kept_labels[order])


def _cells(side: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells of the maps at strides 8, 16 and 32, row by row: (x, y) [K, 2] and the stride [K, 1]."""
    cells, strides = [], []
    for stride in (8, 16, 32):
        count = side // stride
        rows, columns = np.divmod(np.arange(count * count), count)
        cells.append(np.stack([columns, rows], 1))
        strides.append(np.full((count * count, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _open(path: Path, parts: Sequence[str], threads: int) -> Any:
    """The file in onnxruntime, with the tensors `parts` among its answers. Raises ValueError for what does not open."""
    runtime = load_package("onnxruntime", "reading an ONNX file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    source = _with_parts(path, parts) if parts else path.read_bytes()
    try:
        return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 (onnxruntime's own errors share no other base)
        raise ValueError(f"{path} does not open as an ONNX file: {str(error).splitlines()[0]}") from None


def _with_parts(path: Path, parts: Sequence[str]) -> bytes:
    """The file with more outputs."""
    onnx = load_package("onnx", "reading features out of an ONNX file")
    try:
        model = onnx.load(str(path))
    except Exception as error:  # noqa: BLE001 (what protobuf raises has no base but Exception)
        raise ValueError(f"{path} does not open as an ONNX file: {str(error).splitlines()[0]}") from None
    names = [name for node in model.graph.node for name in node.output]
    for part in parts:
        if part not in names:
            raise ValueError(f"{path} has no tensor called {part!r}{nearest(part, names)}")
        model.graph.output.append(onnx.helper.make_tensor_value_info(part, onnx.TensorProto.FLOAT, None))
    written: bytes = model.SerializeToString()
    return written
