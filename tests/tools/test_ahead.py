"""Work done ahead in threads: its order, its limits, its errors and its end."""

import signal
import threading
from collections.abc import Iterator

import pytest
from swiftsight_tools.frames.ahead import Ahead
from swiftsight_tools.termination import interrupts_held, termination_as_interrupt

PATIENCE = 60.0


def _threads() -> int:
    return sum(thread.name.startswith(("worker", "taker")) for thread in threading.enumerate())


def test_items_come_in_their_order_though_a_later_one_is_done_first():
    later_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert later_done.wait(PATIENCE)
        elif item == 1:
            later_done.set()
        return item * item

    with Ahead(range(50), work, workers=2, room=4) as ahead:
        assert list(ahead) == [(item, item * item) for item in range(50)]
    assert _threads() == 0


@pytest.mark.parametrize(("workers", "room"), [(1, 1), (2, 3), (3, 3)])
def test_no_more_items_are_taken_than_there_is_room(workers, room):
    taken: list[int] = []
    seen = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            seen.release()
            yield item

    with Ahead(items(), lambda item: item, workers=workers, room=room) as ahead:
        for given, _ in ahead:
            assert len(taken) <= given + 1 + room
            if given == 0:  # the threads go on while we look at the first
                assert all(seen.acquire(timeout=PATIENCE) for _ in range(1 + room))
    assert taken == list(range(20))


def test_without_workers_nothing_is_done_before_it_is_asked_for():
    done: list[int] = []
    with Ahead(iter([1, 2, 3]), done.append, workers=0, room=1) as ahead:
        for item, _ in ahead:
            assert done[-1] == item
    assert done == [1, 2, 3]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_comes_when_it_is_its_turn(workers):
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the source broke off")

    given = []
    with pytest.raises(OSError, match="broke off"), Ahead(items(), str, workers=workers, room=workers + 1) as ahead:
        given.extend(ahead)
    assert given == [(item, str(item)) for item in range(5)]

    given, divide = [], Ahead([2, 1, 0, 1], lambda item: 2 // item, workers=workers, room=3)
    with pytest.raises(ZeroDivisionError), divide:
        given.extend(divide)
    assert given == [(2, 1), (1, 2)]
    assert _threads() == 0


def test_leaving_early_ends_the_threads_and_takes_no_more():
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    with Ahead(items(), lambda item: item, workers=2, room=3) as ahead:
        for item, _ in ahead:
            if item == 10:
                break
    assert _threads() == 0
    assert 10 <= taken <= 14


def test_items_that_are_long_in_coming_are_cancelled():
    cancelled = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert cancelled.wait(PATIENCE)

    with Ahead(items(), str, workers=1, room=1, cancel=cancelled.set) as ahead:
        assert next(iter(ahead)) == (1, "1")
    assert _threads() == 0


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_waits_for_the_end_of_what_must_be_whole(kind):
    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(kind, handler)
    done: list[str] = []

    def interrupted_work() -> None:
        with interrupts_held():
            signal.raise_signal(kind)
            done.append("whole")

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted_work()
        assert done == ["whole"]
        assert signal.getsignal(kind) is handler
    finally:
        signal.signal(kind, before)


def test_an_ignored_interrupt_stays_ignored_and_hides_no_other():
    """As in a job in the background of a shell, which Ctrl-C is not meant for."""

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.signal(signal.SIGTERM, handler)

    def killed_work() -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    try:
        with pytest.raises(KeyboardInterrupt):
            killed_work()
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


@pytest.fixture
def hangups() -> Iterator[list[int]]:
    """SIGHUPs that came through; the handler of before is put back."""
    came: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: came.append(number))
    yield came
    signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_ends_like_ctrl_c(hangups):
    """The shell sends the signal once more, while files are closed."""
    closed: list[str] = []

    def work() -> None:
        with termination_as_interrupt():
            try:
                signal.raise_signal(signal.SIGHUP)
            finally:
                signal.raise_signal(signal.SIGHUP)
                closed.append("whole")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert closed == ["whole"]
    signal.raise_signal(signal.SIGHUP)
    assert hangups == [signal.SIGHUP]


def test_under_nohup_a_closed_terminal_ends_nothing(hangups):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with termination_as_interrupt(), interrupts_held():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
