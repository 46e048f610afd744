"""Frames in and out: files, broken files, cameras, windows."""

import os
import queue
import re
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from swiftsight_tools import video
from swiftsight_tools.frames import video_sink, window
from swiftsight_tools.frames.video_sink import CODECS, VideoSink
from swiftsight_tools.video import BrokenOffError, LiveVideo, frames, is_live, without_password

RED = (200, 30, 60)


def _flat(colour: tuple[int, int, int] = RED, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def _write(path: Path, count: int = 40, *, rate: float = 10.0, noisy: bool = False) -> Path:
    """A clip whose frames can be told apart: frame i has brightness 4 i; with noise, so that each takes much room."""
    random = np.random.default_rng(0)
    with VideoSink(path, rate) as sink:
        for number in range(count):
            level = min(4 * number, 250)
            picture = _flat((level, level, level))
            sink.write(picture + random.integers(0, 6, picture.shape, dtype=np.uint8) * 30 * noisy)
    return path


def _read(path: Path) -> list[video.Frame]:
    with frames(path) as clip:
        return list(clip)


# Files


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_odd_rates_of_slow_motion_can_be_written(tmp_path, suffix):
    path = _write(tmp_path / f"clip{suffix}", 5, rate=119.997)
    with frames(path) as video:
        assert video.info.rate == pytest.approx(120, abs=0.01)
        assert len(list(video)) == 5


@pytest.mark.parametrize("suffix", CODECS)
def test_what_is_written_can_be_read_back(tmp_path, suffix):
    path = _write(tmp_path / f"clip{suffix}", 40)
    with frames(path) as clip:
        assert clip.info == ((48, 64), 10.0, 40)
        found = list(clip)
    assert [frame.number for frame in found] == list(range(40))
    np.testing.assert_allclose([frame.time for frame in found], np.arange(40) / 10, atol=1e-3)
    levels = [frame.picture.mean() for frame in found]
    np.testing.assert_allclose(levels, 4 * np.arange(40), atol=6)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", CODECS)
def test_red_stays_red(tmp_path, suffix):
    with VideoSink(tmp_path / f"clip{suffix}", 25) as sink:
        sink.write(_flat(RED))
    picture = _read(tmp_path / f"clip{suffix}")[0].picture
    assert picture.dtype == np.uint8
    np.testing.assert_allclose(picture.mean((0, 1)), RED, atol=8)


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_a_file_that_ends_too_early_gives_what_it_has_and_then_says_where(tmp_path, suffix):
    path = _write(tmp_path / f"clip{suffix}", noisy=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = []
    with frames(path) as clip, pytest.raises(BrokenOffError) as caught:
        found.extend(clip)
    assert 5 < len(found) < 35
    assert f"breaks off at frame {len(found)} of 40" in str(caught.value)


def test_behind_a_damaged_place_the_reading_goes_on(tmp_path):
    path = _write(tmp_path / "clip.mp4", noisy=True)
    content = bytearray(path.read_bytes())
    middle, length = len(content) // 2, len(content) // 8
    content[middle : middle + length] = bytes(length)
    path.write_bytes(content)
    found = []
    with frames(path) as clip, pytest.raises(BrokenOffError) as caught:
        found.extend(clip)
    assert re.search(r"breaks off at frame \d+ of 40 .* frames read behind the gap: [1-9]", str(caught.value))
    assert found[-1].time > len(found) / 10  # the time goes on over the gap, the numbers do not
    assert [frame.number for frame in found] == list(range(len(found)))


def _boxes_first(path: Path) -> bytes:
    """An mp4 with its index before its pictures, as cameras and web sites write it: the offsets move along."""
    content = path.read_bytes()
    kinds, place = {}, 0
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        kinds[content[place + 4 : place + 8]] = content[place : place + length]
        place += length
    index = bytearray(kinds[b"moov"])
    table = index.index(b"stco") + 8
    for entry in range(int.from_bytes(index[table : table + 4], "big")):
        at = table + 4 + 4 * entry
        moved = int.from_bytes(index[at : at + 4], "big") + len(index)
        index[at : at + 4] = moved.to_bytes(4, "big")
    return kinds[b"ftyp"] + bytes(index) + b"".join(kinds[kind] for kind in kinds if kind not in (b"ftyp", b"moov"))


def test_an_mp4_that_ends_too_early_breaks_off(tmp_path):
    path = _write(tmp_path / "clip.mp4", noisy=True)
    content = _boxes_first(path)
    path.write_bytes(content)
    assert len(_read(path)) == 40
    path.write_bytes(content[: len(content) * 6 // 10])
    with frames(path) as clip, pytest.raises(BrokenOffError, match=r"breaks off at frame \d+ of 40"):
        list(clip)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "empty"), (b"no video, but words", "no video"), (None, "no video at")]
)
def test_what_is_no_video_is_refused_with_its_path(tmp_path, content, words):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, OSError), match=words) as caught:
        frames(path)
    assert str(path) in str(caught.value)


def test_an_mp4_without_its_index_is_refused(tmp_path):
    path = _write(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="cut short"):
        frames(path)


# Writing


def _write_until(path: Path, count: int, error: BaseException) -> None:
    with VideoSink(path, 25) as sink:
        for _ in range(count):
            sink.write(_flat())
        raise error


def test_frames_of_another_size_are_made_to_fit(tmp_path):
    with VideoSink(tmp_path / "clip.mp4", 25) as sink:
        sink.write(_flat())
        sink.write(_flat(height=96, width=80))
    assert [frame.picture.shape for frame in _read(tmp_path / "clip.mp4")] == [(48, 64, 3)] * 2


def test_irregular_frames_are_repeated_and_left_out_to_keep_the_time(tmp_path):
    with VideoSink(tmp_path / "clip.mp4", 10) as sink:
        for seconds, written in ((0.0, 1), (0.02, 1), (0.1, 2), (0.41, 5), (0.5, 6)):
            sink.write(_flat(), seconds)
            assert sink.frames_written == written


def test_a_long_gap_is_filled_for_a_second_only(tmp_path):
    with VideoSink(tmp_path / "clip.mp4", 10) as sink:
        for seconds, written in ((0.0, 1), (60.0, 11), (60.1, 12), (60.3, 14)):
            sink.write(_flat(), seconds)
            assert sink.frames_written == written
    assert len(_read(tmp_path / "clip.mp4")) == 14


def test_an_interruption_leaves_a_file_that_plays(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _write_until(tmp_path / "clip.mp4", 7, KeyboardInterrupt())
    assert len(_read(tmp_path / "clip.mp4")) == 7


def test_a_second_interruption_while_the_file_is_closed_waits_until_it_is_whole(tmp_path, monkeypatch):
    is_whole = VideoSink._is_whole

    def interrupted(sink: VideoSink) -> bool:
        signal.raise_signal(signal.SIGINT)
        return is_whole(sink)

    monkeypatch.setattr(VideoSink, "_is_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _write_until(tmp_path / "clip.mp4", 7, KeyboardInterrupt())
    assert len(_read(tmp_path / "clip.mp4")) == 7


def test_a_time_in_the_name_of_a_file_in_this_folder_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write(Path("2026-11-21T10:30:00.mp4"), 3)
    assert len(_read(Path("2026-11-21T10:30:00.mp4"))) == 3


def test_a_name_that_is_no_utf8_is_refused_and_does_not_crash_the_process(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    path.write_bytes(_write(tmp_path / "clip.mp4", 3).read_bytes())
    for use in (lambda: frames(path), lambda: VideoSink(path, 25)):
        with pytest.raises(ValueError, match=r"caf\\udce9\.mp4: the name is not UTF-8"):
            use()


def test_without_a_frame_nothing_is_written(tmp_path):
    _write(tmp_path / "clip.mp4", 3)
    with VideoSink(tmp_path / "clip.mp4", 25), VideoSink(tmp_path / "other.mp4", 25):
        pass
    assert len(_read(tmp_path / "clip.mp4")) == 3
    assert not (tmp_path / "other.mp4").exists()


def test_an_unknown_suffix_is_refused_with_the_choices(tmp_path):
    with pytest.raises(ValueError, match=r"clip\.gif.*\.mp4.*\.webm"):
        VideoSink(tmp_path / "clip.gif", 25)


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    (tmp_path / ".clip.part.mp4").mkdir()  # even root cannot write a file over a folder
    with pytest.raises(OSError, match=r"cannot write .*clip\.mp4"):
        _write(tmp_path / "clip.mp4")
    with pytest.raises(OSError, match="nowhere"):
        _write(tmp_path / "nowhere" / "clip.mp4")


def test_a_full_disk_is_noticed_before_the_older_file_is_touched(tmp_path, monkeypatch):
    _write(tmp_path / "clip.mp4", 3)
    monkeypatch.setattr(video_sink.shutil, "disk_usage", lambda folder: namedtuple("usage", "free")(10**6))
    with pytest.raises(OSError, match="nearly full; stopped after 0 frames"):
        _write_until(tmp_path / "clip.mp4", 5, AssertionError("it did not stop"))
    assert len(_read(tmp_path / "clip.mp4")) == 3
    assert not list(tmp_path.glob(".*"))


def test_an_interruption_before_the_first_frame_leaves_the_older_file(tmp_path, monkeypatch):
    _write(tmp_path / "clip.mp4", 3)
    sink = VideoSink(tmp_path / "clip.mp4", 25)
    sink._writer = sink._open(48, 64)
    sink.close()
    assert len(_read(tmp_path / "clip.mp4")) == 3
    assert not list(tmp_path.glob(".*"))


def test_writing_stops_while_the_disk_still_has_room_to_close_the_file(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    room = iter([10**9, 10**9, 10**6])
    monkeypatch.setattr(video_sink.shutil, "disk_usage", lambda folder: usage(next(room)))
    with pytest.raises(OSError, match="nearly full; stopped after 100 frames"):
        _write_until(tmp_path / "a.mp4", 500, AssertionError("it did not stop"))
    assert len(_read(tmp_path / "a.mp4")) == 100


LIMITED = """
import resource, sys
import numpy as np
from swiftsight_tools.frames.video_sink import VideoSink
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
random = np.random.default_rng(0)
try:
    with VideoSink(sys.argv[1], 25) as sink:
        for _ in range(100):
            sink.write(random.integers(0, 256, (96, 128, 3), dtype=np.uint8))
except OSError as error:
    print(error)
"""


def test_where_the_disk_takes_no_more_the_older_file_survives(tmp_path):
    _write(tmp_path / "clip.mp4", 3)
    words = [sys.executable, "-c", LIMITED, str(tmp_path / "clip.mp4")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "could not be written whole" in done.stdout
    assert len(_read(tmp_path / "clip.mp4")) == 3
    assert not list(tmp_path.glob(".*"))


# Cameras


class ScriptedCamera:
    """A camera that gives what is put into it, and fails on None."""

    def __init__(self) -> None:
        self.pictures: queue.Queue[np.ndarray | None] = queue.Queue()

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        picture = self.pictures.get()
        return picture is not None, picture

    def get(self, _: int) -> float:
        return 0.0

    def release(self) -> None:
        pass

    def give(self, *levels: int | None) -> None:
        for level in levels:
            self.pictures.put(None if level is None else np.full((4, 6, 3), (0, 0, level), np.uint8))


@pytest.fixture
def camera(monkeypatch) -> Iterator[ScriptedCamera]:
    scripted = ScriptedCamera()
    monkeypatch.setattr(video, "_open_live", lambda source: scripted)
    yield scripted
    scripted.give(None)  # lets a reader that still waits go


def _wait_until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_slow_taker_gets_the_newest_frame_and_no_older_one(camera):
    camera.give(1)
    with frames("0") as live:
        taken = iter(live)
        assert next(taken).picture[0, 0].tolist() == [1, 0, 0]  # the camera gives blue first, we give red first
        camera.give(2, 3, 4, 5)
        _wait_until(lambda: live.frames_read == 5)
        frame = next(taken)
        assert frame.picture[0, 0, 0] == 5
        assert frame.number == 1
        assert 0 < frame.time <= live.now()
        assert live.info == ((4, 6), 25.0, None)
        camera.give(None)


def test_a_camera_that_stops_gives_its_last_frame_and_says_so(camera):
    camera.give(1, 2, None)
    with LiveVideo(7) as live:
        _wait_until(lambda: not live._reader.is_alive())
        taken = iter(live)
        assert next(taken).picture[0, 0, 0] == 2
        with pytest.raises(BrokenOffError, match="camera 7 gives no more pictures after frame 1"):
            next(taken)


def test_a_camera_that_hangs_is_given_up(camera, monkeypatch):
    monkeypatch.setattr(video, "_PATIENCE", 0.1)
    camera.give(1)
    with LiveVideo(0) as live:
        taken = iter(live)
        next(taken)
        with pytest.raises(BrokenOffError, match="camera 0 has given no picture for"):
            next(taken)


def test_a_camera_that_is_not_there_is_named():
    with pytest.raises(OSError, match="camera 97 gives no picture"):
        frames(97)


def test_an_address_that_nobody_answers_is_named_without_its_password():
    with pytest.raises(OSError, match=r"rtsp://127\.0\.0\.1:9/front gives no picture") as caught:
        frames("rtsp://user:secret@127.0.0.1:9/front")
    assert "secret" not in str(caught.value)


def test_which_words_are_live():
    assert [is_live(word) for word in ("0", "12", "rtsp://a/b", "HTTP://a/b", "clip.mp4", "0.mp4", "")] == [
        True, True, True, True, False, False, False,
    ]  # fmt: skip
    assert without_password("rtsp://me:word@host:8554/a@b") == "rtsp://host:8554/a@b"
    assert without_password("http://host/a@b") == "http://host/a@b"
    assert without_password("rtsp://admin:p@ss@10.0.0.1/s") == "rtsp://10.0.0.1/s"
    address = "http://host/live?user=me&Password=word&size=2"
    assert without_password(address) == "http://host/live?user=...&Password=...&size=2"


# Windows


def test_without_a_display_no_window_is_tried(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(window.sys, "platform", "linux")
    monkeypatch.setattr(window.subprocess, "run", lambda *_, **__: pytest.fail("a window was tried"))
    assert window.why_no_window() == "there is no display"


def test_a_display_that_does_not_answer_ends_the_probe_and_not_us(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":987")
    assert window.why_no_window() == "OpenCV cannot open one on this display"


class ScriptedScreen:
    """Stands for OpenCV's window functions: gives the keys that a user presses."""

    def __init__(self, monkeypatch, keys: list[int]) -> None:
        self.keys, self.shown, self.visible = keys, [], 1.0
        for name in ("namedWindow", "resizeWindow", "destroyWindow"):
            monkeypatch.setattr(cv2, name, lambda *_: None)
        monkeypatch.setattr(cv2, "imshow", lambda _, picture: self.shown.append(picture))
        monkeypatch.setattr(cv2, "waitKey", lambda _: self.keys.pop(0) if self.keys else -1)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: self.visible)


def test_q_and_escape_and_closing_end_the_show(monkeypatch):
    screen = ScriptedScreen(monkeypatch, [-1, ord("x"), ord("q"), 27])
    with window.Window("test") as shown:
        assert [shown.show(_flat()) for _ in range(5)] == [True, True, False, False, True]
        screen.visible = 0.0
        assert not shown.show(_flat())
    assert tuple(screen.shown[0][0, 0]) == RED[::-1]  # OpenCV's windows want blue first


def test_waiting_ends_with_any_key(monkeypatch):
    ScriptedScreen(monkeypatch, [-1, -1, ord("x")])
    with window.Window("test") as shown:
        assert shown.show(_flat(), wait=True)
