"""Boxes, class names and scores drawn on a picture, readable on small pictures and on large ones."""

import colorsys
import math
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from detect.results import Detections

Colour = tuple[int, int, int]  # RGB
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two just outside

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FIRST_HUE = 0.92  # class 0 is what people look for most: a red-pink that grass, sky, road and skin seldom have
_HUE_STEP = 0.37  # turns: eight colours that lie far apart on the wheel, then eight in the next shade
_CLASSES_PER_SHADE = 8
_SHADES = ((0.85, 1.0), (1.0, 0.6), (0.45, 1.0), (0.5, 0.75), (1.0, 0.8), (0.65, 1.0), (0.7, 0.55), (0.3, 0.9))
_LEAST_TEXT_HEIGHT = 10  # pixels above the base line; smaller letters are not read


class Style(NamedTuple):
    """line_width: pixels; text_height: pixels of a line of text above its base; text_width: pixels of its strokes."""

    line_width: int
    text_height: int
    text_width: int


def style_for(height: int, width: int) -> Style:
    """Lines and letters that look the same on every picture once it fills a screen."""
    side = math.sqrt(height * width)
    text_height = max(_LEAST_TEXT_HEIGHT, round(side / 45))
    return Style(max(1, round(side / 320)), text_height, max(1, round(text_height / 10)))


@cache
def class_colour(label: int) -> Colour:
    """The RGB colour of a class: always the same for a label, and unlike that of the labels around it."""
    saturation, value = _SHADES[label // _CLASSES_PER_SHADE % len(_SHADES)]  # (saturation, value)
    hue = (_FIRST_HUE + label * _HUE_STEP) % 1.0
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


@cache
def contrasting(colour: Colour) -> Colour:
    """Black or white, whichever is the easier to read on `colour`, by the contrast ratio of WCAG 2."""
    linear = [(part / 255) ** 2.2 for part in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else (255, 255, 255)


def draw_detections(image: np.ndarray, detections: Detections, class_names: Sequence[str]) -> np.ndarray:
    """A copy of `image` [H, W, 3] uint8 RGB with a box, the class name and the score of each detection on it."""
    canvas = np.ascontiguousarray(image).copy()
    draw_detections_(canvas, detections, class_names)
    return canvas


def draw_detections_(canvas: np.ndarray, detections: Detections, class_names: Sequence[str]) -> None:
    """Draws a box, the class name and the score of each detection into `canvas` [H, W, 3] uint8 RGB, in one piece.

    The boxes are in the pixels of `canvas`. All boxes are drawn before all labels, and the best last, so that what is
    surest is covered by nothing. Where labels crowd, some hold the score alone: the colour still tells the class.
    """
    style = style_for(*canvas.shape[:2])
    rows = list(zip(detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True))
    for box, _, label in reversed(rows):
        _draw_box(canvas, box, class_colour(label), style)
    labels: list[_Label] = []
    for box, score, label in rows:
        texts = f"{class_names[label]} {score:.2f}", f"{score:.2f}"
        labels.append(_choose_label(texts, box, class_colour(label), style, canvas.shape[:2], labels))
    for chosen in reversed(labels):
        left, _, _, bottom = chosen.place
        draw_text(canvas, chosen.text, (left, bottom), chosen.colour, chosen.style)


def draw_note(image: np.ndarray, text: str) -> np.ndarray:
    """A copy of `image` [H, W, 3] uint8 RGB with one line of white on black in its lower left corner."""
    canvas = np.ascontiguousarray(image).copy()
    draw_text(canvas, text, (0, image.shape[0]), (0, 0, 0), style_for(*image.shape[:2]))
    return canvas


def label_places(box: Sequence[float], label_size: tuple[int, int], picture_size: tuple[int, ...]) -> list[Rectangle]:
    """Where a label of (width, height) may go, best first: on the box's top, inside its top, under it.

    box: xyxy in the picture; picture_size: (height, width). All places lie inside the picture; a label larger than the
    picture starts at its corner. A box that the label would hide has no place inside.
    """
    (width, height), (picture_height, picture_width) = label_size, picture_size
    left = max(0, min(round(box[0]), picture_width - width))
    top, bottom = round(box[1]), round(box[3])
    tops = [top - height, *([top] if bottom - top >= 2 * height else []), bottom]
    fitting = [edge for edge in tops if 0 <= edge <= picture_height - height]
    fitting = fitting or [max(0, min(top, picture_height - height))]
    return [(left, edge, left + width, edge + height) for edge in fitting]


class _Label(NamedTuple):
    text: str
    place: Rectangle
    colour: Colour
    style: Style


def _choose_label(
    texts: Sequence[str],
    box: Sequence[float],
    colour: Colour,
    style: Style,
    picture_size: tuple[int, ...],
    others: Sequence[_Label],
) -> _Label:
    """The first of `texts` that has a place free of other labels there; else the last text at its best place."""
    candidates = []
    for text in texts:
        fitted, fitted_style = _fitted(text, style, picture_size[1])
        places = label_places(box, text_box_size(fitted, fitted_style), picture_size)
        candidates += [_Label(fitted, place, colour, fitted_style) for place in places]
    free = (one for one in candidates if not any(_meet(one.place, other.place) for other in others))
    crowded = next(one for one in candidates if one.text == candidates[-1].text)
    return next(free, crowded)


def _meet(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _draw_box(canvas: np.ndarray, box: Sequence[float], colour: Colour, style: Style) -> None:
    """The line runs on the box's edge and inside it: a box that touches the picture's rim keeps all four sides."""
    height, width = canvas.shape[:2]
    inset = style.line_width // 2
    left, top = (max(round(value), 0) + inset for value in box[:2])
    right, bottom = min(round(box[2]), width) - 1 - inset, min(round(box[3]), height) - 1 - inset
    corners = (left, top), (max(right, left), max(bottom, top))
    if style.line_width > 1:
        cv2.rectangle(canvas, *corners, contrasting(colour), style.line_width + 2)
    cv2.rectangle(canvas, *corners, colour, style.line_width)


def draw_text(canvas: np.ndarray, text: str, bottom_left: tuple[int, int], background: Colour, style: Style) -> None:
    """Writes `text` on a filled box into `canvas` [H, W, 3] uint8 RGB; bottom_left: (left, the row below the box)."""
    written = _written(text, background, style)
    left, top = bottom_left[0], bottom_left[1] - written.shape[0]
    part = written[max(0, -top) : max(0, canvas.shape[0] - top), max(0, -left) : max(0, canvas.shape[1] - left)]
    left, top = max(0, left), max(0, top)
    canvas[top : top + part.shape[0], left : left + part.shape[1]] = part


@lru_cache(maxsize=256)  # a class and its score in two digits come again, and letters are slow to draw
def _written(text: str, background: Colour, style: Style) -> np.ndarray:
    """The text on its box, [h, w, 3] uint8 RGB."""
    width, height = text_box_size(text, style)
    box = np.full((height, width, 3), background, np.uint8)
    padding, (_, below) = _padding(style), _text_size(text, style)
    origin = padding, height - padding - below
    scale = _font_scale(style)
    cv2.putText(box, text, origin, _FONT, scale, contrasting(background), style.text_width, cv2.LINE_AA)
    box.flags.writeable = False
    return box


def _fitted(text: str, style: Style, width: int) -> tuple[str, Style]:
    """Text and style so that the label is at most `width` pixels wide: smaller letters first, then fewer."""
    while text_box_size(text, style)[0] > width and style.text_height > _LEAST_TEXT_HEIGHT:
        style = style._replace(text_height=style.text_height - 1, text_width=max(1, round(style.text_height / 10)))
    name, _, score = text.rpartition(" ")
    while text_box_size(text, style)[0] > width and name:
        name = name[:-1]
        text = f"{name}.. {score}" if name else score
    return text, style


def text_box_size(text: str, style: Style) -> tuple[int, int]:
    """(width, height) of the filled label in pixels."""
    (width, below), padding = _text_size(text, style), _padding(style)
    return width + 2 * padding, style.text_height + below + 2 * padding


@lru_cache(maxsize=1024)  # names and scores come again and again, and OpenCV takes its time
def _text_size(text: str, style: Style) -> tuple[int, int]:
    """(width, depth below the base line) in pixels."""
    (width, _), below = cv2.getTextSize(text, _FONT, _font_scale(style), style.text_width)
    return width, below


def _padding(style: Style) -> int:
    return max(2, style.text_height // 4)


def _font_scale(style: Style) -> float:
    return style.text_height / _unit_height()


@cache
def _unit_height() -> int:
    """Pixels of a line of text above its base at scale 1; the face behind the name differs between OpenCV 4 and 5."""
    (_, height), _ = cv2.getTextSize("X", _FONT, 1.0, 1)
    return int(height)
