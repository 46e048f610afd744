"""Huffman coding of small numbers: canonical codes, and runs that are decoded side by side.

**Reference**: Huffman, A Method for the Construction of Minimum-Redundancy Codes, 1952; used as in section 4 of Han et
al., Deep Compression, ICLR 2016, arXiv:1510.00149.

**Deviations**: a code word has at most 15 bits. A stream is cut into runs of 1,024 symbols whose lengths in bits are
kept beside it, so that numpy decodes all runs at once, a symbol of each in a step.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MOST_BITS = 15
RUN = 1024


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """counts, how often each symbol occurs -> the bits of its code word, uint8, up to the last symbol that occurs; 0
    for one that does not.

    A symbol that is the only one needs no bits: lengths that are all 0 stand for their last symbol, over and over.
    Counts so uneven that a word would be over 15 bits long are evened out until it is not.
    """
    counts = np.trim_zeros(np.asarray(counts, dtype=np.int64), "b")
    while (lengths := _optimal_lengths(counts)).max(initial=0) > MOST_BITS:
        counts = (counts + 1) // 2
    return lengths


def cost(symbols: np.ndarray) -> int:
    """The bits of the code of these symbols, without what decodes it."""
    counts = np.bincount(symbols)
    lengths = code_lengths(counts)
    return int(counts[: len(lengths)] @ lengths.astype(np.int64))


def _optimal_lengths(counts: np.ndarray) -> np.ndarray:
    lengths = np.zeros(len(counts), dtype=np.uint8)
    heap = [(int(counts[symbol]), int(symbol), [int(symbol)]) for symbol in np.flatnonzero(counts)]
    heapq.heapify(heap)
    while len(heap) > 1:
        few, first, one = heapq.heappop(heap)
        more, second, other = heapq.heappop(heap)
        joined = one + other
        lengths[joined] += 1
        heapq.heappush(heap, (few + more, min(first, second), joined))
    return lengths


def canonical_codes(lengths: np.ndarray) -> np.ndarray:
    """lengths [s] -> code words [s] int64: counted upward, the short ones first, by symbol among equally long ones."""
    codes = np.zeros(len(lengths), dtype=np.int64)
    code, before = 0, 0
    for symbol in np.lexsort((np.arange(len(lengths)), lengths)):
        length = int(lengths[symbol])
        if length:
            code <<= length - before
            codes[symbol], before = code, length
            code += 1
    return codes


def is_complete(lengths: np.ndarray) -> bool:
    """Whether code words of these lengths leave no string of bits without a meaning, and give none two."""
    used = lengths[lengths > 0].astype(np.int64)
    return bool(len(used) == 0 or np.sum(1 << (MOST_BITS - used)) == 1 << MOST_BITS)


class Encoded(NamedTuple):
    """bits: the stream, a bool each; run_bits: the bits of each run of up to 1,024 symbols, uint16."""

    bits: np.ndarray
    run_bits: np.ndarray


def encode(symbols: np.ndarray, lengths: np.ndarray) -> Encoded:
    """symbols [n], each with a length in `lengths` (or the only one) -> their bits, the first bit of a word first."""
    widths = lengths[symbols].astype(np.int64)
    words = canonical_codes(lengths)[symbols]
    ends = np.cumsum(widths)
    bits = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=bool)
    for place in range(int(widths.max(initial=0))):
        has = widths > place
        bits[ends[has] - widths[has] + place] = (words[has] >> (widths[has] - 1 - place)) & 1
    run_bits = np.add.reduceat(widths, np.arange(0, len(widths), RUN)) if len(widths) else widths
    return Encoded(bits, run_bits.astype(np.uint16))


class Segment(NamedTuple):
    """A part of a stream with a code of its own: lengths of the code words [s], how many symbols there are, and the
    bits of its runs.
    """

    lengths: np.ndarray
    size: int
    run_bits: np.ndarray


def num_runs(size: int) -> int:
    """The runs of a segment with so many symbols."""
    return -(-size // RUN)


def decode(stream: bytes, segments: Sequence[Segment]) -> list[np.ndarray]:
    """The symbols of each segment, uint16; the segments lie in the stream one right behind the other.

    Raises ValueError where code, runs and stream do not go together, whatever they hold.
    """
    counts = np.concatenate([_run_counts(segment) for segment in segments] or [np.empty(0, dtype=np.int64)])
    sizes = np.concatenate([segment.run_bits for segment in segments] or [counts]).astype(np.int64)
    if len(sizes) != len(counts):
        raise ValueError(f"{len(sizes)} runs of code; expected {len(counts)}")
    ends = np.cumsum(sizes)
    if len(stream) != -(-int(sizes.sum()) // 8):
        raise ValueError(f"{len(stream)} bytes of code; expected {-(-int(sizes.sum()) // 8)}")
    tables = _Tables(segments)
    owners = np.repeat(np.arange(len(segments)), [num_runs(segment.size) for segment in segments])
    order = np.argsort(-counts, kind="stable")  # long runs first: those that are not at their end are in front
    found, reached = _decode_runs(stream, tables, (ends - sizes)[order], counts[order], owners[order])
    if not np.array_equal(reached, ends[order]):
        raise ValueError("a run of code does not end where it should")
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    filled = np.arange(RUN)[None, :] < counts[:, None]
    symbols = found.T[back][filled]
    return np.split(symbols, np.cumsum([segment.size for segment in segments])[:-1]) if segments else []


def _run_counts(segment: Segment) -> np.ndarray:
    """The symbols of each run."""
    counts = np.full(num_runs(segment.size), RUN, dtype=np.int64)
    if segment.size % RUN:
        counts[-1] = segment.size % RUN
    return counts


class _Tables:
    """For each segment, what any window of as many bits as its longest word begins with: symbol and length."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        made = [_table(segment.lengths) for segment in segments]
        self.widths = np.array([int(segment.lengths.max(initial=0)) for segment in segments], dtype=np.int64)
        self.begins = np.cumsum([0, *(len(symbols) for symbols, _ in made)])[:-1].astype(np.int64)
        self.symbols = np.concatenate([symbols for symbols, _ in made] or [np.empty(0, dtype=np.uint16)])
        self.lengths = np.concatenate([lengths for _, lengths in made] or [np.empty(0, dtype=np.int64)])


def _table(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symbol and the length of the word that each window begins with: a canonical code's words are in order, and
    each has its share of the windows.
    """
    if not is_complete(lengths) or lengths.max(initial=0) > MOST_BITS:
        raise ValueError("these lengths of code words make no code")
    widest = int(lengths.max(initial=0))
    if not widest:
        return np.array([max(len(lengths) - 1, 0)], dtype=np.uint16), np.zeros(1, dtype=np.int64)
    used = np.flatnonzero(lengths)
    ordered = used[np.lexsort((used, lengths[used]))]
    shares = 1 << (widest - lengths[ordered].astype(np.int64))
    return np.repeat(ordered, shares).astype(np.uint16), np.repeat(lengths[ordered], shares).astype(np.int64)


def _decode_runs(
    stream: bytes, tables: _Tables, places: np.ndarray, counts: np.ndarray, owners: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """places: the bit where each run begins; counts: its symbols, falling; owners: the segment that it is of -> symbols
    [1024, runs] and the bit behind each run.
    """
    padded = np.frombuffer(stream + bytes(4), dtype=np.uint8).astype(np.uint32)
    words = (padded[:-2] << 16) | (padded[1:-1] << 8) | padded[2:]  # 24 bits from each byte on: 15 after any bit
    last = len(words) - 1
    found = np.zeros((RUN, len(counts)), dtype=np.uint16)
    places = places.copy()
    shifts, masks, begins = 24 - tables.widths[owners], (1 << tables.widths[owners]) - 1, tables.begins[owners]
    for step in range(int(counts.max(initial=0))):
        alive = int(np.searchsorted(-counts, -step, side="left"))  # runs of more than `step` symbols
        at = places[:alive]
        windows = words[np.minimum(at >> 3, last)] >> (shifts[:alive] - (at & 7)).astype(np.uint32)
        entries = begins[:alive] + (windows & masks[:alive])
        found[step, :alive] = tables.symbols[entries]
        at += tables.lengths[entries]
    return found, places
