"""Pictures and frames in; annotated ones, records of what was found, and the time of each stage out."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from pictures.images import read_image

from .draw import draw_note
from .frame_log import FrameLog
from .progress import show_progress
from .stages import StageClock
from .video import Frame, LiveVideo, VideoFile
from .video_sink import VideoSink
from .views import View
from .window import Window

_BLANK = np.zeros((480, 640, 3), np.uint8)


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

    log: where each picture's answer is written, None for nowhere.
    """

    def __init__(self, view: View[Any], *, log: FrameLog | None = None) -> None:
        self.view, self.log = view, log
        self.clock, self.tally = StageClock(), Tally()

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
        with self.clock.stage("draw"):
            drawn = self.view.draw(picture, found)
        with self.clock.stage("write"):
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
    ) -> None:
        """Takes frames until there are no more, `max_frames` were taken or the window is closed.

        `name` stands in the log. Raises BrokenOffError after the last frame of a source that broke off.
        """
        self.view.begin()
        for frame in _with_progress(self._decoded(islice(source, max_frames)), source.info.frames, max_frames):
            found = self._find(frame.picture)
            with self.clock.stage("draw"):
                drawn = self.view.draw(frame.picture, found)
            with self.clock.stage("write"):
                size, seconds = frame.picture.shape[:2], round(frame.time, 4)
                self.view.note(self.log, name, size, found, frame=frame.number, time=seconds)
                if sink is not None:
                    sink.write(drawn, frame.time if source.is_live else None)
            if window is not None and not window.show(self._with_age(drawn, frame, source)):
                return

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
            found = self.view.finish(raw, (picture.shape[0], picture.shape[1]))
        self.tally.add(self.view.amounts(found))
        return found

    def _with_age(self, drawn: np.ndarray, frame: Frame, source: VideoFile | LiveVideo) -> np.ndarray:
        if isinstance(source, VideoFile):
            return drawn
        rate = self.tally.frames / self.clock.elapsed()
        return draw_note(drawn, f"{rate:.0f} frames/s, {1000 * (source.now() - frame.time):.0f} ms old")


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


def _with_progress(frames: Iterable[Frame], total: int | None, max_frames: int | None) -> Iterable[Frame]:
    """A line with the time left, where it is known how many frames there are."""
    if total is None:
        return frames
    return show_progress(frames, min(total, max_frames or total), "frames")
