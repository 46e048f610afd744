"""How long each stage of a frame's way takes."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_KEPT = 5000  # the newest times of a stage, so that a camera can run for days


class StageClock:
    """Times of named stages. The median counts: the first frame warms up, and others share the machine.

    Stages may run in several threads. now: gives the time in seconds. `time.thread_time` counts only what the stage's
    own thread spends, however many others want the cores; `time.process_time` what all threads spend.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, deque[float]] = {}
        self.now = now
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block, unless it ends by an error."""
        start = self.now()
        yield
        self.seconds.setdefault(name, deque(maxlen=_KEPT)).append(self.now() - start)

    def medians(self) -> dict[str, float]:
        """Stage -> median in milliseconds, in the order in which the stages were first met."""
        return {name: 1000 * statistics.median(seconds) for name, seconds in self.seconds.items()}

    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._start
