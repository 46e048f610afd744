"""What a detector says of a picture: boxes, class names and scores."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from detect.results import Detections

from ..table import format_table
from .draw import draw_detections_
from .frame_log import FrameLog
from .views import FramePredictor, View, class_numbers, count


class BoxPredictor(FramePredictor, Protocol):
    """A `Predictor`, or one that takes several passes."""

    def finish(self, raw: Any, picture_size: tuple[int, int], /) -> Detections:
        """What the net gave -> boxes in the picture of (height, width)."""
        ...


class DetectionView(View[Detections]):
    """Boxes drawn, noted down and counted; each picture for itself.

    classes: the names of those to keep, None for all. Raises ValueError for one that the detector does not know.
    """

    def __init__(self, predictor: BoxPredictor, *, classes: Sequence[str] | None = None) -> None:
        self.predictor: BoxPredictor = predictor
        labels = class_numbers(classes, predictor.class_names, "detector")
        self.labels = None if labels is None else torch.tensor(labels)

    def begin(self) -> None:
        """See `View`."""

    def finish(self, raw: Any, picture_size: tuple[int, int]) -> Detections:
        """See `View`."""
        found = self.predictor.finish(raw, picture_size)
        return found if self.labels is None else found[torch.isin(found.labels, self.labels)]

    def draw(self, picture: np.ndarray, answer: Detections) -> np.ndarray:
        """See `View`."""
        draw_detections_(picture, answer, self.predictor.class_names)
        return picture

    def note(self, log: FrameLog | None, source: str, size: tuple[int, ...], answer: Detections, **when: float) -> None:
        """See `View`."""
        if log is not None:
            log.write(source, size, answer, self.predictor.class_names, **when)

    def amounts(self, answer: Detections) -> Mapping[str, float]:
        """Boxes; see `View`."""
        return Counter(self.predictor.class_names[label] for label in answer.labels.tolist())

    def describe(self, answer: Detections) -> str:
        """See `View`."""
        told = f"{count(len(answer), 'object')} found"
        if not len(answer):
            return told
        columns = zip(answer.boxes.tolist(), answer.scores.tolist(), answer.labels.tolist(), strict=True)
        rows = [
            [self.predictor.class_names[label], f"{score:.2f}", *(f"{value:.0f}" for value in box)]
            for box, score, label in columns
        ]
        return f"{told}\n{format_table(('class', 'score', 'x1', 'y1', 'x2', 'y2'), rows)}"

    def describe_amount(self, _name: str, total: float, _frames: int, /) -> str:
        """See `View`."""
        return count(total, "box", "boxes")
