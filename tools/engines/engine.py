"""One call for what runs a net: torch, onnxruntime or OpenVINO, with as many threads as are asked for.

Measured beside each other: the same threads, 32-bit numbers everywhere. OpenVINO left to itself takes all cores, and
bfloat16 where the processor has it, which changes answers.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..fast_packages import load_package, reason_of

ENGINES = ("torch", "onnxruntime", "openvino")
_RUN_BY = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}
_MOST_SHAPES = 4  # of open sides that OpenVINO gets a graph of its own for; more would only compile


class Engine(Protocol):
    """Something that runs a graph of pictures. It may be called by several threads at once."""

    name: str

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """images [N, 3, h, w] uint8 RGB, best seen from [N, h, w, 3] in memory -> the graph's outputs in their order.

        What is given belongs to the caller. ValueError for a shape that the graph does not take.
        """
        ...


class TorchEngine:
    """A module that takes [N, H, W, 3], run by torch."""

    name = "torch"

    def __init__(self, graph: nn.Module, *, threads: int) -> None:
        torch.set_num_threads(threads)
        self._graph = graph.eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `Engine`."""
        found: tuple[Tensor, ...] = self._graph(torch.from_numpy(_as_pictures(images)))
        return tuple(each.numpy() for each in found)


class OnnxRuntimeEngine:
    """An .onnx file, run by onnxruntime on the processor. ValueError for a file that it cannot read."""

    name = "onnxruntime"

    def __init__(self, path: Path, *, threads: int) -> None:
        runtime = load_package("onnxruntime", "--engine onnxruntime")
        if path.suffix.lower() != ".onnx":
            raise ValueError(f"onnxruntime runs .onnx files, not {path.name}; expected --engine openvino")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self._errors = _errors_of(runtime)
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except self._errors as error:
            raise ValueError(f"{path} cannot be run by onnxruntime: {reason_of(error)}") from None
        self._input = self._session.get_inputs()[0]

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `Engine`."""
        pictures = _as_pictures(images)
        _check_shape(pictures.shape, [side if isinstance(side, int) else None for side in self._input.shape])
        try:
            return tuple(self._session.run(None, {self._input.name: pictures}))
        except self._errors as error:
            raise ValueError(f"onnxruntime failed on {list(pictures.shape)}: {reason_of(error)}") from None


class OpenVinoEngine:
    """An .onnx or OpenVINO .xml file, run by OpenVINO on the processor. ValueError for a file that it cannot read.

    For sides that are open in the file a graph is compiled for each of the first sizes that come, which is quicker than
    one for all; later sizes share one for all. Of each graph there are as many as callers: a graph with one thread runs
    in the thread that calls, as quick as OpenVINO's streams, and a stage's clock sees what it spends.
    """

    name = "openvino"

    def __init__(self, path: Path, *, threads: int, callers: int = 1) -> None:
        openvino = load_package("openvino", "--engine openvino")
        self._core = openvino.Core()
        self._callers, self._compiling = callers, threading.Lock()
        self._settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,  # decoding and drawing want the cores, too
        }
        self._free: dict[tuple[int, ...] | None, queue.SimpleQueue[Any]] = {}  # shape -> requests that nobody runs
        try:
            self._model = self._core.read_model(str(path))
            self._sides = [side.get_length() if side.is_static else None for side in self._model.input().partial_shape]
            if None not in self._sides:
                self._compile(self._model, None)
        except RuntimeError as error:
            raise ValueError(f"{path} cannot be run by OpenVINO: {reason_of(error)}") from None

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `Engine`."""
        pictures = _as_pictures(images)
        _check_shape(pictures.shape, self._sides)
        try:
            with self._compiling:
                free = self._requests_for(pictures.shape)
            request = free.get()
            try:
                found = request.infer(pictures, share_inputs=True, share_outputs=False)
            finally:
                free.put(request)
        except RuntimeError as error:
            raise ValueError(f"OpenVINO failed on {list(pictures.shape)}: {reason_of(error)}") from None
        return tuple(found.values())

    def _requests_for(self, shape: tuple[int, ...]) -> queue.SimpleQueue[Any]:
        if None in self._sides and shape not in self._free:
            if len(self._free) < _MOST_SHAPES:
                model = self._model.clone()
                model.reshape(list(shape))
                self._compile(model, shape)
            elif None not in self._free:
                self._compile(self._model, None)
        return self._free[shape if shape in self._free else None]

    def _compile(self, model: Any, shape: tuple[int, ...] | None) -> None:
        free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self._callers):
            free.put(self._core.compile_model(model, "CPU", self._settings).create_infer_request())
        self._free[shape] = free


def installed_engines(suffix: str) -> list[str]:
    """Those that run files of this ending and are installed."""
    return [engine for engine in _RUN_BY[suffix] if find_spec(engine) is not None]


def engines_for(path: Path) -> list[str]:
    """The installed engines that run a file of its kind. ValueError where there is none, or for another kind."""
    suffix = path.suffix.lower()
    if suffix not in _RUN_BY:
        raise ValueError(f"{path} is no exported net; expected a file that ends in {' or '.join(_RUN_BY)}")
    installed = installed_engines(suffix)
    if not installed:
        load_package(_RUN_BY[suffix][0], f"running {path.name}")
    return installed


def engine_openers(path: Path, names: Sequence[str], threads: int, callers: int = 1) -> dict[str, Callable[[], Engine]]:
    """Engine -> what opens the file there."""
    openers: dict[str, Callable[[], Engine]] = {
        "onnxruntime": partial(OnnxRuntimeEngine, path, threads=threads),
        "openvino": partial(OpenVinoEngine, path, threads=threads, callers=callers),
    }
    return {name: openers[name] for name in names}


def _as_pictures(images: np.ndarray) -> np.ndarray:
    """[N, 3, h, w] -> [N, h, w, 3], copied only where it lies otherwise in memory. ValueError for anything else."""
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8 or images.size == 0:
        raise ValueError(f"images are {list(images.shape)} of {images.dtype}; expected [N, 3, h, w] of uint8")
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _check_shape(shape: Sequence[int], expected: Sequence[int | None]) -> None:
    """ValueError where a side is not what the file fixes."""
    if any(want not in (None, side) for side, want in zip(shape, expected, strict=True)):
        words = " x ".join("any" if side is None else str(side) for side in expected)
        raise ValueError(f"the pictures are {' x '.join(map(str, shape))}; the file takes {words}")


def _errors_of(runtime: Any) -> tuple[type[Exception], ...]:
    """What onnxruntime raises: no class of its own covers all."""
    state = runtime.capi.onnxruntime_pybind11_state
    kinds = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*kinds, RuntimeError, ValueError)
