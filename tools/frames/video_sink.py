"""Frames out, into a video file that is whole or not there."""

import math
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from ..termination import interrupts_held
from ..video import name_for_opencv, silence_opencv

# What every OpenCV wheel can write; none has H.264. Browsers play only the last; it is slow to write.
CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}

_ROOM = 32 * 2**20  # bytes: what closing a file may need, and what others on a full disk will thank us for
_LOOK_EVERY = 50  # frames
_EXACT_RATES = 65.0  # frames a second up to which three decimals of a rate can be written


class VideoSink:
    """Writes frames to a video file; the suffix chooses the coding (`CODECS`).

    The file appears under its name when it is closed and was opened again for a check; until then it has the name of
    `partial`, and an older file stays as it was. Leaving the `with` block by an error closes it as well, so that what
    was written can be played. Nothing is written without a frame. Raises ValueError for an unknown suffix or a name
    that is not UTF-8, and OSError where the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], rate: float) -> None:
        # MPEG-4 counts time in at most 65,535 parts of a second.
        self.path, self.rate = Path(path), rate if rate < _EXACT_RATES else round(rate, 2)
        self.partial = self.path.with_name(f".{self.path.stem}.part{self.path.suffix}")
        self.frames_written = 0
        self._left_out = 0  # frames of gaps that were made shorter
        self._size: tuple[int, int] = (0, 0)
        self._writer: cv2.VideoWriter | None = None
        self._partial_name = str(Path(name_for_opencv(self.path)).with_name(self.partial.name))
        if self.path.suffix.lower() not in CODECS:
            raise ValueError(f"cannot write a video as {self.path.name!r}; expected one of {', '.join(CODECS)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def write(self, picture: np.ndarray, seconds: float | None = None) -> None:
        """Adds a frame [H, W, 3] uint8 RGB; one of another size than the first is resized to it.

        With `seconds` (since the first frame) the frame is repeated or left out, so that the file plays as fast as
        things happened though frames came irregularly. A gap of more than a second becomes one of a second: filling
        it takes time as well, and on a busy machine each gap would make the next one longer.
        """
        if self.frames_written % _LOOK_EVERY == 0 and shutil.disk_usage(self.path.parent).free < _ROOM:
            raise OSError(f"{self.path}: the disk is nearly full; stopped after {self.frames_written} frames")
        writer = self._writer = self._writer or self._open(picture.shape[0], picture.shape[1])
        if picture.shape[:2] != self._size:
            picture = cv2.resize(picture, self._size[::-1], interpolation=cv2.INTER_AREA)
        missing = 1
        if seconds is not None:
            missing = round(seconds * self.rate) + 1 - self._left_out - self.frames_written
            self._left_out += max(0, missing - math.ceil(self.rate))
        coded = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        for _ in range(min(missing, math.ceil(self.rate))):
            writer.write(coded)
            self.frames_written += 1

    def close(self) -> None:
        """Finishes the file, checks that it opens, and gives it its name; OSError if it is not whole."""
        if self._writer is not None:
            with interrupts_held():
                self._finish(self._writer)

    def _finish(self, writer: cv2.VideoWriter) -> None:
        writer.release()
        self._writer = None
        if not self._is_whole():
            self.partial.unlink(missing_ok=True)
            if self.frames_written == 0:  # interrupted before the first
                return
            raise OSError(f"{self.path} could not be written whole: is the disk full?")
        os.replace(self.partial, self.path)

    def _open(self, height: int, width: int) -> cv2.VideoWriter:
        silence_opencv()
        self._size = height, width
        code = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        writer = cv2.VideoWriter(self._partial_name, cv2.CAP_FFMPEG, code, self.rate, (width, height))
        if not writer.isOpened():
            why = "is its folder writable?" if min(height, width) > 1 else "expected frames of 2 x 2 pixels or more"
            raise OSError(f"cannot write {self.path} ({width} x {height}): {why}")
        return writer

    def _is_whole(self) -> bool:
        """OpenCV reports no failure of writing, so look: does it open, and does it hold what was written?"""
        written = cv2.VideoCapture(self._partial_name, cv2.CAP_FFMPEG)
        count = written.get(cv2.CAP_PROP_FRAME_COUNT) if written.read()[0] else 0
        written.release()
        return count >= max(1, self.frames_written)
