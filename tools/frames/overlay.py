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
    canvas = np.ascontiguousarray(picture).copy()
    draw_classes_(canvas, labels, class_names, colours=colours, opacity=opacity, hidden=hidden)
    return canvas


def draw_classes_(
    canvas: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    colours: Sequence[Colour] | None = None,
    opacity: float = 0.5,
    hidden: Collection[int] = (),
) -> None:
    """As `draw_classes`, into `canvas` itself."""
    if labels.shape != canvas.shape[:2]:
        raise ValueError(f"labels are {list(labels.shape)}; expected the picture's size {list(canvas.shape[:2])}")
    tints = class_colours(len(class_names), colours)
    shown = np.zeros(256, bool)
    shown[: len(class_names)] = True
    shown[list(hidden)] = False
    table = np.zeros((256, 3), np.uint8)
    table[: len(class_names)] = tints
    values = labels.astype(np.uint8, copy=False)
    counts = count_labels(values)
    is_shown = cv2.LUT(values, shown.astype(np.uint8)) if counts[~shown].any() else np.ones(values.shape, np.uint8)
    left, top, width, height = cv2.boundingRect(is_shown)
    if width:
        place = slice(top, top + height), slice(left, left + width)
        # Ten times as quick as table[values]; the name speaks of blue first, but OpenCV only copies three bytes.
        tint = cv2.applyColorMap(values[place], table[:, None])
        tinted = cv2.addWeighted(canvas[place], 1 - opacity, tint, opacity, 0)
        canvas[place] = cv2.copyTo(tinted, is_shown[place], canvas[place].copy())
    rows = np.flatnonzero(shown & (counts >= max(1, LEAST_SHARE * values.size))).tolist()
    _draw_legend(canvas, [(class_names[row], _as_colour(tints[row])) for row in rows])


def count_labels(labels: np.ndarray) -> np.ndarray:
    """labels [H, W] uint8 -> [256] how many pixels each has; three times as quick as `np.bincount`."""
    return cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel().astype(np.int64)  # [256, 1] before OpenCV 5


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
