"""An engine for a file, by name or the fastest here: measured once, remembered in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from backbones.files import write_atomically
from backbones.published import cache_folder

from ..cores import processor_name
from ..fast_packages import installed_version
from .engine import ENGINES, Engine, TorchEngine, engine_openers, engines_for
from .exported_words import read_words

AUTO = "auto"
MEMORY = "engines.json"
_MOST_REMEMBERED = 200
_WARM_UP, _RUNS, _MOST_SECONDS = 3, 15, 1.5


def open_engine(
    source: Path | str | nn.Module, name: str = AUTO, *, threads: int | None = None, callers: int = 1
) -> Engine:
    """What runs `source`: an exported file, or a module that takes [N, H, W, 3] uint8, which torch runs as it is.

    name: "auto" for the fastest that is installed (`fastest`), or one of ENGINES. threads: for each call, torch's
    number where None. callers: how many threads will call at once. ValueError for an engine that is unknown, not
    installed or not for `source`; FileNotFoundError.
    """
    threads = threads or torch.get_num_threads()
    if name not in (AUTO, *ENGINES):
        raise ValueError(f"no engine is called {name!r}; expected {AUTO}, {', '.join(ENGINES)}")
    if isinstance(source, nn.Module):
        if name not in (AUTO, "torch"):
            raise ValueError(f"a module is run by torch; export it for {name}")
        return TorchEngine(source, threads=threads)
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"no exported file at {path}")
    if name == AUTO:
        name = fastest(path, engine_openers(path, engines_for(path), threads), threads=threads)
    if name == "torch":
        raise ValueError(f"torch cannot run {path.name}; expected --engine {' or '.join(engines_for(path))}")
    return engine_openers(path, [name], threads, callers)[name]()


def fastest(path: Path, openers: Mapping[str, Callable[[], Engine]], *, threads: int) -> str:
    """The name of the engine that runs the file in the least time; one that fails on it does not count.

    openers: name -> what opens the engine, of those that are installed.

    What was measured is kept by the file's contents, its size, threads, processor and versions. A memory that is
    damaged or cannot be written only means that it is measured again. Raises ValueError where every engine fails.
    """
    if len(openers) == 1:
        return next(iter(openers))
    key = memory_key(path, list(openers), threads)
    remembered = _remembered()
    known = remembered.get(key)
    if known in openers:
        return str(known)
    times, failures = {}, []
    for engine, opener in openers.items():
        try:
            times[engine] = milliseconds(opener(), _typical_input(path))
        except ValueError as error:
            failures.append(str(error))
    if not times:
        raise ValueError(f"no engine runs {path}: {failures[0]}")
    best = min(times, key=lambda engine: times[engine])
    _remember({**remembered, key: best})
    return best


def milliseconds(engine: Engine, images: np.ndarray) -> float:
    """The median time of a call, of a few that take about a second in all."""
    for _ in range(_WARM_UP):
        engine(images)
    seconds: list[float] = []
    while len(seconds) < _RUNS and sum(seconds) < _MOST_SECONDS:
        start = time.perf_counter()
        engine(images)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def memory_key(path: Path, engines: Sequence[str], threads: int) -> str:
    """Everything that an answer depends on, in one word."""
    digest = hashlib.sha256(path.read_bytes())
    weights = path.with_suffix(".bin")
    if path.suffix.lower() == ".xml" and weights.is_file():
        digest.update(weights.read_bytes())
    versions = [f"{engine} {installed_version(engine)}" for engine in engines]
    return " | ".join([digest.hexdigest()[:32], *versions, f"{threads} threads", processor_name()])


def _typical_input(path: Path) -> np.ndarray:
    words = read_words(path)
    noise = np.random.default_rng(0).integers(0, 256, (words.batch or 1, *words.input_size, 3), dtype=np.uint8)
    return noise.transpose(0, 3, 1, 2)


def _remembered() -> dict[str, str]:
    try:
        content = json.loads((cache_folder() / MEMORY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(content: dict[str, str]) -> None:
    newest = dict(list(content.items())[-_MOST_REMEMBERED:])
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        write_atomically(cache_folder() / MEMORY, (json.dumps(newest, indent=1) + "\n").encode())
    except OSError:
        return
