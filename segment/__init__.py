"""Real-time semantic segmentation without a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import bisenet, dfanet
from .base import Segmenter
from .registry import create_segmenter, list_segmenters, save_segmenter, shipped_weights
from .results import Segmentation, SegmenterOutputs

if TYPE_CHECKING:
    from .predictor import Predictor

__all__ = [
    "Predictor",
    "Segmentation",
    "Segmenter",
    "SegmenterOutputs",
    "bisenet",
    "create_segmenter",
    "dfanet",
    "list_segmenters",
    "save_segmenter",
    "shipped_weights",
]


def __getattr__(name: str) -> Any:
    """`Predictor` on first use: it needs OpenCV, which takes time to load and is not everywhere."""
    if name == "Predictor":
        from .predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
