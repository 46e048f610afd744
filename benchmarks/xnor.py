"""Times the convolution of signs by bits beside torch's and onnxruntime's float convolutions of the same shapes.

    python benchmarks/xnor.py [--threads 1] [--rounds 15] [--plain] [--net] [--json xnor.json]

All ways of a shape take turns, with as many threads each. In its turn each way waits until the others' threads are
asleep (they go on spinning for a while), runs unmeasured for 5 ms, the same time for all, and again for 5 ms, at
least five times; of these the middle one counts, in time on the clock. The bits' time holds everything from floats to
floats: signs, packing, counting, scales. "x" is the median of each round's ratio of the quickest float way to the
bits. --plain: also beside the loops that one would write first, compiled and on one thread: the paper's 58x is
against something of that kind. --net: a whole ResNet-18 as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from backbones import create_classifier
from compress import XNORConv2d, binarize_, deploy_bits
from compress.xnor_kernel import LANES, ROWS, counts_words
from compress.xnor_vectors import multiply_bytes, multiply_words

CHANNELS = 256
SHAPES = ((3, 14), (3, 28), (3, 56), (1, 14), (1, 28), (1, 56))  # kernel, side of the map
PAUSE = 0.015  # seconds after which the threads of OpenMP have stopped spinning
TURN = 0.005  # seconds, unmeasured and then measured
FLOAT_WAYS = ("torch", "torch, channels last", "onnxruntime")

Ways = dict[str, Callable[[], Any]]


class Row(NamedTuple):
    """Milliseconds of each way, medians; ratios of the quickest float way to the bits', without and with K."""

    kernel: int
    side: int
    milliseconds: dict[str, float]
    ratio: float
    ratio_with_k: float


def onnx_convolution(weight: Tensor, side: int, threads: int) -> onnxruntime.InferenceSession:
    """A session for one convolution without bias."""
    channels, kernel = weight.shape[1], weight.shape[-1]
    shape = [1, channels, side, side]
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[kernel // 2] * 4)
    graph = onnx.helper.make_graph(
        [node],
        "convolution",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight.numpy(), "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # or its threads take the next way's time
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def ways_of(kernel: int, side: int, threads: int) -> Ways:
    """Every way to convolve 256 channels to 256, one picture."""
    torch.manual_seed(0)
    inputs = torch.randn(1, CHANNELS, side, side)
    floats = nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=kernel // 2, bias=False).eval()
    last = nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=kernel // 2, bias=False).eval()
    last.to(memory_format=torch.channels_last)
    inputs_last = inputs.contiguous(memory_format=torch.channels_last)
    session = onnx_convolution(floats.weight.detach(), side, threads)
    feed = {"x": inputs.numpy()}
    bits, bits_with_k = (
        deploy_bits(
            XNORConv2d(CHANNELS, CHANNELS, kernel, padding=kernel // 2, bias=False, input_norm=False, scale_inputs=k)
        )
        for k in (False, True)
    )
    return {
        "torch": lambda: floats(inputs),
        "torch, channels last": lambda: last(inputs_last),
        "onnxruntime": lambda: session.run(None, feed),
        "bits": lambda: bits(inputs),
        "bits with K": lambda: bits_with_k(inputs),
    }


def turn(way: Callable[[], Any]) -> float:
    """Milliseconds of the middle one of at least five runs, after as long a time unmeasured."""
    time.sleep(PAUSE)
    _times(way)
    return statistics.median(_times(way))


def _times(way: Callable[[], Any]) -> list[float]:
    """Milliseconds of each run, for `TURN` seconds and at least five runs."""
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < TURN:
        start = time.perf_counter()
        way()
        times.append(1000 * (time.perf_counter() - start))
    return times


def race(ways: Ways, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each way in each round."""
    for way in ways.values():
        way()
    return {name: list(times) for name, times in zip(
        ways, zip(*([turn(way) for way in ways.values()] for _ in range(rounds)), strict=True), strict=True
    )}  # fmt: skip


def row_of(kernel: int, side: int, times: dict[str, list[float]]) -> Row:
    """The figures of a race."""
    best = [min(own) for own in zip(*(times[name] for name in FLOAT_WAYS), strict=True)]
    ratios = [
        statistics.median(one / other for one, other in zip(best, times[name], strict=True))
        for name in ("bits", "bits with K")
    ]
    return Row(kernel, side, {name: statistics.median(own) for name, own in times.items()}, *ratios)


@numba.njit
def plain_convolution(inputs: np.ndarray, weights: np.ndarray, outputs: np.ndarray) -> None:
    """Seven loops, one multiplication after the other: inputs [C, H + k - 1, W + k - 1] are padded already."""
    for filter_ in range(weights.shape[0]):
        for y in range(outputs.shape[1]):
            for x in range(outputs.shape[2]):
                total = np.float32(0)
                for channel in range(weights.shape[1]):
                    for down in range(weights.shape[2]):
                        for right in range(weights.shape[3]):
                            total += inputs[channel, y + down, x + right] * weights[filter_, channel, down, right]
                outputs[filter_, y, x] = total


def plain_milliseconds(kernel: int, side: int) -> float:
    """The best of three."""
    padded = np.random.default_rng(0).standard_normal((CHANNELS, side + kernel - 1, side + kernel - 1), np.float32)
    weights = np.random.default_rng(1).standard_normal((CHANNELS, CHANNELS, kernel, kernel), np.float32)
    outputs = np.empty((CHANNELS, side, side), np.float32)
    times = []
    for _ in range(4):  # the first compiles
        start = time.perf_counter()
        plain_convolution(padded, weights, outputs)
        times.append(1000 * (time.perf_counter() - start))
    return min(times[1:])


@numba.njit
def _inner_loop(columns, masks, inputs, scales, weights, results, length, by_words, repeats):  # type: ignore[no-untyped-def]
    for _ in range(repeats):
        if by_words:
            multiply_words(columns, masks, inputs, scales, weights, scales, scales, results, 0, LANES, 0, 1, length)
        else:
            multiply_bytes(columns, masks, inputs, scales, weights, scales, scales, results, 0, LANES, 0, 1, length)


def inner_loop_rate() -> float:
    """Products a nanosecond of XOR and count alone, one thread, everything in the first cache."""
    taps, length, repeats = 9, CHANNELS // 32, 2000
    arguments = (
        np.zeros((taps * length, LANES), np.uint32),
        np.zeros((taps, LANES), np.uint32),
        np.zeros(LANES, np.int32),
        np.zeros(LANES, np.float32),
        np.zeros((1, taps * length * ROWS), np.uint32),
        np.zeros((ROWS, LANES), np.float32),
        length,
        counts_words(),
    )
    best = 1e9
    for _ in range(20):
        start = time.perf_counter()
        _inner_loop(*arguments, repeats)
        best = min(best, time.perf_counter() - start)
    return taps * CHANNELS * ROWS * LANES * repeats / best / 1e9


def net_ways(threads: int) -> Ways:
    """ResNet-18 at 224 x 224 with real weights, as it is trained with XNOR layers, and as those are used."""
    torch.manual_seed(0)
    picture = torch.randn(1, 3, 224, 224)
    real = create_classifier("resnet18").eval()
    binary = create_classifier("resnet18").eval()
    binarize_(binary, "xnor")
    bits = deploy_bits(binary)
    torch.set_num_threads(threads)
    return {
        "real": lambda: real(picture),
        "XNOR, simulated": lambda: binary(picture),
        "XNOR, bits": lambda: bits(picture),
    }


def show(rows: Sequence[Row], threads: int) -> None:
    """Prints the table."""
    names = list(rows[0].milliseconds)
    print(f"\nmilliseconds, {CHANNELS} to {CHANNELS} channels, {threads} thread{'s' * (threads > 1)}")
    print(f"{'kernel, map':<16}" + "".join(f"{name:>22}" for name in names) + f"{'x':>8}{'x, K':>8}{'products/ns':>13}")
    for row in rows:
        products = CHANNELS**2 * row.kernel**2 * row.side**2 / row.milliseconds["bits"] / 1e6
        times = "".join(f"{row.milliseconds[name]:>22.3f}" for name in names)
        label = f"{row.kernel}x{row.kernel}, {row.side}x{row.side}"
        print(f"{label:<16}{times}{row.ratio:>8.1f}{row.ratio_with_k:>8.1f}{products:>13.0f}", flush=True)


def main() -> None:
    """Reads the arguments, runs all shapes, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--net", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, numba {numba.__version__}")
    print(f"XOR and count alone, one thread: {inner_loop_rate():.0f} products a nanosecond")
    with torch.inference_mode():
        rows = [row_of(*shape, race(ways_of(*shape, args.threads), args.rounds)) for shape in SHAPES]
        show(rows, args.threads)
        report: dict[str, Any] = {"threads": args.threads, "rows": [row._asdict() for row in rows]}
        if args.plain:
            report["plain"] = {f"{kernel}, {side}": plain_milliseconds(kernel, side) for kernel, side in SHAPES[:3]}
            for row, milliseconds in zip(rows, report["plain"].values(), strict=False):
                ratio, shape = (
                    milliseconds / row.milliseconds["bits"],
                    f"{row.kernel}x{row.kernel}, {row.side}x{row.side}",
                )
                print(f"plain loops, {shape}: {milliseconds:.1f} ms, x {ratio:.0f}")
        if args.net:
            times = race(net_ways(args.threads), args.rounds)
            report["net"] = {name: statistics.median(own) for name, own in times.items()}
            print("ResNet-18, 224x224: " + ", ".join(f"{name} {value:.2f} ms" for name, value in report["net"].items()))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
