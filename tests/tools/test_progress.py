"""Progress with the time left, and tables, as the screen gets them."""

from __future__ import annotations

import io
import math
from functools import partial

import pytest
from swiftsight_tools import progress, table


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
