"""How far a long piece of work is, and how long the rest will take: on stderr, so that results can be piped."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

Item = TypeVar("Item")


def show_progress(items: Iterable[Item], total: int, noun: str, *, stream: TextIO | None = None) -> Iterator[Item]:
    """The same items, with a line about them: rewritten in place on a screen, else a new one every ten seconds."""
    stream = stream or sys.stderr
    interval = 0.2 if stream.isatty() else 10.0
    start = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= interval and done < total:
            left = (now - start) / done * (total - done)
            _write(stream, f"{done} of {total} {noun}, {format_seconds(left)} left")
            last = now
    _write(stream, f"{done} {noun} in {format_seconds(time.monotonic() - start)}")
    if stream.isatty():
        stream.write("\n")


def format_seconds(seconds: float) -> str:
    """As a person says it: "45 s", "3 min 05 s", "2 h 07 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _write(stream: TextIO, text: str) -> None:
    # The escape sequence clears what a longer line before left behind.
    stream.write(f"\r{text}\x1b[K" if stream.isatty() else f"{text}\n")
    stream.flush()
