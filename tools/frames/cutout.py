"""A person cut out of a picture: everything else blurred, one colour, or another picture."""

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import ImageColor

from pictures.images import read_image, resize_image

from .soft_edges import EdgeLines, brightness, edge_lines
from .steady import CELL, SteadyScores

Size = tuple[int, int]  # (height, width)
Place = tuple[slice, slice]  # rows, columns
# (view [h, w, 3] uint8 RGB, mask [h, w] float32 of what stays, out [H, W, 3] uint8 RGB) fills `out` with what stands
# behind. The view is the picture, shrunk or not.
Background = Callable[[np.ndarray, np.ndarray, np.ndarray], None]

BLUR = "blur"
_WORK_SIDE = 240  # pixels: the mask is worked on at about so many by so many, and as sharp as a net gives it
_SURE = 0.9  # a mask from here on is taken for 1, and below 1 - _SURE for 0: no haze in what is replaced
_NOBODY = 0.02  # scores up to here give no mask beyond 1 - _SURE, whatever the picture's edges
_AROUND = 5  # places of the small mask: further than this from all that is beyond 1 - _SURE, edges bring nothing back
_BLUR_SIDE = 120  # the blur is computed on so many by so many pixels, which it cannot show
_BLUR_REACH = 1 / 40  # sigma of the blur, in parts of the picture's shorter side


def working_size(picture_size: Size) -> Size:
    """The (height, width) at which a picture's mask is worked on: its own, divided by a whole number."""
    return _divided(picture_size, _step(picture_size, _WORK_SIDE))


def _step(size: Size, side: int) -> int:
    return max(1, round(math.sqrt(math.prod(size)) / side))


def _divided(size: Size, step: int) -> Size:
    return max(1, size[0] // step), max(1, size[1] // step)


def parse_background(word: str) -> Background:
    """What `--background` names: "blur", a colour ("green", "#00b140") or a picture file.

    Raises ValueError for anything else and where the file is no picture.
    """
    if word == BLUR:
        return blurred
    if Path(word).is_file():
        image = read_image(word)
        return _constant(lambda size: fill(image, size))
    try:
        colour = ImageColor.getrgb(word)
    except ValueError:
        raise ValueError(
            f"{word!r} is no background; expected blur, a colour such as green or #00b140, or a picture file"
        ) from None
    return _constant(lambda size: np.full((*size, 3), colour[:3], np.uint8))


def blurred(view: np.ndarray, mask: np.ndarray, out: np.ndarray) -> None:
    """The picture out of focus, without what the mask keeps: a person's colours do not shine around the person."""
    size = (mask.shape[0], mask.shape[1])
    small = _divided(size, _step(size, _BLUR_SIDE))
    behind = 1 - cv2.resize(mask, small[::-1], interpolation=cv2.INTER_AREA)
    colours = cv2.resize(view, small[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    # A little of everything counts, so that there is something to show where the person fills the view.
    weights = behind + np.float32(1e-3)
    weighted = cv2.merge([*cv2.split(colours * cv2.merge([weights] * 3)), weights])
    weighted = cv2.GaussianBlur(weighted, (0, 0), max(1.0, _BLUR_REACH * min(small)))
    blur = weighted[:, :, :3] / weighted[:, :, 3:]
    cv2.resize(np.clip(blur + 0.5, 0, 255).astype(np.uint8), (out.shape[1], out.shape[0]), dst=out)


def fill(picture: np.ndarray, size: Size) -> np.ndarray:
    """The middle of `picture` [h, w, 3], as large as fits, at (height, width): its aspect ratio is kept."""
    height, width = size
    scale = max(height / picture.shape[0], width / picture.shape[1])
    rows, columns = (min(whole, max(1, round(side / scale))) for whole, side in zip(picture.shape, size, strict=False))
    top, left = (picture.shape[0] - rows) // 2, (picture.shape[1] - columns) // 2
    part = picture[top : top + rows, left : left + columns]
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _constant(make: Callable[[Size], np.ndarray]) -> Background:
    """A background that is made once: frames of a video are all of one size."""
    made: dict[Size, np.ndarray] = {}

    def behind(_view: np.ndarray, _mask: np.ndarray, out: np.ndarray) -> None:
        size = (out.shape[0], out.shape[1])
        if size not in made:
            made.clear()
            made[size] = make(size)
        np.copyto(out, made[size])

    return behind


def composite_(picture: np.ndarray, background: np.ndarray, mask: np.ndarray) -> None:
    """Leaves in `picture` what is there where the mask [H, W] uint8 is 255, puts the background where it is 0, and both
    in between; all of one size and in one piece. In 8 bits: where both are mixed, a value may be 1 off.
    """
    masks = cv2.merge([mask] * 3)
    cv2.multiply(picture, masks, dst=picture, scale=1 / 255)
    cv2.bitwise_not(masks, dst=masks)
    cv2.add(picture, cv2.multiply(background, masks, dst=masks, scale=1 / 255), dst=picture)


class CutOut:
    """Replaces everything in a picture that is no person, frame by frame.

    In a video the mask is kept steady where nothing moves; `start_over` before another one. All but the last step
    happens on a small picture, see `working_size`.
    """

    def __init__(self, background: Background) -> None:
        self.background = background
        self._steady = SteadyScores()

    def start_over(self) -> None:
        """Forgets the frames so far: what comes next is another picture or video."""
        self._steady.start_over()

    def __call__(self, picture: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """picture [H, W, 3] uint8 RGB, the person's scores [h, w] float32 0..1 of any size -> the picture with another
        background.
        """
        drawn = np.ascontiguousarray(picture).copy()
        self.draw_(drawn, scores)
        return drawn

    def draw_(self, picture: np.ndarray, scores: np.ndarray) -> None:
        """As a call, but replaces what is in `picture` itself, which has to be in one piece."""
        view, guide, scored, lines = self._small_mask(picture, scores)
        small, large = _places(_possible(scored), (picture.shape[0], picture.shape[1]))
        person = picture[large].copy()
        self.background(view, lines.at(guide), picture)
        composite_(person, picture[large], _large_mask(person, lines, small))
        picture[large] = person

    def mask(self, picture: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """[H, W] uint8: 255 where the person is, 0 elsewhere, in between along the edges."""
        _, _, scored, lines = self._small_mask(picture, scores)
        small, large = _places(_possible(scored), (picture.shape[0], picture.shape[1]))
        mask = np.zeros(picture.shape[:2], np.uint8)
        mask[large] = _large_mask(picture[large], lines, small)
        return mask

    def _small_mask(
        self, picture: np.ndarray, scores: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, EdgeLines]:
        """The picture shrunk, its brightness, the person's scores made steady, and the mask's edges, of one size."""
        height, width = size = working_size((picture.shape[0], picture.shape[1]))
        view = resize_image(picture, size)
        way = cv2.INTER_AREA if scores.shape[0] > height else cv2.INTER_LINEAR
        own = scores if scores.shape == size else cv2.resize(scores, (width, height), interpolation=way)
        scored = self._steady(view, own, cell=max(1, round(CELL * height / picture.shape[0])))
        guide = brightness(view)
        slope, offset = edge_lines(scored, guide)
        contrast = 1 / (2 * _SURE - 1)
        return view, guide, scored, EdgeLines(slope * contrast, (offset - (1 - _SURE)) * contrast)


def _possible(scores: np.ndarray) -> np.ndarray:
    """scores [h, w] float32 -> [h, w] bool: where the large mask may be above 0."""
    near = cv2.dilate(scores, np.ones((2 * _AROUND + 1, 2 * _AROUND + 1), np.uint8)) > 1 - _SURE
    return near & (scores > _NOBODY)


def _places(there: np.ndarray, size: Size) -> tuple[Place, Place]:
    """Where a map [h, w] bool is true, with a margin around: the rectangle in the map, and in a picture of `size`.

    All of both where a place of the map is no whole number of pixels; a corner where nothing is true.
    """
    steps = [whole // part for whole, part in zip(size, there.shape, strict=True)]
    if any(part * step != whole for whole, part, step in zip(size, there.shape, steps, strict=True)):
        return (slice(0, there.shape[0]), slice(0, there.shape[1])), (slice(0, size[0]), slice(0, size[1]))
    found = [np.flatnonzero(there.any(axis=axis)) for axis in (1, 0)]
    spans = [(max(0, each[0] - 1), each[-1] + 2) if len(each) else (0, 1) for each in found]
    rows, columns = (slice(start, min(stop, side)) for (start, stop), side in zip(spans, there.shape, strict=True))
    return (rows, columns), (
        slice(rows.start * steps[0], rows.stop * steps[0]),
        slice(columns.start * steps[1], columns.stop * steps[1]),
    )


def _large_mask(picture: np.ndarray, lines: EdgeLines, small: Place) -> np.ndarray:
    """picture [H, W, 3] uint8 RGB, and the lines of what it shows -> its mask [H, W], 0..255 in 8 bits."""
    height, width = picture.shape[:2]
    slope, offset = (cv2.resize(each, (width, height)) for each in (lines.slope[small], 255 * lines.offset[small]))
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)  # 0..255, as the mask is to be
    return cv2.add(cv2.multiply(slope, grey, dst=slope), offset, dtype=cv2.CV_8U)
