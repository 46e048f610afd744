"""A detector and a segmenter on one backbone pass, without a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import pairing
from .joint_net import JointNet
from .registry import apart, create_joint, list_joints, save_joint, shipped_weights
from .results import JointAnswer, JointOutputs, JointTruth, RawJoint

if TYPE_CHECKING:
    from .predictor import Predictor

__all__ = [
    "JointAnswer",
    "JointNet",
    "JointOutputs",
    "JointTruth",
    "Predictor",
    "RawJoint",
    "apart",
    "create_joint",
    "list_joints",
    "pairing",
    "save_joint",
    "shipped_weights",
]


def __getattr__(name: str) -> Any:
    """`Predictor` on first use: it needs OpenCV, which takes time to load and is not everywhere."""
    if name == "Predictor":
        from .predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
