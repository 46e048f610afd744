"""Numbers that augmentations are told: each in its range, or refused by its name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Size = tuple[int, int]  # (height, width)


def checked_size(size: Sequence[int]) -> Size:
    """`size` as (height, width); ValueError where it is not two positive whole numbers."""
    if len(size) != 2 or not all(isinstance(side, int | np.integer) and side > 0 for side in size):
        raise ValueError(f"size is {size}; expected two positive whole numbers (height, width)")
    return int(size[0]), int(size[1])


def checked(name: str, value: float, low: float, high: float) -> float:
    """`value`; ValueError where it is no number in low..high."""
    if not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; expected a number in {low}..{high}")
    return value


def checked_range(name: str, values: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """`values` as (least, most); ValueError where they are not two rising numbers in low..high."""
    if len(values) != 2 or not low <= values[0] <= values[1] <= high:
        raise ValueError(f"{name} is {values}; expected two rising numbers in {low}..{high}")
    return float(values[0]), float(values[1])
