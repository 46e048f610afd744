"""The XNOR convolution on a processor, compiled by numba: pack signs into words, gather windows, XOR, count bits.

**Reference**: Rastegari et al., XNOR-Net, ECCV 2016, arXiv:1603.05279, section 3.2.

**Deviations**: XOR counts where signs differ, so that a product is inputs - 2 count. A place of padding is neither -1
nor +1: a mask takes it out of the count, and `inputs` counts only what lies in the picture.

How it is laid out. 32 channels of a pixel are a word. A tile is `LANES` pixels of the output, next to each other as the
output is stored, and its columns are the words that its filters cover: [taps * words, LANES]. The innermost loop takes
one word of `ROWS` filters (a block) against all pixels of the tile, and its counts never leave the registers. A
processor that counts bits in 32-bit lanes (AVX-512 VPOPCNTDQ) does so; elsewhere bytes are counted, which AVX2 and NEON
do quickly, and added up as words before a byte can run over: a tap of more than `PIECE_WORDS` words is cut into pieces.
A share is a run of tiles and blocks with its own packed copy of what they cover, so that no thread waits for another.

The threads are those of torch's own OpenMP: a second team would fight with it for the same cores.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import carray, cfunc, njit, types
from numba.np.unsafe.ndarray import to_fixed_tuple

from .xnor_vectors import (
    LANES,
    PIECE_WORDS,
    ROWS,
    array_address,
    copy_words,
    counts_words,
    multiply_bytes,
    multiply_words,
    pack_signs,
    take_ticket,
)

__all__ = ["LANES", "PIECE_WORDS", "ROWS", "WORD_BITS", "Job", "Task", "counts_words"]

WORD_BITS = 32


class Job(NamedTuple):
    """A convolution, in whole numbers: addresses of float32 (the weights: uint32), sizes in pixels, steps in numbers.

    The pixels, whose address comes with each call, are [pictures, channels, >= LANES], `input_step` from picture to
    picture, `row_step` from channel to channel; the outputs [pictures, out_channels, out_height * out_width],
    `output_step` from picture to picture. weights: [blocks, taps * pieces * length, ROWS]; scales, bias: [blocks *
    ROWS]. A tap is a place of the kernel, of `pieces` times `length` words. padding: above and to the left; below and
    to the right it is what the output's size asks for.
    """

    weights: int
    scales: int
    bias: int
    pictures: int
    channels: int
    out_channels: int
    input_step: int
    row_step: int
    output_step: int
    height: int
    width: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    padding_y: int
    padding_x: int
    dilation_y: int
    dilation_x: int
    pieces: int
    length: int
    scale_inputs: int
    by_words: int
    shares: int


_FIELDS = len(Job._fields)
_Call = ctypes.c_int64 * 4
_as_tuple: Any = to_fixed_tuple


@njit
def _pack(pixels: np.ndarray, first: int, bits: np.ndarray, means: np.ndarray) -> None:
    """pixels [C, P] from `first` on -> bits [words, places >= LANES], and means [places] of |pixels| if it has any."""
    channels, width = pixels.shape
    places = bits.shape[1]
    for word in range(len(bits)):
        rows = min(WORD_BITS, channels - word * WORD_BITS)
        for group in range(0, places, LANES):
            start = min(group, places - LANES)  # the last one may overlap the one before
            begin = word * WORD_BITS * width + first + start
            pack_signs(pixels, begin, width, rows, bits, word * places + start)
    if len(means):
        for channel in range(channels):
            numbers = pixels[channel, first : first + places]
            for place in range(len(means)):
                means[place] += abs(numbers[place])
        for place in range(len(means)):
            means[place] /= np.float32(channels)


@njit
def _gather(
    bits: np.ndarray,
    means: np.ndarray,
    first: int,
    job: Job,
    tile: int,
    columns: np.ndarray,
    masks: np.ndarray,
    inputs: np.ndarray,
    lane_scales: np.ndarray,
) -> None:
    """Fill in what the filters of a tile cover. first: the pixel of the input that bits and means begin with.

    Lanes behind the last pixel of the output repeat it.
    """
    sources, tops, lefts = np.empty((3, LANES), np.int64)
    taps = job.kernel_height * job.kernel_width
    for lane in range(LANES):
        pixel = min(tile * LANES + lane, job.out_height * job.out_width - 1)
        tops[lane] = pixel // job.out_width * job.stride_y - job.padding_y
        lefts[lane] = pixel % job.out_width * job.stride_x - job.padding_x
        inputs[lane] = 0
        lane_scales[lane] = 0 if len(means) else 1
    for tap in range(taps):
        down, right = tap // job.kernel_width * job.dilation_y, tap % job.kernel_width * job.dilation_x
        for lane in range(LANES):
            y, x = tops[lane] + down, lefts[lane] + right
            is_inside = 0 <= y < job.height and 0 <= x < job.width
            sources[lane] = y * job.width + x - first if is_inside else 0
            inputs[lane] += job.channels if is_inside else 0
            for piece in range(job.pieces):
                masks[tap * job.pieces + piece, lane] = 0xFFFFFFFF if is_inside else 0
            if is_inside and len(means):
                lane_scales[lane] += means[sources[lane]] / np.float32(taps)
        copy_words(bits, sources, columns, tap * job.pieces * job.length)


@njit
def _rows_under(job: Job, first_tile: int, last_tile: int) -> tuple[int, int]:
    """The input's rows, from and up to, that the filters of these tiles cover."""
    top = first_tile * LANES // job.out_width
    bottom = (min(last_tile * LANES, job.out_height * job.out_width) - 1) // job.out_width
    first = top * job.stride_y - job.padding_y
    last = bottom * job.stride_y - job.padding_y + (job.kernel_height - 1) * job.dilation_y + 1
    return min(max(first, 0), job.height), min(max(last, 0), job.height)


@njit
def _floats(address: int, shape: tuple[int, ...]) -> np.ndarray:
    return carray(array_address(address), shape, np.float32)


@njit
def _share(job: Job, pixels_at: int, outputs_at: int, first: int, last: int) -> None:
    """Items from first to last of one picture: an item is a tile and a block, tiles in the outer loop."""
    blocks, pieces = (job.out_channels + ROWS - 1) // ROWS, job.kernel_height * job.kernel_width * job.pieces
    area = job.out_height * job.out_width
    pixels = _floats(pixels_at, (job.channels, job.row_step))
    outputs = _floats(outputs_at, (job.out_channels, area))
    scales, bias = _floats(job.scales, (blocks * ROWS,)), _floats(job.bias, (blocks * ROWS,))
    weights = carray(array_address(job.weights), (blocks, pieces * job.length * ROWS), np.uint32)
    first_row, last_row = _rows_under(job, first // blocks, (last - 1) // blocks + 1)
    begin = max(min(first_row * job.width, job.row_step - LANES), 0)
    places = max(last_row * job.width - begin, LANES)
    bits = np.empty(((job.channels + WORD_BITS - 1) // WORD_BITS, places), np.uint32)
    means = np.zeros(places if job.scale_inputs else 0, np.float32)
    _pack(pixels, begin, bits, means)
    columns, masks = np.zeros((pieces * job.length, LANES), np.uint32), np.empty((pieces, LANES), np.uint32)
    inputs, lane_scales = np.empty(LANES, np.int32), np.empty(LANES, np.float32)
    scratch = np.empty((blocks * ROWS, LANES), np.float32)
    for tile in range(first // blocks, (last + blocks - 1) // blocks):
        _gather(bits, means, begin, job, tile, columns, masks, inputs, lane_scales)
        low, high = max(first - tile * blocks, 0), min(last - tile * blocks, blocks)
        start = tile * LANES
        lanes = min(LANES, area - start)
        is_whole = lanes == LANES and job.out_channels % ROWS == 0
        target, place = (outputs, start) if is_whole else (scratch, 0)
        if job.by_words:
            multiply_words(columns, masks, inputs, lane_scales, weights, scales, bias, target, place,
                           target.shape[1], low, high, job.length)  # fmt: skip
        else:
            multiply_bytes(columns, masks, inputs, lane_scales, weights, scales, bias, target, place,
                           target.shape[1], low, high, job.length)  # fmt: skip
        if not is_whole:
            for row in range(low * ROWS, min(high * ROWS, job.out_channels)):
                for lane in range(lanes):
                    outputs[row, start + lane] = scratch[row, lane]


def _work(numbers: Any) -> None:
    """What each thread does: take shares until none is left. numbers: the next share, and three addresses."""
    call = carray(numbers, 4, np.int64)
    job = Job(*_as_tuple(carray(array_address(call[3]), _FIELDS, np.int64), _FIELDS))
    items = (job.out_height * job.out_width + LANES - 1) // LANES * ((job.out_channels + ROWS - 1) // ROWS)
    total = items * job.pictures
    share = take_ticket(call)
    while share < job.shares:
        first, last = total * share // job.shares, total * (share + 1) // job.shares
        for picture in range(first // items, (last + items - 1) // items):
            pixels_at = call[1] + 4 * picture * job.input_step
            outputs_at = call[2] + 4 * picture * job.output_step
            begin, end = max(first - picture * items, 0), min(last - picture * items, items)
            _share(job, pixels_at, outputs_at, begin, end)
        share = take_ticket(call)


@cache
def _worker() -> Any:
    """`_work` compiled, or as it was compiled on this machine before; kept nowhere if no folder can be written to."""
    signature = types.void(types.CPointer(types.int64))
    try:
        return cfunc(signature, cache=True)(_work)
    except RuntimeError:
        return cfunc(signature)(_work)


@cache
def _torch_team() -> Callable[..., None] | None:
    """GOMP_parallel(function, data, threads, flags) of the OpenMP that torch has loaded, where it is GNU's."""
    try:
        team = ctypes.CDLL("libgomp.so.1").GOMP_parallel
    except (OSError, AttributeError):
        return None
    team.argtypes, team.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return team


class Task:
    """A job that waits for pixels."""

    def __init__(self, job: Job, threads: int) -> None:
        self._worker, self._team, self._threads = _worker(), _torch_team(), threads
        self._numbers = (ctypes.c_int64 * _FIELDS)(*job)
        self._address = ctypes.addressof(self._numbers)

    def run(self, pixels_at: int, outputs_at: int) -> None:
        """Do it for the pixels at an address, into the outputs at another; all is done when this returns."""
        call = _Call(0, pixels_at, outputs_at, self._address)
        if self._threads == 1:
            self._worker.ctypes(call)
        elif self._team is not None:
            self._team(self._worker.address, call, self._threads, 0)
        else:
            helpers = [threading.Thread(target=self._worker.ctypes, args=(call,)) for _ in range(self._threads - 1)]
            for helper in helpers:
                helper.start()
            self._worker.ctypes(call)
            for helper in helpers:
                helper.join()
