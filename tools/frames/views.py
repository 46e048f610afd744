"""The one shape that a demo asks of a model, whether it finds boxes or labels pixels."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from backbones.registry import nearest

from .frame_log import FrameLog

Answer = TypeVar("Answer")


class FramePredictor(Protocol):
    """A net and the way of a picture into it."""

    class_names: tuple[str, ...]
    device: torch.device

    def prepare(self, image: np.ndarray) -> Any:
        """image [H, W, 3] uint8 RGB -> what the net takes."""
        ...

    def infer(self, images: Any, /) -> Any:
        """What `prepare` gave -> what the net gives."""
        ...


class View(ABC, Generic[Answer]):
    """What a model says of a picture, and how that is drawn, noted down, counted and told.

    Pictures are [H, W, 3] uint8 RGB.
    """

    predictor: FramePredictor

    @abstractmethod
    def begin(self) -> None:
        """What comes next is another picture or video than before."""

    @abstractmethod
    def finish(self, raw: Any, picture_size: tuple[int, int]) -> Answer:
        """The net's output -> the answer for a picture of (height, width)."""

    @abstractmethod
    def draw(self, picture: np.ndarray, answer: Answer) -> np.ndarray:
        """A picture that shows the answer: another one, or `picture` itself, drawn on."""

    @abstractmethod
    def note(self, log: FrameLog | None, source: str, size: tuple[int, ...], answer: Answer, **when: float) -> None:
        """Writes the answer down, into the log if there is one; `when` gives "frame" and "time" of a video's frame."""

    @abstractmethod
    def amounts(self, answer: Answer) -> Mapping[str, float]:
        """Class -> how much of it was found, in whatever it is counted in; what was not found is left out."""

    @abstractmethod
    def describe(self, answer: Answer) -> str:
        """The answer in words, the table of what was found below."""

    @abstractmethod
    def describe_amount(self, name: str, total: float, frames: int, /) -> str:
        """How much of the class `name`, as `amounts` calls it, was found in all frames together, in words."""


def class_numbers(names: Sequence[str] | None, class_names: Sequence[str], kind: str) -> list[int] | None:
    """Class names -> their numbers, None for None; ValueError, which calls the net a `kind`, for an unknown one."""
    for name in names or ():
        if name not in class_names:
            near = nearest(name, class_names) or f"; expected one of {', '.join(class_names)}"
            raise ValueError(f"the {kind} knows no class {name!r}{near}")
    return None if names is None else [class_names.index(name) for name in names]


def count(number: float, noun: str, plural: str | None = None) -> str:
    """One box, but 2 boxes: the number and the noun that goes with it."""
    return f"{number:.0f} {noun if number == 1 else plural or noun + 's'}"
