"""What the training of one kind of net is, apart from the training: its data, its net, its metric, its files.

The session, the hooks, the loop and the checkpoints know nothing else of a net. A new kind is a class like this one,
its config, and a line in `tasks.open_task` and in `config.CONFIGS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mmengine.evaluator import BaseMetric
    from torch import Tensor, nn

    from .sampler import Request


class PictureSet(Protocol):
    """A map-style data set. A request is an index (evaluation, nothing random) or (index, seed, size) (training)."""

    @property
    def report(self) -> Any:
        """`str()` says in a line what was read and what was left out."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, request: int | Request) -> tuple[Tensor, Any]:
        """(picture [3, h, w] uint8 RGB, what is known of it)."""
        ...


class TrainingTask(Protocol):
    """Made from its config, which opens the data. Raises ValueError or OSError in one line for what does not fit."""

    @property
    def train_data(self) -> PictureSet:
        """To learn from."""
        ...

    @property
    def val_data(self) -> PictureSet:
        """To choose the best weights by."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the net's classes."""
        ...

    @property
    def loss_options(self) -> Mapping[str, Any]:
        """What the net's `losses` gets besides pictures and truth."""
        ...

    @property
    def free_keys(self) -> tuple[str, ...]:
        """Of its own keys those that a resumed run may change without a word."""
        ...

    def collate(self, batch: Sequence[Any]) -> tuple[Tensor, Any]:
        """Entries of a data set -> (images [N, 3, H, W] uint8, truth), as the net's `losses` takes them."""
        ...

    def create_net(self) -> nn.Module:
        """Has `losses(images, truth, **loss_options)`, and perhaps a part called backbone."""
        ...

    def predict(self, net: nn.Module, images: Tensor, truth: Any) -> Sequence[Any]:
        """The net's answer to each picture of `val_data`, as the metric takes it."""
        ...

    def create_metric(self) -> BaseMetric:
        """Figures of `predict`'s answers on `val_data`, higher is better, under the prefix "val"."""
        ...

    def save(self, net: nn.Module, path: Path) -> None:
        """Write the net's weights for everybody's use."""
        ...

    def describe(self, requests: Sequence[Request], truth: Any) -> dict[str, Any]:
        """What is known of a batch, as tensors, numbers and text: kept with its pictures if a loss is not finite."""
        ...
