"""Augmentation of pictures and boxes behind one small interface; albumentations does the colours.

Reference: Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016, arXiv:1512.02325, sections 2.2 (data augmentation)
and 3.6 (expansion).
Deviations: the colours are changed after the crop and the resize, where there are fewer pixels; crop windows that meet
the same conditions are drawn 50 at a time; a picture is resized without keeping its aspect ratio, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from pictures.checks import Size, checked, checked_range, checked_size
from pictures.colour_distortion import ColourDistortion
from pictures.images import resize_image
from pictures.windows import Window, visible


class Transformed(NamedTuple):
    """A picture and its boxes after a transform.

    image: [h, w, 3] uint8 RGB, perhaps a view of the input; boxes: [K, 4] float32 xyxy in it, 0 <= x1 < x2 <= w;
    kept: [K] int64, the rows of the input that they are; shown: (height, width) of what is seen, in pixels of the
    input, where `image` may have another proportion.
    """

    image: np.ndarray
    boxes: np.ndarray
    kept: np.ndarray
    shown: Size | None = None


class Transform(Protocol):
    """Changes a picture and its boxes. Everything random derives from `seed`: the same call gives the same bytes."""

    is_random: bool

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, is_crowd: np.ndarray, *, seed: int = 0, size: Size | None = None
    ) -> Transformed:
        """Draw the picture [H, W, 3] (uint8 RGB) anew at `size`; boxes [M, 4] float32 xyxy in it, is_crowd [M] bool.

        Raises ValueError where `size` is not (height, width), two positive whole numbers.
        """
        ...


class Resize:
    """The whole picture at one size, for evaluation: `size` (height, width) unless the call names another."""

    is_random = False

    def __init__(self, size: Sequence[int] | None = None) -> None:
        self.size = None if size is None else checked_size(size)

    def __call__(  # seed and is_crowd belong to the interface
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        is_crowd: np.ndarray,  # noqa: ARG002
        *,
        seed: int = 0,  # noqa: ARG002
        size: Size | None = None,
    ) -> Transformed:
        """See `Transform`; `seed` and `is_crowd` do not matter here. Raises ValueError where no size is known."""
        target = self.size if size is None else checked_size(size)
        if target is None:
            raise ValueError("Resize got no size, neither when it was made nor in the call; expected (height, width)")
        moved = _into_window(boxes, (0, 0, image.shape[1], image.shape[0]), target)
        kept = np.flatnonzero((moved[:, 2] > moved[:, 0]) & (moved[:, 3] > moved[:, 1]))
        return Transformed(resize_image(image, target), moved[kept], kept, (image.shape[0], image.shape[1]))


class SSDAugmentation:
    """Expand, crop by IoU, flip, resize, distort colours: section 2.2 of the paper, with its numbers as defaults.

    With `expand_probability` the picture comes to lie on a canvas whose sides are `expand_ratio` (least, most) times
    its own, filled with `fill` (RGB 0..255). With `crop_probability` a window of the canvas is cut out: a least IoU of
    the window with some object, whose centre it must hold, is chosen from `crop_min_overlaps` (None leaves the canvas
    whole) and `crop_trials` windows are drawn whose sides are at least `crop_min_side` of the canvas's and whose width
    over height lies in `crop_aspect`; if none is fit, another overlap has its turn. Objects whose centre is cut off are
    dropped, and boxes narrower or lower than `min_box_side` output pixels; crowd regions stay while they are visible.
    With `flip_probability` left and right change places, with `vertical_flip_probability` top and bottom (for pictures
    that have no upper side). Each of four distortions takes part with
    `distort_probability`: a shift of at most `brightness` * 255, `contrast` and `saturation` times at most 1 + their
    value and at least 1 - it, and `hue` turned by at most its value, in whole turns.
    Raises ValueError, naming the argument, where a value is out of its range.
    """

    is_random = True

    def __init__(
        self,
        *,
        expand_probability: float = 0.5,
        expand_ratio: Sequence[float] = (1.0, 4.0),
        fill: Sequence[int] = (124, 116, 104),
        crop_probability: float = 1.0,
        crop_min_overlaps: Sequence[float | None] = (None, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9),
        crop_min_side: float = 0.3,
        crop_aspect: Sequence[float] = (0.5, 2.0),
        crop_trials: int = 50,
        flip_probability: float = 0.5,
        vertical_flip_probability: float = 0.0,
        distort_probability: float = 0.5,
        brightness: float = 0.125,
        contrast: float = 0.5,
        saturation: float = 0.5,
        hue: float = 0.05,
        min_box_side: float = 1.0,
    ) -> None:
        self.expand_probability = checked("expand_probability", expand_probability, 0, 1)
        self.expand_ratio = checked_range("expand_ratio", expand_ratio, 1, 100)
        if len(fill) != 3:
            raise ValueError(f"fill is {fill}; expected three values, RGB 0..255")
        self.fill = tuple(round(checked("fill", value, 0, 255)) for value in fill)
        self.crop_probability = checked("crop_probability", crop_probability, 0, 1)
        if not crop_min_overlaps:
            raise ValueError("crop_min_overlaps is empty; expected IoUs in 0..1 or None")
        self.crop_min_overlaps = tuple(
            None if least is None else checked("crop_min_overlaps", least, 0, 1) for least in crop_min_overlaps
        )
        self.crop_min_side = checked("crop_min_side", crop_min_side, 0.01, 1)
        self.crop_aspect = checked_range("crop_aspect", crop_aspect, 0.01, 100)
        self.crop_trials = int(checked("crop_trials", crop_trials, 1, 10_000))
        self.flip_probability = checked("flip_probability", flip_probability, 0, 1)
        self.vertical_flip_probability = checked("vertical_flip_probability", vertical_flip_probability, 0, 1)
        self.min_box_side = checked("min_box_side", min_box_side, 0.01, 1000)
        self._colours = ColourDistortion(
            distort_probability, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue
        )

    def __call__(self, image: np.ndarray, boxes: np.ndarray, is_crowd: np.ndarray, *, seed: int = 0,
                 size: Size | None = None) -> Transformed:  # fmt: skip
        """See `Transform`. Without a size the picture's own is kept."""
        height, width = image.shape[:2]
        size = (height, width) if size is None else checked_size(size)
        rng = np.random.default_rng(seed)
        objects = boxes[~is_crowd]
        if not len(objects):  # then a crop must show enough of the picture itself
            objects = np.array([[0, 0, width, height]], np.float32)
        window = self._crop(self._expand((width, height), rng), objects, rng)
        mirrored = bool(rng.random() < self.flip_probability)
        # Drawn only on request: without it the same seed gives the same picture as ever.
        upended = self.vertical_flip_probability > 0 and bool(rng.random() < self.vertical_flip_probability)
        moved = _into_window(boxes, window, size, mirrored=mirrored, upended=upended)
        kept = np.flatnonzero((_centre_inside(boxes, window) | is_crowd)
                              & (moved[:, 2:] - moved[:, :2] >= self.min_box_side).all(axis=1))  # fmt: skip
        drawn = self._render(image, window, size, rng)
        seen = _flipped(drawn, mirrored=mirrored, upended=upended)
        return Transformed(seen, moved[kept], kept, (window[3] - window[1], window[2] - window[0]))

    def _expand(self, picture: tuple[int, int], rng: np.random.Generator) -> Window:
        """A canvas around the picture (width, height), in the picture's pixels."""
        width, height = picture
        if rng.random() >= self.expand_probability:
            return 0, 0, width, height
        extra = rng.uniform(*self.expand_ratio) - 1.0
        more_width, more_height = round(extra * width), round(extra * height)
        left, top = -int(rng.integers(more_width + 1)), -int(rng.integers(more_height + 1))
        return left, top, left + width + more_width, top + height + more_height

    def _crop(self, canvas: Window, boxes: np.ndarray, rng: np.random.Generator) -> Window:
        """A part of the canvas that overlaps an object enough; the canvas where it is to stay whole."""
        if rng.random() >= self.crop_probability:
            return canvas
        # Each overlap gets one turn, in random order; the first that some window meets decides.
        for choice in rng.permutation(len(self.crop_min_overlaps)):
            least = self.crop_min_overlaps[choice]
            if least is None:
                return canvas
            windows = self._draw_windows(canvas, rng)
            fitting = np.flatnonzero(_shows_an_object(windows, boxes, least))
            if len(fitting):
                left, top, right, bottom = windows[fitting[0]].tolist()
                return left, top, right, bottom
        return canvas

    def _draw_windows(self, canvas: Window, rng: np.random.Generator) -> np.ndarray:
        """[T, 4] int64 windows in the canvas whose sides and aspect ratio are allowed; T <= crop_trials.

        Whole pixels, so that the boxes and the cut agree to the digit.
        """
        corner, canvas_size = np.array(canvas[:2]), np.array([canvas[2] - canvas[0], canvas[3] - canvas[1]])
        sizes = np.ceil(rng.uniform(self.crop_min_side, 1.0, (self.crop_trials, 2)) * canvas_size).astype(np.int64)
        corners = corner + rng.integers(canvas_size - sizes + 1)
        aspect = sizes[:, 0] / sizes[:, 1]
        allowed = (aspect >= self.crop_aspect[0]) & (aspect <= self.crop_aspect[1])
        return np.concatenate([corners, corners + sizes], axis=1)[allowed]

    def _render(self, image: np.ndarray, window: Window, size: Size, rng: np.random.Generator) -> np.ndarray:
        """The window of the picture at `size`: only the visible part is resized and distorted, the rest is filled."""
        rows, out_rows = visible(window[1], window[3], image.shape[0], size[0])
        columns, out_columns = visible(window[0], window[2], image.shape[1], size[1])
        part_size = out_rows.stop - out_rows.start, out_columns.stop - out_columns.start
        part = np.ascontiguousarray(resize_image(image[rows, columns], part_size))
        part = self._colours(part, rng)
        if part.shape[:2] == size:
            return part
        canvas = np.empty((*size, 3), np.uint8)
        canvas[:] = self.fill
        canvas[out_rows, out_columns] = part
        return canvas


def _flipped(image: np.ndarray, *, mirrored: bool, upended: bool) -> np.ndarray:
    """The picture with left and right, or top and bottom, or both changed."""
    if mirrored:
        image = cv2.flip(image, 1)
    return cv2.flip(image, 0) if upended else image


def _into_window(
    boxes: np.ndarray, window: Window, size: Size, *, mirrored: bool = False, upended: bool = False
) -> np.ndarray:
    """[M, 4] boxes from picture pixels to those of the window drawn at `size`, clipped to it; float32."""
    left, top, right, bottom = window
    height, width = size
    scale = np.array([width / (right - left), height / (bottom - top)] * 2)
    moved = (boxes.astype(np.float64) - np.array([left, top, left, top])) * scale
    if mirrored:
        moved[:, [0, 2]] = width - moved[:, [2, 0]]
    if upended:
        moved[:, [1, 3]] = height - moved[:, [3, 1]]
    return np.clip(moved, 0, np.array([width, height] * 2)).astype(np.float32)


def _centre_inside(boxes: np.ndarray, window: Window) -> np.ndarray:
    """[M] bool."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres >= np.array(window[:2])) & (centres < np.array(window[2:]))).all(axis=1)


def _shows_an_object(windows: np.ndarray, boxes: np.ndarray, least: float) -> np.ndarray:
    """[T] bool: does a window [T, 4] hold a box's centre whose IoU with the window is at least `least`?"""
    top_left = np.maximum(windows[:, None, :2], boxes[None, :, :2])
    bottom_right = np.minimum(windows[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    areas = (windows[:, None, 2:] - windows[:, None, :2]).prod(axis=2) + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    centres = (boxes[None, :, :2] + boxes[None, :, 2:]) / 2
    inside = ((centres >= windows[:, None, :2]) & (centres < windows[:, None, 2:])).all(axis=2)
    return (inside & (shared >= least * (areas - shared))).any(axis=1)
