"""Two-stage object detectors that run in real time without a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import light_head_rcnn, thundernet
from .registry import create_detector, list_detectors, save_detector, shipped_weights
from .results import Detections, DetectorOutputs, RawDetections, Target
from .two_stage import TwoStageDetector

if TYPE_CHECKING:
    from .multi_pass import MultiPassPredictor
    from .predictor import Predictor

__all__ = [
    "Detections",
    "DetectorOutputs",
    "MultiPassPredictor",
    "Predictor",
    "RawDetections",
    "Target",
    "TwoStageDetector",
    "create_detector",
    "light_head_rcnn",
    "list_detectors",
    "save_detector",
    "shipped_weights",
    "thundernet",
]


def __getattr__(name: str) -> Any:
    """The predictors on first use: they need OpenCV, which takes time to load and is not everywhere."""
    if name == "Predictor":
        from .predictor import Predictor

        return Predictor
    if name == "MultiPassPredictor":
        from .multi_pass import MultiPassPredictor

        return MultiPassPredictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
