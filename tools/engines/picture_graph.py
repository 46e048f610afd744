"""Whole pictures in, final answers out: the graph that an exported file holds, and its way into ONNX."""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detect import TwoStageDetector
from detect.deployed import DeployedDetector
from detect.nms import suppression_for_onnx
from joint import JointNet
from joint.deployed import DeployedJoint
from segment import Segmenter
from segment.deployed import DeployedSegmenter

from ..fast_packages import load_package

OPSET = 18
INPUT = "images"
DETECTION_OUTPUTS = ("boxes", "scores", "labels", "counts")
LABELS, SCORES = "labels", "scores"
PIXEL_LABELS, PIXEL_SCORES = "pixel_labels", "pixel_scores"  # a joint net's, whose boxes have labels and scores, too
_EXAMPLE_BATCH = 2  # a free batch traced with 1 would be taken for a fixed one
_EXPORTER_ERRORS = (RuntimeError, AssertionError, TypeError, ValueError, LookupError, AttributeError)


SCORE_THRESHOLD = 0.05


class GraphSettings(NamedTuple):
    """What a graph is made for.

    size: (height, width) of what the net sees; size_step: what sides are multiples of. batch: pictures at a time, None
    for any number. free_size: pictures of other sizes may come, and the net sees them as they are. resize_inside: they
    may come, too, and are resized to `size` in the graph; answers are in their own pixels. keep_scores: a segmenter
    also gives probabilities. The last four are a detector's, as in `DeployedDetector`.
    """

    size: tuple[int, int]
    size_step: int = 1
    batch: int | None = 1
    free_size: bool = False
    resize_inside: bool = False
    keep_scores: bool = False
    score_threshold: float = SCORE_THRESHOLD
    iou_threshold: float = 0.5
    max_detections: int = 100
    roi_align: str = "grid_sample"

    @property
    def takes_any_size(self) -> bool:
        """Whether the sides of the pictures are open in the file."""
        return self.free_size or self.resize_inside


class PictureGraph(nn.Module):
    """[N, H, W, 3] uint8 RGB -> what the deployed net answers.

    Pictures come as they lie in memory everywhere, channels last: nobody has to copy them before the call. A detector
    gives boxes [N, K, 4] xyxy in the pixels of what came, scores [N, K], labels [N, K] int64, counts [N] int64, best
    first and zeros behind the count; a segmenter labels [N, H, W] uint8, and scores [N, C, H, W] if kept; a joint net
    what the one gives and then what the other gives.
    """

    def __init__(self, net: TwoStageDetector | Segmenter | JointNet, settings: GraphSettings) -> None:
        super().__init__()
        self.settings = settings
        boxes: dict[str, Any] = {
            "score_threshold": settings.score_threshold,
            "iou_threshold": settings.iou_threshold,
            "max_detections": settings.max_detections,
            "roi_align": settings.roi_align,
        }
        self.deployed: DeployedDetector | DeployedSegmenter | DeployedJoint
        if isinstance(net, JointNet):
            self.deployed = DeployedJoint(net, keep_scores=settings.keep_scores, **boxes)
        elif isinstance(net, TwoStageDetector):
            self.deployed = DeployedDetector(net, **boxes)
        else:
            self.deployed = DeployedSegmenter(net, keep_scores=settings.keep_scores)
        self.eval()

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of what `forward` gives."""
        if isinstance(self.deployed, DeployedDetector):
            return DETECTION_OUTPUTS
        if isinstance(self.deployed, DeployedJoint):
            return (*DETECTION_OUTPUTS, PIXEL_LABELS, *([PIXEL_SCORES] if self.settings.keep_scores else []))
        return (LABELS, SCORES) if self.settings.keep_scores else (LABELS,)

    def seen(self, pictures: Tensor) -> Tensor:
        """pictures [N, H, W, 3] -> what the net sees of them, [N, 3, h, w]."""
        images = pictures.permute(0, 3, 1, 2)
        return shrink(images, self.settings.size) if self.settings.resize_inside else images

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        seen, (height, width) = self.seen(images), (images.shape[1], images.shape[2])
        pixels = (height, width) if self.settings.resize_inside else None
        if isinstance(self.deployed, DeployedSegmenter):
            found: tuple[Tensor, ...] = self.deployed(seen, pixels)
            return found
        boxes, *others = (
            self.deployed(seen, pixels) if isinstance(self.deployed, DeployedJoint) else self.deployed(seen)
        )
        if self.settings.resize_inside:
            boxes = scale_boxes(boxes, (height, width), self.settings.size)
        return (boxes, *others)


def shrink(images: Tensor, size: tuple[int, int]) -> Tensor:
    """images [N, 3, H, W] uint8 -> float [N, 3, h, w]: twice the size bilinearly, then means of 2 x 2.

    Every pixel of pictures up to four times `size` counts, so that nothing flickers, in two operators that engines
    agree on; of ONNX's own anti-aliased resizing OpenVINO leaves out the anti-aliasing without a word.
    """
    height, width = size
    return F.avg_pool2d(F.interpolate(images.float(), (2 * height, 2 * width), mode="bilinear"), 2)


def scale_boxes(boxes: Tensor, picture_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Boxes [N, K, 4] in what the net saw at `size` -> in the pixels of the picture; sizes are (height, width)."""
    across, down = picture_size[1] / size[1], picture_size[0] / size[0]
    return torch.stack((boxes[..., 0] * across, boxes[..., 1] * down, boxes[..., 2] * across, boxes[..., 3] * down), -1)


def onnx_model(graph: PictureGraph, words: Mapping[str, str]) -> Any:
    """The graph as an ONNX ModelProto with `words` as its metadata. ValueError, with the reason, where it cannot be."""
    load_package("onnxscript", "an export")
    onnx = load_package("onnx", "an export")
    settings = graph.settings
    height, width = settings.size
    if settings.free_size:  # sides that nothing can take for the net's own, or for each other
        height, width = height + 16, width + 32
    if settings.resize_inside:
        height, width = height + 3, width + 5
    pictures = torch.zeros(settings.batch or _EXAMPLE_BATCH, height, width, 3, dtype=torch.uint8)
    free = torch.export.Dim.DYNAMIC
    open_sides = {place: free for place in (1, 2) if settings.takes_any_size}
    open_sides |= {0: free} if settings.batch is None else {}
    try:
        with _without_remarks(), torch.no_grad():
            with suppression_for_onnx():
                program = torch.export.export(graph, (pictures,), dynamic_shapes=(open_sides,) if open_sides else None)
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=list(graph.output_names),
                opset_version=OPSET,
                verbose=False,
            )
        assert exported is not None  # only an export straight into a file gives nothing
        model = exported.model_proto
    except _EXPORTER_ERRORS as error:
        reason = next(iter(str(error).split("\n")), "") or type(error).__name__
        raise ValueError(f"the exporter failed: {reason}") from error
    _tidy(model, [name for name, place in (("N", 0), ("H", 1), ("W", 2)) if place in open_sides], onnx)
    model.producer_name, model.producer_version = "swiftsight", words.get("swiftsight", "")
    onnx.helper.set_model_props(model, dict(words))
    return model


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Silences what torch and onnxscript say about each other."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _tidy(model: Any, open_sides: Sequence[str], onnx: Any) -> None:
    """Nodes are called by their place in the net; what the exporter noted about our sources and paths goes."""
    for number, node in enumerate(model.graph.node):
        scopes = [word.value for word in node.metadata_props if word.key.endswith("name_scopes")]
        places = ast.literal_eval(scopes[0])[:-1] if scopes else []  # the last is the node itself
        node.name = f"{places[-1] if places else ''}/{node.op_type}_{number}"
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    # Traced, suppression keeps as much as it may; an engine that believes those sizes reuses memory wrongly.
    del model.graph.value_info[:]
    for each in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        each.ClearField("metadata_props")
        each.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    model.graph.name = "swiftsight"
    sides = model.graph.input[0].type.tensor_type.shape.dim
    names = {side.dim_param: name for side, name in zip((s for s in sides if s.dim_param), open_sides, strict=True)}
    for value in (*model.graph.input, *model.graph.output):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param and side.dim_param not in names.values():
                side.dim_param = names.get(side.dim_param, "K")  # what is left is how many boxes there may be
    onnx.checker.check_model(model)
