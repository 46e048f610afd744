"""Edges of a soft mask drawn to the edges of the picture that it was made from.

Reference: He and Sun, Fast Guided Filter, arXiv:1505.00996 (the filter itself: He, Sun, Tang, Guided Image Filtering,
IEEE TPAMI 35(6), 2013).
Deviations: the guide is the picture's brightness; the filtered mask counts only as far as the given one is unsure,
since inside and outside of an object the texture would show.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from pictures.images import resize_image

_REACH = 1 / 50  # radius of the filter, in parts of the picture's side: about as far as a net's mask is off
_FINENESS = 2  # the lines are found on every 2nd place: 4 times less work, and hardly another mask
_EPSILON = 1e-3  # brightness (0..1) squared: fainter edges than about 0.03 of the range do not count


class EdgeLines(NamedTuple):
    """A mask as slope * brightness + offset (brightness 0..1), both [h, w] float32.

    Found on a small picture and enlarged, they give the mask of a large one, with its edges.
    """

    slope: np.ndarray
    offset: np.ndarray

    def at(self, guide: np.ndarray) -> np.ndarray:
        """guide [h, w] float32, brightness 0..1, of the lines' own size -> the mask [h, w] float32 0..1."""
        return np.clip(self.slope * guide + self.offset, 0, 1)


def brightness(picture: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 RGB -> [H, W] float32 0..1."""
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) * np.float32(1 / 255)


def refine_mask(mask: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """mask [h, w] float32 0..1, of a picture's size or smaller, and the picture [H, W, 3] uint8 RGB -> [H, W] float32
    0..1 with the picture's edges. The work is done at the mask's size.
    """
    height, width = picture.shape[:2]
    lines = edge_lines(mask, brightness(resize_image(picture, (mask.shape[0], mask.shape[1]))))
    return EdgeLines(*(cv2.resize(each, (width, height)) for each in lines)).at(brightness(picture))


def edge_lines(mask: np.ndarray, guide: np.ndarray) -> EdgeLines:
    """mask [h, w] float32 0..1 and guide [h, w] float32, brightness 0..1 -> the mask with the guide's edges."""
    height, width = mask.shape
    coarse = max(1, width // _FINENESS), max(1, height // _FINENESS)  # as OpenCV has it: (width, height)
    radius = max(1, round(_REACH * math.sqrt(math.prod(coarse))))
    small_guide, small_mask = (cv2.resize(each, coarse, interpolation=cv2.INTER_AREA) for each in (guide, mask))
    lines = guided_lines(small_guide, small_mask, radius, _EPSILON)
    slope, offset = (cv2.resize(each, (width, height)) for each in lines)
    doubt = 4 * mask * (1 - mask)  # 1 where the mask is 0.5, 0 where it is sure
    return EdgeLines(doubt * slope, mask + doubt * (offset - mask))


def guided_lines(guide: np.ndarray, values: np.ndarray, radius: int, epsilon: float) -> EdgeLines:
    """Values [h, w] made locally linear in the guide [h, w] (both float32), over boxes of 2 radius + 1 pixels.

    Where the guide varies by less than sqrt(epsilon) values are smoothed; at its edges they follow it.
    """
    box = (2 * radius + 1,) * 2

    def mean(array: np.ndarray) -> np.ndarray:
        return cv2.blur(array, box, borderType=cv2.BORDER_REFLECT)

    guide_mean, values_mean = mean(guide), mean(values)
    covariance = mean(guide * values) - guide_mean * values_mean
    variance = mean(guide * guide) - guide_mean * guide_mean
    slope = covariance / (variance + epsilon)
    return EdgeLines(mean(slope), mean(values_mean - slope * guide_mean))
