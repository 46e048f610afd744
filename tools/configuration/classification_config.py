"""What the training of a classifier reads from a config beside what all trainings read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from .distill_config import ClassifierDistillConfig
from .schema import Limits
from .training_config import Balance, BinarizeConfig, Size, TrainingConfig


@dataclass(frozen=True)
class FoldersConfig:
    """Folders of class folders, as ImageNet's: train to learn from, val to choose checkpoints by, test for the end.

    check_pictures: open every picture before training and leave out what cannot be read; without it the training
    stops at such a picture. class_balance: pictures of classes that are in a smaller part of the
    pictures than this are shown more often (see `training.sampler.repeat_factors`).
    """

    train: Path
    val: Path
    test: Path | None = None
    check_pictures: bool = True
    class_balance: Balance | None = None


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(TrainingConfig):
    """label_smoothing: the part of the truth that is spread over all classes; augmentation: arguments of
    `CropAugmentation`; eval_crop: side of the middle that is scored, of the shorter side of the picture;
    distill: a teacher, if there is one; binarize: make the layers binary.
    """

    nets: ClassVar[str] = "backbones"

    task: Literal["classify"]
    data: FoldersConfig
    distill: ClassifierDistillConfig | None = None
    binarize: BinarizeConfig | None = None
    label_smoothing: Annotated[float, Limits(least=0, most=0.9)] = 0.0
    augmentation: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[Size, ...] = ((224, 224),)
    eval_size: Size = (224, 224)
    eval_crop: Annotated[float, Limits(above=0, most=1)] = 0.875
    monitor: Literal["top1", "top5"] = "top1"
