"""What a joint net says of a picture: boxes and the class of each pixel, drawn and noted down together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from detect.results import Detections

from .cutout import Background
from .detection_view import BoxPredictor, DetectionView
from .frame_log import FrameLog
from .segmentation_view import LabelledFrame, PixelPredictor, SegmentationView
from .views import FramePredictor, View, class_numbers

_PIXELS = " (pixels)"  # behind a class's name, where it is counted in pixels and not in boxes


class JointFrame(NamedTuple):
    """The answers of both parts to one picture."""

    boxes: Detections
    pixels: LabelledFrame


class JointPredictor(FramePredictor, Protocol):
    """A `joint.Predictor`, or an exported joint net."""

    @property
    def boxes(self) -> BoxPredictor:
        """Finishes the boxes."""
        ...

    @property
    def pixels(self) -> PixelPredictor:
        """Finishes the classes of the pixels."""
        ...

    def parts(self, raw: Any, /) -> tuple[Any, Any]:
        """What the net gave -> what `boxes` finishes, and what `pixels` finishes."""
        ...


class JointView(View[JointFrame]):
    """Boxes over colours or over a cut-out person; each part as its own view has it.

    classes: the names of those to show, of either part, None for all. The rest as in `SegmentationView`. Raises
    ValueError for a class that neither part knows.
    """

    def __init__(
        self,
        predictor: JointPredictor,
        *,
        classes: Sequence[str] | None = None,
        background: Background | None = None,
        label_folder: Path | None = None,
    ) -> None:
        self.predictor: JointPredictor = predictor
        box_names, pixel_names = predictor.boxes.class_names, predictor.pixels.class_names
        class_numbers(classes, tuple(dict.fromkeys((*box_names, *pixel_names))), "net")
        boxes, pixels = (
            None if classes is None else [name for name in classes if name in names]
            for names in (box_names, pixel_names)
        )
        self.boxes = DetectionView(predictor.boxes, classes=boxes)
        self.pixels = SegmentationView(
            predictor.pixels, classes=pixels, background=background, label_folder=label_folder
        )

    def begin(self) -> None:
        """See `View`."""
        self.pixels.begin()

    def finish(self, raw: Any, picture_size: tuple[int, int]) -> JointFrame:
        """See `View`."""
        boxes, pixels = self.predictor.parts(raw)
        return JointFrame(self.boxes.finish(boxes, picture_size), self.pixels.finish(pixels, picture_size))

    def draw(self, picture: np.ndarray, answer: JointFrame) -> np.ndarray:
        """See `View`."""
        return self.boxes.draw(self.pixels.draw(picture, answer.pixels), answer.boxes)

    def note(self, log: FrameLog | None, source: str, size: tuple[int, ...], answer: JointFrame, **when: float) -> None:
        """See `View`: one record with the boxes and the shares; the label picture is written, too."""
        if log is not None:
            log.write_both(source, size, answer.boxes, self.boxes.predictor.class_names, answer.pixels.shares, **when)
        self.pixels.note(None, source, size, answer.pixels, **when)

    def amounts(self, answer: JointFrame) -> Mapping[str, float]:
        """Boxes by class, and parts of the picture by class with "(pixels)" behind; see `View`."""
        shares = {f"{name}{_PIXELS}": share for name, share in self.pixels.amounts(answer.pixels).items()}
        return {**self.boxes.amounts(answer.boxes), **shares}

    def describe(self, answer: JointFrame) -> str:
        """See `View`."""
        return f"{self.boxes.describe(answer.boxes)}\n{self.pixels.describe(answer.pixels)}"

    def describe_amount(self, name: str, total: float, frames: int, /) -> str:
        """See `View`."""
        part: View[Any] = self.pixels if name.endswith(_PIXELS) else self.boxes
        return part.describe_amount(name, total, frames)
