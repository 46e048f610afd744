"""Ends that come from outside: a polite kill is like Ctrl-C, and neither breaks off what must be whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def polite_kills() -> tuple[signal.Signals, ...]:
    """SIGTERM and SIGHUP, which a terminal sends as it closes, and its shell once more.

    Without SIGHUP where the system has none (Windows) and where it is ignored (`nohup`).
    """
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) in (None, signal.SIG_IGN):
        return (signal.SIGTERM,)
    return signal.SIGTERM, hangup


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """A polite kill (a container that stops, `timeout`, a closed terminal) ends like Ctrl-C: with everything closed."""

    def interrupt(number: int, _: FrameType | None) -> None:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)  # the second one must not break off the closing
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only there may signals be taken
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in polite_kills()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C, or a polite kill, that comes within the block takes effect at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *polite_kills())}
    held = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for number in held:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for one in came:
            signal.raise_signal(one)
