"""Windows of a picture: which pixels they show, and where those lie when the window is drawn at another size."""

from __future__ import annotations

import math

MOST_SCALE = 16  # times a net's input size; more takes more memory than there is

Window = tuple[int, int, int, int]  # left, top, right, bottom in the picture's pixels; may reach beyond the picture


def visible(start: int, stop: int, length: int, out_length: int) -> tuple[slice, slice]:
    """Along one axis: which pixels of the picture a window shows, and where they lie in the output; never empty."""
    scale = out_length / (stop - start)
    first = min(max(start, 0), length - 1)
    last = min(max(stop, first + 1), length)
    out_first = min(max(round((first - start) * scale), 0), out_length - 1)
    out_last = min(max(round((last - start) * scale), out_first + 1), out_length)
    return slice(first, last), slice(out_first, out_last)


def spread(length: int, window: int, overlap: float) -> list[tuple[int, int]]:
    """(start, stop) of windows along a side of `length` pixels: spread evenly, from the first pixel to the last.

    They are as few as suffice for neighbours to share at least the part `overlap` of a window.
    """
    window = min(window, length)
    step = max(1, math.floor(window * (1 - overlap)))
    count = math.ceil((length - window) / step) + 1
    starts = [round(place * (length - window) / max(count - 1, 1)) for place in range(count)]
    return [(start, start + window) for start in starts]
