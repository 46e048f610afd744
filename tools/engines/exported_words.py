"""What an exported file says of itself: read before it is run, written when it is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..fast_packages import load_package, reason_of

DETECTION, SEGMENTATION, JOINT = "detection", "segmentation", "joint"
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
SECTION = "swiftsight"  # of OpenVINO's own metadata
FLOAT, INT8 = "float32", "int8"


@dataclass(frozen=True)
class ExportedWords:
    """The metadata of an exported file.

    net, class_names, options: as in a weights file. task: DETECTION, SEGMENTATION or JOINT; a joint net's class_names
    are its detector's, and pixel_class_names its segmenter's. input_size: (height, width) that the net sees, or is
    meant for where `free_size`, and then a multiple of `size_step`. batch: pictures at a time, None for any number.
    resize_inside: pictures of any size are taken, and answered in their own pixels. keep_scores: of the pixels'
    classes. precision: FLOAT or INT8. The thresholds and max_detections are a detector's settings inside. licence: of
    the weights. swiftsight: the version that wrote the file.
    """

    net: str
    task: str
    class_names: tuple[str, ...]
    pixel_class_names: tuple[str, ...]
    input_size: tuple[int, int]
    size_step: int
    batch: int | None
    free_size: bool
    resize_inside: bool
    keep_scores: bool
    score_threshold: float
    iou_threshold: float
    max_detections: int
    precision: str
    options: Mapping[str, Any]
    licence: str
    swiftsight: str

    def as_metadata(self) -> dict[str, str]:
        """Word -> text, as the file holds it: lists and numbers as json."""
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in vars(self).items()}


def read_words(path: Path) -> ExportedWords:
    """The words of an exported file. FileNotFoundError; ValueError where it is damaged, or no export of swiftsight."""
    if not path.is_file():
        raise FileNotFoundError(f"no exported file at {path}")
    reader = {".onnx": _onnx_metadata, ".xml": _openvino_metadata}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} is no exported net; expected a file that ends in {' or '.join(SUFFIXES.values())}")
    metadata = reader(path)
    expected = ExportedWords.__dataclass_fields__
    missing = [name for name in expected if name not in metadata]
    if missing:
        raise ValueError(f"{path} is no export of swiftsight: its metadata lacks {missing[0]!r}")
    try:
        values = {name: _value(name, metadata[name]) for name in expected}
        return _checked(ExportedWords(**values))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: its metadata makes no sense: {error}") from None


def _value(name: str, text: str) -> Any:
    if name in ("net", "task", "precision", "licence", "swiftsight"):
        return text
    value = json.loads(text)
    return tuple(value) if isinstance(value, list) else value


def _checked(words: ExportedWords) -> ExportedWords:
    """ValueError for words that a predictor could not use."""
    if words.task not in (DETECTION, SEGMENTATION, JOINT):
        raise ValueError(f"the task is {words.task!r}; expected {DETECTION}, {SEGMENTATION} or {JOINT}")
    needed = [words.class_names, *([words.pixel_class_names] if words.task == JOINT else [])]
    for names in needed:
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"the class names are {names!r}")
    if len(words.input_size) != 2 or not all(isinstance(side, int) and side > 0 for side in words.input_size):
        raise ValueError(f"the input size is {words.input_size!r}; expected (height, width)")
    if words.batch is not None and not (isinstance(words.batch, int) and words.batch > 0):
        raise ValueError(f"the batch is {words.batch!r}; expected a number or null")
    return words


def _onnx_metadata(path: Path) -> dict[str, str]:
    onnx = load_package("onnx", f"reading {path.name}")
    protobuf = load_package("google.protobuf.message", f"reading {path.name}")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (protobuf.DecodeError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is no readable ONNX file: {reason_of(error)}") from None
    return {prop.key: prop.value for prop in model.metadata_props}


def _openvino_metadata(path: Path) -> dict[str, str]:
    openvino = load_package("openvino", f"reading {path.name}")
    if not path.with_suffix(".bin").is_file():
        raise FileNotFoundError(f"{path} needs its weights beside it, and {path.with_suffix('.bin').name} is missing")
    try:
        model = openvino.Core().read_model(str(path))
    except RuntimeError as error:
        raise ValueError(f"{path} is no readable OpenVINO file: {reason_of(error)}") from None
    if not model.has_rt_info([SECTION]):
        return {}
    return {name: value.astype(str) for name, value in model.get_rt_info([SECTION]).astype(dict).items()}
