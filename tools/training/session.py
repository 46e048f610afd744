"""One training: the objects built from a config, put together with mmengine, saved and restored as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.dist import barrier
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner, set_random_seed
from torch import nn

from compress.distill import Distiller
from pictures.report import counted

from ..configuration.config import DEFAULT_TASK, as_plain, differences
from ..configuration.schema import section
from ..configuration.training_config import TrainingConfig
from . import assembly
from .checkpoint import CheckpointFolder, random_states, restore_random_states, save_checkpoint
from .freezing import freeze
from .hooks import (
    BestHook,
    CheckpointHook,
    JournalHook,
    NormStatisticsHook,
    ScheduleHook,
    StopHook,
    create_averaging,
    create_early_stop,
    early_stop_state,
    restore_early_stop,
)
from .journal import Screen
from .processes import Processes, gather
from .runner import ClippingOptimWrapper, NotFiniteError, Task, TrainingRunner
from .sampler import TrainingSampler, repeat_factors
from .schedule import learning_rate_factor, long_warmup
from .score_rule import scores_otherwise
from .tasks import open_task

_NUMBERS = itertools.count()  # mmengine keeps what belongs to a run under its name, as long as the process lives
Checkpoint = tuple[Path, dict[str, Any]]

# What a resumed run may change without a word, besides its task's own keys: none of it changes a number.
_FREE = ("workers", "log_every", "checkpoint")
# What it may not change: the saved tensors would not fit, or would mean something else.
_FIXED = ("task", "model", "freeze", "binarize", "data.class_names", "optimizer.kind", "optimizer.lr_factors", "ema")


class TrainingSession:
    """Everything that is trained, and how. Raises ValueError or OSError for whatever does not fit, in one line."""

    def __init__(
        self,
        config: TrainingConfig,
        work_dir: Path,
        device: torch.device,
        screen: Screen,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
    ) -> None:
        self.config, self.work_dir, self.device, self.screen = config, work_dir, device, screen
        self.processes = processes
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        set_random_seed(config.seed)  # the net's first weights
        self.task = open_task(config)
        self.net = self.task.create_net()
        with section("freeze"):
            self.frozen_norms = freeze(self.net, config.freeze or ())
        self.sampler = self._create_sampler()
        with section("optimizer"):
            self.optimizer = assembly.create_optimizer(self.net, config.optimizer)
        self.checkpoints = CheckpointFolder(work_dir, config.checkpoint.keep_last)
        self.averaging = create_averaging(config.ema)
        self.stopping = create_early_stop(config.early_stop, config.monitor)
        self.best = BestHook(f"val/{config.monitor}", self.save_best, screen)
        self.journal = JournalHook(work_dir, screen, config.log_every)
        self._scored_otherwise = False
        self.stop = StopHook(self.save, self.averaging, processes)
        self._check_same_everywhere()

    def _create_sampler(self) -> TrainingSampler:
        config = self.config
        data: Any = self.task.train_data
        late = (config.late_sizes.after, config.late_sizes.sizes) if config.late_sizes else None
        balance = getattr(config.data, "class_balance", None)
        repeats = None if balance is None else repeat_factors(data.labels_per_picture(), balance)
        share = (self.processes.rank, self.processes.count)
        with section("batch_size"):
            return TrainingSampler(
                len(data), config.batch_size, config.sizes, config.seed, late=late, repeats=repeats, share=share
            )

    def _check_same_everywhere(self) -> None:
        """ValueError in every process where one sees other data than the first; none goes on before all are here."""
        states = gather(self._data_state())
        for rank, state in enumerate(states):
            for what, value in state.items():
                if value != states[0][what]:
                    said = f"process {rank} has {what} {value}, process 0 has {states[0][what]}"
                    raise ValueError(f"{said}; expected the same data for every process")

    def check_resumable(self, state: Mapping[str, Any]) -> None:
        """Tell what changed since the checkpoint was written. ValueError where it could not go on with that."""
        before = {"task": DEFAULT_TASK, **state["config"]}  # older runs knew only one
        changes = {key: change for key, change in differences(before, as_plain(self.config)).items()
                   if not _is_under(key, (*_FREE, *self.task.free_keys))}  # fmt: skip
        for key, (then, now) in changes.items():
            if _is_under(key, _FIXED):
                raise ValueError(f"cannot resume: {key} was {then!r} and is {now!r} now; choose another --work-dir")
            self.screen.say(f"warning: {key} was {then!r} and is {now!r} now: not the run that it would have been")
        self._scored_otherwise = scores_otherwise(changes)
        self._check_same_data(state.get("data", self._data_state()))
        self._check_same_processes(1 + len(state.get("random_elsewhere", ())))

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

    def _check_same_processes(self, before: int) -> None:
        if before != self.processes.count:
            change = f"{before} processes before, {self.processes.count} now"
            self.screen.say(f"warning: {change}: the same batches, but other norms and random numbers")

    def run(self, checkpoint: Checkpoint | None) -> None:
        """Train to the end, from the checkpoint if there is one. StoppedError after a signal."""
        self._say_what()
        # mmengine makes its folder in every process; only that of the first one is the run's.
        with TemporaryDirectory() as elsewhere:
            self.runner = self._create_runner(checkpoint, self.work_dir if self.processes.is_first else Path(elsewhere))
            try:
                self.runner.train()
            except NotFiniteError as error:
                raise ValueError(f"{error}; {self._keep_batch(error)}") from None
            finally:
                self.stop.give_back()
                self.journal.close()
        self._say_end()

    def _create_runner(self, checkpoint: Checkpoint | None, folder: Path) -> TrainingRunner:
        config, task = self.config, self.task
        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        loss_options, predict, norms = task.loss_options, task.predict, self.frozen_norms
        pin = self.device.type == "cuda"
        metric = task.create_metric()
        metric.collect_device = "gpu"  # in mmengine's words: through the group, not through files that all can see
        return TrainingRunner(
            device=self.device,
            # A teacher's lesson, or pictures with one kind of truth, may leave parts of a net without a gradient.
            some_rest=getattr(config, "distill", None) is not None or config.task == "joint",
            sampler=self.sampler,
            restore=partial(self._restore, checkpoint),
            model=Task(self.net, memory_format, loss_options, predict, norms),
            work_dir=str(folder),
            train_dataloader=assembly.training_loader(
                task.train_data, self.sampler, config.workers, collate=task.collate, pin=pin
            ),
            train_cfg={"by_epoch": True, "max_epochs": config.epochs, "val_interval": config.validate_every},
            optim_wrapper=self._optim_wrapper(),
            val_dataloader=assembly.validation_loader(
                task.val_data,
                config.eval_batch_size,
                config.workers,
                collate=task.collate,
                share=(self.processes.rank, self.processes.count),
            ),
            val_cfg={},
            val_evaluator=[metric],
            custom_hooks=self._hooks(),
            launcher=self.processes.launcher,
            randomness={"seed": config.seed, "diff_rank_seed": True},
            experiment_name=f"{config.model['name']}_{next(_NUMBERS)}",
        )

    def save(self, runner: Runner) -> None:
        """A checkpoint of everything, between two steps; every process has to come here, and the first one writes."""
        randoms = gather(random_states())
        if not self.processes.is_first:
            return
        loop = runner.train_loop
        scaler = getattr(runner.optim_wrapper, "loss_scaler", None)
        state = {
            "config": as_plain(self.config),
            "epoch": runner.epoch,
            "position": loop.position,
            "step": runner.iter,
            "net": dict(self.net.state_dict()),
            "regressors": dict(self._regressors().state_dict()),
            "averaged": None if self.averaging is None else dict(self.averaging.ema_model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "best": self.best.state(),
            "early_stop": early_stop_state(self.stopping),
            "stopped_early": bool(loop.stop_training),
            "random": randoms[0],
            "random_elsewhere": randoms[1:],
            "data": self._data_state(),
        }
        self.checkpoints.save(state, runner.iter, self.best.step)

    def is_finished(self, state: Mapping[str, Any]) -> bool:
        """Whether a checkpoint's run is at its end; one that was stopped early is, until `early_stop` is changed."""
        same_rule = as_plain(self.config)["early_stop"] == state["config"].get("early_stop")
        return bool(state["epoch"] >= self.config.epochs or (state["stopped_early"] and same_rule))

    def _regressors(self) -> nn.Module:
        """What learns beside the net under a teacher, and is no part of its state dict."""
        return self.net.regressors if isinstance(self.net, Distiller) else nn.ModuleList()

    def save_best(self) -> None:
        """The best weights so far, averaged where there is an average, for everybody's use."""
        if self.processes.is_first:
            self.task.save(self.net, self.work_dir / "best.safetensors")

    def _restore(self, checkpoint: Checkpoint | None, runner: Runner) -> None:
        """Called by the runner when all is built. The random states come last: nothing may draw after them."""
        if checkpoint is None:
            return
        path, state = checkpoint
        runner.train_loop.restore(state["epoch"], state["position"], state["step"])
        for part, stored in ((self.net, state["net"]), (self._regressors(), state.get("regressors", {}))):
            try:
                part.load_state_dict(stored)
            except RuntimeError as error:
                what = "net" if part is self.net else "distill.hints"
                raise ValueError(f"{path} does not fit this {what}: {str(error).splitlines()[-1].strip()}") from None
        if self.averaging is not None:
            self.averaging.ema_model.load_state_dict(state["averaged"])
        self._restore_optimizer(state["optimizer"])
        if state["scaler"] is not None and isinstance(runner.optim_wrapper, AmpOptimWrapper):
            runner.optim_wrapper.loss_scaler.load_state_dict(state["scaler"])
        self.best.restore(state["best"])
        if self._scored_otherwise:
            self.screen.say("figures mean something else now: the best weights are chosen anew from here on")
            self.best.forget()
        else:
            restore_early_stop(self.stopping, state["early_stop"])
        randoms = [state["random"], *state.get("random_elsewhere", ())]
        if self.processes.rank < len(randoms):
            restore_random_states(randoms[self.processes.rank])
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
            self.journal if self.processes.is_first else None,
            NormStatisticsHook(self.net) if self.processes.count > 1 else None,
            self.best,
            CheckpointHook(self.save, self.best, config.checkpoint.every_epochs, config.checkpoint.every_iters),
            self.stop,
            self.averaging,
            self.stopping,
        ]
        return [hook for hook in hooks if hook is not None]

    def _keep_batch(self, error: NotFiniteError) -> str:
        """Write down the batch that was being trained, to look at it; gives the sentence for the message."""
        loop = self.runner.train_loop
        place, path = f"epoch {loop.epoch + 1}, batch {loop.position + 1}", self.work_dir / "not_finite_batch.pt"
        if self.processes.is_first:
            requests = self.sampler.batch(loop.epoch, loop.position)
            # Made once more, the parts of all processes: the same requests give the same bytes.
            images, truth = self.task.collate([self.task.train_data[request] for request in requests])
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
        barrier()  # whoever ends first has torchrun end the others
        return f"{place}; the batch is kept in {path}"

    def _say_what(self) -> None:
        config = self.config
        names = self.task.class_names
        classes = ", ".join(names) if len(names) <= 20 else f"{len(names)} classes, {', '.join(names[:5])} ..."
        self.screen.say(f"{config.model['name']} for {classes}; on {self.device}")
        self.screen.say(f"train: {self.task.train_data.report}")
        self.screen.say(f"val: {self.task.val_data.report}")
        if getattr(config, "distill", None) is not None:
            self.screen.say(f"taught by {config.distill.teacher}")  # type: ignore[attr-defined]
        if self.sampler.repeats is not None:
            most = self.sampler.repeats.max()
            shown = f"{self.sampler.shown} an epoch, a picture up to {most:.2f} times on average"
            self.screen.say(f"class balance: {shown}")
        if config.freeze:
            left = sum(parameter.numel() for parameter in self.net.parameters() if parameter.requires_grad)
            self.screen.say(f"frozen: {', '.join(config.freeze)}; {left:,} parameters learn")
        warning = long_warmup(config.schedule, len(self.sampler) * config.epochs)
        if warning is not None:
            self.screen.say(f"warning: {warning}")
        size = f"{counted(config.epochs, 'epochs')} of {counted(len(self.sampler), 'batches')} of {config.batch_size}"
        shared = f" shared by {self.processes.count} processes" if self.processes.count > 1 else ""
        self.screen.say(f"{size}{shared}, in {self.work_dir}")

    def _say_end(self) -> None:
        if self.runner.train_loop.stop_training and self.stopping is not None:
            rule = f"{self.config.monitor} was no better in {self.stopping.wait_count} validations, or no number"
            self.screen.say(f"stopped early: {rule}")
        if self.best.step is not None:
            score = "undefined" if self.best.score is None else f"{self.best.score:.4f}"
            best = f"{self.config.monitor} {score} after {self.best.step} steps"
            self.screen.say(f"done: the best, {best}, is {self.work_dir / 'best.safetensors'}")


def _is_under(key: str, parents: tuple[str, ...]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)
