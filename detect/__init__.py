"""Two-stage object detectors that run in real time without a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import thundernet
from .registry import create_detector, list_detectors, save_detector, shipped_weights
from .results import Detections, DetectorOutputs, RawDetections, Target
from .two_stage import TwoStageDetector

if TYPE_CHECKING:
    from .predictor import Predictor

__all__ = [
    "Detections",
    "DetectorOutputs",
    "Predictor",
    "RawDetections",
    "Target",
    "TwoStageDetector",
    "create_detector",
    "list_detectors",
    "save_detector",
    "shipped_weights",
    "thundernet",
]


def __getattr__(name: str) -> Any:
    """`Predictor` on first use: it needs OpenCV, which takes time to load and is not everywhere."""
    if name == "Predictor":
        from .predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
