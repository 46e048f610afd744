"""What the training of a joint net reads from a config beside what all trainings read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from . import detection_config as boxes_config
from . import segmentation_config as masks_config
from .detection_config import BoxesPart
from .schema import ChosenBy
from .segmentation_config import LabelledPart
from .training_config import TrainingConfig

Figure = Literal["mean_of_both", "AP", "AP50", "AP75", "mIoU", "mean_accuracy", "pixel_accuracy", "weighted_IoU"]

BoxesChoice = Annotated[
    boxes_config.CocoData | boxes_config.VocData | boxes_config.YoloData, ChosenBy("layout", default="coco")
]
MasksChoice = Annotated[
    masks_config.CityscapesData | masks_config.CamVidData | masks_config.MasksData | masks_config.CocoData,
    ChosenBy("layout"),
]


class JointPart(NamedTuple):
    """A part of both data sets; None where one of them has no such part."""

    boxes: BoxesPart | None
    masks: Sequence[LabelledPart] | None


@dataclass(frozen=True, kw_only=True)
class JointData:
    """boxes: the detector's data, as in its own config; masks: the segmenter's. The pictures may be the same or not."""

    boxes: BoxesChoice
    masks: MasksChoice

    def __post_init__(self) -> None:
        if self.boxes.class_balance is not None:
            raise ValueError("boxes.class_balance is set, but a joint training does not read it")

    @property
    def train(self) -> JointPart:
        """To learn from."""
        return JointPart(self.boxes.train, self.masks.train)

    @property
    def val(self) -> JointPart:
        """To choose checkpoints by."""
        return JointPart(self.boxes.val, self.masks.val)

    @property
    def test(self) -> JointPart | None:
        """Scored once, at the end; None where neither of the two has it."""
        both = JointPart(self.boxes.test, self.masks.test)
        return None if both == (None, None) else both


@dataclass(frozen=True, kw_only=True)
class JointAugmentation:
    """boxes: arguments of `SSDAugmentation`; masks: of `ScaleCropFlip`."""

    boxes: dict[str, Any] = field(default_factory=dict)
    masks: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class JointConfig(TrainingConfig):
    """learn: what is learnt from: in "both", each of a batch's `batch_size` places holds a picture with boxes and one
    with labels, and an epoch goes once through the pictures with boxes; "boxes" or "masks" alone leave the other part
    without losses (freeze it, and what it reads). eval_size: what whole pictures are stretched to. monitor:
    mean_of_both is that of AP and mIoU.
    """

    nets: ClassVar[str] = "joints"
    side_step: ClassVar[int] = 16

    task: Literal["joint"]
    data: JointData
    learn: Literal["both", "boxes", "masks"] = "both"
    augmentation: JointAugmentation = JointAugmentation()
    paste_probability: float = 0.0
    monitor: Figure = "mean_of_both"
