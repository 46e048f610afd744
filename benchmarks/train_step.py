"""Milliseconds per picture of a whole training step, ThunderNet beside torchvision's small detectors.

    python benchmarks/train_step.py [--rounds 7] [--threads 2] [--json FILE]

A step is forward, losses, backward and the optimiser's step, from random weights, on random pictures of 320 x 320 with
the same random boxes for every net. The nets take turns within each round, so that a machine that gets slower slows all
of them, and the ratio is the median of each round's own. ThunderNet-SNet49 draws 512 of 1,000 proposals; its second
form learns from the hardest 512 of 2,000 candidates. The Faster R-CNN runs with batch 2: with 16 it takes too long to
be worth waiting for. The goal of the project is a ratio of at most 0.7 to SSDLite.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from detect import Target, create_detector

SIDE = 320
NUM_CLASSES = 80
YARDSTICK = "ssdlite320_mobilenet_v3_large"

Step = Callable[[], float]  # one training step -> its loss


class Contender(NamedTuple):
    """A step that can be run again and again, and how many pictures it takes."""

    name: str
    batch: int
    step: Step


def random_pictures(count: int) -> Tensor:
    """[count, 3, 320, 320] uint8."""
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8)


def random_targets(count: int) -> list[Target]:
    """Seven boxes a picture, as COCO has on average, of all sizes."""
    targets = []
    for image_id in range(count):
        sizes = torch.exp(torch.empty(7, 2).uniform_(2.5, 5.3))  # sides of 12 to 200 pixels
        corners = torch.rand(7, 2) * (SIDE - sizes)
        boxes = torch.cat([corners, corners + sizes], dim=1)
        labels = torch.randint(0, NUM_CLASSES, (7,))
        targets.append(Target(boxes, labels, torch.zeros(7, dtype=torch.bool), image_id, (SIDE, SIDE)))
    return targets


def training_step(net: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> Step:
    """The step that every contender takes: SGD with momentum on the sum of its losses."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    net.train()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.stack(list(losses().values())).sum()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def thundernet(images: Tensor, targets: list[Target], *, channels_last: bool, **options: str | int) -> Step:
    """ThunderNet-SNet49; `options` choose its proposals."""
    net = create_detector("thundernet_snet49", num_classes=NUM_CLASSES, **options)
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    return training_step(net, lambda: net.losses(images, targets))


def torchvision_net(name: str, images: Tensor, targets: list[Target]) -> Step:
    """A detector of torchvision; it wants pictures 0..1 one by one and counts the background as class 0."""
    net = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=NUM_CLASSES + 1)
    pictures = list(images.float() / 255)
    truths = [{"boxes": target.boxes, "labels": target.labels + 1} for target in targets]
    return training_step(net, lambda: net(pictures, truths))


def contenders(batch: int, channels_last: bool) -> list[Contender]:
    """The nets of the comparison, the yardstick first."""
    images, targets = random_pictures(batch), random_targets(batch)
    paper = {"sampling": "random", "train_proposals": 1000, "samples": 512}
    hard = {"sampling": "ohem", "train_proposals": 2000, "samples": 512}
    slow = "fasterrcnn_mobilenet_v3_large_320_fpn"
    ours = [
        Contender(
            f"thundernet_snet49, {words}", batch, thundernet(images, targets, channels_last=channels_last, **options)
        )
        for words, options in (("512 of 1000 at random", paper), ("hardest 512 of 2000", hard))
    ]
    theirs = [
        Contender(YARDSTICK, batch, torchvision_net(YARDSTICK, images, targets)),
        Contender(slow, 2, torchvision_net(slow, images[:2], targets[:2])),
    ]
    return theirs[:1] + ours + theirs[1:]


def measure(racers: list[Contender], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per picture of each step, one step of each net a round, after one that does not count."""
    milliseconds: dict[str, list[float]] = {racer.name: [] for racer in racers}
    for number in range(rounds + 1):
        for racer in racers:
            start = time.perf_counter()
            loss = racer.step()
            elapsed = 1000 * (time.perf_counter() - start) / racer.batch
            if not math.isfinite(loss):
                raise RuntimeError(f"{racer.name}: the loss is {loss}, so its time means nothing")
            if number:
                milliseconds[racer.name].append(elapsed)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return milliseconds


def report(racers: list[Contender], milliseconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Print the table; give its numbers by name."""
    numbers = {}
    print(f"torch {torch.__version__}, threads: {torch.get_num_threads()}; ms per picture of a training step")
    print(f"{'':<44}{'batch':>6}{'median':>9}{'least':>9}{'most':>9}{'to ssdlite':>12}")
    for racer in racers:
        times = milliseconds[racer.name]
        median = statistics.median(times)
        ratio = statistics.median(ours / theirs for ours, theirs in zip(times, milliseconds[YARDSTICK], strict=True))
        numbers[racer.name] = {"batch": racer.batch, "ms": median, "ratio": ratio}
        figures = f"{median:>9.1f}{min(times):>9.1f}{max(times):>9.1f}{ratio:>12.2f}"
        print(f"{racer.name:<44}{racer.batch:>6}{figures}")
    return numbers


def main() -> None:
    """Reads the arguments, runs the rounds, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16, help="pictures per step (the Faster R-CNN always takes 2)")
    parser.add_argument("--threads", type=int, help="left to torch unless given")
    parser.add_argument("--contiguous", action="store_true", help="ThunderNet without channels_last")
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    racers = contenders(args.batch, channels_last=not args.contiguous)
    numbers = report(racers, measure(racers, args.rounds))
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
