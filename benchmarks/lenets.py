"""LeNet-300-100 and LeNet-5 on digits, dense and by Deep Compression: what `deep_compression.py` trains.

The nets are those of Han et al., Deep Compression, ICLR 2016, arXiv:1510.00149, Tables 2 and 3 (266,610 and 431,080
parameters, biases included). A dense net is trained; then its pruning grows over half of the second training and is
held over the rest of it; then the shared values learn. All three stages see the same digits, moved by up to two pixels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress import gradual_density, pack, prune_, round_others_, share_, unpack

BATCH = 128
MARGIN = 2
_PRUNINGS = 25


class Digits(NamedTuple):
    """images [N, 28, 28] uint8, labels [N] int64; to learn from and to score by."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def without_test(self, held_out: int) -> Digits:
        """The last `held_out` digits of the training part in the place of the test part: to choose settings by."""
        cut = len(self.train_labels) - held_out
        train, labels = self.train_images, self.train_labels
        return Digits(train[:cut], labels[:cut], train[cut:], labels[cut:])


def read_digits(folder: Path) -> Digits:
    """The 8,500 and 1,500 digits of `mnist10k.npz`."""
    with np.load(folder / "mnist10k.npz") as file:
        names = ("train_images", "train_labels", "test_images", "test_labels")
        parts = [torch.from_numpy(file[name]) for name in names]
    return Digits(parts[0], parts[1].long(), parts[2], parts[3].long())


class Recipe(NamedTuple):
    """density: of the whole net after pruning; bits: of a cluster's index; index_bits: of a distance.

    The rates are those of SGD with momentum 0.9 at the beginning of each stage, and fall to nothing as a cosine.
    """

    density: float
    bits: dict[str, int]
    index_bits: dict[str, int]
    epochs: tuple[int, int, int]
    rates: tuple[float, float, float] = (0.1, 0.1, 1e-4)


def lenet_300_100() -> nn.Sequential:
    """Three linear layers, 266,610 parameters."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def lenet_5() -> nn.Sequential:
    """Caffe's LeNet-5, without ReLU behind the convolutions: 431,080 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


NETS: dict[str, Callable[[], nn.Sequential]] = {"lenet_300_100": lenet_300_100, "lenet_5": lenet_5}
RECIPES = {
    "lenet_300_100": Recipe(0.08, {"fc": 5}, {"fc": 5}, epochs=(20, 30, 2)),
    # From 0.1 on, one seed of three ran away.
    "lenet_5": Recipe(0.06, {"conv": 6, "fc": 5}, {"conv": 5, "fc": 5}, epochs=(8, 8, 2), rates=(0.05, 0.05, 1e-4)),
}


def normalize(images: Tensor) -> Tensor:
    """[N, 28, 28] uint8 -> [N, 1, 28, 28], 0..1."""
    return images[:, None].float() / 255


def moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """images [N, 28, 28], each moved by up to two pixels."""
    padded = F.pad(images, [MARGIN] * 4)
    side = torch.arange(images.shape[-1])
    rows, columns = (torch.randint(2 * MARGIN + 1, (len(images), 1), generator=generator) + side for _ in range(2))
    return padded[torch.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def learn(
    net: nn.Module,
    digits: Digits,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    seed: int,
    before_step: Callable[[int, int], None] | None = None,
) -> None:
    """Train by cross-entropy; `before_step(step, total)` is called before each step."""
    generator = torch.Generator().manual_seed(seed)
    steps = len(digits.train_labels) // BATCH
    total = epochs * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / total))
    net.train()
    for step in range(total):
        if step % steps == 0:
            order = torch.randperm(len(digits.train_labels), generator=generator)
        chosen = order[step % steps * BATCH :][:BATCH]
        if before_step is not None:
            before_step(step, total)
        images = normalize(moved(digits.train_images[chosen], generator))
        loss = F.cross_entropy(net(images), digits.train_labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.inference_mode()
def error_of(net: nn.Module, digits: Digits) -> float:
    """Wrong answers on the test part, in per cent."""
    net.eval()
    wrong = net(normalize(digits.test_images)).argmax(1) != digits.test_labels
    return 100 * wrong.float().mean().item()


def sgd(net: nn.Module, rate: float, decay: float = 5e-4) -> torch.optim.Optimizer:
    """SGD with momentum 0.9."""
    return torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=decay)


def train_dense(name: str, digits: Digits, recipe: Recipe, seed: int) -> nn.Sequential:
    """The net that is to be compressed."""
    torch.manual_seed(seed)
    net = NETS[name]()
    learn(net, digits, sgd(net, recipe.rates[0]), recipe.epochs[0], seed)
    return net


def prune_and_retrain(net: nn.Module, digits: Digits, recipe: Recipe, seed: int) -> None:
    """The first stage: the density falls in some 25 steps over the first half."""
    optimizer = sgd(net, recipe.rates[1])
    pruning = prune_(net, density=1.0, scope="net")
    pruning.hold(optimizer)

    def prune_further(step: int, total: int) -> None:
        nonlocal pruning
        every = max(total // 2 // _PRUNINGS, 1)
        last = total // 2 // every * every
        if step % every == 0 and step <= last:
            density = gradual_density(step, begin=0, end=last, final=recipe.density)
            pruning.release()
            pruning = prune_(net, density=density, scope="net")
            pruning.hold(optimizer)

    learn(net, digits, optimizer, recipe.epochs[1], seed + 100, prune_further)


def share_and_retrain(net: nn.Module, digits: Digits, recipe: Recipe, seed: int) -> None:
    """The second stage: the shared values learn by the sums of their weights' gradients."""
    optimizer = sgd(net, recipe.rates[2], decay=0.0)
    sharing = share_(net, bits=recipe.bits)
    sharing.hold(optimizer)
    learn(net, digits, optimizer, recipe.epochs[2], seed + 200)
    sharing.release()
    sharing.round_()
    round_others_(net)


def compress_one(name: str, digits: Digits, recipe: Recipe, seed: int, file: Path) -> dict[str, Any]:
    """Train and compress one net, write it, read it back, and score what was read: a row of the study."""
    started = time.perf_counter()
    net = train_dense(name, digits, recipe, seed)
    errors = {"dense": error_of(net, digits)}
    prune_and_retrain(net, digits, recipe, seed)
    errors["pruned"] = error_of(net, digits)
    share_and_retrain(net, digits, recipe, seed)
    packed = pack(net, {"name": name}, index_bits=recipe.index_bits)
    file.write_bytes(packed.content)
    read = NETS[name]()
    read.load_state_dict(unpack(file.read_bytes()).state)
    errors["packed"] = error_of(read, digits)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    size = file.stat().st_size
    return {
        "net": name, "seed": seed, "recipe": recipe._asdict(), "errors": errors, "bytes": size,
        "ratio": 4 * parameters / size, "seconds": time.perf_counter() - started,
        "layers": [account._asdict() for account in packed.accounts],
    }  # fmt: skip
