"""The same small net with eight kinds of convolution, trained alike: accuracy beside what each of them costs.

    python benchmarks/factorized_study.py --work-dir runs/factorized [--data digits objects] [--seeds 0 1 2]
    python benchmarks/factorized_study.py --work-dir runs/factorized --choose
    python benchmarks/factorized_report.py --work-dir runs/factorized --output docs/factorized_study

The first line trains what is not trained yet: each run takes up to two minutes on one core, all of them some 40, and a
run that is done is kept in `runs.jsonl` and not run again. The second is how the learning rates were chosen: on the
standard convolution alone, and on a fifth of the training part; the test part is scored once a run, at its end. The
third makes the table and the plot. In the manner of arXiv:1608.04337 and of Table 4 of arXiv:1704.04861. Objects are
split by picture, so that no picture gives crops to both parts. SWIFTSIGHT_DATA names the folder of the pictures.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from object_crops import Crops, coco_mini, coco_person, data_folder, load_crops
from torch import Tensor, nn

from backbones.layers import ConvFactory, conv_norm_act, pooled_linear
from backbones.layers.factorized import CONVOLUTIONS

STEM_CHANNELS = 32
LAYERS = ((32, 1), (64, 2), (64, 1), (64, 1), (128, 2), (128, 1), (128, 1))  # (channels, stride)
RATES = (0.02, 0.05, 0.1, 0.2)

Key = tuple[str, str, int]  # data, convolution, seed
Runs = dict[Key, dict[str, Any]]


class Examples(NamedTuple):
    """Pictures to learn from, and those that are scored once a run."""

    train: Crops
    test: Crops


class Schedule(NamedTuple):
    """side: of the square that is cut at a place of its own from each picture, and from the middle for scoring.

    margin: zeros put around a picture before that; flips: half of the pictures are mirrored. The rate rises for a fifth
    of the steps and falls to nothing as a cosine.
    """

    epochs: int
    batch_size: int
    side: int
    lr: float
    margin: int = 0
    flips: bool = False
    weight_decay: float = 5e-4


def part_of(crops: Crops, indices: Tensor) -> Crops:
    """Only the crops at `indices`."""
    return Crops(crops.images[indices], crops.labels[indices], crops.pictures[indices], crops.class_names)


def digits() -> Examples:
    """10,000 digits of MNIST, 1,500 of them for scoring; every digit is a picture of its own."""
    names = tuple(map(str, range(10)))
    parts = []
    with np.load(data_folder() / "mnist10k.npz") as file:
        for part in ("train", "test"):
            images = torch.from_numpy(file[f"{part}_images"])[:, None].repeat(1, 3, 1, 1)
            labels = torch.from_numpy(file[f"{part}_labels"]).long()
            parts.append(Crops(images, labels, torch.arange(len(labels)), names))
    return Examples(*parts)


def objects() -> Examples:
    """Crops of the 12 most frequent classes, at most 200 of each; two fifths of the pictures are for scoring."""
    data = data_folder()
    sources = [coco_mini(data), coco_person(data)]
    crops = load_crops(sources, side=48, context=1.2, num_classes=12, most_of_a_class=200)
    return Examples(*(part_of(crops, part) for part in crops.split_by_picture(0.4, seed=0)))


SETS: dict[str, tuple[Callable[[], Examples], Schedule]] = {
    "digits": (digits, Schedule(epochs=5, batch_size=64, side=28, margin=2, lr=0.05)),
    "objects": (objects, Schedule(epochs=50, batch_size=32, side=40, flips=True, lr=0.05)),
}


def build(conv: ConvFactory, num_classes: int) -> nn.Sequential:
    """A stem that halves the picture, seven layers of one kind, each with norm and ReLU, average, linear layer."""
    rows: list[nn.Module] = [conv_norm_act(3, STEM_CHANNELS, 3, 2)]
    before = STEM_CHANNELS
    for channels, stride in LAYERS:
        rows.append(nn.Sequential(conv(before, channels, stride), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)))
        before = channels
    return nn.Sequential(*rows, pooled_linear(before, num_classes))


def normalize(images: Tensor) -> Tensor:
    """uint8 -> -2..2."""
    return images.float() / 64 - 2


def vary(images: Tensor, schedule: Schedule, generator: torch.Generator) -> Tensor:
    """images [N, 3, H, W] -> [N, 3, side, side], each cut at its own place and mirrored or not."""
    padded = F.pad(images, [schedule.margin] * 4)
    room = padded.shape[-1] - schedule.side + 1
    places = torch.randint(room, (len(images), 2), generator=generator).tolist()
    cuts = [
        image[:, y : y + schedule.side, x : x + schedule.side] for image, (y, x) in zip(padded, places, strict=True)
    ]
    mirrored = torch.rand(len(images), generator=generator) < (0.5 if schedule.flips else 0)
    made = torch.stack(cuts)
    return torch.where(mirrored[:, None, None, None], made.flip(-1), made)


def middle(images: Tensor, side: int) -> Tensor:
    """The square of that side in the middle."""
    start = (images.shape[-1] - side) // 2
    return images[..., start : start + side, start : start + side]


def batches(count: int, schedule: Schedule, generator: torch.Generator) -> list[Tensor]:
    """The indices of every step: each epoch in a new order, without what does not fill a batch."""
    size = schedule.batch_size
    orders = [torch.randperm(count, generator=generator) for _ in range(schedule.epochs)]
    return [order[start : start + size] for order in orders for start in range(0, count - size + 1, size)]


def train(net: nn.Module, crops: Crops, schedule: Schedule, seed: int) -> float:
    """Train as the schedule says; the mean loss of the last epoch."""
    generator = torch.Generator().manual_seed(seed)
    steps = batches(len(crops.labels), schedule, generator)
    optimizer = torch.optim.SGD(
        net.parameters(), schedule.lr, momentum=0.9, weight_decay=schedule.weight_decay, nesterov=True
    )
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.lr, total_steps=len(steps), pct_start=0.2, cycle_momentum=False
    )
    net.train()
    losses = []
    for chosen in steps:
        images = normalize(vary(crops.images[chosen], schedule, generator))
        loss = F.cross_entropy(net(images), crops.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        losses.append(loss.item())
    last = losses[-(len(steps) // schedule.epochs) :]
    return sum(last) / len(last)


def accuracy(net: nn.Module, crops: Crops, side: int) -> float:
    """The share of right answers, 0..1."""
    net.eval()
    with torch.inference_mode():
        answers = [net(normalize(batch)).argmax(1) for batch in middle(crops.images, side).split(250)]
    return (torch.cat(answers) == crops.labels).double().mean().item()


def run_one(conv: str, examples: Examples, schedule: Schedule, seed: int) -> dict[str, Any]:
    """Train one net from the seed and score it; seconds of processor time."""
    torch.manual_seed(seed)
    net = build(CONVOLUTIONS[conv], len(examples.train.class_names))
    start = time.process_time()
    loss = train(net, examples.train, schedule, seed)
    if not math.isfinite(loss):
        raise ValueError(f"{conv}: the loss is {loss} at lr {schedule.lr}")
    seconds = round(time.process_time() - start, 1)
    return {"accuracy": accuracy(net, examples.test, schedule.side), "train_loss": loss, "seconds": seconds}


def describe(examples: Examples) -> dict[str, Any]:
    """What a reader must know of the set to judge an accuracy."""
    counts = examples.test.labels.bincount(minlength=len(examples.test.class_names))
    return {
        "classes": list(examples.test.class_names),
        "train": len(examples.train.labels),
        "test": len(examples.test.labels),
        "largest_share": counts.max().item() / counts.sum().item(),
    }


def read_runs(path: Path) -> Runs:
    """The runs that are done; ValueError for one that was made by another schedule than today's."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    runs = {(run["data"], run["conv"], run["seed"]): run for run in map(json.loads, lines)}
    for (data, conv, seed), run in runs.items():
        if run["schedule"] != SETS[data][1]._asdict():
            raise ValueError(f"{path}: {data}, {conv}, seed {seed} had another schedule: name another --work-dir")
    return runs


def run_all(path: Path, sets: Sequence[str], seeds: Sequence[int]) -> None:
    """Train everything that `path` does not hold yet, seed by seed, so that an early stop leaves whole rounds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    loaded = {name: SETS[name][0]() for name in sets}
    done = read_runs(path)
    todo = [(name, conv, seed) for seed in seeds for name in sets for conv in CONVOLUTIONS]
    for name, conv, seed in (key for key in todo if key not in done):
        schedule = SETS[name][1]
        run = {"data": name, "conv": conv, "seed": seed, **run_one(conv, loaded[name], schedule, seed)}
        run |= {"schedule": schedule._asdict(), "set": describe(loaded[name])}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run) + "\n")
        print(name, conv, seed, f"{run['accuracy']:.4f}", f"{run['seconds']} s", flush=True)


def choose_rates(sets: Sequence[str], seeds: Sequence[int]) -> None:
    """Print what the standard convolution reaches on a fifth of the training part, for every rate."""
    for name in sets:
        load, schedule = SETS[name]
        kept = load().train
        inner = Examples(*(part_of(kept, part) for part in kept.split_by_picture(0.2, seed=1)))
        for lr in RATES:
            runs = [run_one("standard", inner, schedule._replace(lr=lr), seed) for seed in seeds]
            scores = " ".join(f"{run['accuracy']:.4f}" for run in runs)
            print(f"{name}: lr {lr}, accuracy on {len(inner.test.labels)} held out: {scores}", flush=True)


def main() -> None:
    """Reads the arguments; trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--data", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--choose", action="store_true", help="compare learning rates instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.choose:
        choose_rates(args.data, args.seeds)
    else:
        run_all(args.work_dir / "runs.jsonl", args.data, args.seeds)


if __name__ == "__main__":
    main()
