"""What was found on disk, one frame or picture a line, written as it is found."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from detect.results import Detections

from ..destinations import prepare_file

SUFFIXES = (".json", ".jsonl")


class FrameLog:
    """Writes a record a line: `.jsonl` as JSON lines, `.json` as one list, which is closed however the work ends.

    A record has "source" (the file or camera), "width" and "height" in pixels, and for video "frame" (from 0) and
    "time" (seconds). A detector's has "detections", each with "label", "score" and "box" (x1, y1, x2, y2 in pixels of
    the picture); a segmenter's has "shares", the part of the pixels that each class covers; a joint net's has both. A
    file that could not be read has "source" and "error". An older file is replaced by the first record, not before.
    Raises ValueError for another suffix or a folder, OSError where writing fails.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"cannot write detections as {self.path.name!r}; expected one of {', '.join(SUFFIXES)}")
        is_list = self.path.suffix.lower() == ".json"
        self._start, self._between, self._end = ("[\n", ",\n", "\n]\n") if is_list else ("", "\n", "\n")
        self._empty = "[]\n" if is_list else ""
        self._file: TextIO | None = None
        prepare_file(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._file is not None:
            with self._file:
                self._file.write(self._end)
        elif kind is None:
            self.path.write_text(self._empty, encoding="utf-8")

    def write(
        self,
        source: str,
        size: tuple[int, ...],
        detections: Detections,
        class_names: Sequence[str],
        **when: float,
    ) -> None:
        """Adds a picture of size (height, width); `when` gives "frame" and "time" of a video's frame."""
        self._add_found(source, size, {"detections": _described(detections, class_names)}, when)

    def write_shares(self, source: str, size: tuple[int, ...], shares: Mapping[str, float], **when: float) -> None:
        """Adds a picture whose pixels are labelled: class -> its part of them; the rest as in `write`."""
        self._add_found(source, size, {"shares": _rounded(shares)}, when)

    def write_both(
        self,
        source: str,
        size: tuple[int, ...],
        detections: Detections,
        class_names: Sequence[str],
        shares: Mapping[str, float],
        **when: float,
    ) -> None:
        """Adds a picture with both; the rest as in `write`."""
        both = {"detections": _described(detections, class_names), "shares": _rounded(shares)}
        self._add_found(source, size, both, when)

    def _add_found(
        self, source: str, size: tuple[int, ...], found: Mapping[str, Any], when: Mapping[str, float]
    ) -> None:
        self._add({"source": source, **when, "width": size[1], "height": size[0], **found})

    def write_error(self, source: str, error: str) -> None:
        """Adds a file that could not be read."""
        self._add({"source": source, "error": error})

    def _add(self, record: dict[str, Any]) -> None:
        before = self._between
        if self._file is None:
            # A name that is no UTF-8 has characters that only JSON's escapes can hold.
            self._file = self.path.open("w", encoding="utf-8", errors="backslashreplace")
            before = self._start
        # In one go, so that Ctrl-C cannot fall between a comma and its record.
        self._file.write(before + json.dumps(record, ensure_ascii=False))
        self._file.flush()


def _described(detections: Detections, class_names: Sequence[str]) -> list[dict[str, Any]]:
    columns = (detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist())
    return [
        {"label": class_names[label], "score": round(score, 4), "box": [round(value, 2) for value in box]}
        for box, score, label in zip(*columns, strict=True)
    ]


def _rounded(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: round(share, 6) for name, share in shares.items()}
