"""What happens between the steps of a training: learning rate, log, best score, checkpoints, being stopped."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from mmengine.dist import all_reduce_params
from mmengine.hooks import EarlyStoppingHook, EMAHook, Hook
from mmengine.model import ExponentialMovingAverage, MomentumAnnealingEMA
from mmengine.runner import Runner
from torch import nn

from ..configuration.training_config import EarlyStopConfig, EmaConfig
from ..progress import format_seconds
from ..termination import polite_kills
from .freezing import BATCH_NORMS
from .journal import Clock, Journal, Screen
from .processes import Processes, largest
from .schedule import Factor

_UNDEFINED = -1.0  # what COCO's rule says where the truth leaves a figure undefined


def _is_defined(figure: float) -> bool:
    return math.isfinite(figure) and figure != _UNDEFINED


class StoppedError(RuntimeError):
    """A signal asked the training to stop: everything was saved. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by signal {number}")


class ScheduleHook(Hook):
    """Sets the learning rate before each step: each group's own rate times the schedule's factor."""

    priority = "VERY_HIGH"

    def __init__(self, factor: Factor, rates: list[float]) -> None:
        self.factor = factor
        self.rates = rates

    def before_train_iter(self, runner: Runner, **_: Any) -> None:
        """See the class."""
        factor = self.factor(runner.iter)
        for group, rate in zip(runner.optim_wrapper.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor


class JournalHook(Hook):
    """A record per step and per validation; a line on the screen every `every` steps, with the time left."""

    priority = "LOW"

    def __init__(self, folder: Path, screen: Screen, every: int) -> None:
        self.folder, self.screen, self.every = folder, screen, every
        self.clock = Clock()
        self.journal: Journal | None = None
        self.validation_seconds = 0.0

    def before_train(self, runner: Runner) -> None:
        """Opens the files, at the step where a resumed run goes on."""
        self.journal = Journal(self.folder, runner.iter)
        self.clock = Clock()
        self.sums: dict[str, float] = {}
        self.count = 0

    def before_train_epoch(self, runner: Runner) -> None:  # noqa: ARG002
        """Validations and checkpoints between epochs are no steps."""
        self.clock.skip()

    def before_train_iter(self, runner: Runner, **_: Any) -> None:  # noqa: ARG002 (mmengine calls it with the runner)
        """The time since the last step was spent waiting for the batch."""
        self.begun = time.monotonic()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Writes the step down."""
        values = {name: value.item() for name, value in outputs.items()}
        norm = getattr(runner.optim_wrapper, "grad_norm", None)
        if isinstance(norm, float):  # in AmpOptimWrapper it is a name
            values["grad_norm"] = norm
        rate = max(float(group["lr"]) for group in runner.optim_wrapper.optimizer.param_groups)
        computed = time.monotonic() - self.begun
        seconds = self.clock.tick()
        extra = {"lr": rate, "seconds": seconds, "waited": max(seconds - computed, 0.0)}
        assert self.journal is not None
        self.journal.write("train", runner.iter + 1, {**values, **extra}, epoch=runner.epoch + 1,
                           size=list(data_batch[0].shape[-2:]))  # fmt: skip
        for name, value in {**values, **extra}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        self._report(runner, batch_idx, rate)

    def _report(self, runner: Runner, batch_idx: int, rate: float) -> None:
        line = self._line(runner, batch_idx, rate)
        self.screen.show(line)
        if (runner.iter + 1) % self.every == 0:
            self.screen.say(line)
            self.sums, self.count = {}, 0

    def _line(self, runner: Runner, batch_idx: int, rate: float) -> str:
        means = {name: value / self.count for name, value in self.sums.items()}
        terms = " ".join(f"{name.removeprefix('loss_')} {value:.3f}" for name, value in means.items()
                         if name not in ("loss", "lr", "seconds", "waited"))  # fmt: skip
        loop = runner.train_loop
        left = (runner.max_iters - runner.iter - 1) * self.clock.seconds_per_step()
        left += (runner.max_epochs - runner.epoch) / loop.val_interval * self.validation_seconds
        waited = 100 * means["waited"] / max(means["seconds"], 1e-9)
        return (
            f"epoch {runner.epoch + 1}/{runner.max_epochs} batch {batch_idx + 1}/{len(loop.sampler)} "
            f"loss {means['loss']:.3f} ({terms}) lr {rate:.2e} "
            f"{means['seconds']:.2f} s/step, {waited:.0f} % waiting for data, {format_seconds(left)} left"
        )

    def before_val(self, runner: Runner) -> None:  # noqa: ARG002
        """Starts the validation's own clock."""
        self.begun = time.monotonic()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Writes the figures down."""
        figures = {name.removeprefix("val/"): float(value) for name, value in (metrics or {}).items()}
        self.validation_seconds = time.monotonic() - self.begun
        assert self.journal is not None
        self.journal.write("val", runner.iter, figures, epoch=runner.epoch + 1)
        overall = [(name, value) for name, value in figures.items() if "/" not in name]  # not those of single classes
        shown = " ".join(f"{name} {f'{value:.4f}' if _is_defined(value) else '-'}" for name, value in overall[:6])
        self.screen.say(f"epoch {runner.epoch + 1}: {shown} ({format_seconds(self.validation_seconds)})")

    def close(self) -> None:
        """Closes the files."""
        if self.journal is not None:
            self.journal.close()


class NormStatisticsHook(Hook):
    """Averages the running statistics of batch norms over the processes after each step.

    A norm itself sees the pictures of its own process alone. With this the nets of all processes are the same after
    every step, whatever is then averaged, scored or saved.
    """

    priority = "HIGH"  # before EMAHook (NORMAL) looks at the net

    def __init__(self, net: nn.Module) -> None:
        self.norms = [module for module in net.modules() if isinstance(module, BATCH_NORMS)]

    def after_train_iter(self, runner: Runner, **_: Any) -> None:  # noqa: ARG002
        """See the class. What is frozen is left out: its average over three might differ in the last bit."""
        changed = [norm for norm in self.norms if norm.training and norm.track_running_stats]
        statistics = [tensor for norm in changed for tensor in (norm.running_mean, norm.running_var)]
        if statistics:
            all_reduce_params(statistics, op="mean")


class BestHook(Hook):
    """Keeps the best score; `save` is called, with the averaged weights in the net, when there is a new one.

    While the figure is undefined (COCO's -1, or NaN), the newest weights count as the best.
    """

    priority = "HIGH"  # before EMAHook (NORMAL) takes the averaged weights out of the net again

    def __init__(self, monitor: str, save: Callable[[], None], screen: Screen) -> None:
        self.monitor, self.save, self.screen = monitor, save, screen
        self.score: float | None = None
        self.step: int | None = None
        self.figures: dict[str, float] = {}

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """See the class."""
        figures = metrics or {}
        score, name = float(figures[self.monitor]), self.monitor.removeprefix("val/")
        is_defined = _is_defined(score)
        if self.score is not None and not (is_defined and score > self.score):
            return
        self.score, self.step = score if is_defined else None, runner.iter
        self.figures = {figure: float(value) for figure, value in figures.items()}
        self.save()
        if is_defined:
            self.screen.say(f"epoch {runner.epoch + 1}: the best so far, {name} {score:.4f}")
        else:
            self.screen.say(f"epoch {runner.epoch + 1}: {name} is not defined on val; the newest weights are kept")

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"score": self.score, "step": self.step, "figures": self.figures}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.score, self.step, self.figures = state["score"], state["step"], dict(state["figures"])

    def forget(self) -> None:
        """What comes is scored in another way: no score so far is to be compared with it."""
        self.score = self.step = None


class CheckpointHook(Hook):
    """Calls `save` after every few epochs, every few steps, and when the best score is new."""

    priority = "VERY_LOW"

    def __init__(
        self, save: Callable[[Runner], None], best: BestHook, every_epochs: int, every_iters: int | None
    ) -> None:
        self.save, self.best, self.every_epochs, self.every_iters = save, best, every_epochs, every_iters

    def after_step(self, runner: Runner) -> None:
        """Inside an epoch."""
        if self.every_iters and runner.iter % self.every_iters == 0:
            self.save(runner)

    def after_whole_epoch(self, runner: Runner) -> None:
        """After an epoch and its validation."""
        is_last = runner.epoch == runner.max_epochs or runner.train_loop.stop_training
        if runner.epoch % self.every_epochs == 0 or is_last or self.best.step == runner.iter:
            self.save(runner)


class StopHook(Hook):
    """Turns Ctrl-C, SIGTERM and SIGHUP into a stop between two steps: saves, raises StoppedError. A second Ctrl-C or
    SIGTERM is at once; SIGHUP, which comes twice where a terminal closes, never is.

    Of several processes all stop after the same step, also where only one got the signal.
    """

    priority = "LOWEST"

    def __init__(self, save: Callable[[Runner], None], averaging: EMAHook | None, processes: Processes) -> None:
        self.save, self.averaging, self.processes = save, averaging, processes
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def before_train(self, runner: Runner) -> None:  # noqa: ARG002
        """From here on signals wait for the end of a step."""
        self._process = os.getpid()
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, *polite_kills())}

    def _ask(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if os.getpid() != self._process:
            return  # a loader's worker, on its way to a process group of its own
        for pressed in (signal.SIGINT, signal.SIGTERM):
            signal.signal(pressed, self._before[pressed])
        if self.asked is not None:
            return
        self.asked = number
        if self.processes.is_first:
            # Not by print, which may be what the signal has interrupted; the terminal may be the one that closed.
            with suppress(OSError):
                os.write(2, b"\nstopping after this step; once more to stop without saving\n")

    def _is_asked(self) -> bool:
        """Whether any process was asked; all must call."""
        number = largest(self.asked or 0)
        if number:  # else left alone: the signal may be coming just now
            self.asked = number
        return number > 0

    def after_step(self, runner: Runner) -> None:
        """Between two steps."""
        if self._is_asked():
            self._stop(runner)

    def after_val_iter(self, runner: Runner, **_: Any) -> None:
        """In a validation, which a resumed run does again: the weights are put back in their places first.

        Several processes finish theirs, because their parts of it may have different numbers of batches.
        """
        if self.asked is not None and self.processes.count == 1:
            if self.averaging is not None:
                self.averaging.after_val_epoch(runner)
            self._stop(runner)

    def after_whole_epoch(self, runner: Runner) -> None:
        """After a validation."""
        if self._is_asked() and runner.epoch < runner.max_epochs:
            self._stop(runner)

    def _stop(self, runner: Runner) -> None:
        assert self.asked is not None
        self.save(runner)
        raise StoppedError(self.asked)

    def give_back(self) -> None:
        """The signals do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


def create_averaging(config: EmaConfig | None) -> EMAHook | None:
    """Averages of the running statistics too: they belong to the averaged weights."""
    if config is None:
        return None
    if config.gamma is None:
        return EMAHook(ema_type=ExponentialMovingAverage, momentum=config.momentum, update_buffers=True)
    return EMAHook(ema_type=MomentumAnnealingEMA, momentum=config.momentum, gamma=config.gamma, update_buffers=True)


def create_early_stop(config: EarlyStopConfig | None, monitor: str) -> EarlyStoppingHook | None:
    """Watches the figure `monitor` of the validations."""
    if config is None:
        return None
    least = max(config.min_delta, sys.float_info.epsilon)  # mmengine takes a score that is the same for a gain of 0
    return EarlyStoppingHook(f"val/{monitor}", rule="greater", min_delta=least, patience=config.patience)


def early_stop_state(hook: EarlyStoppingHook | None) -> dict[str, Any] | None:
    """mmengine's hook does not save its counter: plain data for a checkpoint."""
    return None if hook is None else {"wait_count": hook.wait_count, "best_score": float(hook.best_score)}


def restore_early_stop(hook: EarlyStoppingHook | None, state: dict[str, Any] | None) -> None:
    """The inverse; a hook that is new in this run begins to count now."""
    if hook is not None and state is not None:
        hook.wait_count, hook.best_score = state["wait_count"], state["best_score"]
