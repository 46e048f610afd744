"""Test-time options: a picture is also seen mirrored, at other sizes and in windows, and the answers are merged.

References: see merging.py; multi-scale and mirrored testing as in He et al., ResNet, CVPR 2016, arXiv:1512.03385,
appendix B; windows for large pictures as in Akyon et al., Slicing aided hyper inference, ICIP 2022, arXiv:2202.06934.
Deviations: boxes are merged after each look's own suppression, by `fuse` and `stitch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pictures.images import check_picture
from pictures.windows import MOST_SCALE

from .boxes import clip_boxes
from .merging import Window, fuse, spread_windows, stitch
from .predictor import Predictor
from .results import Detections, RawDetections
from .two_stage import SIZE_STEP

_CANDIDATE_SCORE = 0.05  # what one look is not sure of, the others may confirm


class Look(NamedTuple):
    """One pass of the net: a window of the picture, at (height, width) `size`, perhaps mirrored left to right."""

    window: Window
    size: tuple[int, int]
    mirrored: bool


class MultiPassPredictor:
    """Answers like the `Predictor` that it is given, from several passes of its net over each picture.

    scales: the net sees the picture at its input size times each of them (rounded to multiples of 16). flip: each time
    also mirrored. window (height, width) in pixels of the picture, and overlap, a part of a window: beside the whole
    picture the net sees windows that cover it, each resized to the net's input; for small objects in large pictures.
    All three go together, and their numbers of passes multiply. Passes over the same pixels are averaged, so a score of
    one half says that all passes together are half sure. ValueError for settings that make no sense.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        window: Sequence[int] | None = None,
        overlap: float = 0.25,
    ) -> None:
        if not scales or not all(0 < scale <= MOST_SCALE for scale in scales):
            raise ValueError(f"scales are {list(scales)}; expected one or more numbers above 0, at most {MOST_SCALE}")
        if window is not None and not _is_size(window):
            raise ValueError(f"window is {window}; expected (height, width) in pixels")
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap is {overlap}; expected a part of a window, 0 <= overlap < 1")
        self.predictor = predictor
        self.scales, self.flip, self.overlap = tuple(scales), flip, overlap
        self.window = None if window is None else (int(window[0]), int(window[1]))
        self.class_names, self.device, self.size = predictor.class_names, predictor.device, predictor.size
        self._sizes = [_scaled_size(self.size, scale) for scale in self.scales]

    def __call__(self, image: np.ndarray) -> Detections:
        """As a `Predictor`."""
        return self.finish(self.infer(self.prepare(image)), (image.shape[0], image.shape[1]))

    def looks(self, picture_size: tuple[int, int]) -> list[list[Look]]:
        """The passes over a picture of (height, width): a list for each window, the whole picture first."""
        windows: list[Window] = [(0, 0, picture_size[1], picture_size[0])]
        if self.window is not None:
            windows += [part for part in spread_windows(picture_size, self.window, self.overlap) if part != windows[0]]
        turns = (False, True) if self.flip else (False,)
        return [[Look(window, size, turn) for size in self._sizes for turn in turns] for window in windows]

    def prepare(self, image: np.ndarray) -> list[Tensor]:
        """image [H, W, 3] uint8 RGB -> [1, 3, h, w] uint8 on the net's device for each pass."""
        check_picture(image)
        prepared = []
        for look in _flat(self.looks((image.shape[0], image.shape[1]))):
            left, top, right, bottom = look.window
            seen = self.predictor.resized(image[top:bottom, left:right], look.size)
            prepared.append(seen.flip(-1) if look.mirrored else seen)
        return prepared

    def infer(self, images: Sequence[Tensor]) -> list[RawDetections]:
        """The net itself: what `prepare` gave -> its raw outputs, each in pixels of what it saw."""
        return [self.predictor.infer(seen) for seen in images]

    @torch.inference_mode()
    def finish(self, raw: Sequence[RawDetections], picture_size: tuple[int, int]) -> Detections:
        """The raw outputs of all passes -> detections on the CPU, in pixels of the picture of (height, width)."""
        by_window, answers = self.looks(picture_size), iter(raw)
        fused = [fuse([self._found(next(answers), look) for look in looks]) for looks in by_window]
        merged = fused[0]
        if len(fused) > 1:
            merged = stitch(fused, [looks[0].window for looks in by_window], picture_size)
        kept = merged[merged.scores > self.predictor.score_threshold][: self.predictor.max_detections]
        # A mean of boxes may end a rounding beyond the edge at which all of them end.
        return Detections(clip_boxes(kept.boxes, picture_size), kept.scores, kept.labels)

    def _found(self, raw: RawDetections, look: Look) -> Detections:
        """One pass's detections in the picture's pixels, inside its window."""
        least = min(self.predictor.score_threshold, _CANDIDATE_SCORE)
        found = self.predictor.select(raw, least, self.predictor.max_detections)
        (left, top, right, bottom), (height, width) = look.window, look.size
        boxes = found.boxes
        if look.mirrored:
            boxes = torch.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), dim=1)
        inside = Detections(boxes, found.scores, found.labels).scaled((right - left) / width, (bottom - top) / height)
        boxes = clip_boxes(inside.boxes, (bottom - top, right - left)) + boxes.new_tensor([left, top, left, top])
        return Detections(boxes, found.scores, found.labels)


def _is_size(size: Any) -> bool:
    """Whether it is (height, width) in whole pixels."""
    return hasattr(size, "__len__") and len(size) == 2 and all(side == int(side) and side >= 1 for side in size)


def _scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    height, width = (max(1, round(side * scale / SIZE_STEP)) * SIZE_STEP for side in size)
    return height, width


def _flat(looks: Sequence[Sequence[Look]]) -> list[Look]:
    return [look for of_window in looks for look in of_window]
