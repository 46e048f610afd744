"""Augmentation of pictures and their labels together: random scale, crop, flip, colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import cv2
import numpy as np

from pictures.checks import Size, checked, checked_range, checked_size
from pictures.colour_distortion import ColourDistortion
from pictures.images import resize_image
from pictures.windows import Window, visible
from segment.losses import IGNORE

_RELATIVE_TO = ("picture", "crop", "stretched")


class Transform(Protocol):
    """Changes a picture and its labels. Everything random derives from `seed`: the same call gives the same bytes."""

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, *, seed: int, size: Size
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the picture [H, W, 3] uint8 RGB and its labels [H, W] uint8 anew at `size` (height, width).

        Raises ValueError where `size` is not two positive whole numbers.
        """
        ...


class ScaleCropFlip:
    """A window of the picture at a random scale and place, mirrored or not, with its colours changed.

    scale: (least, most) how large things are drawn, as a factor whose logarithm is drawn evenly, so that halving is as
    likely as doubling; relative_to="picture": 1 keeps the picture's own pixels (street scenes, all taken alike);
    "crop": 1 draws the whole picture as large as the asked size holds (pictures of all sizes); "stretched": 1 draws it
    over all of the asked size, as a detector sees it. Where the window reaches
    beyond the picture, the rest is `fill` (RGB 0..255) and ignored. The labels take the nearest pixel's class. With
    `flip_probability` left and right change places. The colours: see `ColourDistortion`.
    Raises ValueError, naming the argument, where a value is out of its range.
    """

    def __init__(
        self,
        *,
        scale: Sequence[float] = (0.5, 2.0),
        relative_to: Literal["picture", "crop", "stretched"] = "picture",
        fill: Sequence[int] = (124, 116, 104),
        flip_probability: float = 0.5,
        distort_probability: float = 0.5,
        brightness: float = 0.125,
        contrast: float = 0.5,
        saturation: float = 0.5,
        hue: float = 0.05,
    ) -> None:
        self.scale = checked_range("scale", scale, 0.05, 20)
        if relative_to not in _RELATIVE_TO:
            raise ValueError(f"relative_to is {relative_to!r}; expected {', '.join(map(repr, _RELATIVE_TO))}")
        if len(fill) != 3 or not all(0 <= value <= 255 for value in fill):
            raise ValueError(f"fill is {fill}; expected three values, RGB 0..255")
        self.relative_to, self.fill = relative_to, tuple(int(value) for value in fill)
        self.flip_probability = checked("flip_probability", flip_probability, 0, 1)
        self._colours = ColourDistortion(
            distort_probability, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue
        )

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, *, seed: int, size: Size
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Transform`."""
        size = checked_size(size)
        rng = np.random.default_rng(seed)
        window = self._draw_window(labels.shape, size, rng)
        mirrored = bool(rng.random() < self.flip_probability)
        rows, out_rows = visible(window[1], window[3], labels.shape[0], size[0])
        columns, out_columns = visible(window[0], window[2], labels.shape[1], size[1])
        part_size = out_rows.stop - out_rows.start, out_columns.stop - out_columns.start
        drawn = np.empty((*size, 3), np.uint8)
        drawn[:] = self.fill
        # Only what is visible is resized and distorted.
        part = np.ascontiguousarray(resize_image(image[rows, columns], part_size))
        drawn[out_rows, out_columns] = self._colours(part, rng)
        drawn_labels = np.full(size, IGNORE, np.uint8)
        drawn_labels[out_rows, out_columns] = resize_labels(labels[rows, columns], part_size)
        if mirrored:
            return cv2.flip(drawn, 1), cv2.flip(drawn_labels, 1)
        return drawn, drawn_labels

    def _draw_window(self, picture: tuple[int, ...], size: Size, rng: np.random.Generator) -> Window:
        """In whole pixels of the picture (height, width), so that picture and labels are cut alike."""
        factor = float(np.exp(rng.uniform(*np.log(self.scale))))
        one = [1.0, 1.0] if self.relative_to == "picture" else [size[0] / picture[0], size[1] / picture[1]]
        if self.relative_to == "crop":
            one = [min(one)] * 2
        height, width = (max(1, round(side / (factor * drawn))) for side, drawn in zip(size, one, strict=True))
        top, left = _draw_start(picture[0], height, rng), _draw_start(picture[1], width, rng)
        return left, top, left + width, top + height


def _draw_start(length: int, window: int, rng: np.random.Generator) -> int:
    """Where a window begins along one axis: inside the picture, or around it where the window is the longer one."""
    room = length - window
    return int(rng.integers(min(room, 0), max(room, 0) + 1))


def resize_labels(labels: np.ndarray, size: Size) -> np.ndarray:
    """labels [H, W] uint8 -> [h, w]: the class at the middle of each new pixel."""
    if labels.shape == size:
        return labels
    # The plain nearest neighbour of OpenCV begins at pixel corners, half a pixel beside what the picture does.
    return cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
