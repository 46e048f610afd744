"""Writes a net as one file, from whole pictures to answers.

The file is written to a temporary place, run on pictures in every engine that takes it, and compared with torch. Where
it differs (`parity`), nothing is written under the name that was asked for.
"""

from __future__ import annotations

import os
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from detect import TwoStageDetector
from detect.two_stage import SIZE_STEP, checked_input_size
from joint import JointNet
from segment import Segmenter
from segment.base import checked_input_size as checked_pixels

from ..fast_packages import load_package, reason_of
from ..model_choice import Net
from .export_check import check_file
from .exported_words import DETECTION, FLOAT, JOINT, SEGMENTATION, SUFFIXES, ExportedWords
from .picture_graph import GraphSettings, PictureGraph, onnx_model
from .quantize import quantized

NO_LICENCE = "not stated"


def write_export(
    net: Net,
    settings: GraphSettings,
    words: ExportedWords,
    target: Path,
    *,
    form: str,
    pictures: list[Any],
    calibration: list[Any] | None = None,
    float_heads: bool = False,
    threads: int | None = None,
) -> list[str]:
    """Writes `target` if it answers as torch does, and gives what was compared.

    form: a key of SUFFIXES. pictures: to compare on; calibration: [N, H, W, 3] uint8 arrays for an int8 file. Raises
    ValueError where the exporter fails or the file differs, and OSError; what lay at `target` is then as it was.
    """
    graph = PictureGraph(net, settings)
    model = onnx_model(graph, words.as_metadata())
    with tempfile.TemporaryDirectory(prefix=".export_", dir=target.parent) as folder:
        onnx_file = Path(folder) / f"{target.stem}.onnx"
        if calibration is not None:
            model = quantized(model, calibration, Path(folder), float_heads=float_heads)
        onnx_file.write_bytes(model.SerializeToString())
        made = onnx_file if form == "onnx" else _as_openvino(onnx_file, words)
        lines = check_file(made, net, graph, pictures, precision=words.precision, threads=threads)
        if form == "openvino":
            os.replace(made.with_suffix(".bin"), target.with_suffix(".bin"))
        os.replace(made, target)
    return lines


def settings_for(net: Net, *, size: Any = None, **options: Any) -> GraphSettings:
    """Settings for a net, by default at the size that it is meant for. ValueError for a size that it does not take."""
    finds_boxes = not isinstance(net, Segmenter)
    checked = (checked_input_size if finds_boxes else checked_pixels)(size or net.input_size)
    return GraphSettings(checked, SIZE_STEP if finds_boxes else 1, **options)


def words_for(net: Net, settings: GraphSettings, *, licence: str, precision: str = FLOAT) -> ExportedWords:
    """What the file will say of itself."""
    is_joint = isinstance(net, JointNet)
    return ExportedWords(
        net=net.name,
        task=JOINT if is_joint else DETECTION if isinstance(net, TwoStageDetector) else SEGMENTATION,
        class_names=net.detector.class_names if isinstance(net, JointNet) else net.class_names,
        pixel_class_names=net.segmenter.class_names if isinstance(net, JointNet) else (),
        input_size=settings.size,
        size_step=settings.size_step,
        batch=settings.batch,
        free_size=settings.free_size,
        resize_inside=settings.resize_inside,
        keep_scores=settings.keep_scores,
        score_threshold=settings.score_threshold,
        iou_threshold=settings.iou_threshold,
        max_detections=settings.max_detections,
        precision=precision,
        options=net.options,
        licence=licence,
        swiftsight=metadata.version("swiftsight"),
    )


def _as_openvino(onnx_file: Path, words: ExportedWords) -> Path:
    """The .xml, with its .bin beside it, of an .onnx. ValueError, with the reason, where OpenVINO does not take it."""
    openvino = load_package("openvino", "--format openvino")
    path = onnx_file.with_suffix(SUFFIXES["openvino"])
    try:
        model = openvino.Core().read_model(str(onnx_file))  # `convert_model` may report its use to a server
        for name, value in words.as_metadata().items():
            model.set_rt_info(value, ["swiftsight", name])
        openvino.save_model(model, str(path), compress_to_fp16=False)
    except RuntimeError as error:
        raise ValueError(f"OpenVINO does not take the graph: {reason_of(error)}") from None
    return path
