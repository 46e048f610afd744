"""Milliseconds that a net spends in each of its parts, on the whole way from pictures to answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from backbones.task_net import TaskNet
    from joint import JointNet

WARM_UP = 3


class Stages(NamedTuple):
    """The way through a kind of net.

    parts: its submodules in the order in which they run; one that a net does without is passed over. before: part ->
    the stage that the time between the part before it and itself is charged to, where that is not the part itself.
    What comes before the first part (normalising) is "prepare", what follows the last is "finish".
    """

    parts: tuple[str, ...]
    before: Mapping[str, str]


DETECTOR_STAGES = Stages(("backbone", "neck", "rpn", "refine", "head"), {"head": "propose"})
SEGMENTER_STAGES = Stages(("detail_path", "backbone", "decoder", "classifier"), {})
JOINT_STAGES = Stages(
    (
        "backbone",
        "segmenter.detail_path",
        *(f"detector.{part}" for part in DETECTOR_STAGES.parts[1:]),
        "segmenter.decoder",
        "segmenter.classifier",
    ),
    {"detector.head": "propose"},
)


class TimedNet:
    """A net that answers as ever, made fast as the predictors make it, while a clock runs over its parts.

    parts, stages: those of the net, in order; seconds: stage -> what the last call spent there. detector, segmenter:
    a joint net's, which know the class names.
    """

    def __init__(self, net: TaskNet | JointNet, stages: Stages) -> None:
        import torch

        from backbones.fusion import fused_copy

        self.net: Any = fused_copy(net).to(memory_format=torch.channels_last)
        self.input_size = net.input_size
        self.class_names: Any = getattr(net, "class_names", ())
        self.detector, self.segmenter = (getattr(net, part, None) for part in ("detector", "segmenter"))
        self.parts = tuple(part for part in stages.parts if attrgetter(part)(net) is not None)
        before = {**stages.before, self.parts[0]: "prepare"}
        rows = (dict.fromkeys((before.get(part, part), part)) for part in self.parts)
        self.stages = (*(stage for row in rows for stage in row), "finish")
        self.seconds: dict[str, float] = {}
        self._last = 0.0
        for name in self.parts:
            part = self.net.get_submodule(name)
            part.register_forward_pre_hook(self._lap_hook(before.get(name, name)))
            part.register_forward_hook(self._lap_hook(name))

    def __call__(self, images: Tensor) -> Any:
        """See the net's own `forward`."""
        self.seconds = dict.fromkeys(self.stages, 0.0)
        self._last = time.perf_counter()
        raw = self.net(images)
        self._lap("finish")
        return raw

    def _lap_hook(self, stage: str) -> Callable[..., None]:
        return lambda *_: self._lap(stage)

    def _lap(self, stage: str) -> None:
        """All since the last lap was spent in `stage`."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now


def time_stages(
    predictor: Any, timed: TimedNet, picture: np.ndarray, batch: int, repeat: int
) -> dict[str, list[float]]:
    """Milliseconds of every stage, and in total, of each repetition: from `batch` pictures to their answers.

    predictor: of `timed`. picture: [H, W, 3] uint8 RGB.
    """
    import torch

    def once() -> dict[str, float]:
        start = time.perf_counter()
        images = torch.cat([predictor.prepare(picture) for _ in range(batch)])
        prepared = time.perf_counter()
        raw = predictor.infer(images)
        answered = time.perf_counter()
        for place in range(batch):
            predictor.finish(_one_of(raw, place), picture.shape[:2])
        end = time.perf_counter()
        seconds = dict(timed.seconds)
        seconds["prepare"] += prepared - start
        seconds["finish"] += end - answered
        return {**seconds, "total": end - start}

    runs = repeated(once, repeat)
    return {stage: [1000 * seconds[stage] for seconds in runs] for stage in (*timed.stages, "total")}


def _one_of(raw: Any, place: int) -> Any:
    """One picture's part of what a net gives for a batch: a tensor, or a named tuple of tensors and of such tuples."""
    if isinstance(raw, tuple):
        return type(raw)(*(_one_of(each, place) for each in raw))
    return raw[place : place + 1]


def repeated(once: Callable[[], Any], repeat: int) -> list[Any]:
    """The results of `repeat` calls, after a few that do not count."""
    return [once() for _ in range(WARM_UP + repeat)][WARM_UP:]
