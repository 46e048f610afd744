"""What Light-Head R-CNN costs, part by part: setting S with the thin map at stride 32 and at 16, and setting L.

    python benchmarks/light_head.py [--rounds 10] [--threads 1] [--json light_head.json]

At the paper's 800 x 1200 with 1,000 proposals and at 320 x 320 with 300. Parameters and multiply-adds are counted
without computing anything. With --rounds, setting S is timed as well: nets of one size in turn, random weights, batch
norms folded, from the picture tensor [1, 3, H, W] to `RawDetections`. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from backbones.cost import measure_cost_by_part
from backbones.fusion import fused_copy
from detect import create_detector

PARTS = ("backbone", "neck", "rpn", "head")
SMALL = "light_head_rcnn_xception145"


class Case(NamedTuple):
    """A net at an input size (height, width), with as many proposals at test and the thin map at that stride."""

    name: str
    thin_stride: int
    size: tuple[int, int]
    proposals: int

    def options(self) -> dict[str, Any]:
        """The builder's."""
        return {"thin_stride": self.thin_stride, "test_proposals": self.proposals}


NETS = ((SMALL, 32), (SMALL, 16), ("light_head_rcnn_resnet50", 16), ("light_head_rcnn_resnet101", 16))
CASES = [Case(*net, *setting) for setting in (((800, 1200), 1000), ((320, 320), 300)) for net in NETS]


def count(case: Case) -> dict[str, int]:
    """Parameters of the net, and multiply-adds of its parts and of all."""
    with torch.device("meta"):
        detector = create_detector(case.name, **case.options())
    costs = measure_cost_by_part(detector, case.size, PARTS)
    return {"parameters": costs["total"].parameters, **{name: cost.multiply_adds for name, cost in costs.items()}}


def race(cases: list[Case], rounds: int) -> dict[Case, list[float]]:
    """Milliseconds of every round; each round runs every net once."""
    nets = {case: fused_copy(create_detector(case.name, **case.options())) for case in cases}
    pictures = {case: torch.randint(0, 256, (1, 3, *case.size), dtype=torch.uint8) for case in cases}
    times: dict[Case, list[float]] = {case: [] for case in cases}
    with torch.inference_mode():
        for number in range(rounds + 1):  # the first is to warm up
            for case, net in nets.items():
                start = time.perf_counter()
                net(pictures[case])
                if number:
                    times[case].append(1000 * (time.perf_counter() - start))
    return times


def describe(case: Case, counts: dict[str, int], times: list[float]) -> str:
    """One row of the table."""
    cells = [case.name, str(case.thin_stride), f"{case.size[0]} x {case.size[1]}", f"{case.proposals:,}"]
    cells.append(f"{counts['parameters']:,}")
    cells += [f"{counts[part] / 1e6:,.1f} M" for part in (*PARTS, "total")]
    cells.append(f"{statistics.median(times):.0f}" if times else "-")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Reads the arguments, counts, perhaps runs the race, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=0, help="measurements of setting S (none)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    times = race([case for case in CASES if case.name == SMALL], args.rounds) if args.rounds else {}
    print(f"threads: {args.threads}, {args.rounds} rounds, torch {torch.__version__}\n")
    print("| net | thin map at | input | proposals | parameters | backbone | thin map | RPN | head | total | ms |")
    print("| --- |" + " ---: |" * 10)
    rows = []
    for case in CASES:
        counts = count(case)
        print(describe(case, counts, times.get(case, [])))
        rows.append({**case._asdict(), **counts, "ms": times.get(case, [])})
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
