"""How far a long piece of work is, and how long the rest will take: on stderr, so that results can be piped."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

Item = TypeVar("Item")


def _one(_item: object) -> int:
    return 1


def show_progress(
    items: Iterable[Item],
    total: float,
    noun: str,
    *,
    amount: Callable[[Item], float] = _one,
    stream: TextIO | None = None,
) -> Iterator[Item]:
    """The same items, with a line about them: rewritten in place on a screen, else a new one every ten seconds.

    amount: how much of `total` an item is, in what `noun` counts; total: math.inf where nobody knows.
    """
    stream = stream or sys.stderr
    interval = 0.2 if stream.isatty() else 10.0
    start = last = time.monotonic()
    done: float = 0
    try:
        for item in items:
            yield item
            done += amount(item)
            now = time.monotonic()
            if now - last >= interval and done < total:
                _write(stream, _line(done, total, noun, now - start))
                last = now
        _write(stream, f"{_number(done)} {noun} in {format_seconds(time.monotonic() - start)}")
    finally:  # an error must not be written behind an unfinished line
        if stream.isatty():
            stream.write("\n")


def _line(done: float, total: float, noun: str, seconds: float) -> str:
    if math.isinf(total):
        return f"{_number(done)} {noun}"
    return f"{_number(done)} of {_number(total)} {noun}, {format_seconds(seconds / done * (total - done))} left"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.1f}"


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
