"""Work on the next items in threads while the answers to earlier ones are used, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Ahead(Generic[Item, Answer]):
    """Each item with `work(item)`, in the order of the items, found by threads ahead of whoever iterates.

    One thread takes the items and `workers` others work on them; with 0 workers there are no threads, and all is done
    when it is asked for. room: how many items at most are taken whose answers were not yet given. An error of an item,
    or in taking it, is raised when its turn comes. To be used once, in a `with` block, whose end waits for
    what the threads have begun; before that it calls `cancel`, for items that may be long in coming.
    """

    def __init__(
        self,
        items: Iterable[Item],
        work: Callable[[Item], Answer],
        *,
        workers: int,
        room: int,
        cancel: Callable[[], None] | None = None,
    ) -> None:
        self._items, self._work, self._room, self._cancel = iter(items), work, room, cancel
        self._taker = ThreadPoolExecutor(1, "taker")
        self._workers = ThreadPoolExecutor(workers, "worker") if workers else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._cancel is not None:
            self._cancel()
        self._taker.shutdown(cancel_futures=True)
        if self._workers is not None:
            self._workers.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[Item, Answer]]:
        if self._workers is None:
            yield from ((item, self._work(item)) for item in self._items)
            return
        coming = deque(self._begin(self._workers) for _ in range(self._room))
        while found := coming.popleft().result():
            coming.append(self._begin(self._workers))
            yield found[0]

    def _begin(self, workers: ThreadPoolExecutor) -> Future[list[tuple[Item, Answer]]]:
        """The next item with its answer, in a list, which is empty where there are no more items."""
        taken = self._taker.submit(lambda: list(islice(self._items, 1)))
        return workers.submit(lambda: [(item, self._work(item)) for item in taken.result()])
