"""A video whose frames are looked at ahead: the same results as one after the other, and a camera that stays live."""

import json
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from swiftsight_tools import video
from swiftsight_tools.frames import annotate
from swiftsight_tools.frames.annotate import Annotator, workers_for
from swiftsight_tools.frames.cutout import parse_background
from swiftsight_tools.frames.detection_view import DetectionView
from swiftsight_tools.frames.frame_log import FrameLog
from swiftsight_tools.frames.segmentation_view import SegmentationView
from swiftsight_tools.frames.video_sink import VideoSink
from swiftsight_tools.video import LiveVideo, frames

import detect
import segment

SIZE = (96, 128)
PATIENCE = 60.0


@pytest.fixture
def clip(tmp_path) -> Path:
    """A block that moves over noise, 10 frames."""
    random = np.random.default_rng(0)
    with VideoSink(tmp_path / "clip.mp4", 10) as sink:
        for number in range(10):
            picture = random.integers(0, 60, (120, 160, 3), dtype=np.uint8)
            picture[30:90, 8 * number : 8 * number + 50] = (220, 20, 20)
            sink.write(picture)
    return tmp_path / "clip.mp4"


def _boxes() -> DetectionView:
    torch.manual_seed(0)
    net = detect.create_detector("thundernet_shufflenet_v2_x0_5", num_classes=3)
    return DetectionView(detect.Predictor(net, size=SIZE, score_threshold=0.05, max_detections=5))


def _cut_out() -> SegmentationView:
    torch.manual_seed(0)
    net = segment.create_segmenter("bisenet_shufflenet_v2_x0_5", num_classes=2, input_size=SIZE)
    net.class_names = ("background", "person")
    return SegmentationView(segment.Predictor(net), background=parse_background("blur"))


def _run(view: Any, clip: Path, folder: Path, workers: int) -> tuple[str, list[np.ndarray], Annotator]:
    """The log, the frames of the result, and who made them."""
    folder.mkdir()
    with frames(clip) as source, FrameLog(folder / "found.json") as log, VideoSink(folder / "drawn.avi", 10) as sink:
        annotator = Annotator(view, log=log)
        annotator.annotate_video(source, "clip", sink=sink, workers=workers)
    with frames(folder / "drawn.avi") as drawn:
        return (folder / "found.json").read_text(), [frame.picture for frame in drawn], annotator


@pytest.mark.parametrize("make_view", [_boxes, _cut_out])
def test_several_frames_at_once_give_what_one_after_the_other_gives(clip, tmp_path, make_view):
    view = make_view()
    log, drawn, alone = _run(view, clip, tmp_path / "alone", 0)
    assert len(json.loads(log)) == len(drawn) == 10
    assert '"box"' in log or '"person"' in log  # there is something to compare
    for workers in (1, 3):
        log_ahead, drawn_ahead, ahead = _run(view, clip, tmp_path / str(workers), workers)
        assert log_ahead == log
        assert all((one == other).all() for one, other in zip(drawn, drawn_ahead, strict=True))
        assert ahead.tally == alone.tally
        assert list(ahead.clock.medians()) == ["decode", "prepare", "net", "finish", "draw", "write"]
        assert ahead.frames_at_once == workers
    assert alone.frames_at_once == 1


def test_libraries_have_their_threads_back_afterwards(clip, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _run(_boxes(), clip, tmp_path / "out", 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class Paced:
    """A predictor that finds nothing, and goes on only when it is let."""

    class_names = ("thing",)
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.seen: queue.Queue[int] = queue.Queue()
        self.free = threading.Semaphore(0)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def infer(self, images: np.ndarray) -> None:
        self.seen.put(int(images[0, 0, 0]))
        assert self.free.acquire(timeout=PATIENCE)

    def finish(self, raw: None, picture_size: tuple[int, int], /) -> detect.Detections:
        return detect.Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


class Camera:
    """Gives grey pictures of the levels that are put in."""

    def __init__(self) -> None:
        self.levels: queue.Queue[int | None] = queue.Queue()

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        level = self.levels.get()
        return level is not None, None if level is None else np.full((48, 64, 3), level, np.uint8)

    def get(self, _: int) -> float:
        return 0.0

    def release(self) -> None:
        pass


@pytest.fixture
def camera(monkeypatch) -> Iterator[Camera]:
    scripted = Camera()
    monkeypatch.setattr(video, "_open_live", lambda source: scripted)
    yield scripted
    scripted.levels.put(None)


def _wait_until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_camera_that_is_faster_than_the_net_is_never_behind(camera):
    paced = Paced()
    camera.levels.put(1)
    with LiveVideo(0) as live:
        annotator = Annotator(DetectionView(paced))
        shown = threading.Thread(target=lambda: annotator.annotate_video(live, "camera", max_frames=3))
        shown.start()
        for newest in (1, 5, 9):
            assert paced.seen.get(timeout=PATIENCE) == newest
            if newest < 9:
                for level in range(newest + 1, newest + 5):
                    camera.levels.put(level)
                _wait_until(lambda last=newest + 4: live.frames_read == last)
            paced.free.release()
        shown.join(PATIENCE)
        assert not shown.is_alive()
        assert annotator.tally.frames == 3
        camera.levels.put(None)


class ClosedWindow:
    """A window whose user closes it at the first picture."""

    def show(self, _picture: np.ndarray) -> bool:
        return False


def test_a_closed_window_ends_it_though_the_camera_gives_nothing_more(camera):
    paced = Paced()
    paced.free.release()
    camera.levels.put(1)
    with LiveVideo(0) as live:
        Annotator(DetectionView(paced)).annotate_video(live, "camera", window=ClosedWindow())
        camera.levels.put(None)
    assert not any(thread.name.startswith(("worker", "taker")) for thread in threading.enumerate())


class Failing(Paced):
    """Fails at the fourth frame, and sleeps in each."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.counting = 0, threading.Lock()

    def prepare(self, image: np.ndarray) -> np.ndarray:
        with self.counting:
            self.calls += 1
            number = self.calls
        time.sleep(0.02)
        if number == 4:
            raise ValueError("the net does not like this frame")
        return image

    def infer(self, images: np.ndarray) -> None:
        pass


@pytest.mark.parametrize("workers", [0, 1])
def test_what_comes_before_an_error_is_kept(clip, tmp_path, workers):
    with pytest.raises(ValueError, match="does not like"), frames(clip) as source, FrameLog(tmp_path / "a.json") as log:
        Annotator(DetectionView(Failing()), log=log).annotate_video(source, "clip", workers=workers)
    assert [record["frame"] for record in json.loads((tmp_path / "a.json").read_text())] == [0, 1, 2]


def test_a_stage_is_charged_with_its_own_time_where_threads_share_the_cores(clip):
    medians = []
    for workers in (0, 3):
        with frames(clip) as source:
            annotator = Annotator(DetectionView(Failing()))
            annotator.annotate_video(source, "clip", workers=workers, max_frames=3)
        medians.append(annotator.clock.medians()["prepare"])
    assert medians[0] >= 20  # milliseconds, asleep
    assert medians[1] < 10  # a thread that sleeps, or waits for a core, spends nothing


def test_how_many_frames_at_once(monkeypatch):
    for cores, at_once in ((1, 0), (2, 2), (64, 4)):
        monkeypatch.setattr(annotate, "usable_cores", lambda cores=cores: cores)
        assert workers_for(is_live=False) == at_once
        assert workers_for(is_live=True) == workers_for(is_live=False, threads=2) == 1
