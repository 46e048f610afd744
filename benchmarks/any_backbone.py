"""What each backbone costs under ThunderNet: parameters, multiply-adds, milliseconds, all nets in turn within one run.

    python benchmarks/any_backbone.py [--size 320 320] [--rounds 15] [--threads 1] [--pattern 'mobilenet*']

The nets have random weights and their batch norms folded; a time is from the picture tensor [1, 3, H, W] to
`RawDetections` with 200 proposals. Prints a Markdown table, sorted by time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import NamedTuple

import torch
from torch import nn

from backbones import list_backbones
from backbones.cost import Cost, measure_cost_by_part
from backbones.fusion import fused_copy
from detect import create_detector


class Candidate(NamedTuple):
    """A detector ready to run, and what it costs: in all, its backbone, and the stage that was appended to it."""

    net: nn.Module
    total: Cost
    backbone: Cost
    extra: Cost | None


def prepare(name: str, size: tuple[int, int]) -> Candidate:
    """ThunderNet on the backbone called `name`."""
    detector = create_detector("thundernet", backbone=name, input_size=size).eval()
    parts = ["backbone"] + (["backbone.extra_stage"] if detector.backbone.extra_stage is not None else [])
    costs = measure_cost_by_part(detector, size, tuple(parts))
    net = fused_copy(detector).to(memory_format=torch.channels_last)
    return Candidate(net, costs["total"], costs["backbone"], costs.get("backbone.extra_stage"))


def race(nets: dict[str, Candidate], size: tuple[int, int], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every round, by name; each round runs every net once."""
    picture = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    times: dict[str, list[float]] = {name: [] for name in nets}
    with torch.inference_mode():
        for number in range(rounds + 1):  # the first is to warm up
            for name, candidate in nets.items():
                start = time.perf_counter()
                candidate.net(picture)
                if number:
                    times[name].append(1000 * (time.perf_counter() - start))
    return times


def describe(name: str, candidate: Candidate, times: list[float], reference: float) -> str:
    """One row of the table."""
    ordered = sorted(times)
    spread = f"{ordered[len(ordered) // 10]:.1f} to {ordered[len(ordered) * 9 // 10]:.1f}"
    extra = f"{candidate.extra.multiply_adds / 1e6:.1f} M" if candidate.extra else "-"
    cells = [
        name,
        f"{candidate.total.parameters:,}",
        f"{candidate.total.multiply_adds / 1e6:.1f} M",
        f"{candidate.backbone.multiply_adds / 1e6:.1f} M",
        extra,
        f"{statistics.median(times):.1f}",
        spread,
        f"{statistics.median(times) / reference:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Reads the arguments, runs the race, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(320, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pattern", default="*", help="of the backbones' names; snet49 always runs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size = (args.size[0], args.size[1])
    nets = {name: prepare(name, size) for name in sorted({"snet49", *list_backbones(args.pattern)})}
    times = race(nets, size, args.rounds)
    reference = statistics.median(times["snet49"])
    print(f"{size[0]} x {size[1]}, threads: {args.threads}, {args.rounds} rounds, torch {torch.__version__}\n")
    print("| backbone | parameters | multiply-adds | of the backbone | of the appended stage | ms | 10 % to 90 % |"
          " to snet49 |")  # fmt: skip
    print("| --- |" + " ---: |" * 7)
    for name in sorted(nets, key=lambda name: statistics.median(times[name])):
        print(describe(name, nets[name], times[name], reference))


if __name__ == "__main__":
    main()
