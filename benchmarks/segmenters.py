"""Milliseconds from a picture to the label of each of its pixels: our segmenters and torchvision's LRASPP.

    python benchmarks/segmenters.py [--rounds 9] [--threads 1] [--sizes 480x360 1024x512 1536x768] [--json FILE]

All nets have 19 classes and random weights, batch norms folded into the convolutions (ours as the predictors do it,
torchvision's with torch's own fuser), the memory order channels_last, and see the same uint8 picture, one at a time.
The answer is the class of each pixel at the picture's size. The nets take turns within each round, so that a machine
that gets slower slows all of them. Sizes are width x height. Prints a Markdown table: median (10 % to 90 %).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torchvision
from swiftsight_tools.cores import processor_name
from swiftsight_tools.measuring.report import spread
from swiftsight_tools.table import format_markdown
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from backbones.cost import measure_cost
from backbones.fusion import fused_copy
from segment import create_segmenter

OURS = ("bisenet_xception39", "bisenet_resnet18", "dfanet_a", "dfanet_b")
PEER = "lraspp_mobilenet_v3_large"
NUM_CLASSES = 19
WARM_UP = 2

Size = tuple[int, int]  # (height, width)
Label = Callable[[Tensor], Tensor]  # images [1, 3, H, W] uint8 -> labels [1, H, W] int64


class Peer(nn.Module):
    """torchvision's LRASPP with the normalising that its weights ask for: images [N, 3, H, W] uint8 -> logits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torchvision.models.get_model(PEER, weights=None, weights_backbone=None, num_classes=NUM_CLASSES)
        self.register_buffer("mean", 255 * torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def fuse(self) -> Peer:
        """Folds the batch norms."""
        self.eval()
        self.net.backbone, self.net.classifier = fuse(self.net.backbone), fuse(self.net.classifier)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.net((images - self.mean) / self.std)["out"]
        return logits


def contenders() -> dict[str, tuple[Label, float]]:
    """Name -> (the net, ready to answer; its parameters in millions, without heads that only learn)."""
    found: dict[str, tuple[Label, float]] = {}
    for name in OURS:
        net = create_segmenter(name, num_classes=NUM_CLASSES)
        found[name] = labeller(fused_copy(net)), measure_cost(net, (64, 64)).parameters / 1e6
    peer = Peer()
    millions = sum(parameter.numel() for parameter in peer.parameters()) / 1e6
    found[f"torchvision {PEER}"] = labeller(peer.fuse()), millions
    return found


def labeller(net: nn.Module) -> Label:
    """The way from images to labels, the same for all."""
    net.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def label(images: Tensor) -> Tensor:
        return net(images).argmax(dim=1)

    return label


def race(nets: dict[str, Label], size: Size, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round, by name; those before the clock counts are left out."""
    images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {name: [] for name in nets}
    for _ in range(WARM_UP + rounds):
        for name, label in nets.items():
            start = time.perf_counter()
            labels = label(images)
            times[name].append(1000 * (time.perf_counter() - start))
            if labels.shape != (1, *size):
                raise RuntimeError(f"{name} gave labels {list(labels.shape)} for a picture of {list(size)}")
    return {name: values[WARM_UP:] for name, values in times.items()}


def parse_size(word: str) -> Size:
    """WIDTHxHEIGHT -> (height, width)."""
    sides = word.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"{word!r}; expected WIDTHxHEIGHT, such as 480x360")
    return int(sides[1]), int(sides[0])


def table(times: dict[str, dict[str, list[float]]], millions: dict[str, float], sizes: Sequence[str]) -> str:
    """Markdown: a row for each net, a column for each size. times: size -> name -> milliseconds."""
    rows = []
    for name, count in millions.items():
        figures = (spread(times[size][name]) for size in sizes)
        cells = [f"{median:.1f} ({low:.1f} to {high:.1f})" for median, low, high in figures]
        rows.append([name, f"{count:.2f} M", *cells])
    return format_markdown(["net", "parameters", *(f"{size}, ms" for size in sizes)], rows)


def main() -> None:
    """Reads the arguments, runs the race, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    default = [(360, 480), (512, 1024), (768, 1536)]
    parser.add_argument("--sizes", type=parse_size, nargs="+", default=default, metavar="WxH")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time here as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    nets = contenders()
    times: dict[str, dict[str, list[float]]] = {}
    for size in args.sizes:
        print(f"{size[1]}x{size[0]} ...", file=sys.stderr, flush=True)
        times[f"{size[1]}x{size[0]}"] = race({name: label for name, (label, _) in nets.items()}, size, args.rounds)
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    print(f"{processor_name()}, threads: {args.threads}, {versions}, {args.rounds} rounds in turns\n")
    print(table(times, {name: millions for name, (_, millions) in nets.items()}, list(times)))
    if args.json:
        args.json.write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
