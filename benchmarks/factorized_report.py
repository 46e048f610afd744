"""The study's runs as a table and a plot, beside what each convolution costs in multiply-adds and in real time.

    python benchmarks/factorized_report.py --work-dir runs/factorized --output docs/factorized_study

Writes OUTPUT.md, OUTPUT.png and OUTPUT.json (every run, and the times). Times are medians of one picture on one
thread, in evaluation mode with no norm folded, in milliseconds of processor time, which other programs do not lengthen
by taking their turn. In each round all nets follow each other, so that what slows one slows all, and a ratio is the
median of each round's own. ResNet-18 at 224 x 224 stands for maps of a real size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from factorized_study import SETS, Runs, build, read_runs
from torch import nn

from backbones import Cost, create_backbone, measure_cost
from backbones.layers.factorized import CONVOLUTIONS

YARDSTICK = "standard"
LABELS = {
    "standard": "standard 3x3",
    "depthwise_separable": "depthwise-separable",
    "sic": "SIC, b = 1",
    "sic_b2": "SIC, b = 2",
    "sic_b4": "SIC, b = 4",
    "sic_topology": "SIC + 2-D topology",
    "spatial_bottleneck": "spatial bottleneck",
    "grouped_shuffle": "grouped (4) + shuffle",
}


class Track(NamedTuple):
    """Where the nets are raced: a net with each convolution, at one size of picture."""

    name: str
    side: int
    nets: dict[str, nn.Module]


class Lap(NamedTuple):
    """milliseconds: the median; ratio: to the standard convolution in the same round, the median."""

    milliseconds: float
    ratio: float


def tracks() -> list[Track]:
    """The study's net at the size that it was trained at and at four times the side, and ResNet-18."""
    small = {name: build(factory, 10).eval() for name, factory in CONVOLUTIONS.items()}
    resnets = {name: create_backbone("resnet18", conv=name).eval() for name in CONVOLUTIONS}
    return [Track("small net", 40, small), Track("small net", 160, small), Track("ResNet-18", 224, resnets)]


def race(track: Track, rounds: int, warm_up: int = 3) -> dict[str, Lap]:
    """One picture through each net in turn, so many times."""
    picture = torch.rand(1, 3, track.side, track.side)
    times: dict[str, list[float]] = {name: [] for name in track.nets}
    with torch.inference_mode():
        for number in range(rounds + warm_up):
            for name, net in track.nets.items():
                start = time.process_time()
                net(picture)
                if number >= warm_up:
                    times[name].append(1000 * (time.process_time() - start))
    base = times[YARDSTICK]
    return {
        name: Lap(statistics.median(rows), statistics.median(a / b for a, b in zip(rows, base, strict=True)))
        for name, rows in times.items()
    }


def scores(runs: Runs, data: str, conv: str) -> list[float]:
    """Accuracies in percent, one a seed."""
    return [100 * run["accuracy"] for (name, kind, _), run in sorted(runs.items()) if (name, kind) == (data, conv)]


def score_cell(values: Sequence[float]) -> str:
    """Mean and standard deviation of the seeds."""
    if len(values) < 2:
        return "".join(f"{value:.1f}" for value in values)
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, the first column to the left and numbers to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cost_cells(cost: Cost, yardstick: Cost) -> list[str]:
    """Parameters, multiply-adds, and the share of them that is left."""
    share = cost.multiply_adds / yardstick.multiply_adds
    return [f"{cost.parameters:,}", f"{cost.multiply_adds / 1e6:,.2f} M", f"{share:.2f}"]


def cost_table(costs: dict[str, Cost], laps: dict[str, Lap], runs: Runs) -> str:
    """What each net costs, and what the study's runs say of it where there are any."""
    sets = [name for name in SETS if any(key[0] == name for key in runs)]
    heads = ["convolution", "parameters", "multiply-adds", "of standard", "ms", "of standard"]
    rows = []
    for name, lap in laps.items():
        times = [f"{lap.milliseconds:.2f}", f"{lap.ratio:.2f}"]
        accuracies = [score_cell(scores(runs, data, name)) for data in sets]
        rows.append([LABELS[name], *cost_cells(costs[name], costs[YARDSTICK]), *times, *accuracies])
    return table([*heads, *(f"{data}, %" for data in sets)], rows)


def sets_text(runs: Runs) -> str:
    """A line a set: sizes, chance, the most frequent class."""
    described = {data: run["set"] for (data, _, _), run in sorted(runs.items())}
    return "\n".join(
        f"- {data}: {about['train']:,} pictures to learn from, {about['test']:,} to score, {len(about['classes'])} "
        f"classes (chance {100 / len(about['classes']):.1f} %, always the most frequent class "
        f"{100 * about['largest_share']:.1f} %)."
        for data, about in described.items()
    )


def plot(runs: Runs, costs: dict[str, Cost], laps: dict[str, Lap], side: int, path: Path) -> None:
    """A row a set: accuracy over multiply-adds and over milliseconds; a small dot a seed, a large one their mean."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    sets = [name for name in SETS if any(key[0] == name for key in runs)]
    across = {
        f"million multiply-adds at {side} x {side}": {name: cost.multiply_adds / 1e6 for name, cost in costs.items()},
        f"milliseconds at {side} x {side}, one thread": {name: lap.milliseconds for name, lap in laps.items()},
    }
    figure, axes = pyplot.subplots(len(sets), 2, figsize=(10, 3.6 * len(sets)), squeeze=False, layout="constrained")
    for row, data in zip(axes, sets, strict=True):
        for axis, (label, places) in zip(row, across.items(), strict=True):
            for name, values in ((name, scores(runs, data, name)) for name in places):
                if not values:  # not run yet
                    continue
                (mean,) = axis.plot(places[name], statistics.mean(values), "o", label=LABELS[name])
                axis.plot([places[name]] * len(values), values, ".", alpha=0.4, color=mean.get_color())
            axis.set(xlabel=label, ylabel=f"{data}: accuracy, %")
            axis.grid(alpha=0.3)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def write_report(runs: Runs, output: Path, rounds: int) -> None:
    """Race the nets and write the three files."""
    sections, record, raced = [sets_text(runs)], [], []
    for number, track in enumerate(tracks()):
        costs = {name: measure_cost(net, (track.side, track.side)) for name, net in track.nets.items()}
        laps = race(track, rounds)
        raced.append((costs, laps, track.side))
        sections.append(f"{track.name} at {track.side} x {track.side}:")
        sections.append(cost_table(costs, laps, {} if number else runs))
        record += [
            {"net": track.name, "side": track.side, "conv": name, **costs[name]._asdict(), **lap._asdict()}
            for name, lap in laps.items()
        ]
    seeds = sorted({seed for _, _, seed in runs})
    sections.append(f"Seeds {seeds}; ± is their standard deviation. Times: {rounds} rounds, torch {torch.__version__}.")
    output.with_suffix(".md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    whole: dict[str, Any] = {"runs": [runs[key] for key in sorted(runs)], "times": record}
    output.with_suffix(".json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    plot(runs, *raced[0], output.with_suffix(".png"))


def main() -> None:
    """Reads the arguments; writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True, help="where the study kept its runs")
    parser.add_argument("--output", type=Path, required=True, help="path without a suffix")
    parser.add_argument("--rounds", type=int, default=40, help="of the race")
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = args.work_dir / "runs.jsonl"
    runs = read_runs(path)
    if not runs:
        parser.error(f"{path} holds no run: factorized_study.py makes them")
    write_report(runs, args.output, args.rounds)


if __name__ == "__main__":
    main()
