"""The vectors of the XNOR convolution: what numba's compiled loops call where they need a whole vector of pixels.

numba has no vectors and no bit count of its own, so each of these writes the code of a few vector instructions (LLVM's,
which become those of the processor at hand). A vector is `LANES` numbers, one a pixel.

numba looks at the age of `xnor_kernel.py` alone to tell whether what it keeps is old: a change here asks to touch that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
ROWS = 8
PIECE_WORDS = 31  # so many words add up to at most 248 in a byte

_WORDS = ir.VectorType(ir.IntType(32), LANES)
_BYTES = ir.VectorType(ir.IntType(8), 4 * LANES)
_NUMBERS = ir.VectorType(ir.FloatType(), LANES)
_INDEX = ir.IntType(64)


def _callable(vectors: Callable[..., Any]) -> Callable[..., Any]:
    """numba's `intrinsic`, typed as compiled code calls it: without the first argument."""
    made: Callable[..., Any] = intrinsic(vectors)
    return made


@cache
def counts_words() -> bool:
    """Whether this processor counts bits in 32-bit lanes at once."""
    return bool(llvmlite.binding.get_host_cpu_features().get("avx512vpopcntdq", False))


def _index(value: int) -> ir.Constant:
    return ir.Constant(_INDEX, value)


def _splat(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _lanes_at(builder: ir.IRBuilder, base: ir.Value, place: ir.Value, kind: ir.VectorType = _WORDS) -> ir.Value:
    """Where `LANES` numbers begin."""
    return builder.bitcast(builder.gep(base, [place]), kind.as_pointer())


def _load_row(builder: ir.IRBuilder, base: ir.Value, row: ir.Value, kind: ir.VectorType = _WORDS) -> ir.Value:
    """Row `row` of numbers [rows, LANES]."""
    return builder.load(_lanes_at(builder, base, builder.mul(row, _index(LANES)), kind), align=4)


def _load_spread(builder: ir.IRBuilder, base: ir.Value, place: ir.Value, kind: ir.VectorType = _WORDS) -> ir.Value:
    """The number at `place` in every lane."""
    number = builder.load(builder.gep(base, [place]))
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), _splat(_WORDS, 0))


def _sum_of_bytes(builder: ir.IRBuilder, counts: ir.Value) -> ir.Value:
    """[4 * LANES] bytes -> in each lane the sum of its four."""
    lanes = builder.bitcast(counts, _WORDS)
    low = _splat(_WORDS, 0x00FF00FF)
    pairs = builder.add(builder.and_(lanes, low), builder.and_(builder.lshr(lanes, _splat(_WORDS, 8)), low))
    return builder.add(builder.and_(pairs, _splat(_WORDS, 0xFFFF)), builder.lshr(pairs, _splat(_WORDS, 16)))


class _Pointers(NamedTuple):
    """Where the arrays of `multiply` begin."""

    columns: ir.Value
    masks: ir.Value
    inputs: ir.Value
    lane_scales: ir.Value
    weights: ir.Value
    scales: ir.Value
    bias: ir.Value
    results: ir.Value


def _emit_counts(
    builder: ir.IRBuilder, arrays: _Pointers, pieces: ir.Value, length: ir.Value, kind: ir.VectorType
) -> list[ir.Value]:
    """How many bits differ between each filter of a block and each pixel of a tile: `ROWS` vectors of words.

    They are counted as vectors of `kind`, which the compiler keeps in registers.
    """
    name = f"llvm.ctpop.v{kind.count}i{kind.element.width}"
    ctpop = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
    totals = [cgutils.alloca_once_value(builder, _splat(_WORDS, 0)) for _ in range(ROWS)]
    sums = [cgutils.alloca_once_value(builder, _splat(kind, 0)) for _ in range(ROWS)]
    with cgutils.for_range(builder, pieces) as piece:
        mask = _load_row(builder, arrays.masks, piece.index)
        for own in sums:
            builder.store(_splat(kind, 0), own)
        with cgutils.for_range(builder, length) as step:
            word = builder.add(builder.mul(piece.index, length), step.index)
            pixels = _load_row(builder, arrays.columns, word)
            for row, own in enumerate(sums):
                place = builder.add(builder.mul(word, _index(ROWS)), _index(row))
                differ = builder.and_(builder.xor(pixels, _load_spread(builder, arrays.weights, place)), mask)
                counted = builder.call(ctpop, [builder.bitcast(differ, kind)])
                builder.store(builder.add(builder.load(own), counted), own)
        for own, total in zip(sums, totals, strict=True):
            counted = builder.load(own) if kind == _WORDS else _sum_of_bytes(builder, builder.load(own))
            builder.store(builder.add(builder.load(total), counted), total)
    return [builder.load(total) for total in totals]


def _emit_products(builder: ir.IRBuilder, arrays: _Pointers, counts: Sequence[ir.Value], stride: ir.Value) -> None:
    """(inputs - 2 count) * alpha * K + bias for each row of a block, a row of the results after `stride` numbers."""
    inputs = _load_row(builder, arrays.inputs, _index(0))
    lane_scales = _load_row(builder, arrays.lane_scales, _index(0), _NUMBERS)
    for row, count in enumerate(counts):
        product = builder.sitofp(builder.sub(inputs, builder.shl(count, _splat(_WORDS, 1))), _NUMBERS)
        alpha, shift = (_load_spread(builder, array, _index(row), _NUMBERS) for array in (arrays.scales, arrays.bias))
        scaled = builder.fadd(builder.fmul(builder.fmul(product, alpha), lane_scales), shift)
        place = _lanes_at(builder, arrays.results, builder.mul(stride, _index(row)), _NUMBERS)
        builder.store(scaled, place, align=4)


def _multiplier(kind: ir.VectorType) -> Callable[..., None]:
    """The product of blocks with a tile for compiled code, counting with vectors of `kind`."""

    @_callable
    def multiply(_context: Any, columns: Any, masks: Any, inputs: Any, lane_scales: Any, weights: Any, scales: Any,
                 bias: Any, results: Any, start: Any, stride: Any, first: Any, last: Any,
                 length: Any) -> Any:  # fmt: skip
        """results.flat[start + stride * row + lane] for the rows of the blocks from first to last.

        columns [pieces * length, LANES], masks [pieces, LANES], and for each lane its number of inputs and its K;
        weights [blocks, pieces * length * ROWS], scales and bias [blocks * ROWS].
        """
        signature = types.void(columns, masks, inputs, lane_scales, weights, scales, bias, results, start, stride,
                               first, last, length)  # fmt: skip

        def emit(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]) -> ir.Value:
            arrays = _Pointers(
                *(_begin(context, builder, *pair) for pair in zip(signature.args[:8], values[:8], strict=True))
            )
            start, stride, first, last, length = values[8:]
            masks = context.make_array(signature.args[1])(context, builder, values[1])
            pieces = builder.extract_value(masks.shape, 0)
            words = builder.mul(pieces, length)
            with cgutils.for_range_slice(builder, first, last, _index(1), _INDEX) as (block, _):
                row = builder.mul(block, _index(ROWS))
                own = arrays._replace(
                    weights=builder.gep(arrays.weights, [builder.mul(row, words)]),
                    scales=builder.gep(arrays.scales, [row]),
                    bias=builder.gep(arrays.bias, [row]),
                    results=builder.gep(arrays.results, [builder.add(start, builder.mul(row, stride))]),
                )
                _emit_products(builder, own, _emit_counts(builder, own, pieces, length, kind), stride)
            return context.get_dummy_value()

        return signature, emit

    return multiply


def _begin(context: Any, builder: ir.IRBuilder, kind: Any, array: ir.Value) -> ir.Value:
    """Where the numbers of an array argument begin."""
    return context.make_array(kind)(context, builder, array).data


multiply_words, multiply_bytes = _multiplier(_WORDS), _multiplier(_BYTES)


@_callable
def pack_signs(_context: Any, numbers: Any, start: Any, stride: Any, rows: Any, words: Any, place: Any) -> Any:
    """words.flat[place + lane]: bit c is 1 where numbers.flat[start + c * stride + lane] >= 0, for c below `rows`."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]) -> ir.Value:
        source, target = (_begin(context, builder, signature.args[at], values[at]) for at in (0, 4))
        start, stride, rows, place = values[1], values[2], values[3], values[5]
        packed, bit = (cgutils.alloca_once(builder, _WORDS) for _ in range(2))
        builder.store(_splat(_WORDS, 0), packed)
        builder.store(_splat(_WORDS, 1), bit)
        with cgutils.for_range(builder, rows) as row:
            lanes = _lanes_at(builder, source, builder.add(start, builder.mul(row.index, stride)), _NUMBERS)
            positive = builder.fcmp_ordered(">=", builder.load(lanes, align=4), ir.Constant(_NUMBERS, [0.0] * LANES))
            own = builder.select(positive, builder.load(bit), _splat(_WORDS, 0))
            builder.store(builder.or_(builder.load(packed), own), packed)
            builder.store(builder.shl(builder.load(bit), _splat(_WORDS, 1)), bit)
        builder.store(builder.load(packed), _lanes_at(builder, target, place), align=4)
        return context.get_dummy_value()

    return types.void(numbers, start, stride, rows, words, place), emit


@_callable
def copy_words(_context: Any, bits: Any, sources: Any, columns: Any, row: Any) -> Any:
    """columns[row + word, lane] = bits[word, sources[lane]], for all words and lanes."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]) -> ir.Value:
        source, places, target = (_begin(context, builder, signature.args[at], values[at]) for at in range(3))
        shape = context.make_array(signature.args[0])(context, builder, values[0]).shape
        words, width = builder.extract_value(shape, 0), builder.extract_value(shape, 1)
        own = [builder.load(builder.gep(places, [_index(lane)])) for lane in range(LANES)]
        with cgutils.for_range(builder, words) as word:
            begin = builder.gep(source, [builder.mul(word.index, width)])
            end = builder.gep(target, [builder.mul(builder.add(values[3], word.index), _index(LANES))])
            for lane, place in enumerate(own):
                builder.store(builder.load(builder.gep(begin, [place])), builder.gep(end, [_index(lane)]))
        return context.get_dummy_value()

    return types.void(bits, sources, columns, row), emit


@_callable
def array_address(_context: Any, address: Any) -> Any:
    """A whole number as the address that `carray` takes."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]) -> ir.Value:  # noqa: ARG001
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(address), emit


@_callable
def take_ticket(_context: Any, counter: Any) -> Any:
    """counter[0] before 1 is added to it: no two threads get the same."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]) -> ir.Value:
        begin = _begin(context, builder, signature.args[0], values[0])
        return builder.atomic_rmw("add", begin, _index(1), "monotonic")

    return types.int64(counter), emit
