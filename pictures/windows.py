"""Windows of a picture: which pixels they show, and where those lie when the window is drawn at another size."""

from __future__ import annotations

Window = tuple[int, int, int, int]  # left, top, right, bottom in the picture's pixels; may reach beyond the picture


def visible(start: int, stop: int, length: int, out_length: int) -> tuple[slice, slice]:
    """Along one axis: which pixels of the picture a window shows, and where they lie in the output; never empty."""
    scale = out_length / (stop - start)
    first = min(max(start, 0), length - 1)
    last = min(max(stop, first + 1), length)
    out_first = min(max(round((first - start) * scale), 0), out_length - 1)
    out_last = min(max(round((last - start) * scale), out_first + 1), out_length)
    return slice(first, last), slice(out_first, out_last)
