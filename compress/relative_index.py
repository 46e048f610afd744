"""Where the kept weights of a pruned layer are: each by its distance from the one before.

**Reference**: Han et al., Deep Compression, ICLR 2016, arXiv:1510.00149, section 2 and Figure 2.

**Deviations**: none; as in the authors' released SqueezeNet, a distance of 1 is stored as 0, so that 4 bits reach 16.
`PAPER_BITS` are those of the paper's text; its tables count with 5 bits in all layers (LeNets, VGG) or 4 (AlexNet).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .layers import CONVOLUTION, FULLY_CONNECTED

PAPER_BITS: Mapping[str, int] = {CONVOLUTION: 8, FULLY_CONNECTED: 5}
MOST_BITS = 8


class Gaps(NamedTuple):
    """steps: what is stored for each entry, uint8, the distance less 1; is_kept: False for filler zeros, bool."""

    steps: np.ndarray
    is_kept: np.ndarray


def to_gaps(places: np.ndarray, bits: int) -> Gaps:
    """places [n], rising, from 0 -> the entries that lead to each; where a distance is over 2^bits, filler zeros before
    it, each as far from the one before as can be said.
    """
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"{bits} bits for a distance: expected 1 to {MOST_BITS}")
    reach = 1 << bits
    steps = np.diff(places, prepend=-1) - 1
    fillers = steps // reach
    ends = np.cumsum(fillers + 1) - 1
    total = len(places) + int(fillers.sum())
    stored = np.full(total, reach - 1, dtype=np.uint8)
    stored[ends] = steps % reach
    is_kept = np.zeros(total, dtype=bool)
    is_kept[ends] = True
    return Gaps(stored, is_kept)


def to_places(steps: np.ndarray) -> np.ndarray:
    """The place of each entry, fillers too, int64."""
    return np.cumsum(steps.astype(np.int64) + 1) - 1
