"""Which task a config is for: the one place that knows all kinds of nets that can be trained."""

from __future__ import annotations

from ..configuration.classification_config import ClassificationConfig
from ..configuration.detection_config import DetectionConfig
from ..configuration.joint_config import JointConfig
from ..configuration.segmentation_config import SegmentationConfig
from ..configuration.training_config import TrainingConfig
from .training_task import TrainingTask


def open_task(config: TrainingConfig) -> TrainingTask:
    """The task that the config is for, with its data open."""
    if isinstance(config, DetectionConfig):
        from .detection_task import DetectionTask

        return DetectionTask(config)
    if isinstance(config, ClassificationConfig):
        from .classification_task import ClassificationTask

        return ClassificationTask(config)
    if isinstance(config, SegmentationConfig):
        from .segmentation_task import SegmentationTask

        return SegmentationTask(config)
    if isinstance(config, JointConfig):
        from .joint_task import JointTask

        return JointTask(config)
    raise TypeError(f"no training is known for a {type(config).__name__}")
