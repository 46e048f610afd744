"""What the training of a detector reads from a config beside what all trainings read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from .distill_config import DetectorDistillConfig
from .schema import ChosenBy
from .training_config import Balance, BinarizeConfig, Size, TrainingConfig

Figure = Literal["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


@dataclass(frozen=True, kw_only=True)
class BoxesPart:
    """file_names: a text file, a name a line, that chooses some of the pictures."""

    file_names: Path | None = None


@dataclass(frozen=True, kw_only=True)
class CocoPart(BoxesPart):
    """See `detect.formats.coco.CocoDetection`."""

    annotations: Path
    images: Path


@dataclass(frozen=True, kw_only=True)
class VocPart(BoxesPart):
    """See `detect.formats.voc.VocDetection`; split: null takes every picture that has an xml file."""

    split: str | None


@dataclass(frozen=True, kw_only=True)
class YoloPart(BoxesPart):
    """See `detect.formats.yolo.YoloDetection`; split: train, val or test of the yaml."""

    split: str


@dataclass(frozen=True, kw_only=True)
class BoxesData:
    """Parts called train (to learn from), val (to choose checkpoints by) and test (scored once at the end, never in
    training).

    class_names: in the order of the net's classes; null takes all that the data of train has. cache: keep decoded
    pictures in memory. strict: stop at what else would be left out or mended, and counted. class_balance: pictures of
    classes that are in a smaller part of the pictures than this are shown more often (see
    `training.sampler.repeat_factors`).
    """

    class_names: tuple[str, ...] | None = None
    cache: bool = False
    strict: bool = False
    class_balance: Balance | None = None


@dataclass(frozen=True, kw_only=True)
class CocoData(BoxesData):
    """A COCO json and a folder for each part."""

    layout: Literal["coco"] = "coco"
    train: CocoPart
    val: CocoPart
    test: CocoPart | None = None


@dataclass(frozen=True, kw_only=True)
class VocData(BoxesData):
    """root: the folder with Annotations, JPEGImages and ImageSets; first_pixel, images, annotations: see
    `VocDetection`.
    """

    layout: Literal["voc"]
    root: Path
    first_pixel: Literal[0, 1] = 1
    images: str = "JPEGImages"
    annotations: str = "Annotations"
    train: VocPart = VocPart(split="train")
    val: VocPart = VocPart(split="val")
    test: VocPart | None = None


@dataclass(frozen=True, kw_only=True)
class YoloData(BoxesData):
    """yaml: the data.yaml."""

    layout: Literal["yolo"]
    yaml: Path
    train: YoloPart = YoloPart(split="train")
    val: YoloPart = YoloPart(split="val")
    test: YoloPart | None = None


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(TrainingConfig):
    """augmentation: arguments of `SSDAugmentation`; distill: a teacher, if there is one; binarize: make the
    layers binary.
    """

    nets: ClassVar[str] = "detectors"
    side_step: ClassVar[int] = 16

    task: Literal["detect"] = "detect"
    data: Annotated[CocoData | VocData | YoloData, ChosenBy("layout", default="coco")]
    distill: DetectorDistillConfig | None = None
    binarize: BinarizeConfig | None = None
    augmentation: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[Size, ...] = ((320, 320),)
    eval_size: Size = (320, 320)
    monitor: Figure = "AP"
