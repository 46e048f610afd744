"""What the training of a detector reads from a config beside what all trainings read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from .training_config import Size, TrainingConfig

Figure = Literal["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


@dataclass(frozen=True)
class PartConfig:
    """Pictures and what is known of them. file_names: a text file, a name a line, that chooses some of the pictures."""

    annotations: Path
    images: Path
    file_names: Path | None = None


@dataclass(frozen=True)
class DataConfig:
    """train: to learn from; val: to choose checkpoints by; test: scored once at the end, never in training.

    class_names: in the order of the net's classes; null takes all of the train file's categories.
    """

    train: PartConfig
    val: PartConfig
    test: PartConfig | None = None
    class_names: tuple[str, ...] | None = None
    cache: bool = False


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(TrainingConfig):
    """augmentation: arguments of `SSDAugmentation`."""

    nets: ClassVar[str] = "detectors"
    side_step: ClassVar[int] = 16

    task: Literal["detect"] = "detect"
    data: DataConfig
    augmentation: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[Size, ...] = ((320, 320),)
    eval_size: Size = (320, 320)
    monitor: Figure = "AP"
