"""A plain net in another engine: exported once, compared with torch, and kept in the user's cache folder."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

import backbones
import compress
import detect
import joint
import segment
from backbones.published import cache_folder
from joint import JointNet
from segment import Segmenter

from ..fast_packages import installed_version
from ..model_choice import Net
from .engine import TorchEngine, engine_openers, installed_engines
from .engine_choice import AUTO, fastest
from .export_check import check_pictures
from .export_file import NO_LICENCE, settings_for, words_for, write_export
from .exported import ExportedNet
from .exported_words import SUFFIXES, read_words
from .picture_graph import GraphSettings, PictureGraph

FOLDER = "converted"
_MOST_KEPT = 40


def in_engine(
    net: Net,
    engine: str,
    *,
    size: Any = None,
    batch: int = 1,
    threads: int | None = None,
    callers: int = 1,
    limits: Mapping[str, Any] | None = None,
) -> ExportedNet | None:
    """The net as an exported file that runs in `engine`; None where torch is to run it as it is.

    A segmenter is made for any size, with scores, any other net for one size and batch. callers: as in `open_engine`.
    limits: score_threshold and max_detections of a detector, where they are not the usual.
    "auto": what is quickest here, of torch and what is installed. Raises ValueError for an engine that is not
    installed or a net that cannot be exported.
    """
    threads = threads or torch.get_num_threads()
    installed = installed_engines(".onnx")
    if engine == "torch" or (engine == AUTO and not installed):
        return None
    if isinstance(net, Segmenter):
        settings = settings_for(net, size=size, free_size=True, keep_scores=True)
    else:
        sampling = "roi_align" if engine == "onnxruntime" else "grid_sample"  # each engine is slow at the other's
        settings = settings_for(
            net, size=size, batch=batch, keep_scores=isinstance(net, JointNet), roi_align=sampling, **(limits or {})
        )
    path = converted(net, settings, threads=threads)
    if engine == AUTO:
        graph = PictureGraph(net, settings)
        openers = {"torch": lambda: TorchEngine(graph, threads=threads), **engine_openers(path, installed, threads)}
        engine = fastest(path, openers, threads=threads)
    return None if engine == "torch" else ExportedNet(path, engine=engine, threads=threads, callers=callers)


def converted(net: Net, settings: GraphSettings, *, threads: int) -> Path:
    """The net's file in the cache, made there first if it is not; where the cache cannot be written, in a folder that
    lasts as long as the process.
    """
    name = f"{net.name}_{fingerprint(net, settings)}{SUFFIXES['onnx']}"
    path = cache_folder() / FOLDER / name
    if path.is_file() and _is_readable(path):
        _touch(path)
        return path
    folder = _writable(path.parent)
    print(f"converting {net.name} for faster engines, once: this takes a while", file=sys.stderr, flush=True)
    pictures, _ = check_pictures(None)
    words = words_for(net, settings, licence=NO_LICENCE)
    write_export(net, settings, words, folder / name, form="onnx", pictures=pictures, threads=threads)
    _forget_oldest(folder)
    return folder / name


def _is_readable(path: Path) -> bool:
    """Whether it is whole; else it is made anew."""
    try:
        read_words(path)
    except (ValueError, OSError):
        return False
    return True


def _touch(path: Path) -> None:
    """Used just now: not the next to be forgotten."""
    with suppress(OSError):
        path.touch()


def _forget_oldest(folder: Path) -> None:
    """All but the latest used: each change of weights or size leaves a file."""
    with suppress(OSError):
        newest_first = sorted(folder.glob(f"*{SUFFIXES['onnx']}"), key=lambda path: -path.stat().st_mtime)
        for path in newest_first[_MOST_KEPT:]:
            path.unlink()


def fingerprint(net: Net, settings: GraphSettings) -> str:
    """A word that changes with anything that the file is made of or by."""
    engines = [f"{engine} {installed_version(engine)}" for engine in installed_engines(SUFFIXES["onnx"])]
    versions = [*(installed_version(package) for package in ("swiftsight", "torch", "onnxscript")), *engines]
    names = (net.detector.class_names, net.segmenter.class_names) if isinstance(net, JointNet) else (net.class_names,)
    binary = getattr(net, "binary", {})  # other functions of the same tensors
    digest = hashlib.sha256(repr((net.name, net.options, binary, names, settings, versions, _sources())).encode())
    for name, tensor in net.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@cache
def _sources() -> str:
    """A word that changes with the code that graphs are made of and by, which a version need not do."""
    rooms = [Path(str(package.__file__)).parent for package in (backbones, compress, detect, joint, segment)]
    digest = hashlib.sha256()
    for room in (*rooms, Path(__file__).parent):
        for path in sorted(room.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    temporary = tempfile.mkdtemp(prefix="swiftsight_")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return Path(temporary)
