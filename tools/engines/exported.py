"""An exported file in the place of a net: what a demo asks of a predictor, and what an evaluation asks of a net."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from detect.results import Detections
from pictures.images import check_picture, resize_image
from segment.predictor import labels_at, resized, same_shape_size
from segment.results import Segmentation

from .engine import Engine
from .engine_choice import AUTO, open_engine
from .exported_words import DETECTION, ExportedWords, read_words

Answers = tuple[np.ndarray, ...]


class ExportedNet:
    """An exported file, running: what its words say, and answers in the order of its outputs.

    threads, callers: as in `open_engine`. Raises as that and `read_words`.
    """

    def __init__(self, path: Path, *, engine: str = AUTO, threads: int | None = None, callers: int = 1) -> None:
        self.words: ExportedWords = read_words(path)
        self.name = self.words.net
        self.engine: Engine = open_engine(path, engine, threads=threads, callers=callers)

    def check_size(self, size: Sequence[int]) -> tuple[int, int]:
        """(height, width) that the net may see. ValueError for one that the file does not take."""
        height, width = int(size[0]), int(size[1])
        own = self.words.input_size
        if (height, width) != own and not self.words.free_size:
            kind = "resizes inside to" if self.words.resize_inside else "is made for"
            raise ValueError(f"size is {height}x{width}; the exported file {kind} {own[0]}x{own[1]} alone")
        step = self.words.size_step
        if height < 1 or width < 1 or height % step or width % step:
            raise ValueError(f"size is {height}x{width}; both sides must be multiples of {step}")
        return height, width

    def __call__(self, images: np.ndarray) -> Answers:
        """images [N, 3, h, w] uint8 of any N -> the outputs for all of them.

        A file of a fixed batch gets so many at a time, the last ones filled up with the first once more.
        """
        batch = self.words.batch
        if batch is None or batch == len(images):
            return self.engine(images)
        parts = []
        for start in range(0, len(images), batch):
            chunk = images[start : start + batch]
            real = len(chunk)
            if real < batch:
                chunk = np.concatenate([chunk, np.repeat(images[:1], batch - real, axis=0)])
            parts.append([each[:real] for each in self.engine(chunk)])
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


class ExportedDetector:
    """An exported detector as a `FramePredictor`; suppression has happened inside the file.

    size: (height, width) that the net sees, where the file leaves it open. Detections that score at most
    `score_threshold` are left out. Raises ValueError for a file of a segmenter, for a size that it does not take, and
    for a threshold below or more detections than its own.
    """

    def __init__(
        self,
        net: ExportedNet,
        *,
        size: Sequence[int] | None = None,
        score_threshold: float = 0.5,
        max_detections: int | None = None,
    ) -> None:
        words = net.words
        if words.task != DETECTION:
            raise ValueError(f"the exported {words.net} labels pixels; expected a detector")
        self.net, self.class_names, self.device = net, words.class_names, torch.device("cpu")
        self.size = net.check_size(words.input_size if size is None else size)
        if score_threshold < words.score_threshold:
            least = f"the file leaves out what scores at most {words.score_threshold}"
            raise ValueError(f"score_threshold is {score_threshold}; {least}: export with a lower one")
        if max_detections is not None and max_detections > words.max_detections:
            raise ValueError(f"max_detections is {max_detections}; the file gives at most {words.max_detections}")
        self.score_threshold = score_threshold
        self.max_detections = max_detections or words.max_detections

    def __call__(self, image: np.ndarray) -> Detections:
        """image [H, W, 3] uint8 RGB -> its objects, best first, in its pixels."""
        return self.finish(self.infer(self.prepare(image)), (image.shape[0], image.shape[1]))

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """image [H, W, 3] uint8 RGB -> [1, 3, h, w], resized unless the file does that."""
        check_picture(image)
        seen = image if self.net.words.resize_inside else resize_image(image, self.size)
        return seen[None].transpose(0, 3, 1, 2)

    def infer(self, images: np.ndarray) -> Answers:
        """What `prepare` gave -> what the file gives."""
        return self.net(images)

    def finish(self, raw: Answers, picture_size: tuple[int, int]) -> Detections:
        """What the file gave -> detections in the pixels of the picture of (height, width) and inside it."""
        boxes, scores, labels = (each[: self.max_detections] for each in _answers_to(raw, 0, len(self.class_names)))
        count = int((scores > self.score_threshold).sum())  # the best come first
        sides = np.array([picture_size[1], picture_size[0]] * 2, np.float32)
        scale = 1 if self.net.words.resize_inside else sides / np.array([self.size[1], self.size[0]] * 2, np.float32)
        in_picture = np.clip(boxes[:count] * scale, 0, sides)
        return Detections(*map(torch.from_numpy, (in_picture, scores[:count], labels[:count])))

    def predict(self, images: Tensor) -> list[Detections]:
        """images [N, 3, h, w] uint8 -> the objects in each, in its pixels: what an evaluation asks of a net."""
        raw = self.net(images.numpy())
        return [self._kept(detections_from(raw, place, len(self.class_names))) for place in range(len(images))]

    def _kept(self, found: Detections) -> Detections:
        return found[found.scores > self.score_threshold][: self.max_detections]


def detections_from(answers: Sequence[np.ndarray], place: int, num_classes: int) -> Detections:
    """One picture's part of a file's outputs. ValueError where they make no sense."""
    return Detections(*map(torch.from_numpy, _answers_to(answers, place, num_classes)))


def _answers_to(answers: Sequence[np.ndarray], place: int, num_classes: int) -> list[np.ndarray]:
    """boxes [K, 4], scores [K] and labels [K] of one picture, as `detections_from`, in arrays of their own."""
    boxes, scores, labels, counts = answers
    count = int(counts[place])
    if not 0 <= count <= scores.shape[1]:
        raise ValueError(f"the file gives {count} boxes, of at most {scores.shape[1]}")
    own = labels[place, :count]
    if count and not 0 <= own.min() <= own.max() < num_classes:
        raise ValueError(f"the file gives classes from {own.min()} to {own.max()}; expected 0..{num_classes - 1}")
    return [np.array(each[place, :count]) for each in (boxes, scores, labels)]


class ExportedSegmenter:
    """An exported segmenter as a `FramePredictor`.

    size: where the file leaves it open, (height, width) whose number of pixels the net sees; pictures keep their shape
    there, as with `segment.Predictor`. A file of one size sees them squeezed into it. Raises ValueError for a file of
    a detector, for a size that it does not take, and where `keep_scores` asks for what the file does not give.
    """

    def __init__(self, net: ExportedNet, *, size: Sequence[int] | None = None, keep_scores: bool = False) -> None:
        words = net.words
        if words.task == DETECTION:
            raise ValueError(f"the exported {words.net} finds boxes; expected a segmenter")
        if keep_scores and not words.keep_scores:
            raise ValueError(f"the exported {words.net} gives labels alone; export it with --scores")
        self.net, self.class_names, self.device = net, words.class_names, torch.device("cpu")
        self.size = net.check_size(words.input_size if size is None else size)
        self.keep_scores = keep_scores

    def __call__(self, image: np.ndarray) -> Segmentation:
        """image [H, W, 3] uint8 RGB -> the class of each of its pixels."""
        return self.finish(self.infer(self.prepare(image)), (image.shape[0], image.shape[1]))

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """image [H, W, 3] uint8 RGB -> [1, 3, h, w], resized unless the file does that."""
        check_picture(image)
        seen = image
        if not self.net.words.resize_inside:
            picture_size = (image.shape[0], image.shape[1])
            free = self.net.words.free_size
            seen = resize_image(image, same_shape_size(self.size, picture_size) if free else self.size)
        return seen[None].transpose(0, 3, 1, 2)

    def infer(self, images: np.ndarray) -> Answers:
        """What `prepare` gave -> what the file gives."""
        return self.net(images)

    def finish(self, raw: Answers, picture_size: tuple[int, int]) -> Segmentation:
        """What the file gave -> labels, and scores if kept, at the (height, width) of the picture."""
        if not self.keep_scores:
            return Segmentation(torch.from_numpy(self.label_map(raw, picture_size)).long(), None)
        scores = np.stack([resized(each, picture_size) for each in raw[1][0]])
        return Segmentation(torch.from_numpy(labels_at(scores, picture_size)).long(), torch.from_numpy(scores))

    def label_map(self, raw: Answers, picture_size: tuple[int, int]) -> np.ndarray:
        """What the file gave -> labels [H, W] uint8 at the (height, width) of the picture."""
        return _enlarged(raw[0][0], picture_size) if len(raw) == 1 else labels_at(raw[1][0], picture_size)

    def class_scores(self, raw: Answers, picture_size: tuple[int, int], label: int) -> np.ndarray:
        """The probabilities of one class alone, [H, W] float32; of a file that gives them."""
        return resized(raw[1][0][label], picture_size)

    def labels(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """images [1, 3, h, w] uint8 -> labels [H, W] at (height, width) `size`: what an evaluation asks of a net."""
        return self.finish(self.net(images.numpy()), size).labels


def _enlarged(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if labels.shape == size:
        return labels
    return cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
