"""Checkpoints on disk: written whole or not at all, known by a checksum, read without running anything.

A checkpoint is a dictionary of tensors, numbers, text, lists and dictionaries in torch's format, so that
`torch.load(path, weights_only=True)` reads it anywhere. Its entry "checksum" covers all the others.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import random
import struct
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.files import write_atomically

_CHECKSUM = "checksum"
_PATTERN = "checkpoint_*.pt"
# What torch's reader was seen to raise, or may raise, where single bytes were changed.
_DAMAGE = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error)


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state`; OSError, with the older file still in place, where the disk does not take it."""
    content = io.BytesIO()
    torch.save({**state, _CHECKSUM: checksum(state)}, content)
    write_atomically(path, content.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote, tensors on the CPU. ValueError for a damaged file or one that would run code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on pickles of others; they are refused below anyway
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"{path} holds more than tensors and numbers, or is damaged; it was not run") from None
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is damaged: {str(error).splitlines()[0] if str(error) else 'it ends early'}"
        ) from None
    if not isinstance(state, dict) or _CHECKSUM not in state:
        raise ValueError(f"{path} is no checkpoint of swiftsight: it holds no checksum")
    expected = state.pop(_CHECKSUM)
    if checksum(state) != expected:
        raise ValueError(f"{path} is damaged: its content does not match its checksum")
    return state


def checksum(state: Mapping[str, Any]) -> str:
    """SHA-256 over names, numbers and the bytes of tensors, whatever the file around them looks like."""
    digest = hashlib.sha256()
    _feed(digest.update, state)
    return digest.hexdigest()


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    """TypeError for anything that a checkpoint must not hold."""
    if isinstance(value, Tensor):
        update(f"tensor {value.dtype} {tuple(value.shape)}\n".encode())
        if value.numel():
            update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        update(f"mapping {len(value)}\n".encode())
        for name, part in value.items():
            _feed(update, name)
            _feed(update, part)
    elif isinstance(value, (list, tuple)):
        update(f"list {len(value)}\n".encode())
        for part in value:
            _feed(update, part)
    elif value is None or type(value) in (bool, int, float, str):
        update(f"{type(value).__name__} {value!r}\n".encode())
    else:
        raise TypeError(f"a checkpoint holds tensors, numbers and text, not {type(value).__name__}")


class CheckpointFolder:
    """The checkpoints of one run, named by the number of steps done: the newest `keep_last` and the best are kept."""

    def __init__(self, folder: Path, keep_last: int) -> None:
        self.folder = folder
        self.keep_last = keep_last

    def files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob(_PATTERN))

    def save(self, state: Mapping[str, Any], step: int, best_step: int | None) -> Path:
        """Write the checkpoint after `step` steps and let go of those that are not needed any more.

        Raises OSError that says which older one is whole, if this one cannot be written.
        """
        path = self._path(step)
        try:
            save_checkpoint(path, state)
        except OSError as error:
            older = [file for file in self.files() if file != path]
            rest = f"the one before it, {older[-1].name}, is whole" if older else "there is none before it"
            raise OSError(f"cannot write the checkpoint {path}: {error.strerror or error}; {rest}") from error
        kept = {*self.files()[-self.keep_last :], path}
        if best_step is not None:
            kept.add(self._path(best_step))
        for file in self.files():
            if file not in kept:
                file.unlink()
        return path

    def load_newest(self, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is whole, or None. A damaged one is renamed to *.damaged, and `say` is told."""
        for path in reversed(self.files()):
            try:
                return path, load_checkpoint(path)
            except ValueError as error:
                aside = path.with_suffix(".damaged")
                path.rename(aside)
                say(f"{error}; it is {aside.name} now, and the one before it is used")
        return None

    def _path(self, step: int) -> Path:
        return self.folder / f"checkpoint_{step:08d}.pt"


def random_states() -> dict[str, Any]:
    """The states of python's, NumPy's and torch's generators as plain data."""
    version, words, gauss = random.getstate()
    numpy_state: dict[str, Any] = dict(np.random.get_state(legacy=False))
    words_of_numpy = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
    rest = [int(numpy_state["state"]["pos"]), int(numpy_state["has_gauss"]), float(numpy_state["gauss"])]
    return {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": [str(numpy_state["bit_generator"]), words_of_numpy, *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """The inverse of `random_states`. The states of GPUs are set where there are as many as then."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
