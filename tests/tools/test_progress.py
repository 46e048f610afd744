"""Progress with the time left, and tables, as the screen gets them."""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Callable
from functools import partial

import pytest
from swiftsight_tools import progress, table
from swiftsight_tools.training.journal import Screen


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (185, "3 min 05 s"), (3599.6, "1 h 00 min"), (7620, "2 h 07 min")],
)
def test_time_left_in_words(seconds: float, words: str) -> None:
    assert progress.format_seconds(seconds) == words


def test_progress_says_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of ten pieces takes 6 s: a line after 12 s (8 pieces are left), after 24, 36, 48 s, and one at the end."""
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    assert list(progress.show_progress(iter("abcdefghij"), 10, "pieces", stream=stream)) == list("abcdefghij")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "2 of 10 pieces, 48 s left"
    assert lines[3] == "8 of 10 pieces, 12 s left"
    assert lines[4].startswith("10 pieces in 1 min 06 s")


def test_progress_on_a_screen_stays_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    list(progress.show_progress(range(3), 3, "pieces", stream=stream))
    assert stream.getvalue().count("\n") == 1
    assert "1 of 3 pieces, 2 s left" in stream.getvalue()


def test_progress_in_parts_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a piece a step of 20 s: after the first, 1.5 pieces are left, which take a minute."""
    monkeypatch.setattr(progress.time, "monotonic", partial(next, iter(range(0, 1000, 20))))
    stream = io.StringIO()
    list(progress.show_progress("abcd", 2.0, "MiB", amount=lambda _: 0.5, stream=stream))
    assert stream.getvalue().splitlines()[0] == "0.5 of 2.0 MiB, 1 min 00 s left"
    stream = io.StringIO()
    list(progress.show_progress("abcd", math.inf, "MiB", amount=lambda _: 0.5, stream=stream))
    assert stream.getvalue().splitlines()[0] == "0.5 MiB"


def test_table_by_hand() -> None:
    assert table.format_table(["name", "ms"], [["a", "1.5"], ["longer", "10.25"]]) == (
        "name       ms\n-------------\na         1.5\nlonger  10.25"
    )
    assert table.format_table(["name", "ms"], []) == "name  ms\n--------"


@pytest.mark.parametrize("opened", [os.pipe, os.openpty], ids=["a pipe", "a terminal"])
@pytest.mark.parametrize("method", ["say", "show", "close"])
def test_a_screen_without_a_reader_falls_silent(
    opened: Callable[[], tuple[int, int]], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `swiftsight train CONFIG | head -1`, and as in a terminal that was closed: neither ends a training."""
    reader, writer = opened()
    with open(writer, "w") as stream:
        stream_is_terminal = os.isatty(writer)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(stream, "isatty", lambda: True)
        screen = Screen()
        screen.say("one")
        screen.show("at the bottom")
        assert os.read(reader, 100).startswith(b"one\r\n" if stream_is_terminal else b"one\n")
        os.close(reader)
        getattr(screen, method)(*[] if method == "close" else ["two"])
        screen.say("three")
        screen.show("four")
        screen.close()
        stream.flush()
        assert os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))


def test_a_full_disk_is_no_reader_that_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(OSError, match="No space left"):
            Screen().say("one")
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
