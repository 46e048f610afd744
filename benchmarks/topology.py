"""Ways to carry out the topological convolution, timed in turn: why the layer makes a dense one with zeros.

    python benchmarks/topology.py [--rounds 30]

Each way gives the same numbers (checked before the timing). One picture, one thread, medians in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.layers.factorized import TopologicalConv2d, topological

SHAPES = ((64, 20, 1), (64, 20, 3), (128, 10, 1), (128, 10, 3))  # (channels, side of the map, kernel size)


def gathered(features: Tensor, layer: TopologicalConv2d) -> Tensor:
    """The neighbours of every channel laid side by side, and one group a channel."""
    kernel_size = layer.weight.shape[-1]
    beside = features[:, layer.sources.flatten()]
    return F.conv2d(beside, layer.weight, padding=kernel_size // 2, groups=layer.channels)


def summed(features: Tensor, layer: TopologicalConv2d) -> Tensor:
    """Neighbour by neighbour: the channels in that order, each through its own kernel, added up."""
    kernel_size = layer.weight.shape[-1]
    rows = [
        F.conv2d(features[:, source], layer.weight[:, link, None], padding=kernel_size // 2, groups=layer.channels)
        for link, source in enumerate(layer.sources.T)
    ]
    return torch.stack(rows).sum(0)


def main() -> None:
    """Times every way on every shape and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| channels | map | kernel | standard | dense with zeros | gathered | neighbour by neighbour |")
    print("| ---: " * 7 + "|")
    for channels, side, kernel_size in SHAPES:
        layer = topological(channels, kernel_size).eval()
        features = torch.randn(1, channels, side, side)
        whole = torch.randn(channels, channels, kernel_size, kernel_size)
        ways: list[Callable[[], Tensor]] = [
            partial(F.conv2d, features, whole, padding=kernel_size // 2),
            partial(layer, features),
            partial(gathered, features, layer),
            partial(summed, features, layer),
        ]
        times: list[list[float]] = [[] for _ in ways]
        with torch.inference_mode():
            for way in ways[2:]:
                torch.testing.assert_close(way(), layer(features), rtol=1e-3, atol=1e-4)
            for _ in range(args.rounds):
                for way, own in zip(ways, times, strict=True):
                    start = time.perf_counter()
                    way()
                    own.append(1000 * (time.perf_counter() - start))
        cells = [str(channels), f"{side} x {side}", str(kernel_size)]
        cells += [f"{statistics.median(own):.2f}" for own in times]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
