"""A detector and a segmenter on one backbone pass.

Reference: the parts' own papers (detect/thundernet.py, segment/bisenet.py); hard sharing of the features is Caruana,
Multitask Learning, Machine Learning 28, 1997.
Deviations: none of the parts' layers is left out or shared but the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backbones import Backbone, FeatureInfo
from backbones.evaluation import in_evaluation
from detect.nms import select_detections
from detect.results import Target
from detect.two_stage import TwoStageDetector, checked_input_size
from segment.base import Segmenter
from segment.results import Segmentation

from .results import JointAnswer, JointOutputs, JointTruth, RawJoint


class JointNet(nn.Module):
    """backbone, once -> what the detector does with its maps, and what the segmenter does with its maps.

    Takes the parts over: their own backbones go, and each reads those maps of `backbone` that are like its own's.
    Pictures are normalised for both as `backbone` expects it. segmenter_weight: what the segmenter's losses are
    multiplied with. Raises ValueError where the backbone does not give what a part reads.
    """

    def __init__(
        self,
        backbone: Backbone,
        detector: TwoStageDetector,
        segmenter: Segmenter,
        *,
        name: str = "",
        input_size: tuple[int, int] = (320, 320),
        segmenter_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if segmenter_weight <= 0:
            raise ValueError(f"segmenter_weight is {segmenter_weight}; expected a number above 0")
        self.name, self.input_size = name, checked_input_size(input_size)
        self.segmenter_weight = segmenter_weight
        self.options: dict[str, Any] = {}
        self.backbone = backbone
        self._detector_maps = _places(detector.backbone.feature_info, backbone.feature_info, "detector")
        self._segmenter_maps = _places(segmenter.backbone.feature_info, backbone.feature_info, "segmenter")
        del detector.backbone, segmenter.backbone
        self.detector, self.segmenter = detector, segmenter
        detector.input_size = segmenter.input_size = self.input_size
        for part in (detector, segmenter):
            part.mean.copy_(torch.tensor(backbone.input_mean).view(1, 3, 1, 1))
            part.std.copy_(torch.tensor(backbone.input_std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> RawJoint:
        """images [N, 3, H, W] uint8 or float, RGB 0..255, H and W multiples of 16."""
        size = (images.shape[-2], images.shape[-1])
        for_boxes, for_pixels = self.features(self.detector.normalize(images))
        detections = self.detector.forward_features(for_boxes, size)
        return RawJoint(detections, self.segmenter.forward_features(for_pixels, size))

    def features(self, normalized: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Normalised pictures -> the maps that the detector reads, and those that the segmenter's decoder reads."""
        maps = self.backbone(normalized)
        return [maps[place] for place in self._detector_maps], self._pixel_maps(normalized, maps)

    def _pixel_maps(self, normalized: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
        """What the segmenter's decoder reads: the detail path's map, if it has such a path, and the backbone's."""
        path = self.segmenter.detail_path
        details = [] if path is None else [path(normalized)]
        return [*details, *(maps[place] for place in self._segmenter_maps)]

    def outputs(self, images: Tensor, truth: JointTruth) -> JointOutputs:
        """Every tensor that a loss needs; images as in `forward`, the backbone sees all of them at once.

        ValueError where the truth does not go with the pictures, or says nothing of any.
        """
        size = (images.shape[-2], images.shape[-1])
        boxed, labelled = _known(truth.targets, len(images), "targets"), _known(truth.labels, len(images), "labels")
        if not boxed and not labelled:
            raise ValueError("no picture of the batch has boxes or labels; expected some to learn from")
        normalized = self.detector.normalize(images)
        maps = self.backbone(normalized)
        detector = segmenter = None
        if boxed:
            read = [_rows(maps[place], boxed) for place in self._detector_maps]
            detector = self.detector.outputs_from_features(read, size, _chosen(truth.targets, boxed))
        if labelled:
            read = self._pixel_maps(_rows(normalized, labelled), [_rows(each, labelled) for each in maps])
            labels = torch.stack(_chosen(truth.labels, labelled))
            segmenter = self.segmenter.outputs_from_features(read, size, labels)
        return JointOutputs(detector, segmenter)

    def losses_from(self, outputs: JointOutputs, truth: JointTruth) -> dict[str, Tensor]:
        """Scalars named loss_detector_* and loss_segmenter_*; their sum is what training minimises."""
        losses: dict[str, Tensor] = {}
        if outputs.detector is not None:
            targets: list[Target] = _chosen(truth.targets, _known(truth.targets))
            for name, loss in self.detector.losses_from(outputs.detector, targets).items():
                losses[f"loss_detector_{name.removeprefix('loss_')}"] = loss
        if outputs.segmenter is not None:
            labels = torch.stack(_chosen(truth.labels, _known(truth.labels)))
            for name, loss in self.segmenter.losses_from(outputs.segmenter, labels).items():
                losses[f"loss_segmenter_{name.removeprefix('loss_')}"] = self.segmenter_weight * loss
        return losses

    def losses(self, images: Tensor, truth: JointTruth) -> dict[str, Tensor]:
        """`losses_from(outputs(images, truth), truth)`."""
        return self.losses_from(self.outputs(images, truth), truth)

    @torch.no_grad()
    def predict(self, images: Tensor, *, scores: bool = False, **settings: Any) -> list[JointAnswer]:
        """Objects and labels of each picture, in input pixels; always as in evaluation mode.

        scores: keep those of all classes of the pixels. settings: of `detect.nms.select_detections`.
        """
        with in_evaluation(self):
            raw = self(images)
        labels = raw.logits.argmax(dim=1)
        soft: list[Any] = list(raw.logits.float().softmax(dim=1)) if scores else [None] * len(labels)
        rows = zip(select_detections(raw.detections, **settings), labels, soft, strict=True)
        return [JointAnswer(found, Segmentation(classes, kept)) for found, classes, kept in rows]


def _places(wanted: Sequence[FeatureInfo], given: Sequence[FeatureInfo], part: str) -> list[int]:
    """Where the maps that a part reads stand among those that there are. ValueError for one that is not there."""
    missing = [info for info in wanted if info not in given]
    if missing or len(set(wanted)) < len(wanted):
        reads, gives = ([f"{channels} at 1/{stride}" for stride, channels in infos] for infos in (wanted, given))
        raise ValueError(
            f"the {part} reads maps of {', '.join(reads)} channels; the shared backbone gives {', '.join(gives)}"
        )
    return [list(given).index(info) for info in wanted]


def _known(truth: Sequence[Any] | Tensor | None, count: int | None = None, name: str = "") -> list[int]:
    """The pictures of which something is known. ValueError where there are not `count` entries, called `name`."""
    if truth is None:
        return []
    if count is not None and len(truth) != count:
        raise ValueError(f"{len(truth)} {name} came with {count} pictures")
    return [place for place, known in enumerate(truth) if known is not None]


def _chosen(truth: Sequence[Any] | Tensor | None, places: Sequence[int]) -> list[Any]:
    assert truth is not None  # `places` were found in it
    return [truth[place] for place in places]


def _rows(batch: Tensor, places: Sequence[int]) -> Tensor:
    """Some pictures' rows, without a copy where all are wanted."""
    return batch if len(places) == len(batch) else batch[list(places)]
