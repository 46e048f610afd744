"""Milliseconds that Cityscapes' own evaluation and ours take for the same frames, in one run, and whether they agree.

    python benchmarks/segmentation_metric.py [--frames 6] [--rounds 5] [--instances 20]

Needs cityscapesScripts (`pip install --no-deps cityscapesscripts pyquaternion`: its requirement `typing` is a backport
for old Pythons that does harm to new ones). Frames of 2048 x 1024 are made up and written as PNG files: label ids,
instance ids, predicted ids. Both sides take turns, from the files (which both read with Pillow) and from pictures that
were decoded before. The published evaluation runs as pip installs it, without its optional compiled part. The goal of
the project: the evaluation at least ten times as fast. Decoding the PNG files costs both the same and bounds the rest.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from segment.cityscapes_scores import CityscapesEvaluation, CityscapesScores
from segment.formats.cityscapes import LABELS

SIZE = (1024, 2048)


class Frame(NamedTuple):
    """[H, W] each: ids of the ground truth, ids predicted (both uint8), instance ids (uint16)."""

    label: np.ndarray
    prediction: np.ndarray
    instances: np.ndarray


def make_frame(seed: int, size: tuple[int, int] = SIZE, instances: int = 20) -> Frame:
    """A made-up frame: areas of all kinds of labels, round objects and groups on them, a prediction with ragged edges.

    Every row of the prediction is shifted by another few pixels, and twelve areas of it are wrong.
    """
    random = np.random.default_rng(seed)
    height, width = size
    stuff = np.array([label.id for label in LABELS if not label.has_instances], np.uint8)
    label = np.ascontiguousarray(np.kron(random.choice(stuff, (8, 16)), np.ones((height // 8, width // 16), np.uint8)))
    numbered = label.astype(np.uint16)
    rows, columns = np.ogrid[:height, :width]
    things = [label.id for label in LABELS if label.has_instances]
    for number in range(instances):
        (middle, centre), (tall, wide) = random.uniform(0, size), random.uniform(2, (height / 8, width / 16))
        area = ((rows - middle) / tall) ** 2 + ((columns - centre) / wide) ** 2 < 1
        thing = int(random.choice(things))
        is_group = number % 10 == 9
        label[area], numbered[area] = thing, thing if is_group else 1000 * thing + number
    shifts = random.integers(-4, 5, (height, 1))
    prediction = np.take_along_axis(label, (columns + shifts) % width, axis=1)
    for _ in range(12):
        top, left = int(random.integers(height)), int(random.integers(width))
        prediction[top : top + height // 10, left : left + width // 10] = random.integers(len(LABELS))
    return Frame(label, prediction, numbered)


def write_frames(folder: Path, frames: Sequence[Frame]) -> list[tuple[Path, Path]]:
    """Writes them under Cityscapes' names and gives (prediction, label ids) of each."""
    pairs = []
    for number, frame in enumerate(frames):
        stem = f"town_{number:06d}_000019"
        pair = folder / f"{stem}_prediction.png", folder / f"{stem}_gtFine_labelIds.png"
        Image.fromarray(frame.prediction).save(pair[0])
        Image.fromarray(frame.label).save(pair[1])
        Image.fromarray(frame.instances).save(folder / f"{stem}_gtFine_instanceIds.png")
        pairs.append(pair)
    return pairs


def published_evaluation() -> Any:
    """The module of cityscapesScripts, made to run with NumPy 2.4, which dropped a function that it calls."""
    vars(np).setdefault("in1d", np.isin)
    published = importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    published.args.quiet, published.args.JSONOutput = True, False
    return published


def published_scores(published: Any, pairs: Sequence[tuple[Path, Path]]) -> dict[str, Any]:
    """Their answer for the files."""
    predictions, labels = ([str(path) for path in column] for column in zip(*pairs, strict=True))
    return published.evaluateImgLists(predictions, labels, published.args)


@contextmanager
def already_read(published: Any, pairs: Sequence[tuple[Path, Path]]) -> Iterator[None]:
    """While this holds, they take decoded pictures from memory instead of files."""
    pictures = {str(path): Image.fromarray(values) for pair in pairs for path, values in _files_of(*pair)}
    image = published.Image
    published.Image = SimpleNamespace(open=pictures.__getitem__)
    try:
        yield
    finally:
        published.Image = image


def _files_of(prediction: Path, label: Path) -> list[tuple[Path, np.ndarray]]:
    instances = label.with_name(label.name.replace("labelIds", "instanceIds"))
    return [(path, np.array(Image.open(path))) for path in (label, prediction, instances)]


def read_frames(pairs: Sequence[tuple[Path, Path]]) -> Iterator[Frame]:
    """The files again as arrays, frame by frame."""
    for pair in pairs:
        yield Frame(*(values for _, values in _files_of(*pair)))


def our_scores(frames: Iterable[Frame]) -> CityscapesScores:
    """Our answer."""
    evaluation = CityscapesEvaluation()
    for frame in frames:
        evaluation.update(frame.prediction, frame.label, frame.instances)
    return evaluation.scores()


def differences(theirs: dict[str, Any], ours: CityscapesScores) -> dict[str, float]:
    """For each of their figures how far ours is off; infinite where only one of the two is undefined."""
    pairs = {
        "mean IoU of classes": (theirs["averageScoreClasses"], ours.classes.mean_iou),
        "mean iIoU of classes": (theirs["averageScoreInstClasses"], ours.mean_class_iiou),
        "mean IoU of categories": (theirs["averageScoreCategories"], ours.mean_category_iou),
        "mean iIoU of categories": (theirs["averageScoreInstCategories"], ours.mean_category_iiou),
    }
    class_iou = dict(zip(ours.classes.class_names, ours.classes.class_iou.tolist(), strict=True))
    for what, key, figures in (
        ("IoU of class", "classScores", class_iou),
        ("iIoU of class", "classInstScores", ours.class_iiou),
        ("IoU of category", "categoryScores", ours.category_iou),
        ("iIoU of category", "categoryInstScores", ours.category_iiou),
    ):
        pairs |= {f"{what} {name}": (value, figures.get(name, math.nan)) for name, value in theirs[key].items()}
    return {name: _distance(*pair) for name, pair in pairs.items()}


def _distance(one: float, other: float) -> float:
    if math.isnan(one) or math.isnan(other):
        return 0.0 if math.isnan(one) and math.isnan(other) else math.inf
    return abs(one - other)


def measure(published: Any, pairs: Sequence[tuple[Path, Path]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round for both sides, from files and from memory."""
    in_memory = list(read_frames(pairs))
    runs: dict[str, Callable[[], object]] = {
        "theirs, from files": lambda: published_scores(published, pairs),
        "ours, from files": lambda: our_scores(read_frames(pairs)),
        "theirs, from memory": lambda: published_scores(published, pairs),
        "ours, from memory": lambda: our_scores(in_memory),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            with already_read(published, pairs) if name == "theirs, from memory" else nullcontext():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Reads the arguments, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--instances", type=int, default=20, help="objects in a frame (20, about Cityscapes' mean)")
    args = parser.parse_args()
    published = published_evaluation()
    with tempfile.TemporaryDirectory() as folder:
        pairs = write_frames(Path(folder), [make_frame(seed, instances=args.instances) for seed in range(args.frames)])
        off = differences(published_scores(published, pairs), our_scores(read_frames(pairs)))
        seconds = measure(published, pairs, args.rounds)
    worst = max(off, key=lambda name: off[name])
    print(
        f"{args.frames} frames of {SIZE[1]} x {SIZE[0]}, {args.instances} objects each, {args.rounds} rounds in turns"
    )
    print(f"{len(off)} figures compared; the largest difference is {off[worst]:.1e} ({worst})")
    for name, times in seconds.items():
        per_frame = [1000 * value / args.frames for value in times]
        print(
            f"{name:<20}{statistics.median(per_frame):9.1f} ms a frame ({min(per_frame):.1f} to {max(per_frame):.1f})"
        )
    for place in ("from memory", "from files"):
        ratio = statistics.median(seconds[f"theirs, {place}"]) / statistics.median(seconds[f"ours, {place}"])
        print(f"{place}: {ratio:.1f} times as fast")


if __name__ == "__main__":
    main()
