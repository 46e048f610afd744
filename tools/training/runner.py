"""mmengine's Runner for this project: what a step is, how an epoch can begin in its middle, where files do not go.

mmengine is given built objects only; it reads no config, writes no file and loads no checkpoint here.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from .sampler import TrainingSampler

Predict = Callable[[Any, Tensor, Any], Any]


class NotFiniteError(ValueError):
    """A loss, or the gradients, are not finite: the weights have not been changed by them. `terms`: what it was."""

    def __init__(self, terms: Mapping[str, float]) -> None:
        self.terms = dict(terms)
        super().__init__(f"not finite: {', '.join(f'{name} is {value}' for name, value in self.terms.items())}")


class Task(BaseModel):
    """A net with `losses(images, truth)` as mmengine wants it: the only place with a mode.

    predict: (net, images, truth) -> its answers, by default those of its own `predict(images)`; frozen_norms: parts of
    the net that stay in evaluation mode.
    """

    def __init__(
        self,
        net: nn.Module,
        memory_format: torch.memory_format = torch.contiguous_format,
        loss_options: Mapping[str, Any] | None = None,
        predict: Predict | None = None,
        frozen_norms: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.net = net.to(memory_format=memory_format)
        self.memory_format = memory_format
        self.loss_options = dict(loss_options or {})
        self.answer = predict
        self._frozen_norms = tuple(frozen_norms)  # a tuple, lest they are registered a second time

    def train(self, mode: bool = True) -> Task:
        """Training mode, except for what is frozen."""
        super().train(mode)
        for norm in self._frozen_norms:
            norm.eval()
        return self

    def forward(self, images: Tensor, truth: Any, mode: str = "predict") -> Any:
        """images [N, 3, H, W]; losses by name for mode "loss", predictions for "predict"."""
        images = images.contiguous(memory_format=self.memory_format)
        net: Any = self.net
        if mode == "loss":
            return net.losses(images, truth, **self.loss_options)
        return net.predict(images) if self.answer is None else self.answer(net, images, truth)

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """This process's sum, to learn from, and all of them averaged over the processes, to be told.

        NotFiniteError, in every process and before anything was changed, where one is not finite in any.
        """
        total, terms = super().parse_losses(losses)
        terms = _averaged(terms)
        if not math.isfinite(terms["loss"].item()):
            raise NotFiniteError(
                {name: term.item() for name, term in terms.items() if not math.isfinite(term.item()) and name != "loss"}
                or {"loss": terms["loss"].item()}
            )
        return total, terms


def _averaged(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same scalars, averaged over the processes."""
    if get_world_size() == 1:
        return terms
    values = torch.stack([term.detach().float() for term in terms.values()])
    all_reduce(values, op="mean")
    return dict(zip(terms, values.unbind(), strict=True))


class ClippingOptimWrapper(OptimWrapper):
    """Clips the gradients' norm; NotFiniteError, before the weights change, where it is not finite."""

    def __init__(self, optimizer: Optimizer, max_norm: float) -> None:
        super().__init__(optimizer, clip_grad={"max_norm": max_norm})
        self.max_norm = max_norm
        self.grad_norm: float | None = None

    def _clip_grad(self) -> None:
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.grad_norm = clip_grad_norm_(parameters, self.max_norm).item()
        if not math.isfinite(self.grad_norm):
            raise NotFiniteError({"the gradients' norm": self.grad_norm})


class TrainingLoop(EpochBasedTrainLoop):
    """Epochs that can begin at any batch. Hooks may have two methods more: `after_step` and `after_whole_epoch`.

    `position` counts the batches of the current epoch that are done; when all are, the validation may still be due.
    """

    def __init__(
        self, runner: Runner, dataloader: DataLoader, sampler: TrainingSampler, epochs: int, val_interval: int
    ):
        super().__init__(runner, dataloader, max_epochs=epochs, val_interval=val_interval)
        self.sampler = sampler
        self.position = 0

    def restore(self, epoch: int, position: int, iteration: int) -> None:
        """Go on from there. A position beyond the epoch, from a run with more batches in one, means its end."""
        self._epoch, self._iter, self.position = epoch, iteration, min(position, len(self.sampler))

    def run(self) -> nn.Module:
        """Train until the last epoch, or until a hook sets `stop_training`."""
        self.runner.call_hook("before_train")
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            if (self._epoch + 1) % self.val_interval == 0 or self._epoch + 1 == self._max_epochs:
                self.runner.val_loop.run()
            self._epoch += 1
            self.position = 0
            self.runner.call_hook("after_whole_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        """What is left of this epoch."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        self.sampler.set_position(self._epoch, self.position)
        if self.position < len(self.sampler):
            for batch in self.dataloader:
                self.run_iter(self.position, batch)
        self.runner.call_hook("after_train_epoch")

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """One step."""
        super().run_iter(idx, data_batch)
        self.position = idx + 1
        self.runner.call_hook("after_step")


class TrainingRunner(Runner):
    """A Runner that trains on `device`, keeps quiet, and leaves all files to the project's own hooks.

    `restore` is called once everything is built and `before_run` hooks are done: the place to load a checkpoint. With
    several processes each computes its part of a batch, and the gradients are averaged.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        sampler: TrainingSampler,
        restore: Callable[[Runner], None],
        some_rest: bool = False,
        **parts: Any,
    ):
        self.device, self._some_rest = device, some_rest
        self._sampler = sampler
        self._restore = restore
        no_hooks = dict.fromkeys(("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"))
        super().__init__(default_hooks=no_hooks, **parts)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:  # noqa: ARG002 (overrides)
        """To the device that was asked for; mmengine would take a GPU wherever there is one.

        Buffers are not sent around: `NormStatisticsHook` looks after those that change.
        """
        model = model.to(self.device)
        if not self.distributed:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            # torch 2.14 prefers a new word for broadcast_buffers, which torch 2.8 does not know.
            warnings.simplefilter("ignore", FutureWarning)
            return MMDistributedDataParallel(
                model, device_ids=devices, broadcast_buffers=False, find_unused_parameters=self._some_rest
            )

    def build_train_loop(self, loop: dict[str, Any]) -> TrainingLoop:
        """The loop that can begin in the middle of an epoch."""
        return TrainingLoop(self, self._train_dataloader, self._sampler, loop["max_epochs"], loop["val_interval"])

    def build_logger(self, log_level: int | str = "ERROR", log_file: str | None = None, **_: Any) -> MMLogger:  # noqa: ARG002
        """Without a file; the folder that was made for it goes."""
        os.rmdir(self._log_dir)
        return MMLogger.get_instance(self._experiment_name, log_level="ERROR")

    def load_or_resume(self) -> None:
        """By the project's own checkpoints."""
        self._restore(self)

    def dump_config(self) -> None:
        """Nothing: `train` writes the config that it was given."""

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Nothing: it would start compilers to ask for their versions."""
