"""Which part of a picture a classifier sees: random crops to learn from, the middle to be scored by.

Reference: Szegedy et al., Going Deeper with Convolutions, CVPR 2015, arXiv:1409.4842, section 6 (area and aspect).
Deviations: the colours, which that paper takes from elsewhere, are changed in one order, brightness, contrast,
saturation, each times a random factor, and after the resize, where there are fewer pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from pictures.images import resize_image

from .sampler import Size

Window = tuple[int, int, int, int]  # top, left, height, width
_TRIALS = 10
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue (ITU-R BT.601)


class MiddleCrop:
    """The middle of the picture at `size` (height, width): the largest window of that aspect, `share` of its sides."""

    def __init__(self, size: Size, share: float = 0.875) -> None:
        self.size, self.share = size, share

    def __call__(self, image: np.ndarray, seed: int | None = None, size: Size | None = None) -> np.ndarray:  # noqa: ARG002
        """image [H, W, 3] uint8 -> [h, w, 3]; `size` instead of its own where given."""
        size = size or self.size
        return _cut(image, _middle(image.shape[:2], size[1] / size[0], self.share), size)


class CropAugmentation:
    """A random part of the picture, perhaps mirrored, in other colours. Everything derives from the seed.

    crop_area: least and most of the picture's area; crop_aspect: least and most width over height, relative to the
    output's; flip_probability; brightness, contrast, saturation: multiplied with 1 - value to 1 + value.
    Raises ValueError, naming the argument, where a value is out of its range.
    """

    def __init__(
        self,
        *,
        crop_area: Sequence[float] = (0.08, 1.0),
        crop_aspect: Sequence[float] = (0.75, 4 / 3),
        flip_probability: float = 0.5,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
    ) -> None:
        self.crop_area = _rising("crop_area", crop_area, most=1)
        self.crop_aspect = _rising("crop_aspect", crop_aspect, most=100)
        self.flip_probability = _part("flip_probability", flip_probability)
        self.brightness = _part("brightness", brightness)
        self.contrast = _part("contrast", contrast)
        self.saturation = _part("saturation", saturation)

    def __call__(self, image: np.ndarray, seed: int | None = None, size: Size | None = None) -> np.ndarray:
        """image [H, W, 3] uint8 -> [h, w, 3] at `size` (the picture's own). Raises ValueError without a seed."""
        if seed is None:
            raise ValueError("a random crop needs a seed: ask for (index, seed, size), not for an index alone")
        size = size or (image.shape[0], image.shape[1])
        rng = np.random.default_rng(seed)
        cut = _cut(image, self._draw_window(image.shape[:2], size[1] / size[0], rng), size)
        if rng.random() < self.flip_probability:
            cut = cv2.flip(cut, 1)
        factors = [float(rng.uniform(1 - part, 1 + part)) for part in (self.brightness, self.contrast, self.saturation)]
        return _recoloured(cut, *factors)

    def _draw_window(self, size: Sequence[int], aspect: float, rng: np.random.Generator) -> Window:
        """A few trials; then, for a picture that is too long for them all, its middle."""
        height, width = size
        for _ in range(_TRIALS):
            area = height * width * rng.uniform(*self.crop_area)
            ratio = aspect * math.exp(rng.uniform(*np.log(self.crop_aspect)))
            rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < rows <= height and 0 < columns <= width:
                return int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns
        return _middle(size, aspect, 1.0)


def _middle(size: Sequence[int], aspect: float, share: float) -> Window:
    height, width = size
    rows = max(1, round(share * min(height, width / aspect)))
    columns = max(1, round(share * min(width, height * aspect)))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _cut(image: np.ndarray, window: Window, size: Size) -> np.ndarray:
    top, left, rows, columns = window
    return resize_image(image[top : top + rows, left : left + columns], size)


def _recoloured(image: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """[H, W, 3] uint8: times `brightness`, away from its mean grey by `contrast`, from each pixel's by `saturation`."""
    values = np.arange(256, dtype=np.float32) * brightness
    bright = cv2.LUT(np.ascontiguousarray(image), np.clip(values, 0, 255).round().astype(np.uint8))
    mean = float(np.dot(cv2.mean(bright)[:3], _GREY))
    values = mean + (np.arange(256, dtype=np.float32) - mean) * contrast
    contrasted = cv2.LUT(bright, np.clip(values, 0, 255).round().astype(np.uint8))
    grey = cv2.cvtColor(cv2.cvtColor(contrasted, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(contrasted, saturation, grey, 1 - saturation, 0)


def _part(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; expected a number in 0..1")
    return value


def _rising(name: str, values: Sequence[float], *, most: float) -> tuple[float, float]:
    if len(values) != 2 or not 0 < values[0] <= values[1] <= most:
        raise ValueError(f"{name} is {list(values)}; expected two rising numbers, above 0 and at most {most}")
    return float(values[0]), float(values[1])
