"""A training and its folder: one at a time, never over an old one, resumed from its newest whole checkpoint."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from backbones.files import write_atomically
from pictures.report import counted

from ..configuration.config import as_plain
from ..errors import UsageError
from .processes import from_first

if TYPE_CHECKING:
    from .session import TrainingSession

_RUN_FILES = ("config.yaml", "log.jsonl", "best.safetensors", "checkpoint_*.pt")
_OTHER_OWN_FILES = ("not_finite_batch.pt", "squeeze.json")


def run_session(session: TrainingSession, *, resume: bool) -> None:
    """Train to the end, from the newest whole checkpoint where `resume` is asked for and one is there."""
    config, work_dir, screen = session.config, session.work_dir, session.screen
    # The first process alone looks for a checkpoint: other machines may not see the folder.
    is_first = session.processes.is_first
    if is_first and not resume:
        refuse_old_run(work_dir)  # once more: another may have come and gone while the data were read
    found = from_first(session.checkpoints.load_newest(screen.say) if resume and is_first else None)
    if resume and found is None:
        if is_first:
            _refuse_lost_run(work_dir)
        screen.say(f"no checkpoint in {work_dir}: starting from the beginning")
    if found is not None:
        session.check_resumable(found[1])
        if session.is_finished(found[1]):
            screen.say(f"{work_dir} is finished after {counted(found[1]['epoch'], 'epochs')}; nothing is left to train")
            return
    if is_first:
        plain = as_plain(config, whole_paths=True)
        write_atomically(work_dir / "config.yaml", yaml.safe_dump(plain, sort_keys=False).encode())
    session.run(found)


def refuse_old_run(work_dir: Path) -> None:
    """A folder with a run in it is never written over."""
    if any(next(work_dir.glob(pattern), None) for pattern in _RUN_FILES):
        raise UsageError(f"{work_dir} holds a run already: go on with it by --resume, or choose another --work-dir")


def _refuse_lost_run(work_dir: Path) -> None:
    """With --resume: best weights, but no checkpoint that they came from, would be written over."""
    if (work_dir / "best.safetensors").exists():
        raise ValueError(f"{work_dir} holds best.safetensors, but no whole checkpoint to resume from; move it away")


@contextmanager
def only_run_in(work_dir: Path) -> Iterator[None]:
    """Make the folder, clear it of files that the run never finished, and keep a second training out of it."""
    work_dir.mkdir(parents=True, exist_ok=True)
    handle = os.open(work_dir / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # Not flock, which the loader's workers would inherit and hold a while after a kill -9.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise ValueError(f"another training is running in {work_dir}") from None
    else:
        for name in (*_RUN_FILES, *_OTHER_OWN_FILES):
            for left in work_dir.glob(f".{name}.part"):  # a kill in the middle of writing one
                left.unlink()
        yield
    finally:
        os.close(handle)
