"""The lists of a large JSON object in blocks of whole elements, so that nobody holds all of it at once."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

BLOCK_BYTES = 1 << 20
_MOST_TRIALS = 100  # in a file, before it counts as of another build
_MOST_READS = 8  # blocks for a value that is passed over
_SPACE = re.compile(rb"[ \t\n\r]*")
_KEY = re.compile(rb'[ \t\n\r]*"([^"\\]*)"[ \t\n\r]*:[ \t\n\r]*')
_COMMA = re.compile(rb"\}[ \t\n\r]*,[ \t\n\r]*\{")
_LIST_END = re.compile(rb"\}[ \t\n\r]*\]")


class UnusualError(Exception):
    """The file is no JSON, or of a build that is not read in blocks: whoever wants to know reads it as a whole."""


def read_blocks(path: Path, decoders: Mapping[str, Callable[[bytes], Any]]) -> Iterator[tuple[str, Any]]:
    """(key, what its decoder makes of a JSON list of some elements) for each key, in the order of the file.

    The decoders get whole elements, each once, and raise msgspec.DecodeError for what is no JSON, which is also how the
    end of a block is found: the text of a list may be cut where it is valid JSON, and nowhere else. All keys must be
    there. Raises UnusualError.
    """
    with path.open("rb") as file:
        source = _Source(file)
        source.expect(b"{")
        missing = set(decoders)
        while True:
            key = source.key()
            if key in missing:
                missing.remove(key)
                for block in source.list_blocks(decoders[key]):
                    yield key, block
            elif key in decoders:
                raise UnusualError(f"{key} twice")
            else:
                source.skip_value()
            if source.next_of(b",}") == b"}":
                break
        source.expect_end()
    if missing:
        raise UnusualError(f"no {missing}")


class _Source:
    """A file that is read from front to back, of which `text` is held."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._text, self._trials, self._is_whole = file, b"", 0, False
        self._check = codecs.getincrementaldecoder("utf-8")()
        self._read()

    def key(self) -> str:
        """The next key of the object, its colon passed."""
        self._fill()
        found = _KEY.match(self._text)
        if found is None:
            raise UnusualError("no key")
        self._text = self._text[found.end() :]
        return found[1].decode()

    def expect(self, sign: bytes) -> None:
        """The sign comes next and is passed."""
        self.next_of(sign)

    def next_of(self, signs: bytes) -> bytes:
        """One of the signs, passed."""
        self._fill()
        start = self._after_space()
        sign = self._text[start : start + 1]
        if not sign or sign not in signs:
            raise UnusualError(f"{sign!r}")
        self._text = self._text[start + 1 :]
        return sign

    def expect_end(self) -> None:
        """Nothing but space may follow."""
        self._fill()
        if not self._is_whole or self._after_space() < len(self._text):
            raise UnusualError("more than an object")

    def skip_value(self) -> None:
        """Pass a small value of any kind."""
        for _ in range(_MOST_READS):
            text = self._text.decode(errors="ignore")  # half a character may stand at its end
            try:
                _, end = json.JSONDecoder().raw_decode(text)
            except (ValueError, RecursionError):
                self._read()
            else:
                self._text = self._text[len(text[:end].encode()) :]
                return
        raise UnusualError("a long value")

    def list_blocks(self, decode: Callable[[bytes], Any]) -> Iterator[Any]:
        """The elements of a list of objects, decoded, block by block; then the list is passed."""
        self.expect(b"[")
        while True:
            self._fill()
            block, rest, is_last = self._cut(decode)
            yield block
            self._text = rest
            if is_last:
                return

    def _cut(self, decode: Callable[[bytes], Any]) -> tuple[Any, bytes, bool]:
        """A decoded block, the text behind it, and whether the list ends there."""
        for end, next_start, is_last in self._places():
            try:
                block = decode(b"[" + self._text[:end] + b"]")
            except msgspec.DecodeError as error:
                self._trials += 1
                if self._trials > _MOST_TRIALS:
                    raise UnusualError("too many trials") from error
            else:
                return block, self._text[next_start:], is_last
        if self._is_whole:
            raise UnusualError("no end")
        self._read()  # an element larger than a block
        return self._cut(decode)

    def _places(self) -> Iterator[tuple[int, int, bool]]:
        """Where the block may end, where the next element begins, whether the list ends: the likeliest first."""
        start = self._after_space()
        if self._text[start : start + 1] == b"]":  # the list is empty
            yield 0, start + 1, True
        comma = self._last_comma(len(self._text))
        if comma is not None:
            yield comma[0], comma[1], False
        for found in _LIST_END.finditer(self._text):
            yield found.start() + 1, found.end(), True
        while comma is not None:
            comma = self._last_comma(comma[0])
            if comma is not None:
                yield comma[0], comma[1], False

    def _last_comma(self, stop: int) -> tuple[int, int] | None:
        """Behind which object before `stop` a comma and another object follow, and where that begins."""
        while (brace := self._text.rfind(b"{", 0, stop)) > 0:
            before = self._text.rfind(b"}", 0, brace)
            if before >= 0 and _COMMA.fullmatch(self._text, before, brace + 1):
                return before + 1, brace
            stop = brace
        return None

    def _after_space(self) -> int:
        found = _SPACE.match(self._text)
        assert found is not None  # it matches nothing, too
        return found.end()

    def _fill(self) -> None:
        while len(self._text) < BLOCK_BYTES and not self._is_whole:
            self._read()

    def _read(self) -> None:
        more = self._file.read(BLOCK_BYTES)
        self._is_whole = not more
        try:
            self._check.decode(more, final=self._is_whole)  # decoders do not look into what they pass over
        except UnicodeDecodeError as error:
            raise UnusualError("no text") from error
        self._text += more
