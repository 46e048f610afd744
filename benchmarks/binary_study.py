"""Small nets with real weights, binary weights (BWN), and binary weights and inputs (XNOR), trained alike.

    python benchmarks/binary_study.py --work-dir runs/binary [--data digits objects] [--seeds 0 1 2]
    python benchmarks/binary_study.py --work-dir runs/binary --choose
    python benchmarks/binary_study.py --work-dir runs/binary --table

The first line trains what is not trained yet: each run takes about a minute on one core, and one that is done is kept
in `runs.jsonl` and not run again. The second is how the learning rates were chosen: on a fifth of the training part, so
that the test part is scored once a run, at its end. The third prints the table. Sets and schedules are those of
`factorized_study.py`; the nets are LeNet-5 with batch norm for digits, and for objects that study's net. The first
convolution and the last linear layer stay real. SWIFTSIGHT_DATA names the folder of the pictures.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from factorized_study import SETS, Examples, Schedule, accuracy, build, part_of, train
from torch import nn

from backbones.layers.factorized import CONVOLUTIONS
from compress import binarize_, deploy_bits

MODES: dict[str, dict[str, Any]] = {
    "real": {},
    "bwn": {"mode": "bwn"},
    "xnor": {"mode": "xnor"},
    "xnor_k": {"mode": "xnor", "scale_inputs": True},
}
LABELS = {"real": "real", "bwn": "BWN", "xnor": "XNOR", "xnor_k": "XNOR with K"}
CHOICES = (0.02, 0.05, 0.1, 0.2)
RATES = {
    "digits": {"real": 0.05, "bwn": 0.05, "xnor": 0.05, "xnor_k": 0.05},
    "objects": {"real": 0.05, "bwn": 0.05, "xnor": 0.05, "xnor_k": 0.05},
}

Key = tuple[str, str, int]  # data, mode, seed


def lenet_5(num_classes: int) -> nn.Sequential:
    """LeNet-5 as Caffe has it (20 and 50 filters, 500 units), with norms and ReLUs; pictures [N, 3, 28, 28]."""
    return nn.Sequential(
        nn.Conv2d(3, 20, 5), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5), nn.BatchNorm2d(50), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(800, 500), nn.BatchNorm1d(500), nn.ReLU(), nn.Linear(500, num_classes),
    )  # fmt: skip


def seven_layers(num_classes: int) -> nn.Sequential:
    """The net of `factorized_study.py`."""
    return build(CONVOLUTIONS["standard"], num_classes)


NETS: dict[str, Callable[[int], nn.Sequential]] = {"digits": lenet_5, "objects": seven_layers}


def create(data: str, mode: str, num_classes: int) -> nn.Sequential:
    """The set's net in one of the modes."""
    net = NETS[data](num_classes)
    if MODES[mode]:
        binarize_(net, **MODES[mode])
    return net


def schedule_of(data: str, mode: str) -> Schedule:
    """The set's own schedule with the rate that was chosen for the mode."""
    return SETS[data][1]._replace(lr=RATES[data][mode])


def run_one(data: str, mode: str, examples: Examples, schedule: Schedule, seed: int) -> dict[str, Any]:
    """Train one net from the seed and score it, as it was trained and as it is used; seconds of processor time."""
    torch.manual_seed(seed)
    net = create(data, mode, len(examples.train.class_names))
    start = time.process_time()
    loss = train(net, examples.train, schedule, seed)
    if not math.isfinite(loss):
        raise ValueError(f"{data}, {mode}: the loss is {loss} at lr {schedule.lr}")
    run = {"train_loss": loss, "seconds": round(time.process_time() - start, 1)}
    run["accuracy"] = accuracy(net, examples.test, schedule.side)
    if MODES[mode]:
        run["accuracy_of_bits"] = accuracy(deploy_bits(net), examples.test, schedule.side)
    return run


def read_runs(path: Path) -> dict[Key, dict[str, Any]]:
    """The runs that are done; ValueError for one that was made by another schedule than today's."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    runs = {(run["data"], run["mode"], run["seed"]): run for run in map(json.loads, lines)}
    for (data, mode, seed), run in runs.items():
        if run["schedule"] != schedule_of(data, mode)._asdict():
            raise ValueError(f"{path}: {data}, {mode}, seed {seed} had another schedule: name another --work-dir")
    return runs


def run_all(path: Path, sets: Sequence[str], seeds: Sequence[int]) -> None:
    """Train what `path` does not hold yet, seed by seed, so that an early stop leaves whole rounds, and K last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    loaded = {name: SETS[name][0]() for name in sets}
    done = read_runs(path)
    todo = [(name, mode, seed) for seed in seeds for name in sets for mode in MODES]
    todo.sort(key=lambda key: key[1] == "xnor_k")
    for name, mode, seed in (key for key in todo if key not in done):
        schedule = schedule_of(name, mode)
        run = {"data": name, "mode": mode, "seed": seed, **run_one(name, mode, loaded[name], schedule, seed)}
        run["schedule"] = schedule._asdict()
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run) + "\n")
        print(name, mode, seed, f"{run['accuracy']:.4f}", f"{run['seconds']} s", flush=True)


def choose_rates(path: Path, sets: Sequence[str]) -> None:
    """Print what each mode reaches on a fifth of the training part, for every rate; kept like the runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    done = {(run["data"], run["mode"], run["lr"]) for run in map(json.loads, lines)}
    for name in sets:
        load, schedule = SETS[name]
        kept = load().train
        inner = Examples(*(part_of(kept, part) for part in kept.split_by_picture(0.2, seed=1)))
        todo = [(mode, lr) for mode in ("bwn", "xnor") for lr in CHOICES if (name, mode, lr) not in done]
        for mode, lr in todo:
            run = {"data": name, "mode": mode, "lr": lr, **run_one(name, mode, inner, schedule._replace(lr=lr), seed=0)}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(run) + "\n")
            print(f"{name}, {mode}: lr {lr}, {run['accuracy']:.4f} on {len(inner.test.labels)} held out", flush=True)


def table(runs: dict[Key, dict[str, Any]]) -> str:
    """Markdown: a row a mode, mean and standard deviation of its seeds in percent."""
    sets = [name for name in SETS if any(key[0] == name for key in runs)]
    lines = [f"| net | {', % | '.join(sets)}, % |", f"| --- |{' ---: |' * len(sets)}"]
    for mode in MODES:
        cells = [score_cell([run["accuracy"] for key, run in runs.items() if key[:2] == (name, mode)]) for name in sets]
        lines.append(f"| {LABELS[mode]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def score_cell(values: Sequence[float]) -> str:
    """Parts of 1 as percent: mean and standard deviation."""
    if len(values) < 2:
        return "".join(f"{100 * value:.1f}" for value in values)
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def main() -> None:
    """Reads the arguments; trains, chooses or prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--data", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--choose", action="store_true", help="compare learning rates instead")
    task.add_argument("--table", action="store_true", help="print the runs that are done as a table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.choose:
        choose_rates(args.work_dir / "choices.jsonl", args.data)
    elif args.table:
        print(table(read_runs(args.work_dir / "runs.jsonl")))
    else:
        run_all(args.work_dir / "runs.jsonl", args.data, args.seeds)


if __name__ == "__main__":
    main()
