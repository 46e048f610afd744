"""A picture in, the class of each pixel out: what a user calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from backbones.fusion import fused_copy
from pictures.images import check_picture, resize_image

from .base import checked_input_size
from .results import Segmentation


class PixelClassifier(Protocol):
    """What a predictor asks of a net, or of anything that answers like one."""

    class_names: tuple[str, ...]
    input_size: tuple[int, int]

    def __call__(self, images: Tensor) -> Tensor:
        """images [1, 3, h, w] uint8 RGB, of any size -> logits [1, C, h, w]."""
        ...


class Predictor:
    """Labels the pixels of a picture, whatever its size, and answers in the picture's own pixels.

    A net is copied, made fast (batch norms folded, channels last) and kept in evaluation mode, so training the original
    goes on undisturbed and does not change the predictor. size: (height, width) whose number of pixels the net is to
    see, by default what it is meant for; a picture is resized to about as many and keeps its aspect ratio, so that
    objects look as in training and every picture costs the same. keep_scores: the answer also holds the probabilities
    of the classes, which soft edges need. Calling takes three steps, which can also be taken one by one: `prepare`,
    `infer`, `finish`.
    """

    def __init__(self, model: PixelClassifier, *, size: Sequence[int] | None = None, keep_scores: bool = False) -> None:
        self.size = checked_input_size(model.input_size if size is None else size)
        self.keep_scores = keep_scores
        self.class_names = tuple(model.class_names)
        self.device = torch.device("cpu")
        self._model = model
        if isinstance(model, nn.Module):
            self.device = next(model.parameters()).device
            self._model = fused_copy(model).to(memory_format=torch.channels_last)

    def __call__(self, image: np.ndarray) -> Segmentation:
        """image [H, W, 3] uint8 RGB -> the class of each of its pixels. ValueError for another array."""
        return self.finish(self.infer(self.prepare(image)), (image.shape[0], image.shape[1]))

    def prepare(self, image: np.ndarray) -> Tensor:
        """image [H, W, 3] uint8 RGB -> [1, 3, h, w] uint8 on the net's device."""
        check_picture(image)
        resized = resize_image(image, self.net_size((image.shape[0], image.shape[1])))
        # Seen as [1, 3, h, w], the array lies in memory just as `channels_last` has it: nothing is copied.
        return torch.from_numpy(np.require(resized, requirements=("C", "W"))).permute(2, 0, 1)[None].to(self.device)

    def net_size(self, picture_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) at which the net sees a picture of (height, width): its shape, about `size`'s many pixels."""
        return same_shape_size(self.size, picture_size)

    @torch.inference_mode()
    def infer(self, images: Tensor) -> Tensor:
        """The net itself: what `prepare` gave -> logits [1, C, h, w]."""
        return self._model(images)

    @torch.inference_mode()
    def finish(self, logits: Tensor, picture_size: tuple[int, int]) -> Segmentation:
        """Logits -> labels, and scores if kept, on the CPU, at the (height, width) of the picture."""
        maps = logits[0].float().cpu().numpy()
        if not self.keep_scores:
            return Segmentation(torch.from_numpy(labels_at(maps, picture_size)).long(), None)
        if len(maps) == 2:
            second = _of_two(maps, 1, picture_size)
            return Segmentation((second > 0.5).long(), torch.stack((1 - second, second)))
        maps = np.stack([resized(each, picture_size) for each in maps])
        labels = torch.from_numpy(labels_at(maps, picture_size)).long()
        return Segmentation(labels, torch.from_numpy(maps).softmax(dim=0))

    @torch.inference_mode()
    def label_map(self, logits: Tensor, picture_size: tuple[int, int]) -> np.ndarray:
        """As `finish`, the labels alone: [H, W] uint8, which for a large picture saves time."""
        return labels_at(logits[0].float().cpu().numpy(), picture_size)

    @torch.inference_mode()
    def class_scores(self, logits: Tensor, picture_size: tuple[int, int], label: int) -> np.ndarray:
        """The probabilities of one class alone: [H, W] float32, whether scores are kept or not."""
        maps = logits[0].float().cpu().numpy()
        if len(maps) == 2:
            return _of_two(maps, label, picture_size).numpy()
        maps = np.stack([resized(each, picture_size) for each in maps])
        return torch.from_numpy(maps).softmax(dim=0)[label].numpy()


def _of_two(logits: np.ndarray, label: int, size: tuple[int, int]) -> Tensor:
    """Logits [2, h, w] -> the probability of a class, [H, W]: one map tells two classes apart."""
    return torch.from_numpy(resized(logits[label] - logits[1 - label], size)).sigmoid()


def labels_at(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Logits or probabilities [C, h, w] float32 -> the likeliest class of each pixel at (height, width) `size`, [H, W]
    uint8; of equal classes the first. As `inference.predict_labels`, on a processor in a fraction of the time.
    """
    if len(maps) == 2:  # resizing is linear: one map tells two classes apart
        return (resized(maps[1] - maps[0], size) > 0).view(np.uint8)
    best = resized(maps[0], size).copy()
    labels = np.zeros(size, np.uint8)
    for label, scores in enumerate(maps[1:], start=1):
        rival = resized(scores, size)
        np.copyto(labels, label, where=rival > best)
        cv2.max(best, rival, dst=best)
    return labels


def resized(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[h, w] float32 -> [H, W], bilinear, as `inference.resize_scores`; `scores` itself where they have that size."""
    return scores if scores.shape == size else cv2.resize(scores, size[::-1], interpolation=cv2.INTER_LINEAR)


def same_shape_size(size: tuple[int, int], picture_size: tuple[int, int]) -> tuple[int, int]:
    """The shape of a picture of (height, width) `picture_size`, with about as many pixels as `size` has."""
    scale = math.sqrt(math.prod(size) / math.prod(picture_size))
    return max(1, round(scale * picture_size[0])), max(1, round(scale * picture_size[1]))
