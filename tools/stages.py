"""How long each stage of a frame's way takes."""

import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_KEPT = 5000  # the newest times of a stage, so that a camera can run for days


class StageClock:
    """Times of named stages. The median counts: the first frame warms up, and others share the machine."""

    def __init__(self) -> None:
        self.seconds: dict[str, deque[float]] = {}
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block, unless it ends by an error."""
        start = time.perf_counter()
        yield
        self.seconds.setdefault(name, deque(maxlen=_KEPT)).append(time.perf_counter() - start)

    def medians(self) -> dict[str, float]:
        """Stage -> median in milliseconds, in the order in which the stages were first met."""
        return {name: 1000 * statistics.median(seconds) for name, seconds in self.seconds.items()}

    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._start
