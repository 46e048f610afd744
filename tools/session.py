"""One training: the objects built from a config, put together with mmengine, saved and restored as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import EarlyStoppingHook, EMAHook, Hook
from mmengine.model import ExponentialMovingAverage, MomentumAnnealingEMA
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner, set_random_seed

from . import assembly
from .checkpoint import CheckpointFolder, random_states, restore_random_states, save_checkpoint
from .config import DEFAULT_TASK, as_plain, differences
from .hooks import (
    BestHook,
    CheckpointHook,
    JournalHook,
    ScheduleHook,
    StopHook,
    early_stop_state,
    restore_early_stop,
)
from .journal import Screen
from .runner import ClippingOptimWrapper, NotFiniteError, Task, TrainingRunner
from .sampler import TrainingSampler
from .schedule import learning_rate_factor
from .schema import section
from .training_config import TrainingConfig
from .training_task import open_task

_NUMBERS = itertools.count()  # mmengine keeps what belongs to a run under its name, as long as the process lives
Checkpoint = tuple[Path, dict[str, Any]]

# What a resumed run may change without a word, besides its task's own keys: none of it changes a number.
_FREE = ("workers", "log_every", "checkpoint")
# What it may not change: the saved tensors would not fit, or would mean something else.
_FIXED = ("task", "model", "data.class_names", "optimizer.kind", "optimizer.lr_factors", "ema")


class TrainingSession:
    """Everything that is trained, and how. Raises ValueError or OSError for whatever does not fit, in one line."""

    def __init__(self, config: TrainingConfig, work_dir: Path, device: torch.device, screen: Screen) -> None:
        self.config, self.work_dir, self.device, self.screen = config, work_dir, device, screen
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        set_random_seed(config.seed)  # the net's first weights
        self.task = open_task(config)
        self.net = self.task.create_net()
        late = (config.late_sizes.after, config.late_sizes.sizes) if config.late_sizes else None
        pictures = len(self.task.train_data)
        with section("batch_size"):
            self.sampler = TrainingSampler(pictures, config.batch_size, config.sizes, config.seed, late=late)
        with section("optimizer"):
            self.optimizer = assembly.create_optimizer(self.net, config.optimizer)
        self.checkpoints = CheckpointFolder(work_dir, config.checkpoint.keep_last)
        self.averaging = _averaging(config)
        self.stopping = _early_stopping(config)
        self.best = BestHook(f"val/{config.monitor}", self.save_best, screen)
        self.journal = JournalHook(work_dir, screen, config.log_every)
        self.stop = StopHook(self.save, self.averaging)

    def check_resumable(self, state: Mapping[str, Any]) -> None:
        """Tell what changed since the checkpoint was written. ValueError where it could not go on with that."""
        before = {"task": DEFAULT_TASK, **state["config"]}  # older runs knew only one
        changes = {key: change for key, change in differences(before, as_plain(self.config)).items()
                   if not _is_under(key, (*_FREE, *self.task.free_keys))}  # fmt: skip
        for key, (then, now) in changes.items():
            if _is_under(key, _FIXED):
                raise ValueError(f"cannot resume: {key} was {then!r} and is {now!r} now; choose another --work-dir")
            self.screen.say(f"warning: {key} was {then!r} and is {now!r} now: not the run that it would have been")
        self._check_same_data(state.get("data", self._data_state()))

    def _data_state(self) -> dict[str, Any]:
        """What must be the same when the run goes on."""
        return {"class_names": list(self.task.class_names), "pictures": len(self.task.train_data)}

    def _check_same_data(self, before: Mapping[str, Any]) -> None:
        now = self._data_state()
        if before["class_names"] != now["class_names"]:
            odd = sorted(set(before["class_names"]) ^ set(now["class_names"])) or ["their order"]
            raise ValueError(f"cannot resume: the data has other classes now ({', '.join(odd[:5])})")
        if before["pictures"] != now["pictures"]:
            change = f"{before['pictures']} pictures to train on before, {now['pictures']} now"
            self.screen.say(f"warning: {change}: not the run that it would have been")

    def run(self, checkpoint: Checkpoint | None) -> None:
        """Train to the end, from the checkpoint if there is one. StoppedError after a signal."""
        config = self.config
        self._say_what()
        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        collate = self.task.collate
        self.runner = TrainingRunner(
            device=self.device,
            sampler=self.sampler,
            restore=partial(self._restore, checkpoint),
            model=Task(self.net, memory_format, self.task.loss_options, self.task.predict),
            work_dir=str(self.work_dir),
            train_dataloader=assembly.training_loader(
                self.task.train_data, self.sampler, config.workers, collate=collate, pin=self.device.type == "cuda"
            ),
            train_cfg={"by_epoch": True, "max_epochs": config.epochs, "val_interval": config.validate_every},
            optim_wrapper=self._optim_wrapper(),
            val_dataloader=assembly.validation_loader(
                self.task.val_data, config.eval_batch_size, config.workers, collate=collate
            ),
            val_cfg={},
            val_evaluator=[self.task.create_metric()],
            custom_hooks=self._hooks(),
            randomness={"seed": config.seed},
            experiment_name=f"{config.model['name']}_{next(_NUMBERS)}",
        )
        try:
            self.runner.train()
        except NotFiniteError as error:
            raise ValueError(f"{error}; {self._keep_batch(error)}") from None
        finally:
            self.stop.give_back()
            self.journal.close()
        self._say_end()

    def save(self, runner: Runner) -> None:
        """A checkpoint of everything, between two steps."""
        loop = runner.train_loop
        scaler = getattr(runner.optim_wrapper, "loss_scaler", None)
        state = {
            "config": as_plain(self.config),
            "epoch": runner.epoch,
            "position": loop.position,
            "step": runner.iter,
            "net": dict(self.net.state_dict()),
            "averaged": None if self.averaging is None else dict(self.averaging.ema_model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "best": self.best.state(),
            "early_stop": early_stop_state(self.stopping),
            "stopped_early": bool(loop.stop_training),
            "random": random_states(),
            "data": self._data_state(),
        }
        self.checkpoints.save(state, runner.iter, self.best.step)

    def save_best(self, net: Any) -> None:
        """The best weights so far, averaged where there is an average, for everybody's use."""
        self.task.save(net, self.work_dir / "best.safetensors")

    def _restore(self, checkpoint: Checkpoint | None, runner: Runner) -> None:
        """Called by the runner when all is built. The random states come last: nothing may draw after them."""
        if checkpoint is None:
            return
        path, state = checkpoint
        runner.train_loop.restore(state["epoch"], state["position"], state["step"])
        runner.train_loop.stop_training = state["stopped_early"]
        try:
            self.net.load_state_dict(state["net"])
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit this net: {str(error).splitlines()[-1].strip()}") from None
        if self.averaging is not None:
            self.averaging.ema_model.load_state_dict(state["averaged"])
        self._restore_optimizer(state["optimizer"])
        if state["scaler"] is not None and isinstance(runner.optim_wrapper, AmpOptimWrapper):
            runner.optim_wrapper.loss_scaler.load_state_dict(state["scaler"])
        self.best.restore(state["best"])
        restore_early_stop(self.stopping, state["early_stop"])
        restore_random_states(state["random"])
        place = f"epoch {state['epoch'] + 1}, batch {state['position'] + 1}"
        self.screen.say(f"going on from {path.name}: {place}, after {state['step']} steps")

    def _restore_optimizer(self, state: dict[str, Any]) -> None:
        """Momenta and steps from the checkpoint; decay and the like as the config says now."""
        said = [{name: value for name, value in group.items() if name not in ("params", "lr")}
                for group in self.optimizer.param_groups]  # fmt: skip
        self.optimizer.load_state_dict(state)
        for group, own in zip(self.optimizer.param_groups, said, strict=True):
            group.update(own)

    def _optim_wrapper(self) -> OptimWrapper:
        limit = self.config.clip_grad
        mixed = self.config.precision == "mixed"
        if mixed and self.device.type == "cuda":
            clip = None if limit is None else {"max_norm": limit}  # the scaler deals with what is not finite
            return AmpOptimWrapper(optimizer=self.optimizer, clip_grad=clip)
        if mixed:
            self.screen.say("precision is mixed, but the CPU trains in float32")
        return OptimWrapper(self.optimizer) if limit is None else ClippingOptimWrapper(self.optimizer, limit)

    def _hooks(self) -> list[Hook]:
        config = self.config
        factor = learning_rate_factor(config.schedule, len(self.sampler), config.epochs)
        rates = [group["lr"] for group in self.optimizer.param_groups]
        hooks = [
            ScheduleHook(factor, rates),
            self.journal,
            self.best,
            CheckpointHook(self.save, self.best, config.checkpoint.every_epochs, config.checkpoint.every_iters),
            self.stop,
        ]
        return hooks + [hook for hook in (self.averaging, self.stopping) if hook is not None]

    def _keep_batch(self, error: NotFiniteError) -> str:
        """Write down the batch that was being trained, to look at it; gives the sentence for the message."""
        loop = self.runner.train_loop
        requests = self.sampler.batch(loop.epoch, loop.position)
        # Made once more: the same requests give the same bytes.
        images, truth = self.task.collate([self.task.train_data[request] for request in requests])
        path = self.work_dir / "not_finite_batch.pt"
        save_checkpoint(
            path,
            {
                "terms": error.terms,
                "epoch": loop.epoch,
                "step": loop.iter,
                "requests": [[index, seed, list(size)] for index, seed, size in requests],
                "images": images,
                **self.task.describe(requests, truth),
                "net": dict(self.net.state_dict()),
            },
        )
        return f"epoch {loop.epoch + 1}, batch {loop.position + 1}; the batch is kept in {path}"

    def _say_what(self) -> None:
        config = self.config
        names = self.task.class_names
        classes = ", ".join(names) if len(names) <= 20 else f"{len(names)} classes, {', '.join(names[:5])} ..."
        self.screen.say(f"{config.model['name']} for {classes}; on {self.device}")
        self.screen.say(f"train: {self.task.train_data.report}")
        self.screen.say(f"val: {self.task.val_data.report}")
        size = f"{config.epochs} epochs of {len(self.sampler)} batches of {config.batch_size}"
        self.screen.say(f"{size}, in {self.work_dir}")

    def _say_end(self) -> None:
        if self.best.score is not None:
            best = f"{self.config.monitor} {self.best.score:.4f} after {self.best.step} steps"
            self.screen.say(f"done: the best, {best}, is {self.work_dir / 'best.safetensors'}")


def _averaging(config: TrainingConfig) -> EMAHook | None:
    """Averages of the running statistics too: they belong to the averaged weights."""
    if config.ema is None:
        return None
    momentum, gamma = config.ema.momentum, config.ema.gamma
    if gamma is None:
        return EMAHook(ema_type=ExponentialMovingAverage, momentum=momentum, update_buffers=True)
    return EMAHook(ema_type=MomentumAnnealingEMA, momentum=momentum, gamma=gamma, update_buffers=True)


def _early_stopping(config: TrainingConfig) -> EarlyStoppingHook | None:
    stop = config.early_stop
    if stop is None:
        return None
    return EarlyStoppingHook(f"val/{config.monitor}", rule="greater", min_delta=stop.min_delta, patience=stop.patience)


def _is_under(key: str, parents: tuple[str, ...]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)
