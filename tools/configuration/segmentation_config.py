"""What the training of a segmenter reads from a config beside what all trainings read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from .distill_config import SegmenterDistillConfig
from .schema import ChosenBy, OneOrMore
from .training_config import BinarizeConfig, Count, TrainingConfig

Figure = Literal["mIoU", "mean_accuracy", "pixel_accuracy", "weighted_IoU"]


@dataclass(frozen=True, kw_only=True)
class LabelledPart:
    """file_names: a text file, a name a line, that chooses some of the pictures."""

    file_names: Path | None = None


@dataclass(frozen=True, kw_only=True)
class CityscapesPart(LabelledPart):
    """See `segment.formats.cityscapes_folders.Cityscapes`."""

    split: str
    annotation: Literal["gtFine", "gtCoarse"] = "gtFine"
    cities: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class CamVidPart(LabelledPart):
    """See `segment.formats.camvid.CamVid`."""

    split: str


@dataclass(frozen=True, kw_only=True)
class MasksPart(LabelledPart):
    """See `segment.formats.mask_folder.MaskFolder`."""

    images: Path
    labels: Path


@dataclass(frozen=True, kw_only=True)
class CocoPart(LabelledPart):
    """See `segment.formats.coco_masks.CocoMasks`."""

    annotations: Path
    images: Path


CityscapesParts = Annotated[tuple[CityscapesPart, ...], OneOrMore()]
CamVidParts = Annotated[tuple[CamVidPart, ...], OneOrMore()]
MasksParts = Annotated[tuple[MasksPart, ...], OneOrMore()]
CocoParts = Annotated[tuple[CocoPart, ...], OneOrMore()]


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """Parts called train (to learn from), val (to choose checkpoints by) and test (scored once at the end), each one
    mapping or a list of mappings, whose pictures are put together.

    cache: keep decoded pictures in memory; check_labels: open every label before the training.
    """

    cache: bool = False
    check_labels: bool = True


@dataclass(frozen=True, kw_only=True)
class CityscapesData(LabelledData):
    """root: the folder with leftImg8bit and gtFine; labels: which of the label pictures are read."""

    layout: Literal["cityscapes"]
    root: Path
    labels: Literal["labelIds", "labelTrainIds"] = "labelIds"
    train: CityscapesParts = (CityscapesPart(split="train"),)
    val: CityscapesParts = (CityscapesPart(split="val"),)
    test: CityscapesParts | None = None


@dataclass(frozen=True, kw_only=True)
class CamVidData(LabelledData):
    """root: the folder with the splits."""

    layout: Literal["camvid"]
    root: Path
    train: CamVidParts = (CamVidPart(split="train"),)
    val: CamVidParts = (CamVidPart(split="val"),)
    test: CamVidParts | None = None


@dataclass(frozen=True, kw_only=True)
class MasksData(LabelledData):
    """class_names: in the order of their values; kind, ignore, label_suffix: see `MaskFolder`."""

    layout: Literal["masks"]
    train: MasksParts
    val: MasksParts
    test: MasksParts | None = None
    class_names: tuple[str, ...]
    kind: Literal["index", "binary"] = "index"
    ignore: tuple[int, ...] = (255,)
    label_suffix: str = ""


@dataclass(frozen=True, kw_only=True)
class CocoData(LabelledData):
    """class_names: categories to tell from the background, null for all; crowds: see `CocoMasks`."""

    layout: Literal["coco"]
    train: CocoParts
    val: CocoParts
    test: CocoParts | None = None
    class_names: tuple[str, ...] | None = None
    crowds: Literal["ignore", "objects"] = "ignore"


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(TrainingConfig):
    """sizes: of the crops to learn from; eval_size: how large the net sees whole pictures, each in its own shape with
    about so many pixels; their labels are compared at full size. augmentation: arguments of `ScaleCropFlip`;
    distill: a teacher, if there is one; binarize: make the layers binary.
    """

    nets: ClassVar[str] = "segmenters"

    task: Literal["segment"]
    data: Annotated[CityscapesData | CamVidData | MasksData | CocoData, ChosenBy("layout")]
    distill: SegmenterDistillConfig | None = None
    binarize: BinarizeConfig | None = None
    augmentation: dict[str, Any] = field(default_factory=dict)
    paste_probability: float = 0.0
    eval_batch_size: Count = 1
    monitor: Figure = "mIoU"
