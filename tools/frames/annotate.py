"""Pictures and frames in; annotated ones, records of what was found, and the time of each stage out."""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from pictures.images import read_image

from ..cores import one_thread_each, usable_cores
from ..progress import show_progress
from ..termination import interrupts_held
from ..video import Frame, LiveVideo, VideoFile
from .ahead import Ahead
from .draw import draw_note
from .frame_log import FrameLog
from .stages import StageClock
from .video_sink import VideoSink
from .views import View
from .window import Window

Item = TypeVar("Item")

_BLANK = np.zeros((480, 640, 3), np.uint8)
_MOST_WORKERS = 4  # with more, writing the result is what takes longest


@dataclass
class Tally:
    """What was found in a row of frames or pictures.

    amounts: class -> how many boxes, or parts of a picture, in all; frames_with: class -> in how many frames.
    """

    frames: int = 0
    amounts: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    frames_with: Counter[str] = field(default_factory=Counter)

    def add(self, found: Mapping[str, float]) -> None:
        """Counts one more frame, in which so much of each class was found."""
        self.frames += 1
        self.frames_with.update(found.keys())
        for name, amount in found.items():
            self.amounts[name] += amount


class Annotator:
    """Finds, draws and notes down what a view shows of pictures, and times the stages.

    log: where each picture's answer is written, None for nowhere. threads: how many the net has for each picture, None
    for what is usual. frames_at_once: how many of the last video's frames were looked at at the same time.
    """

    def __init__(self, view: View[Any], *, log: FrameLog | None = None, threads: int | None = None) -> None:
        self.view, self.log, self.threads = view, log, threads
        self.clock, self.tally = StageClock(), Tally()
        self.frames_at_once = 1

    def start_over(self) -> None:
        """Forgets times and counts and runs the net once: its first run is slow and says nothing about the others."""
        predictor = self.view.predictor
        self.view.finish(predictor.infer(predictor.prepare(_BLANK)), (_BLANK.shape[0], _BLANK.shape[1]))
        self.clock, self.tally = StageClock(), Tally()

    def read_picture(self, path: Path) -> np.ndarray:
        """[H, W, 3] uint8 RGB; ValueError or OSError where the file cannot be read, which the log notes."""
        try:
            with self.clock.stage("decode"):
                return read_image(path)
        except (ValueError, OSError) as error:
            if self.log is not None:
                self.log.write_error(str(path), str(error))
            raise

    def annotate_picture(self, picture: np.ndarray, name: str, target: Path) -> tuple[np.ndarray, Any]:
        """Writes the annotated picture to `target` and gives it with the answer; `name` stands in the log.

        Raises OSError where the result cannot be written.
        """
        self.view.begin()
        found = self._find(picture)
        self.tally.add(self.view.amounts(found))
        with self.clock.stage("draw"):
            drawn = self.view.draw(picture, found)
        with self.clock.stage("write"), interrupts_held():  # a picture that the log holds is written
            self.view.note(self.log, name, picture.shape[:2], found)
            write_image(target, drawn)
        return drawn, found

    def annotate_video(
        self,
        source: VideoFile | LiveVideo,
        name: str,
        *,
        sink: VideoSink | None = None,
        window: Window | None = None,
        max_frames: int | None = None,
        workers: int | None = None,
    ) -> None:
        """Takes frames until there are no more, `max_frames` were taken or the window is closed.

        While frames are drawn and written, `workers` threads read and look at the next ones; as many as
        `workers_for` says where it is None, and 0 to do one thing after the other. `name` stands in the log. Raises
        BrokenOffError after the last frame of a source that broke off.
        """
        if workers is None:
            workers = workers_for(is_live=source.is_live, threads=self.threads)
        self.frames_at_once = max(1, workers)
        self.view.begin()
        ahead = Ahead(
            self._decoded(islice(source, max_frames)),
            lambda frame: self._find(frame.picture),
            workers=workers,
            # A camera's next frame is taken when the answer to the last one is: what is shown is never old.
            room=workers if source.is_live else workers + 2,
            cancel=source.cancel if isinstance(source, LiveVideo) else None,
        )
        with self._a_thread_a_frame() if workers > 1 else nullcontext(), ahead:
            for frame, found in _with_progress(ahead, source.info.frames, max_frames):
                with interrupts_held():  # so that the log and the video hold the same frames
                    drawn = self._put_out(frame, found, name, sink, is_live=source.is_live)
                if window is not None and not window.show(self._with_age(drawn, frame, source)):
                    return

    @contextmanager
    def _a_thread_a_frame(self) -> Iterator[None]:
        """Every library keeps to the thread that calls it, whose own time is that of the stage."""
        if self.view.predictor.device.type == "cpu":
            self.clock.now = time.thread_time
        with one_thread_each():
            yield

    def _put_out(self, frame: Frame, found: Any, name: str, sink: VideoSink | None, *, is_live: bool) -> np.ndarray:
        """Counts, draws and writes what was found, and gives the picture as drawn."""
        self.tally.add(self.view.amounts(found))
        with self.clock.stage("draw"):
            drawn = self.view.draw(frame.picture, found)
        with self.clock.stage("write"):
            size, seconds = frame.picture.shape[:2], round(frame.time, 4)
            self.view.note(self.log, name, size, found, frame=frame.number, time=seconds)
            if sink is not None:
                sink.write(drawn, frame.time if is_live else None)
        return drawn

    def _decoded(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        remaining = iter(frames)
        while True:
            with self.clock.stage("decode"):
                frame = next(remaining, None)
            if frame is None:
                return
            yield frame

    def _find(self, picture: np.ndarray) -> Any:
        """What the view answers for a picture [H, W, 3] uint8 RGB."""
        predictor = self.view.predictor
        with self.clock.stage("prepare"):
            images = predictor.prepare(picture)
        with self.clock.stage("net"):
            raw = predictor.infer(images)
            if predictor.device.type == "cuda":
                torch.cuda.synchronize(predictor.device)  # else the next stage would be charged for the net
        with self.clock.stage("finish"):
            return self.view.finish(raw, (picture.shape[0], picture.shape[1]))

    def _with_age(self, drawn: np.ndarray, frame: Frame, source: VideoFile | LiveVideo) -> np.ndarray:
        if isinstance(source, VideoFile):
            return drawn
        rate = self.tally.frames / self.clock.elapsed()
        return draw_note(drawn, f"{rate:.0f} frames/s, {1000 * (source.now() - frame.time):.0f} ms old")


def workers_for(*, is_live: bool, threads: int | None = None) -> int:
    """How many threads look at frames: one a core, each with a thread for its net.

    One alone for a camera, whose answer then comes soonest, and where a net is to have several `threads`. On one core
    none: there is nothing to gain.
    """
    if is_live or (threads or 1) > 1:
        return 1
    cores = usable_cores()
    return 0 if cores == 1 else min(cores, _MOST_WORKERS)


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes uint8 RGB [H, W, 3] or grey [H, W] as the suffix says; an old file stays till it is whole. OSError."""
    try:
        stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        good, content = cv2.imencode(path.suffix.lower(), stored)
    except cv2.error:
        good = False
    if not good:
        raise OSError(f"{path}: a picture of {image.shape[1]} x {image.shape[0]} cannot be written as {path.suffix}")
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_bytes(content.tobytes())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _with_progress(items: Iterable[Item], total: int | None, max_frames: int | None) -> Iterable[Item]:
    """A line with the time left, where it is known how many frames there are."""
    if total is None:
        return items
    return show_progress(items, min(total, max_frames or total), "frames")
