"""The classes of a picture's pixels as colours over it, with a legend."""

from collections.abc import Collection, Sequence

import cv2
import numpy as np

from .draw import Colour, class_colour, draw_text, style_for, text_box_size

LEAST_SHARE = 0.0005  # of the picture: what covers less is not in the legend


def class_colours(num_classes: int, given: Sequence[Colour] | None = None) -> np.ndarray:
    """[C, 3] uint8 RGB: the colours of a data set where it has some, else well-told-apart ones."""
    if given is not None and len(given) != num_classes:
        raise ValueError(f"{len(given)} colours for {num_classes} classes")
    return np.array(given or [class_colour(label) for label in range(num_classes)], np.uint8)


def draw_classes(
    picture: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    colours: Sequence[Colour] | None = None,
    opacity: float = 0.5,
    hidden: Collection[int] = (),
) -> np.ndarray:
    """A copy of `picture` [H, W, 3] uint8 RGB, tinted by the labels [H, W] of its pixels, with a legend of the colours.

    Classes in `hidden` (a background), and labels beyond the classes such as 255, leave the picture as it is and do not
    stand in the legend. Raises ValueError where picture and labels differ in size.
    """
    if labels.shape != picture.shape[:2]:
        raise ValueError(f"labels are {list(labels.shape)}; expected the picture's size {list(picture.shape[:2])}")
    tints = class_colours(len(class_names), colours)
    shown = np.zeros(256, bool)
    shown[: len(class_names)] = True
    shown[list(hidden)] = False
    table = np.zeros((256, 3), np.uint8)
    table[: len(class_names)] = tints
    values = labels.astype(np.uint8)
    # Ten times as quick as table[values]; the name speaks of blue first, but OpenCV only copies three bytes.
    canvas = cv2.addWeighted(picture, 1 - opacity, cv2.applyColorMap(values, table[:, None]), opacity, 0)
    counts = np.bincount(values.ravel(), minlength=256)
    if counts[~shown].any():
        cv2.copyTo(picture, cv2.LUT(values, (~shown).astype(np.uint8)), canvas)
    rows = np.flatnonzero(shown & (counts >= max(1, LEAST_SHARE * values.size))).tolist()
    _draw_legend(canvas, [(class_names[row], _as_colour(tints[row])) for row in rows])
    return canvas


def _draw_legend(canvas: np.ndarray, rows: Sequence[tuple[str, Colour]]) -> None:
    """Boxes of one width from the upper left corner down, then in further columns; what finds no room is left out."""
    if not rows:
        return
    style = style_for(*canvas.shape[:2])
    sizes = [text_box_size(name, style) for name, _ in rows]
    width, height = max(size[0] for size in sizes), max(size[1] for size in sizes)
    rows_in_column = max(1, canvas.shape[0] // height)
    for place, (name, colour) in enumerate(rows):
        column, row = divmod(place, rows_in_column)
        left, bottom = column * width, (row + 1) * height
        if left + width > canvas.shape[1] and column:
            return
        cv2.rectangle(canvas, (left, bottom - height), (left + width - 1, bottom - 1), colour, cv2.FILLED)
        draw_text(canvas, name, (left, bottom), colour, style)


def _as_colour(values: np.ndarray) -> Colour:
    red, green, blue = (int(value) for value in values)
    return red, green, blue
