"""Int8: onnxruntime's static quantisation of an exported graph, calibrated on pictures of a folder."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pictures.images import read_image, resize_image

from ..destinations import pictures_in
from ..errors import UsageError
from ..fast_packages import load_package, reason_of
from .picture_graph import INPUT, GraphSettings

DEFAULT_COUNT = 100
_QUANTIZED = ("Conv", "Gemm", "MatMul")
# What stays in 32 bits by --float-heads: the parts that turn maps into answers.
_HEADS = (".rpn.", ".proposals.", ".head.", ".classifier")


def add_int8_arguments(group: argparse._ArgumentGroup) -> None:
    """--int8 and what it is calibrated on."""
    group.add_argument("--int8", action="store_true", help="weights and maps in 8 bits")
    group.add_argument("--calibration", type=Path, metavar="DIR", help="pictures like those that the net will see")
    count = f"how many of them, spread over the folder ({DEFAULT_COUNT})"
    group.add_argument("--calibration-count", type=int, metavar="N", help=count)
    group.add_argument("--float-heads", action="store_true", help="the heads stay in 32 bits")


def check_int8_words(args: argparse.Namespace) -> None:
    """UsageError where calibration and --int8 do not go together."""
    if args.int8 and args.calibration is None:
        raise UsageError("--int8 needs pictures to calibrate on: --calibration DIR")
    if not args.int8 and (args.calibration or args.calibration_count or args.float_heads):
        raise UsageError("--calibration, --calibration-count and --float-heads go with --int8")
    if args.calibration_count is not None and args.calibration_count < 1:
        raise UsageError(f"--calibration-count {args.calibration_count}: expected at least 1")


def calibration_pictures(args: argparse.Namespace, settings: GraphSettings) -> list[np.ndarray]:
    """Pictures as the graph takes them, [N, H, W, 3] uint8 each. ValueError or OSError where some cannot be read."""
    if not args.calibration.is_dir():
        raise FileNotFoundError(f"no folder of pictures at {args.calibration}")
    paths = pictures_in(args.calibration)
    number = min(args.calibration_count or DEFAULT_COUNT, len(paths))
    places = np.linspace(0, len(paths) - 1, number).round().astype(int)
    seen = (read_image(paths[place]) for place in places)
    if not settings.resize_inside:
        seen = (resize_image(picture, settings.size) for picture in seen)
    return [np.repeat(picture[None], settings.batch or 1, axis=0) for picture in seen]


class _Reader:
    """Pictures one by one, as onnxruntime's calibration asks for them."""

    def __init__(self, pictures: Sequence[np.ndarray]) -> None:
        self._left: Iterator[np.ndarray] = iter(pictures)

    def get_next(self) -> dict[str, np.ndarray] | None:
        picture = next(self._left, None)
        return None if picture is None else {INPUT: picture}


def quantized(model: Any, calibration: Sequence[np.ndarray], folder: Path, *, float_heads: bool) -> Any:
    """The graph with its convolutions and matrix products in 8 bits, weights channel by channel; its metadata stays.

    folder: for what onnxruntime writes on the way. ValueError where it fails.
    """
    onnx = load_package("onnx", "--int8")
    tool = load_package("onnxruntime.quantization", "--int8")
    before, after = folder / "float.onnx", folder / "int8.onnx"
    before.write_bytes(model.SerializeToString())
    kept = [node.name for node in model.graph.node if float_heads and any(head in node.name for head in _HEADS)]
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tool.quantize_static(
                str(before),
                str(after),
                _reader_of(tool, calibration),
                quant_format=tool.QuantFormat.QDQ,
                per_channel=True,
                op_types_to_quantize=list(_QUANTIZED),
                nodes_to_exclude=kept,
                activation_type=tool.QuantType.QUInt8,
                weight_type=tool.QuantType.QInt8,
            )
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise ValueError(f"onnxruntime cannot quantise the graph: {reason_of(error)}") from None
    finally:
        root.setLevel(level)
    result = onnx.load(str(after))
    onnx.helper.set_model_props(result, {prop.key: prop.value for prop in model.metadata_props})
    return result


def _reader_of(tool: Any, pictures: Sequence[np.ndarray]) -> Any:
    return type("Reader", (_Reader, tool.CalibrationDataReader), {})(pictures)
