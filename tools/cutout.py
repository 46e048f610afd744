"""A person cut out of a picture: everything else blurred, one colour, or another picture."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import ImageColor

from pictures.images import read_image

from .soft_edges import refine_mask
from .steady import SteadyScores

# (picture [H, W, 3] uint8 RGB, mask [H, W] float32 of what stays) -> what stands behind, [H, W, 3] uint8 RGB.
Background = Callable[[np.ndarray, np.ndarray], np.ndarray]

BLUR = "blur"
_SURE = 0.9  # a mask from here on is taken for 1, and below 1 - _SURE for 0: no haze in what is replaced
_BLUR_STEP = 4  # the blur is computed on every 4th pixel, which it cannot show
_BLUR_REACH = 1 / 40  # sigma of the blur, in parts of the picture's shorter side


def parse_background(word: str) -> Background:
    """What `--background` names: "blur", a colour ("green", "#00b140") or a picture file.

    Raises ValueError for anything else and where the file is no picture.
    """
    if word == BLUR:
        return blurred
    if Path(word).is_file():
        return _picture_background(read_image(word))
    try:
        colour = ImageColor.getrgb(word)
    except ValueError:
        raise ValueError(
            f"{word!r} is no background; expected blur, a colour such as green or #00b140, or a picture file"
        ) from None
    return lambda picture, _: np.full_like(picture, colour[:3])


def blurred(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture out of focus, without what the mask keeps: a person's colours do not shine around the person."""
    height, width = mask.shape
    small = (max(1, width // _BLUR_STEP), max(1, height // _BLUR_STEP))
    behind = 1 - cv2.resize(mask, small, interpolation=cv2.INTER_AREA)
    view = cv2.resize(picture, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    sigma = max(1.0, _BLUR_REACH * min(small))
    # A little of everything counts, so that there is something to show where the person fills the view.
    weights = behind + 1e-3
    colours = cv2.GaussianBlur(view * weights[:, :, None], (0, 0), sigma)
    blur = colours / cv2.GaussianBlur(weights, (0, 0), sigma)[:, :, None]
    return cv2.resize(np.clip(blur + 0.5, 0, 255).astype(np.uint8), (width, height))


def fill(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of `picture` [h, w, 3], as large as fits, at (height, width): its aspect ratio is kept."""
    height, width = size
    scale = max(height / picture.shape[0], width / picture.shape[1])
    rows, columns = (min(whole, max(1, round(side / scale))) for whole, side in zip(picture.shape, size, strict=False))
    top, left = (picture.shape[0] - rows) // 2, (picture.shape[1] - columns) // 2
    part = picture[top : top + rows, left : left + columns]
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _picture_background(background: np.ndarray) -> Background:
    fitted: dict[tuple[int, int], np.ndarray] = {}

    def behind(picture: np.ndarray, _: np.ndarray) -> np.ndarray:
        size = (picture.shape[0], picture.shape[1])
        if size not in fitted:  # frames of a video are all of one size
            fitted.clear()
            fitted[size] = fill(background, size)
        return fitted[size]

    return behind


def composite(picture: np.ndarray, background: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture where the mask [H, W] is 1, the background where it is 0, both in between; all of one size."""
    return cv2.blendLinear(picture, background, mask, 1 - mask)


class CutOut:
    """Replaces everything in a picture that is no person, frame by frame.

    person: the class to keep, by its place in the scores. In a video the mask is kept steady where nothing moves;
    `start_over` before another one.
    """

    def __init__(self, background: Background, *, person: int) -> None:
        self.background, self.person = background, person
        self._steady = SteadyScores()

    def start_over(self) -> None:
        """Forgets the frames so far: what comes next is another picture or video."""
        self._steady.start_over()

    def __call__(self, picture: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """picture [H, W, 3] uint8 RGB, scores [C, H, W] float32 0..1 -> the picture with another background."""
        mask = self.mask(picture, scores)
        return composite(picture, self.background(picture, mask), mask)

    def mask(self, picture: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """[H, W] float32: 1 where the person is, 0 elsewhere, in between along the edges."""
        steady = self._steady(picture, scores[self.person])
        return np.clip((refine_mask(steady, picture) - (1 - _SURE)) / (2 * _SURE - 1), 0, 1)
