"""One layer's weights as a codebook, cluster indices and distances, and back, to the last bit.

**Reference**: Han et al., Deep Compression, ICLR 2016, arXiv:1510.00149, sections 2 to 4. The figures of an `Account`
are the columns of its Tables 2 to 5.

**Deviations**: in a layer that has lost few weights, distances cost more than they save: there each zero is an entry
(a filler zero, in the paper's words), all distances are 1, and their code has no bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import huffman
from .layers import Layer
from .relative_index import to_gaps, to_places

MOST_CLUSTERS = 256
_SPARSE_BELOW = 0.95
_FLOAT_BITS = 32


class Account(NamedTuple):
    """What the coding makes of a layer.

    weights, kept: numbers of them; entries: what is stored, filler zeros among them; clusters: different values, 0
    where they are not shared; index_bits: of a distance without Huffman, 0 where all are 1; weight_code_bits,
    index_code_bits: all bits of the Huffman code; value_bytes: codebook, or the entries' values where none are shared.
    """

    name: str
    kind: str
    weights: int
    kept: int
    entries: int
    clusters: int
    index_bits: int
    weight_code_bits: int
    index_code_bits: int
    value_bytes: int

    @property
    def dense_bytes(self) -> int:
        """As they were, four bytes a weight."""
        return 4 * self.weights

    @property
    def weight_bits(self) -> int:
        """Bits of a cluster's index without Huffman; 32 where no values are shared. Zero has an index if it is used."""
        has_zero = self.entries < self.weights or self.entries > self.kept
        return max(1, (self.clusters + has_zero - 1).bit_length()) if self.clusters else _FLOAT_BITS

    @property
    def pruned_bytes(self) -> int:
        """After the first stage: four bytes for the value of each entry, and the distances."""
        return 4 * self.entries + _bytes(self.entries * self.index_bits)

    @property
    def shared_bytes(self) -> int:
        """After the second stage, laid out as in the authors' released SqueezeNet: the number of entries in four bytes,
        a codebook of 2^bits floats, and indices and distances of fixed width.
        """
        if not self.clusters:
            return self.pruned_bytes
        codebook = 4 * (1 << self.weight_bits)
        return 4 + codebook + _bytes(self.entries * self.weight_bits) + _bytes(self.entries * self.index_bits)

    @property
    def coded_bytes(self) -> int:
        """After the third stage: as it is in a packed file, apart from the tables of the code."""
        return self.value_bytes + _bytes(self.weight_code_bits + self.index_code_bits)


def _bytes(bits: int) -> int:
    return -(-bits // 8)


class CodedLayer(NamedTuple):
    """A layer's weights in parts. Numbers are bit patterns, as unsigned integers.

    steps: a distance less 1 for each entry, uint8; symbols: for each entry the cluster's index, 1..k, or 0 for a
    filler zero, uint16, and values: the codebook [k]; or symbols None, and values: one for each entry.
    """

    steps: np.ndarray
    symbols: np.ndarray | None
    values: np.ndarray


def code_layer(patterns: np.ndarray, index_bits: int) -> CodedLayer | None:
    """patterns [n], the weights' bit patterns -> their parts; None where there are neither few values nor many zeros.
    Zero is the pattern without a bit alone. index_bits: of a distance, see the module for where there are none.
    """
    places = np.flatnonzero(patterns)
    kept = patterns[places]
    distinct, indices = np.unique(kept, return_inverse=True)
    is_shared = 0 < len(distinct) <= MOST_CLUSTERS and 2 * len(distinct) <= len(kept)
    if not is_shared and len(kept) >= _SPARSE_BELOW * len(patterns):
        return None
    steps, is_kept = to_gaps(places, index_bits)
    if not is_shared:
        stored = np.zeros(len(steps), dtype=patterns.dtype)
        stored[is_kept] = kept
        return CodedLayer(steps, None, stored)
    symbols, all_symbols = (np.zeros(size, dtype=np.uint16) for size in (len(steps), len(patterns)))
    symbols[is_kept] = all_symbols[places] = indices + 1
    if huffman.cost(all_symbols) < huffman.cost(symbols) + huffman.cost(steps):
        return CodedLayer(np.zeros(len(patterns), dtype=np.uint8), all_symbols, distinct)
    return CodedLayer(steps, symbols, distinct)


def decode_layer(coded: CodedLayer, count: int) -> np.ndarray:
    """The inverse: patterns [count]. ValueError where the parts do not go together."""
    places = to_places(coded.steps)
    if len(places) and places[-1] >= count:
        raise ValueError(f"a weight at place {places[-1]} of {count}")
    values = coded.values
    if coded.symbols is not None:
        book = np.concatenate([np.zeros(1, dtype=values.dtype), values])
        if coded.symbols.max(initial=0) >= len(book):
            raise ValueError(f"cluster {coded.symbols.max()} of {len(values)}")
        values = book[coded.symbols]
    patterns = np.zeros(count, dtype=values.dtype)
    patterns[places] = values
    return patterns


class Code(NamedTuple):
    """Huffman's code of one layer: bits of the distances and then of the indices, and what decodes them."""

    bits: np.ndarray
    segments: tuple[huffman.Segment, ...]


def huffman_code(coded: CodedLayer) -> Code:
    """The layer's distances and, where values are shared, cluster indices."""
    streams = [coded.steps] if coded.symbols is None else [coded.steps, coded.symbols]
    lengths = [huffman.code_lengths(np.bincount(stream)) for stream in streams]
    encoded = [huffman.encode(stream, widths) for stream, widths in zip(streams, lengths, strict=True)]
    segments = [
        huffman.Segment(widths, len(stream), part.run_bits)
        for stream, widths, part in zip(streams, lengths, encoded, strict=True)
    ]
    return Code(np.concatenate([part.bits for part in encoded]), tuple(segments))


def account_of(
    layer: Layer, patterns: np.ndarray, coded: CodedLayer | None, code: Code | None, index_bits: int, item: int
) -> Account:
    """The figures of a layer with these patterns, in parts and coded, if it is; item: bytes of a value in the file."""
    count, kept = len(patterns), int(np.count_nonzero(patterns))
    if coded is None or code is None:
        return Account(layer.name, layer.kind, count, kept, count, 0, 0, 0, 0, item * count)
    of_steps, *of_symbols = (int(segment.run_bits.sum(dtype=np.int64)) for segment in code.segments)
    return Account(
        layer.name,
        layer.kind,
        weights=count,
        kept=kept,
        entries=len(coded.steps),
        clusters=0 if coded.symbols is None else len(coded.values),
        index_bits=index_bits if coded.steps.any() else 0,
        weight_code_bits=sum(of_symbols),
        index_code_bits=of_steps,
        value_bytes=item * len(coded.values),
    )
