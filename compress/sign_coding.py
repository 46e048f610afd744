"""Filters that are one number times signs, as that number and a bit a weight, to the last bit.

**Reference**: Rastegari et al., XNOR-Net, ECCV 2016, arXiv:1603.05279, section 3.1.

**Deviations**: none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .coding import Account
from .layers import Layer

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_SIGN_BIT = 31


def is_signs(patterns: np.ndarray, shape: Sequence[int]) -> bool:
    """Whether each filter of weights with this shape, given as the bit patterns of float32, is a number times signs,
    and not all of them nothing: zeros cost less by distances.
    """
    if len(shape) < 2 or len(patterns) <= shape[0]:
        return False
    sizes = patterns.reshape(shape[0], -1) & _MAGNITUDE
    return bool((sizes == sizes[:, :1]).all() and sizes.any())


def code_signs(patterns: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, bytes]:
    """-> the number of each filter, as a pattern, and the signs, 1 for minus, the first one the lowest bit."""
    scales = patterns.reshape(shape[0], -1)[:, 0] & _MAGNITUDE
    return scales, np.packbits(patterns >> _SIGN_BIT, bitorder="little").tobytes()


def decode_signs(scales: np.ndarray, signs: bytes, count: int) -> np.ndarray:
    """The inverse: patterns [count]."""
    bits = np.unpackbits(np.frombuffer(signs, np.uint8), count=count, bitorder="little").astype(np.uint32)
    patterns: np.ndarray = np.repeat(scales, count // len(scales)) | (bits << np.uint32(_SIGN_BIT))
    return patterns


def account_of_signs(layer: Layer, weights: int, filters: int, item: int) -> Account:
    """The figures of such a layer; item: bytes of a filter's number in the file."""
    return Account(layer.name, layer.kind, weights, weights, weights, 2, 0, weights, 0, item * filters)
