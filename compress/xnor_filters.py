"""The filters of an XNOR layer as bits, between torch's tensors and the compiled kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_PRODUCTS_OF_A_THREAD = 16_000_000  # with fewer a second thread takes longer to wake than to work
_SHARES_OF_A_THREAD = 4
_SIZES_KEPT = 32


def pack_bits(signs: Tensor) -> Tensor:
    """signs [O, n], +1 or -1 -> uint8 [O, ceil(n / 8)], 1 for +1, the first one the lowest bit of the first byte."""
    return torch.from_numpy(np.packbits(signs.cpu().numpy() > 0, axis=1, bitorder="little"))


def unpack_bits(bits: Tensor, count: int) -> Tensor:
    """The inverse: [O, count] float32, +1 or -1."""
    ones = np.unpackbits(bits.cpu().numpy(), axis=1, count=count, bitorder="little")
    return torch.from_numpy(ones.astype(np.float32) * 2 - 1)


class Window(NamedTuple):
    """How a filter lies on its inputs, (down, right); padding: of both sides, or torch's word for it."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, ...] | str
    dilation: tuple[int, int]

    def padding_in_front(self) -> tuple[int, int]:
        """Above and to the left. Behind there is as much, or with "same" perhaps one more."""
        if isinstance(self.padding, str):
            reach = self._reach() if self.padding == "same" else (0, 0)
            return reach[0] // 2, reach[1] // 2
        return self.padding[0], self.padding[1]

    def out_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the outputs; ValueError where there are none."""
        if self.padding == "same":
            return height, width
        front, reach = self.padding_in_front(), self._reach()
        down = (height + 2 * front[0] - reach[0] - 1) // self.stride[0] + 1
        right = (width + 2 * front[1] - reach[1] - 1) // self.stride[1] + 1
        if down < 1 or right < 1:
            size = list(self.kernel_size)
            raise ValueError(f"inputs of {height} x {width} pixels are too small for a kernel of {size} pixels")
        return down, right

    def _reach(self) -> tuple[int, int]:
        """From a filter's first pixel to its last."""
        return self.dilation[0] * (self.kernel_size[0] - 1), self.dilation[1] * (self.kernel_size[1] - 1)


class Filters:
    """signs [O, C, h, w], +1 or -1; scales and bias [O]; scale_inputs: times K (see `XNORConv2d`).

    Raises ValueError where numba is missing.
    """

    def __init__(self, signs: Tensor, scales: Tensor, bias: Tensor, window: Window, *, scale_inputs: bool) -> None:
        self.kernel = kernel = _compiled_kernel()
        self.window, self.scale_inputs = window, scale_inputs
        filters, channels = signs.shape[:2]
        taps = math.prod(window.kernel_size)
        words = -(-channels // kernel.WORD_BITS)
        self.pieces = -(-words // kernel.PIECE_WORDS)
        self.length = -(-words // self.pieces)
        blocks = -(-filters // kernel.ROWS)
        # What fills up words and blocks is 0, as it is on the inputs' side.
        ones = torch.zeros(blocks * kernel.ROWS, taps, self.pieces * self.length * kernel.WORD_BITS)
        ones[:filters, :, :channels] = signs.flatten(2).transpose(1, 2)
        packed = pack_bits(ones.flatten(0, 1)).view(torch.int32).view(blocks, kernel.ROWS, -1)
        self.words = packed.transpose(1, 2).contiguous()
        self.scales = F.pad(scales, (0, blocks * kernel.ROWS - filters))
        self.bias = F.pad(bias, (0, blocks * kernel.ROWS - filters))
        self._tasks: dict[tuple[Any, ...], Any] = {}

    def multiply(self, inputs: Tensor, outputs: Tensor) -> None:
        """inputs [N, C, H, W] float32 -> outputs [N, O, H', W'], each picture in one piece; in torch's threads."""
        pixels = inputs.flatten(2)
        places = pixels.shape[2]
        if places < self.kernel.LANES:
            pixels = F.pad(pixels, (0, self.kernel.LANES - places))
        elif pixels.stride()[1:] != (places, 1):
            pixels = pixels.contiguous()
        key = (inputs.shape, pixels.stride(0), outputs.stride(0), torch.get_num_threads())
        task = self._tasks.get(key)
        if task is None:
            if len(self._tasks) >= _SIZES_KEPT:
                self._tasks.clear()
            task = self._tasks[key] = self._task(inputs.shape, pixels, outputs)
        task.run(pixels.data_ptr(), outputs.data_ptr())

    def _task(self, shape: Sequence[int], pixels: Tensor, outputs: Tensor) -> Any:
        (count, channels, height, width), (out_height, out_width) = shape, outputs.shape[2:]
        top, left = self.window.padding_in_front()
        items = count * -(-out_height * out_width // self.kernel.LANES) * len(self.words)
        products = outputs.numel() * channels * math.prod(self.window.kernel_size)
        threads = max(1, min(torch.get_num_threads(), products // _PRODUCTS_OF_A_THREAD, items))
        job = self.kernel.Job(
            weights=self.words.data_ptr(),
            scales=self.scales.data_ptr(),
            bias=self.bias.data_ptr(),
            pictures=count,
            channels=channels,
            out_channels=outputs.shape[1],
            input_step=pixels.stride(0),
            row_step=pixels.shape[2],
            output_step=outputs.stride(0),
            height=height,
            width=width,
            out_height=out_height,
            out_width=out_width,
            kernel_height=self.window.kernel_size[0],
            kernel_width=self.window.kernel_size[1],
            stride_y=self.window.stride[0],
            stride_x=self.window.stride[1],
            padding_y=top,
            padding_x=left,
            dilation_y=self.window.dilation[0],
            dilation_x=self.window.dilation[1],
            pieces=self.pieces,
            length=self.length,
            scale_inputs=int(self.scale_inputs),
            by_words=int(self.kernel.counts_words()),
            shares=1 if threads == 1 else min(items, threads * _SHARES_OF_A_THREAD),
        )
        return self.kernel.Task(job, threads)


def _compiled_kernel() -> ModuleType:
    """What needs numba is imported where it is used."""
    try:
        from . import xnor_kernel
    except ImportError as error:
        raise ValueError(
            f'counting bits needs numba ({error}): pip install ".[fast]" in the checkout of swiftsight'
        ) from None
    return xnor_kernel
