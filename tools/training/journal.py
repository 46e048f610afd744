"""What a training tells: a line a step to log.jsonl and TensorBoard, and on the screen how far it is."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbones.files import write_atomically

_READER_GONE = (errno.EPIPE, errno.EIO)  # a pipe that nobody reads any more, a terminal that closed


class Screen:
    """Lines on standard output; on a terminal also one line at the bottom that is written anew.

    silent: of several processes one speaks, and the others' screens show nothing. A screen whose reader goes away
    (`swiftsight train CONFIG | head -4`) falls silent, and the training goes on: log.jsonl holds everything.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._is_terminal = sys.stdout.isatty() and not silent
        self._shown = ""

    def say(self, line: str) -> None:
        """One line that stays."""
        if self._silent:
            return
        self._print(f"\r\x1b[K{line}\n" if self._shown else f"{line}\n")
        if self._shown:
            self.show(self._shown)

    def show(self, line: str) -> None:
        """The line at the bottom, as wide as the terminal; nothing where there is no terminal."""
        if self._is_terminal:
            self._shown = line[: shutil.get_terminal_size().columns - 1]
            self._print(f"\r\x1b[K{self._shown}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._shown:
            self._print("\r\x1b[K")
        self._shown = ""

    def _print(self, text: str) -> None:
        try:
            print(text, end="", flush=True)
        except OSError as error:
            if error.errno not in _READER_GONE:
                raise
            self._silent, self._is_terminal, self._shown = True, False, ""
            # What is left in the buffer goes there too, at the interpreter's last flush.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())


class Journal:
    """log.jsonl and TensorBoard's files in the run's folder, from step `start` on; what was later is cut."""

    def __init__(self, folder: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # here: it takes a second, and only a training needs it

        path = folder / "log.jsonl"
        if path.exists():
            _keep_until(path, start)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def write(self, kind: str, step: int, values: Mapping[str, float], **places: Any) -> None:
        """One record: kind is "train" or "val", `step` counts the steps that are done."""
        short = {name: float(f"{value:.6g}") for name, value in values.items()}
        self._file.write(json.dumps({"kind": kind, "step": step, **places, **short}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Bring everything to the disk."""
        self._file.close()
        self._board.close()


def _keep_until(path: Path, step: int) -> None:
    """Drop the records after `step`, which a resumed run writes again, and a last line that a crash cut."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] <= step:
            kept.append(line + "\n")
    write_atomically(path, "".join(kept).encode())


class Clock:
    """How long a step takes, lately and on average, and how long the rest will."""

    def __init__(self) -> None:
        self._ticks: list[float] = [time.monotonic()]

    def tick(self) -> float:
        """Seconds since the last tick; the last 200 are remembered."""
        self._ticks = [*self._ticks[-200:], time.monotonic()]
        return self._ticks[-1] - self._ticks[-2]

    def skip(self) -> None:
        """Do not count what happened since the last tick, a validation for example."""
        lost = time.monotonic() - self._ticks[-1]
        self._ticks = [tick + lost for tick in self._ticks]

    def seconds_per_step(self) -> float:
        """The mean over what is remembered; 0 before the first step."""
        return (self._ticks[-1] - self._ticks[0]) / max(len(self._ticks) - 1, 1)
