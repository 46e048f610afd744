"""Pictures and frames in; annotated ones, records of what was found, and the time of each stage out."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from detect.predictor import Predictor
from detect.results import Detections
from pictures.images import read_image

from .draw import draw_detections, draw_note
from .frame_log import FrameLog
from .progress import show_progress
from .stages import StageClock
from .video import Frame, LiveVideo, VideoFile
from .video_sink import VideoSink
from .window import Window

_BLANK = np.zeros((480, 640, 3), np.uint8)


@dataclass
class Tally:
    """What was found in a row of frames or pictures. boxes, frames_with: class -> how many."""

    frames: int = 0
    boxes: Counter[str] = field(default_factory=Counter)
    frames_with: Counter[str] = field(default_factory=Counter)

    def add(self, names: Sequence[str]) -> None:
        """Counts one more frame, in which objects of these classes were found."""
        self.frames += 1
        self.boxes.update(names)
        self.frames_with.update(set(names))


class Annotator:
    """Finds, draws and notes down the objects in pictures, and times the stages.

    labels: the classes to keep, None for all; log: where each picture's detections are written, None for nowhere.
    """

    def __init__(
        self, predictor: Predictor, *, labels: Sequence[int] | None = None, log: FrameLog | None = None
    ) -> None:
        self.predictor, self.log = predictor, log
        self.labels = None if labels is None else torch.tensor(labels)
        self.clock, self.tally = StageClock(), Tally()

    def start_over(self) -> None:
        """Forgets times and counts and runs the net once: its first run is slow and says nothing about the others."""
        self.predictor(_BLANK)
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

    def annotate_picture(self, picture: np.ndarray, name: str, target: Path) -> tuple[np.ndarray, Detections]:
        """Writes the annotated picture to `target` and gives it with the detections; `name` stands in the log.

        Raises OSError where the result cannot be written.
        """
        found = self._find(picture)
        with self.clock.stage("draw"):
            drawn = draw_detections(picture, found, self.predictor.class_names)
        with self.clock.stage("write"):
            self._note(name, picture, found)
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
        for frame in _with_progress(self._decoded(islice(source, max_frames)), source.info.frames, max_frames):
            found = self._find(frame.picture)
            with self.clock.stage("draw"):
                drawn = draw_detections(frame.picture, found, self.predictor.class_names)
            with self.clock.stage("write"):
                self._note(name, frame.picture, found, frame=frame.number, time=round(frame.time, 4))
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

    def _find(self, picture: np.ndarray) -> Detections:
        """The detections in a picture [H, W, 3] uint8 RGB, in its pixels."""
        with self.clock.stage("prepare"):
            images = self.predictor.prepare(picture)
        with self.clock.stage("net"):
            raw = self.predictor.infer(images)
            if self.predictor.device.type == "cuda":
                torch.cuda.synchronize(self.predictor.device)  # else the next stage would be charged for the net
        with self.clock.stage("finish"):
            found = self.predictor.finish(raw, (picture.shape[0], picture.shape[1]))
            if self.labels is not None:
                found = found[torch.isin(found.labels, self.labels)]
        self.tally.add([self.predictor.class_names[label] for label in found.labels.tolist()])
        return found

    def _note(self, source: str, picture: np.ndarray, found: Detections, **when: float) -> None:
        if self.log is not None:
            self.log.write(source, picture.shape[:2], found, self.predictor.class_names, **when)

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
