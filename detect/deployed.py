"""A detector as it is exported: pictures in, the final boxes out, suppression inside, and nothing twice.

Deviations: suppression is hard and class by class; the soft one removes boxes one by one, which no graph does quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.lean import lean_copy

from .boxes import clip_boxes, decode_boxes
from .losses import HEAD_DEVIATIONS
from .nms import kept_places
from .ps_roi_align import PSRoIAlign
from .rcnn_head import LightHead
from .rpn import RegionProposalNetwork
from .two_stage import NeckMaps, TwoStageDetector, check_counts, check_thresholds

EXPORTABLE = ("grid_sample", "roi_align")
_LOWEST = -3e38  # below any score, above minus infinity


class Chosen(NamedTuple):
    """boxes [N, R, 4]; real [N, R]: which of them there are, the others are all zero."""

    boxes: Tensor
    real: Tensor


class DeployedDetector(nn.Module):
    """`detector.predict(images, suppression="hard")` as one graph with results of fixed shape.

    Works on a lean copy (`backbones.lean`) in operators that exporters know; the detector is left as it was. Each
    convolution and linear layer that reads the same map as another is put together with it, objectness is one number,
    and scores are sorted before anything is decoded. Traces with torch.export and the ONNX exporter that stands on it
    (opset 18 and later), the batch and the picture's sides free where that is asked for. roi_align: how the thin map is
    sampled, "grid_sample" (quicker in OpenVINO and torch) or "roi_align" (quicker in onnxruntime). prepared: the
    detector is a lean copy already and is taken over, be it a part of a joint net that has no backbone of its own;
    `answers` is what can be called then. ValueError for another word, for a threshold outside of 0..1 and for fewer
    than 1 detection.
    """

    def __init__(
        self,
        detector: TwoStageDetector,
        *,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
        roi_align: str = "grid_sample",
        prepared: bool = False,
    ) -> None:
        super().__init__()
        check_thresholds(score_threshold=score_threshold, iou_threshold=iou_threshold)
        if roi_align not in EXPORTABLE:
            raise ValueError(f"roi_align {roi_align!r}: it is one of {', '.join(EXPORTABLE)}")
        check_counts(max_detections=max_detections)
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold
        self.max_detections = max_detections
        self.detector = detector if prepared else lean_copy(detector)
        self.proposals = _Proposals(self.detector.rpn, before=detector.test_before_nms, count=detector.test_proposals)
        self.head = _Head(self.detector.head, roi_align)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """images [N, 3, H, W] uint8 or float, RGB 0..255, H and W multiples of 16 -> boxes [N, K, 4] xyxy in input
        pixels, scores [N, K], labels [N, K] int64, counts [N] int64: best first, zeros behind the count.
        """
        features = self.detector.backbone(normalized_rows(images, self.detector.mean, self.detector.std))
        return self.answers(features, (images.shape[-2], images.shape[-1]))

    def answers(self, features: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `forward` gives, of maps of `self.detector.backbone` of pictures of `size` (height, width)."""
        maps: NeckMaps = self.detector.neck(features)
        shared = self.detector.rpn.trunk(maps.proposals)
        refine = self.detector.refine
        thin = maps.thin if refine is None else refine(maps.thin, shared)
        proposals = self.proposals(shared, size)
        return self.select(*self.head(thin, proposals, size))

    def select(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `forward` gives, of boxes [N, R, 4] and scores [N, C, R]."""
        _, classes, rows = scores.shape
        kept = kept_places(
            boxes,
            scores,
            iou_threshold=self.iou_threshold,
            score_threshold=self.score_threshold,
            max_per_class=self.max_detections,
        )
        places = (kept[:, 0] * classes + kept[:, 1]) * rows + kept[:, 2]
        best, chosen = _best_of(scores, places, min(self.max_detections, classes * rows), nothing=0.0)
        real = best > 0
        labels = (chosen // rows).where(real, 0)
        return _rows_at(boxes, chosen % rows).where(real[..., None], 0.0), best, labels, real.sum(dim=1)


def normalized_rows(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """images [N, 3, H, W] -> (images - mean) / std, worked out on rows of pixels as they lie in memory.

    Decoders, cameras and the convolution after this have the colours of a pixel side by side; so whole rows are one
    vector, and nothing is moved about.
    """
    batch, channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).reshape(batch, height, width * channels).to(mean.dtype)
    rows = (rows - mean.flatten().repeat(width)) / std.flatten().repeat(width)
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


class _Proposals(nn.Module):
    """What `RegionProposalNetwork.propose` gives, with one convolution that makes (score, deltas) of each anchor."""

    def __init__(self, rpn: RegionProposalNetwork, *, before: int, count: int) -> None:
        super().__init__()
        self.anchors, self.nms_threshold = rpn.anchors, rpn.nms_threshold
        self.before, self.count = before, count
        anchors = rpn.anchors.per_cell
        weights, biases = [], []
        for layer, outputs in ((rpn.objectness, 2), (rpn.deltas, 4)):
            assert layer.bias is not None  # both are built with one
            weight, bias = layer.weight.detach().unflatten(0, (anchors, outputs)), layer.bias.detach().view(anchors, -1)
            weights.append(weight if outputs == 4 else weight[:, 1:] - weight[:, :1])
            biases.append(bias if outputs == 4 else bias[:, 1:] - bias[:, :1])
        self.answers = nn.Conv2d(rpn.objectness.in_channels, anchors * 5, 1)
        self.answers.weight = nn.Parameter(torch.cat(weights, dim=1).flatten(0, 1).contiguous())
        self.answers.bias = nn.Parameter(torch.cat(biases, dim=1).flatten())

    def forward(self, shared: Tensor, size: tuple[int, int]) -> Chosen:
        """The RPN's shared map [N, channels, h, w] -> the proposals in a picture of `size` (height, width)."""
        batch = shared.shape[0]
        answers = self.answers(shared).permute(0, 2, 3, 1).reshape(-1, 5)
        objectness = answers[:, 0].reshape(batch, -1)
        scores, places = objectness.topk(_at_most(self.before, objectness.shape[1]), dim=1)
        deltas = answers[_flat_rows(places, objectness.shape[1])][..., 1:]
        boxes = clip_boxes(decode_boxes(deltas, self.anchors(shared.shape[-2:])[places]), size)
        usable = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1]) & (scores.abs() < -_LOWEST)
        scores = scores.where(usable, -torch.inf)
        count = _at_most(self.count, scores.shape[1])
        boxes = boxes.where(usable[..., None], 0.0)
        kept = kept_places(
            boxes,
            scores[:, None],
            iou_threshold=self.nms_threshold,
            score_threshold=_LOWEST,
            max_per_class=self.count,
        )
        best, chosen = _best_of(scores[:, None], kept[:, 0] * scores.shape[1] + kept[:, 2], count, nothing=-torch.inf)
        real = best > -torch.inf
        return Chosen(_rows_at(boxes, chosen).where(real[..., None], 0.0), real)


class _Head(nn.Module):
    """What the box head says of proposals, with one linear layer for classes and boxes."""

    def __init__(self, head: LightHead, method: str) -> None:
        super().__init__()
        self.align = head.align
        hidden = head.fc[0]
        assert isinstance(hidden, nn.Linear)
        self.hidden = nn.Linear(hidden.in_features, hidden.out_features)
        columns = torch.arange(hidden.in_features)
        if isinstance(self.align, PSRoIAlign):
            self.align.method = method
            columns = columns.view(-1, self.align.bins**2).t().flatten()  # the channels of a bin side by side
        self.hidden.weight = nn.Parameter(hidden.weight.detach()[:, columns].contiguous())
        self.hidden.bias = hidden.bias
        self.answers = nn.Linear(hidden.out_features, head.classify.out_features + 4)
        self.answers.weight = nn.Parameter(torch.cat((head.classify.weight, head.regress.weight)).detach())
        self.answers.bias = nn.Parameter(torch.cat((head.classify.bias, head.regress.bias)).detach())

    def forward(self, thin: Tensor, proposals: Chosen, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The thin map, proposals in a picture of `size` -> boxes [N, R, 4], scores [N, C, R], 0 where is nothing."""
        align, boxes = self.align, proposals.boxes
        aligned = align.by_bin(thin, boxes) if isinstance(align, PSRoIAlign) else align(thin, boxes)
        answers = self.answers(F.relu(self.hidden(aligned.flatten(2).flatten(0, 1))))
        answers = answers.view(proposals.real.shape[0], proposals.real.shape[1], -1)
        boxes = clip_boxes(decode_boxes(answers[..., -4:], proposals.boxes, HEAD_DEVIATIONS), size)
        real = proposals.real & (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        scores = answers[..., :-4].softmax(dim=-1)[..., :-1].where(real[..., None], 0.0)
        return boxes.where(real[..., None], 0.0), scores.transpose(1, 2).contiguous()


def _at_most(wished: int, there: int) -> int:
    """The smaller number, of which the second may still be open in a traced graph."""
    return min(wished, there) if isinstance(there, int) else torch.sym_min(wished, there)


def _rows_at(values: Tensor, places: Tensor) -> Tensor:
    """values [N, A, D] at places [N, K] -> [N, K, D]; one plain lookup of rows, which engines are quicker at."""
    return values.flatten(0, 1)[_flat_rows(places, values.shape[1])]


def _flat_rows(places: Tensor, rows: int) -> Tensor:
    """Places [N, K] in tables of so many rows -> places in the tables one below the other."""
    if isinstance(places.shape[0], int) and places.shape[0] == 1:
        return places
    return places + torch.arange(places.shape[0], device=places.device)[:, None] * rows


def _best_of(scores: Tensor, places: Tensor, count: int, *, nothing: float) -> tuple[Tensor, Tensor]:
    """scores [N, C, R], of which those at `places` [M] of the flat tensor are left -> the best `count` of each picture
    [N, count], falling, and where they are in its C * R; filled up with `nothing`.
    """
    flat = scores.flatten()
    left = flat.new_full((scores.shape[0] * scores.shape[1] * scores.shape[2],), nothing)
    best, chosen = left.scatter(0, places, flat[places]).view(scores.shape[0], -1).topk(count, dim=1)
    return best, chosen
