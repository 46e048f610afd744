"""The segmenter: features, one fine map decoded from them, a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import Backbone
from backbones.evaluation import in_evaluation
from backbones.task_net import TaskNet

from .losses import IGNORE, PixelLoss
from .results import Segmentation, SegmenterOutputs

# Pictures are padded to a multiple of the stride of BiSeNet's finest map (DFANet's is at 4). Coarser maps round up, as
# the papers' multiply-adds at 640 x 360 have it; padding to 32 would cost a picture of that size 7 % more.
PAD_TO = 8


def checked_input_size(size: Sequence[int]) -> tuple[int, int]:
    """(height, width) in whole pixels; ValueError for anything else."""
    if not isinstance(size, Sequence) or len(size) != 2 or any(side != int(side) or side < 1 for side in size):
        raise ValueError(f"input_size is {size!r}; expected (height, width) in pixels")
    height, width = (int(side) for side in size)
    return height, width


def checked_classes(num_classes: int, class_weights: Sequence[float] | None) -> None:
    """ValueError where there are too few classes, more than labels can name, or weights for another number of them."""
    if not 2 <= num_classes <= IGNORE:
        raise ValueError(f"num_classes is {num_classes}; expected 2 to {IGNORE}")
    if class_weights is not None and len(class_weights) != num_classes:
        raise ValueError(f"{len(class_weights)} class_weights came with {num_classes} classes")


def resize(features: Tensor, size: Sequence[int]) -> Tensor:
    """[N, C, h, w] -> [N, C, *size], bilinear, corner pixels on corner pixels, as BiSeNet's author has it."""
    return F.interpolate(features, size=(size[0], size[1]), mode="bilinear", align_corners=True)


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) rounded up to what the nets work on."""
    # Not -(-side // PAD_TO): exported to ONNX, the division of a negative number rounds towards zero.
    return (size[0] + PAD_TO - 1) // PAD_TO * PAD_TO, (size[1] + PAD_TO - 1) // PAD_TO * PAD_TO


class Segmenter(TaskNet):
    """backbone (and a detail path on the picture itself, if any) -> decoder -> classifier.

    decoder: list of maps, the detail path's first -> list of maps: the one that the classifier reads, then one for each
    auxiliary head. The auxiliary heads exist always and are run by `outputs` alone, so that training and use have the
    same state dict; all their parameters' names begin with "auxiliary". auxiliary_weight: of each of their losses.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: nn.Module,
        classifier: nn.Module,
        *,
        num_classes: int,
        detail_path: nn.Module | None = None,
        auxiliary: Sequence[nn.Module] = (),
        auxiliary_weight: float = 1.0,
        loss: PixelLoss | None = None,
        name: str = "",
        input_size: tuple[int, int] = (1024, 1024),
    ) -> None:
        super().__init__(backbone, num_classes=num_classes, name=name, input_size=input_size)
        self.detail_path, self.decoder, self.classifier = detail_path, decoder, classifier
        self.auxiliary = nn.ModuleList(auxiliary)
        self.auxiliary_weight = auxiliary_weight
        self.loss = loss or PixelLoss()

    def ends(self) -> tuple[str, ...]:
        """Each layer that sees the picture, the classifier's last one, and the heads that only learn."""
        layers = [(name, part) for name, part in self.named_modules() if isinstance(part, nn.Conv2d)]
        seeing = [name for name, layer in layers if layer.in_channels == self.mean.shape[1]]
        last = [name for name, _ in layers if name.startswith("classifier")][-1:]
        return (*seeing, *last, *(["auxiliary"] if len(self.auxiliary) else []))

    def forward(self, images: Tensor) -> Tensor:
        """images [N, 3, H, W] uint8 or float, RGB 0..255, of any size -> logits [N, C, H, W]."""
        return self.forward_features(self.features(images), (images.shape[-2], images.shape[-1]))

    def features(self, images: Tensor) -> list[Tensor]:
        """images as in `forward` -> the maps that the decoder reads: the detail path's, if any, and the backbone's."""
        normalized = self.normalize(images)
        height, width = padded_size((images.shape[-2], images.shape[-1]))
        below, right = height - images.shape[-2], width - images.shape[-1]
        if below or right or isinstance(below, torch.SymInt) or isinstance(right, torch.SymInt):  # traced for any size
            normalized = F.pad(normalized, (0, right, 0, below), mode="replicate")
        details = [] if self.detail_path is None else [self.detail_path(normalized)]
        return [*details, *self.backbone(normalized)]

    def forward_features(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """`forward` on maps made elsewhere, as `features` gives them, of pictures of `size` (height, width)."""
        return self._enlarge(self.classifier(self.decoder(features)[0]), size)

    def _enlarge(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits of the padded picture -> [N, C, *size]."""
        return resize(logits, padded_size(size))[..., : size[0], : size[1]]

    def outputs(self, images: Tensor, labels: Tensor) -> SegmenterOutputs:
        """Every map that a loss needs; images as in `forward`. ValueError where the labels do not go with them."""
        return self.outputs_from_features(self.features(images), (images.shape[-2], images.shape[-1]), labels)

    def outputs_from_features(
        self, features: Sequence[Tensor], size: tuple[int, int], labels: Tensor
    ) -> SegmenterOutputs:
        """`outputs` on maps made elsewhere."""
        self._check_labels(labels, (len(features[0]), *size))
        if self.decoder.training and len(labels) == 1:
            raise ValueError("a batch of 1 picture cannot train: the norms of what is averaged over it need at least 2")
        main, *sides = self.decoder(features)
        logits = self._enlarge(self.classifier(main), size)
        heads = zip(self.auxiliary, sides, strict=True)
        return SegmenterOutputs(logits, [self._enlarge(head(side), size) for head, side in heads])

    def _check_labels(self, labels: Tensor, expected: tuple[int, ...]) -> None:
        if labels.shape != expected or labels.dtype != torch.int64:
            came = f"{labels.dtype} {list(labels.shape)}"
            raise ValueError(f"labels are {came}; expected torch.int64 {list(expected)}")
        strange = labels[((labels < 0) | (labels >= self.num_classes)) & (labels != IGNORE)]
        if len(strange):
            known = f"0..{self.num_classes - 1}, or {IGNORE} for pixels to ignore"
            raise ValueError(f"the labels hold {int(strange[0])}; expected {known}")

    def losses_from(self, outputs: SegmenterOutputs, labels: Tensor) -> dict[str, Tensor]:
        """Scalars named loss_*; their sum is what training minimises. labels [N, H, W] int64, 255 = ignore."""
        losses = {"loss_main": self.loss(outputs.logits, labels)}
        for number, logits in enumerate(outputs.auxiliary, start=1):
            losses[f"loss_auxiliary_{number}"] = self.auxiliary_weight * self.loss(logits, labels)
        return losses

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """`losses_from(outputs(images, labels), labels)`."""
        return self.losses_from(self.outputs(images, labels), labels)

    @torch.no_grad()
    def predict(self, images: Tensor, *, scores: bool = False) -> list[Segmentation]:
        """Each picture labelled, with the scores of all classes if asked for; always as in evaluation mode."""
        with in_evaluation(self):
            logits = self(images)
        labels = logits.argmax(dim=1)
        soft: list[Any] = list(logits.float().softmax(dim=1)) if scores else [None] * len(labels)
        return [Segmentation(*each) for each in zip(labels, soft, strict=True)]
