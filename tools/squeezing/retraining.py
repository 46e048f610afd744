"""The trainings that squeezing asks for, by the ordinary loop. Between the stages of Deep Compression pruned weights
stay zero in the first, and weights that share a value learn together in the second; a net made binary trains once. All
go on where they were stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from backbones import load_weights
from backbones.files import write_atomically
from compress import Distiller, Pruning, Settings, Sharing
from pictures.report import counted

from ..configuration.config import find_config, load_config
from ..configuration.training_config import BinarizeConfig, TrainingConfig
from ..device import choose_device
from ..training.hooks import StoppedError
from ..training.journal import Screen
from ..training.loader_errors import in_one_line
from ..training.run_folder import only_run_in, run_session
from ..training.session import TrainingSession

PRUNING_RATE = 0.3
SHARING_RATE = 0.01
"""Parts of the config's learning rate: a trained net wants less (the paper: 1/10 and less), shared values, which get
the sums of many gradients, much less.
"""

# What the config's own training begins with.
_STARTS = ("weights", "new_classes", "backbone_weights", "detector_weights", "segmenter_weights", "backbone_of")
_WORDS_FILE = "squeeze.json"
Held = Pruning | Sharing


def retrain(args: argparse.Namespace, name: str, weights: Path, settings: Settings) -> tuple[nn.Module, Path]:
    """The net pruned, trained, shared and trained, as the words and the settings say, and the last training's file.

    Pictures have the sizes that the config's own training ended with. Raises ValueError or OSError in one line,
    InterruptedError where it was stopped: the same words then go on with it.
    """
    sharing_epochs = args.sharing_epochs or max(1, args.epochs // 4)
    pruning = {"density": settings.density, "quality": settings.quality, "scope": settings.scope}
    sharing = {"bits": settings.bits, "start": settings.start}
    stages = (("pruned", args.epochs, PRUNING_RATE, settings.prune_, pruning),
              ("shared", sharing_epochs, SHARING_RATE, settings.share_, sharing))  # fmt: skip
    with _training(args, name) as (config, folder, screen):
        if getattr(config, "binarize", None) is not None:
            raise ValueError(f"{find_config(args.config)} makes the net binary; that is for --method bwn or xnor")
        sizes = config.late_sizes.sizes if config.late_sizes else config.sizes
        for stage, epochs, rate, hold, words in stages:
            screen.say(f"{stage}: {counted(epochs, 'epochs')} in {folder / stage}")
            changed = dataclasses.replace(_changed(config, weights, epochs, rate), sizes=sizes, late_sizes=None)
            begun_with = _begun_with(folder / stage, weights, {**words, "skip": settings.skip})
            net, held = _train(changed, folder / stage, args.device, screen, hold, begun_with)
            weights = folder / stage / "best.safetensors"
            load_weights(net, weights, name=name)
            held.apply_()  # the file has rounded what must be the same, or zero
    return net.cpu(), weights


def retrain_binary(args: argparse.Namespace, name: str, weights: Path, binarize: BinarizeConfig) -> Path:
    """The file with the best weights of the net that was made binary and trained, at the config's own learning rate.

    Raises as `retrain`.
    """
    with _training(args, name) as (config, folder, screen):
        stage, epochs = folder / binarize.mode, args.epochs or config.epochs
        screen.say(f"{binarize.mode}: {counted(epochs, 'epochs')} in {stage}")
        late = config.late_sizes if config.late_sizes and config.late_sizes.after < epochs else None
        changed: Any = _changed(config, weights, epochs, 1.0)  # of a task whose configs know `binarize`
        if changed.binarize is not None:
            binarize = dataclasses.replace(binarize, keep_ends=changed.binarize.keep_ends)
        begun_with = _begun_with(stage, weights, dataclasses.asdict(binarize))
        session = _open(dataclasses.replace(changed, binarize=binarize, late_sizes=late), stage, args.device, screen)
        with only_run_in(stage):
            write_atomically(stage / _WORDS_FILE, begun_with)
            run_session(session, resume=True)
    return stage / "best.safetensors"


@contextmanager
def _training(args: argparse.Namespace, name: str) -> Iterator[tuple[Any, Path, Screen]]:
    """The config, the folder of the trainings, and the screen; what a training raises becomes one line."""
    config = load_config(args.config, args.set or [])
    if config.model["name"] != name:
        raise ValueError(f"{find_config(args.config)} trains {config.model['name']}, the weights are of {name}")
    screen = Screen()
    try:
        with in_one_line(args.config):
            yield config, args.work_dir or Path(f"{args.output}.training"), screen
    except StoppedError:
        raise InterruptedError("stopped and saved; the same words again go on with it") from None
    finally:
        screen.close()


def _begun_with(stage: Path, weights: Path, words: dict[str, Any]) -> bytes:
    """What the stage is begun with, by the words' meaning and the weights' contents, for its folder.

    ValueError where the folder holds a stage that was begun with something else: it would pass for the one asked for.
    """
    content = json.dumps({"weights": hashlib.sha256(weights.read_bytes()).hexdigest(), **words})
    now, path = json.loads(content), stage / _WORDS_FILE
    if not path.exists():
        return content.encode()
    before = json.loads(path.read_text(encoding="utf-8"))
    for key, value in now.items():
        if before.get(key) != value:
            said = "other weights" if key == "weights" else f"{key} {before.get(key)}, not {value}"
            raise ValueError(f"{stage} was begun with {said}; choose another --work-dir, or delete that folder")
    return content.encode()


def _changed(config: TrainingConfig, weights: Path, epochs: int, rate: float) -> TrainingConfig:
    """The config with other weights to start from, epochs, and another learning rate."""
    model: dict[str, Any] = {key: value for key, value in config.model.items() if key not in _STARTS}
    model["weights"] = str(weights.absolute())
    optimizer = dataclasses.replace(config.optimizer, lr=rate * config.optimizer.lr)
    every = min(config.validate_every, epochs)
    return dataclasses.replace(config, model=model, epochs=epochs, optimizer=optimizer, validate_every=every)


def _open(config: TrainingConfig, folder: Path, device: str | None, screen: Screen) -> TrainingSession:
    return TrainingSession(config, folder, choose_device(device), screen)


def _train(
    config: TrainingConfig,
    folder: Path,
    device: str | None,
    screen: Screen,
    hold: Callable[[nn.Module], Held],
    begun_with: bytes,
) -> tuple[nn.Module, Held]:
    session = _open(config, folder, device, screen)
    net = session.net.student if isinstance(session.net, Distiller) else session.net
    held = hold(net)
    optimizer: Optimizer = session.optimizer
    held.hold(optimizer)
    with only_run_in(folder):
        write_atomically(folder / _WORDS_FILE, begun_with)
        run_session(session, resume=True)
    held.release()
    return net, held
