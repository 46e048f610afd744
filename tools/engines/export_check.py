"""An exported file, run on pictures in every engine that takes it, beside torch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detect import RawDetections, TwoStageDetector
from detect.nms import select_detections
from joint import JointNet, apart
from pictures.images import read_image, resize_image
from segment import Segmenter

from ..destinations import pictures_in
from ..samples import CLIP, PICTURE, find_sample
from ..video import frames
from .engine import Engine, engines_for
from .engine_choice import open_engine
from .exported import detections_from
from .exported_words import INT8
from .parity import (
    INT8_PIXELS,
    BoxAgreement,
    ObjectAgreement,
    PixelAgreement,
    Suppression,
    add_boxes,
    add_objects,
    add_pixels,
)
from .picture_graph import DETECTION_OUTPUTS, GraphSettings, PictureGraph

MOST_PICTURES = 4
_BOX_OUTPUTS = len(DETECTION_OUTPUTS)  # of a joint net's file; the others are of pixels
NOISE = "noise"
_MARGIN = 64  # proposals beyond the last that counts: rounding may exchange them
_OTHER_SIZES = ((0.75, 1.0), (0.5, 0.75))  # of a free file, as parts of (height, width)
_ANY_SIZES = ((480, 640), (301, 500), (200, 123))  # of pictures that are resized inside
_BATCHES = (1, 3)
Agreement = BoxAgreement | ObjectAgreement | PixelAgreement


def check_file(
    path: Path,
    net: TwoStageDetector | Segmenter | JointNet,
    graph: PictureGraph,
    pictures: Sequence[np.ndarray],
    *,
    precision: str,
    threads: int | None = None,
) -> list[str]:
    """What was compared, a line for each engine. ValueError, with the difference, where the file is not as torch.

    net: as `graph` was made of it; a joint net's file is compared with its two nets apart. pictures: [H, W, 3] uint8
    RGB each.
    """
    if isinstance(net, JointNet):
        detector, segmenter = apart(net)
        references = [_Torch(detector, graph, precision, slice(0, _BOX_OUTPUTS)),
                      _Torch(segmenter, graph, precision, slice(_BOX_OUTPUTS, None))]  # fmt: skip
    else:
        references = [_Torch(net, graph, precision)]
    lines = []
    for name in engines_for(path):
        engine = open_engine(path, name, threads=threads)
        for reference in references:
            agreement = reference.nothing_yet()
            for batch in _batches(graph.settings, pictures):
                reference.compare(engine, batch, agreement)
            if agreement.refusal():
                raise ValueError(f"the file differs from torch in {name}: {agreement.refusal()}; nothing was written")
            lines.append(f"{name}: {agreement}")
    return lines


def check_pictures(folder: Path | None) -> tuple[list[np.ndarray], str]:
    """Pictures to compare on, and what they are: spread over a folder, else of the samples, else noise.

    ValueError or OSError for a folder without pictures, or a damaged one among those chosen.
    """
    if folder is not None:
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder of pictures at {folder}")
        paths = pictures_in(folder)
        places = np.linspace(0, len(paths) - 1, min(MOST_PICTURES, len(paths))).round().astype(int)
        return [read_image(paths[place]) for place in places], f"pictures of {folder}"
    found = []
    try:
        found.append(read_image(find_sample(PICTURE)))
        with frames(str(find_sample(CLIP))) as video:
            found += [frame.picture for frame, _ in zip(video, range(MOST_PICTURES - 1), strict=False)]
    except FileNotFoundError:
        if not found:
            random = np.random.default_rng(0)
            return [random.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(2)], NOISE
    return found, "the sample pictures"


def _batches(settings: GraphSettings, pictures: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """[N, H, W, 3] uint8: every picture at every size that the file takes, in batches of every number."""
    for size in _sizes(settings):
        for batch in _BATCHES if settings.batch is None else (settings.batch,):
            seen = [resize_image(picture, size) for picture in pictures]
            while len(seen) % batch:
                seen += seen[: batch - len(seen) % batch]
            for start in range(0, len(seen), batch):
                yield np.stack(seen[start : start + batch])


def _sizes(settings: GraphSettings) -> list[tuple[int, int]]:
    if settings.resize_inside:
        return list(_ANY_SIZES)
    height, width = settings.size
    step = settings.size_step
    others = [(_rounded(height * tall, step), _rounded(width * wide, step)) for tall, wide in _OTHER_SIZES]
    return [settings.size, *others] if settings.free_size else [settings.size]


def _rounded(side: float, step: int) -> int:
    """A side that the net takes; an odd one where any will do."""
    return max(1, round(side / step)) * step if step > 1 else int(side) | 1


class _Torch:
    """What torch says of pictures, and whether a file's answer agrees.

    The net itself is asked, not the graph that was made of it.
    """

    def __init__(
        self, net: TwoStageDetector | Segmenter, graph: PictureGraph, precision: str, outputs: slice = slice(None)
    ) -> None:
        self.net, self.graph, self.precision, self.outputs = net.eval(), graph, precision, outputs
        self.pool = before_suppression(net) if isinstance(net, TwoStageDetector) and precision != INT8 else None

    def nothing_yet(self) -> Agreement:
        """What is noted before the first picture."""
        if isinstance(self.net, Segmenter):
            return PixelAgreement(floor=INT8_PIXELS if self.precision == INT8 else 1.0)
        return ObjectAgreement() if self.pool is None else BoxAgreement()

    @torch.no_grad()
    def compare(self, engine: Engine, pictures: np.ndarray, agreement: Agreement) -> None:
        """Runs pictures [N, H, W, 3] uint8 and takes the answers into account. ValueError where they are malformed."""
        found = engine(pictures.transpose(0, 3, 1, 2))[self.outputs]
        seen, size = self.graph.seen(torch.from_numpy(pictures)), (pictures.shape[1], pictures.shape[2])
        if isinstance(agreement, PixelAgreement):
            logits = self.net(seen)
            if self.graph.settings.resize_inside:
                logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
            labels, *scores = (torch.from_numpy(each) for each in found)
            if labels.shape != logits[:, 0].shape:
                raise ValueError(f"{engine.name} gives labels {list(labels.shape)}; torch {list(logits[:, 0].shape)}")
            add_pixels(agreement, [labels, *scores], logits)
        else:
            self._compare_boxes(found, seen, size, agreement)

    def _compare_boxes(
        self,
        found: Sequence[np.ndarray],
        seen: Tensor,
        size: tuple[int, int],
        agreement: BoxAgreement | ObjectAgreement,
    ) -> None:
        settings = self.graph.settings
        setting = Suppression(settings.score_threshold, settings.iou_threshold, settings.max_detections)
        factors = seen.shape[-1] / size[1], seen.shape[-2] / size[0]  # into pixels of what the net saw, as the bound is
        raw = self.net(seen)
        pool = raw if self.pool is None else self.pool(seen)
        for place in range(len(seen)):
            own = detections_from(found, place, self.net.num_classes).scaled(*factors)
            one, whole = (RawDetections(each.boxes[[place]], each.scores[[place]]) for each in (raw, pool))
            if isinstance(agreement, BoxAgreement):
                add_boxes(agreement, own, one, whole, setting)
            else:
                add_objects(agreement, own, select_detections(one, suppression="hard", **setting._asdict())[0])


def before_suppression(net: TwoStageDetector) -> TwoStageDetector:
    """A copy that looks at every proposal that might be kept, suppressed or not."""
    pool = copy.deepcopy(net)
    pool.rpn.nms_threshold = 1.0
    pool.test_before_nms = pool.test_proposals = net.test_before_nms + _MARGIN
    return pool
