"""Times the operators of both papers: RoI operators on the thin map, and the suppressions, in turn on the same numbers.

    python benchmarks/operators.py [--rounds 25] [--json operators.json]

All ways of a comparison take turns, on one thread. What counts is the median of their processor times, which other
programs on the machine do not lengthen much, and of each round's ratio to the first way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

from detect.nms import hard_nms, soft_nms
from detect.ps_roi_align import create_roi_operator

Ways = dict[str, Callable[[], Any]]

BINS = 7
# Name, places of the thin map, channels of a bin, stride, boxes: ThunderNet's and Light-Head R-CNN's at test.
ROI_CASES = (("ThunderNet, 320 x 320", (20, 20), 5, 16, 200), ("Light-Head, 800 x 1200", (50, 75), 10, 16, 1000))
NMS_CASES = ((200, 1), (200, 80), (1000, 1), (1000, 80))  # proposals, classes


def random_boxes(count: int, height: float, width: float, generator: torch.Generator) -> Tensor:
    """[count, 4] inside the picture, of all sizes."""
    corners = torch.rand(2, count, 2, generator=generator) * torch.tensor([width, height])
    return torch.cat((corners.amin(dim=0), corners.amax(dim=0)), dim=1)


def roi_ways(size: tuple[int, int], depth: int, stride: int, count: int) -> Ways:
    """Forward of each operator on one thin map, and forward with backward, as training does."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, depth * BINS * BINS, *size, generator=generator)
    boxes = random_boxes(count, size[0] * stride, size[1] * stride, generator)[None]
    leaf = features.clone().requires_grad_()
    ways: Ways = {}
    names = (("align", "operator"), ("align", "grid_sample"), ("align_max", "operator"), ("pool", "operator"))
    for name, method in names:
        operator = create_roi_operator(name, BINS, stride, method=method)
        label = f"{name} ({method})" if name == "align" else name
        ways[label] = lambda operator=operator: operator(features, boxes)
        ways[f"{label}, and gradient"] = lambda operator=operator: operator(leaf, boxes).sum().backward()
    rois = torch.cat((torch.zeros(count, 1), boxes[0]), dim=1)
    ways["torchvision's ps_roi_pool"] = lambda: torchvision.ops.ps_roi_pool(features, rois, BINS, 1 / stride)
    return ways


def suppression_ways(count: int, classes: int) -> Ways:
    """The suppressions of boxes that are surer than any net: nearly all have a class above the threshold."""
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(count, 480, 480, generator)
    scores = (3 * torch.randn(count, classes + 1, generator=generator)).softmax(dim=1)[:, :-1]
    return {
        "class-wise NMS": lambda: hard_nms(boxes, scores),
        "Soft-NMS, linear": lambda: soft_nms(boxes, scores),
        "Soft-NMS, Gaussian": lambda: soft_nms(boxes, scores, sigma=0.5),
    }


def race(ways: Ways, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each way in each round; all were run once before."""
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            way()
            times[name].append(1000 * (time.process_time() - start))
    return times


def report(title: str, times: dict[str, list[float]]) -> dict[str, Any]:
    """Prints a table and gives its rows."""
    print(f"\n{title}\n{'':<34}{'ms':>9}{'ratio':>8}")
    first = next(iter(times.values()))
    rows = {}
    for name, own in times.items():
        ratio = statistics.median(one / other for one, other in zip(own, first, strict=True))
        rows[name] = {"ms": statistics.median(own), "ratio": ratio}
        print(f"{name:<34}{rows[name]['ms']:>9.2f}{ratio:>8.2f}")
    return rows


def main() -> None:
    """Reads the arguments, runs all cases, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, medians of {args.rounds} rounds")
    tables = {}
    for name, size, depth, stride, count in ROI_CASES:
        title = f"RoI operators: {name}, {count} boxes, {depth} x {BINS} x {BINS} channels"
        tables[title] = report(title, race(roi_ways(size, depth, stride, count), args.rounds))
    for count, classes in NMS_CASES:
        title = f"suppression: {count} boxes, {classes} {'class' if classes == 1 else 'classes'}"
        tables[title] = report(title, race(suppression_ways(count, classes), args.rounds))
    if args.json:
        args.json.write_text(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()
