"""Frames in, from video files, cameras and network streams: RGB uint8 [H, W, 3] on this side of the door."""

import math
import os
import re
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import cv2
import numpy as np

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv")
STREAM_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://")

_WITH_EDIT_LISTS = (".mp4", ".mov", ".m4v")
_LIKELY_RATES = (1.0, 240.0)
_USUAL_RATE = 25.0
_TRIES_AT_END = 50  # reads that may fail before the end is believed
_PATIENCE = 10.0  # seconds without a picture after which a camera counts as lost


class VideoInfo(NamedTuple):
    """What a source says about itself. size: (height, width); rate: frames per second; frames: None if unknown."""

    size: tuple[int, int]
    rate: float
    frames: int | None


class Frame(NamedTuple):
    """picture: [H, W, 3] uint8 RGB; number: from 0; time: seconds since the first frame."""

    picture: np.ndarray
    number: int
    time: float


class BrokenOffError(OSError):
    """A video ended before its end. Whatever could be read was given before this was raised."""


class VideoFile:
    """The frames of a file, one after the other; one frame is in memory at a time.

    Raises OSError where there is no such file and ValueError where it is no video. Iteration raises BrokenOffError
    after the last frame if the file holds more than could be read.
    """

    is_live = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no video at {self.path}")
        name = name_for_opencv(self.path)
        silence_opencv()
        # FFmpeg's own threads spend a fifth more than one does, and the other cores look at other frames meanwhile.
        self._capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._capture.isOpened():
            reason = "it is empty (0 bytes)" if self.path.stat().st_size == 0 else "cut short, damaged or no video"
            raise ValueError(f"{self.path} cannot be opened as a video: {reason}")
        self.info = _read_info(self._capture)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        read, end = 0, 0.0  # frames so far, and the second at which the last of them ends
        gap: tuple[int, float] | None = None  # the same two where frames are missing for the first time
        while True:
            picture = self._read_within(1)
            if picture is None:
                # In a damaged place the decoder fails once for each frame, and then goes on.
                picture = self._read_within(max(0, (self.info.frames or 0) - read) + _TRIES_AT_END)
                if picture is None:
                    break
                gap = gap or (read, end)
            # The time stamp counts where frames are not evenly spaced; some containers hold none.
            seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 or end
            yield Frame(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), read, seconds)
            read, end = read + 1, seconds + 1 / self.info.rate
        self._check_end(read, end, gap)

    def _read_within(self, tries: int) -> np.ndarray | None:
        """The next picture, blue first, or None if so many tries give none."""
        for _ in range(tries):
            good, picture = self._capture.read()
            if good:
                return picture
        return None

    def _check_end(self, read: int, end: float, gap: tuple[int, float] | None) -> None:
        if read == 0:
            raise ValueError(f"{self.path} holds no frame that can be read")
        promised = self.info.frames or read
        if self.path.suffix.lower() in _WITH_EDIT_LISTS:
            # A trimmed clip promises frames that its edit list hides: fewer frames alone prove nothing.
            is_short = read < promised and _is_cut_short(self.path)
        else:
            # The other containers' numbers may be guesses from the length of the sound.
            is_short = read < promised - max(2, 0.05 * promised)
        if gap is None and not is_short:
            return
        frame, second = gap or (read, end)
        behind = f"; frames read behind the gap: {read - frame}" if gap else ""
        raise BrokenOffError(f"{self.path} breaks off at frame {frame} of {promised} ({second:.1f} s){behind}")


class LiveVideo:
    """The newest frame of a camera (its number) or of a stream (its address), however slowly the frames are taken.

    A thread reads all the time and keeps one frame, so that nothing queues up. Raises OSError where the source cannot
    be opened; iteration raises BrokenOffError when no more frames come.
    """

    is_live = True

    def __init__(self, source: int | str) -> None:
        self.name = f"camera {source}" if isinstance(source, int) else without_password(source)
        silence_opencv()
        self._capture = _open_live(source)
        picture = self._capture.read()[1] if self._capture.isOpened() else None
        if picture is None:
            self._capture.release()
            hint = "is one connected, and may you use it?" if isinstance(source, int) else "is the address right?"
            raise OSError(f"{self.name} gives no picture: {hint}")
        height, width = picture.shape[:2]
        self.info = _read_info(self._capture)._replace(size=(height, width), frames=None)
        self.frames_read = 1
        self._start = time.monotonic()
        self._newest: tuple[np.ndarray, float] | None = (picture, 0.0)
        self._ended = self._stopping = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._keep_newest, name=self.name, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cancel(self) -> None:
        """Ends the iteration, also one that waits for a picture in another thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stops the thread and lets go of the camera."""
        self.cancel()
        self._reader.join(timeout=2 * _PATIENCE)
        if not self._reader.is_alive():  # releasing it under a reader that hangs would crash the process
            self._capture.release()

    def now(self) -> float:
        """Seconds since the first frame, to compare with a frame's time."""
        return time.monotonic() - self._start

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        while True:
            with self._changed:
                if not self._changed.wait_for(self._has_news, timeout=_PATIENCE):
                    raise BrokenOffError(f"{self.name} has given no picture for {_PATIENCE:.0f} s")
                newest, self._newest = self._newest, None
            if self._stopping:
                return
            if newest is None:
                raise BrokenOffError(f"{self.name} gives no more pictures after frame {number} ({self.now():.1f} s)")
            yield Frame(cv2.cvtColor(newest[0], cv2.COLOR_BGR2RGB), number, newest[1])
            number += 1

    def _has_news(self) -> bool:
        return self._newest is not None or self._ended or self._stopping

    def _keep_newest(self) -> None:
        while not self._stopping:
            good, picture = self._capture.read()
            with self._changed:
                self._ended = not good
                if good:
                    self._newest = picture, self.now()
                    self.frames_read += 1
                self._changed.notify_all()
            if not good:
                return


def frames(source: int | str | os.PathLike[str]) -> VideoFile | LiveVideo:
    """The frames of a video file, of a camera number or of a stream's address, to iterate over and to close.

    `with frames("clip.mp4") as clip: ...` has `clip.info` and gives a `Frame` at a time.
    """
    if isinstance(source, int):
        return LiveVideo(source)
    address = str(source)
    if is_live(address):
        return LiveVideo(int(address) if address.isdigit() else address)
    return VideoFile(source)


def is_live(source: str) -> bool:
    """Whether the words name a camera or a stream, not a file."""
    return source.isdigit() or source.lower().startswith(STREAM_SCHEMES)


_SECRETS = re.compile(
    r"([?&](?:user|username|usr|login|password|passwd|pass|pwd|token|key|auth)=)[^&#]*", re.IGNORECASE
)


def without_password(address: str) -> str:
    """The address, for messages and files: without `user:password@` and what a query says of users and passwords."""
    bare = re.sub(r"//[^/?#]*@", "//", address)
    return _SECRETS.sub(r"\1...", bare)


def _open_live(source: int | str) -> cv2.VideoCapture:
    if isinstance(source, int):
        return cv2.VideoCapture(source)
    limit = int(_PATIENCE * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
    return cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits)


def _read_info(capture: cv2.VideoCapture) -> VideoInfo:
    size = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    likely = math.isfinite(rate) and _LIKELY_RATES[0] <= rate <= _LIKELY_RATES[1]
    return VideoInfo(size, rate if likely else _USUAL_RATE, int(count) if 0 < count < 1e9 else None)


def _is_cut_short(path: Path) -> bool:
    """Whether a box of an ISO media file (mp4, mov) reaches beyond the end of the file."""
    end = path.stat().st_size
    with path.open("rb") as file:
        place = 0
        while place + 8 <= end:
            file.seek(place)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == 1:
                length = int.from_bytes(file.read(8), "big")
            if length == 0 or not kind.isascii():  # up to the end, or no box at all
                return False
            place += length
    return place > end


def name_for_opencv(path: Path) -> str:
    """The file's name as OpenCV and FFmpeg can take it; ValueError where they cannot."""
    name = os.path.abspath(path)  # FFmpeg takes what stands before a colon for a protocol, but not behind a slash
    try:
        name.encode()
    except UnicodeEncodeError:  # OpenCV would crash the process
        shown = name.encode(errors="backslashreplace").decode()
        raise ValueError(f"{shown}: the name is not UTF-8, which OpenCV needs; rename the file") from None
    return name


def silence_opencv() -> None:
    """OpenCV and FFmpeg report every failure once more in their own words; ours says it in one line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
