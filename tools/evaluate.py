"""Score weights on a config's data, or anybody's results file, with COCO's figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import PartConfig, TrainingConfig, load_config
from .device import add_device_argument, choose_device
from .errors import UsageError
from .progress import show_progress
from .table import format_table

if TYPE_CHECKING:  # what brings torch is imported where it is needed: a misspelt word does not wait for it
    import torch

    from detect import Detections, TwoStageDetector
    from detect.formats.coco import CocoDetection
    from detect.metrics import DetectionScores

MEANINGS = {
    "AP": "precision over all recalls, mean of the overlaps 0.50, 0.55 ... 0.95",
    "AP50": "the same at overlap 0.50",
    "AP75": "the same at overlap 0.75",
    "APs": "AP of small objects (less than 32 x 32 pixels)",
    "APm": "AP of middle-sized objects",
    "APl": "AP of large objects (more than 96 x 96 pixels)",
    "AR1": "share of the objects found with 1 detection a picture and class",
    "AR10": "with 10 detections",
    "AR100": "with 100 detections",
    "ARs": "with 100, small objects",
    "ARm": "with 100, middle-sized objects",
    "ARl": "with 100, large objects",
}
CURVES_FILE = "precision_recall.png"
_SIZE_STEP = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG WEIGHTS and their options, or --predictions with --annotations."""
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="a YAML file, or a shipped one: detect/NAME.yaml")
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help="a weights file, or the name of shipped ones")
    parser.add_argument("--predictions", metavar="FILE", type=Path, help="score this COCO results file instead")
    parser.add_argument(
        "--annotations", metavar="FILE", type=Path, help="the COCO annotations that it is scored against"
    )
    parser.add_argument("--plots", metavar="DIR", type=Path, help=f"draw the curves into DIR/{CURVES_FILE}")
    with_net = parser.add_argument_group("with CONFIG and WEIGHTS")
    with_net.add_argument("--output", metavar="FILE", type=Path, help="write the detections as COCO results")
    with_net.add_argument("--split", metavar="NAME", help="a part of the config's data, such as train (val)")
    with_net.add_argument("--set", metavar="KEY=VALUE", action="append", help="change one key of the config")
    with_net.add_argument("--size", metavar=("H", "W"), nargs=2, type=int, help="input size (the config's eval_size)")
    with_net.add_argument("--max-detections", metavar="N", type=int, help="at most so many a picture (100)")
    with_net.add_argument("--score-threshold", metavar="S", type=float, help="leave out detections up to it (0.05)")
    with_net.add_argument("--hard-nms", action="store_true", default=None, help="hard suppression instead of Soft-NMS")
    add_device_argument(parser)


def run(args: argparse.Namespace) -> int:
    """0 when the figures are printed."""
    check_words(args)
    for path in (args.output and args.output.parent, args.plots):
        if path:
            path.mkdir(parents=True, exist_ok=True)
    scores, title = score_file(args) if args.predictions else score_net(args)
    print(f"{title}\n\n{format_scores(scores)}")
    if args.plots:
        from .plots import draw_curves  # matplotlib takes a second to load

        draw_curves(scores, args.plots / CURVES_FILE, title.splitlines()[0])
        print(f"\ncurves: {args.plots / CURVES_FILE}")
    if args.output:
        print(f"detections: {args.output}")
    return 0


def check_words(args: argparse.Namespace) -> None:
    """UsageError where the two forms are mixed, something is missing, or a number cannot be."""
    if args.predictions is None and args.annotations is None:
        if args.config is None or args.weights is None:
            raise UsageError("expected CONFIG and WEIGHTS, or --predictions and --annotations")
    else:
        only_with_net = ("config", "weights", "output", "split", "set", "size", "max_detections", "score_threshold")
        mixed = [name for name in (*only_with_net, "hard_nms", "device") if getattr(args, name) is not None]
        if mixed:
            raise UsageError(f"--predictions scores a file, no net: {mixed[0].replace('_', '-')} does not go with it")
        if args.predictions is None or args.annotations is None:
            raise UsageError("--predictions and --annotations go together: one of them is missing")
    if args.size and any(side < _SIZE_STEP or side % _SIZE_STEP for side in args.size):
        raise UsageError(f"--size {args.size[0]} {args.size[1]}: expected multiples of {_SIZE_STEP}")
    if args.max_detections is not None and args.max_detections < 1:
        raise UsageError(f"--max-detections {args.max_detections}: expected at least 1")
    if args.score_threshold is not None and not 0 <= args.score_threshold < 1:
        raise UsageError(f"--score-threshold {args.score_threshold}: expected a number from 0 to less than 1")


def score_file(args: argparse.Namespace) -> tuple[DetectionScores, str]:
    """The scores of a results file, and what was scored in words."""
    from detect.metrics import evaluate_detections, read_results

    results = read_results(args.predictions)
    pictures = len({row["image_id"] for row in results})
    try:
        scores = evaluate_detections(results, args.annotations)
    except ValueError as error:
        # Complaints about the annotations begin with their path already.
        raise (
            error if str(error).startswith(str(args.annotations)) else ValueError(f"{args.predictions}: {error}")
        ) from None
    return (
        scores,
        f"{args.predictions.name}: {len(results)} detections in {pictures} pictures, scored by {args.annotations}",
    )


def score_net(args: argparse.Namespace) -> tuple[DetectionScores, str]:
    """The scores of weights on a part of the config's data, and what was scored in words; writes --output."""
    import torch

    from backbones.files import write_atomically
    from detect.metrics import evaluate_detections

    from .assembly import validation_loader

    config = load_config(args.config, args.set or [])
    device = choose_device(args.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    size = tuple(args.size) if args.size else config.eval_size
    data, net = open_data_and_net(config, args.weights, args.split or "val", size)
    loader = validation_loader(data, config.eval_batch_size, config.workers)
    settings = {
        "max_detections": args.max_detections or 100,
        "score_threshold": 0.05 if args.score_threshold is None else args.score_threshold,
        "suppression": "hard" if args.hard_nms else "soft",
    }
    net = net.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    results = list(find_objects(net, loader, data, settings))
    if args.output:
        write_atomically(args.output, json.dumps(results).encode())
    scores = evaluate_detections(results, data.annotations, image_ids=data.image_ids, category_ids=data.category_ids)
    title = f"{net.name} {args.weights} on {data.annotations.name}, {size[0]} x {size[1]}"
    return scores, f"{title}\n{data.report}"


def open_data_and_net(
    config: TrainingConfig, weights: str, split: str, size: tuple[int, int]
) -> tuple[CocoDetection, TwoStageDetector]:
    """The pictures of one part of the data, and the config's net with `weights`: both of the same classes.

    Raises ValueError for an unknown split and for weights of another net or other classes.
    """
    from backbones.registry import find_builder
    from detect import create_detector
    from detect.registry import DETECTORS, find_weights, read_saved
    from detect.transforms import Resize

    from .assembly import open_data
    from .schema import arguments

    name = str(config.model["name"])
    builder = find_builder(DETECTORS, name)
    file = find_weights(name, weights)
    saved_names = read_saved(file, name).class_names
    data = open_data(choose_part(config, split), config.data.class_names or saved_names or None, Resize(size))
    starting_points = ("name", "weights", "backbone_weights")  # what training began with is not what is scored
    options = {key: value for key, value in config.model.items() if key not in starting_points}
    net = create_detector(name, num_classes=len(data.class_names), weights=file, **arguments(builder, options, "model"))
    if saved_names and saved_names != data.class_names:
        raise ValueError(
            f"{file} knows the classes {', '.join(saved_names)}; the data has {', '.join(data.class_names)}"
        )
    return data, net


def choose_part(config: TrainingConfig, split: str) -> PartConfig:
    """The part of the config's data called `split`; UsageError with the names that there are."""
    from backbones.registry import nearest

    parts = {name: part for name, part in vars(config.data).items() if isinstance(part, PartConfig)}
    if split not in parts:
        raise UsageError(f"--split {split!r}{nearest(split, parts)}: the config's data has {', '.join(parts)}")
    return parts[split]


def find_objects(
    net: TwoStageDetector, loader: Any, data: CocoDetection, settings: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The net's detections in all pictures as COCO results, with progress on the screen."""
    import torch

    from detect.metrics import coco_results

    from .loader_errors import unwrap_worker_error

    device = next(net.parameters()).device
    try:
        for images, target in show_progress(_one_by_one(net, loader, device, settings), len(data), "pictures"):
            yield from coco_results(images, target.image_id, data.category_ids)
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise unwrap_worker_error(error) from None


def _one_by_one(
    net: TwoStageDetector, loader: Any, device: torch.device, settings: dict[str, Any]
) -> Iterator[tuple[Detections, Any]]:
    """(detections in the pixels of the picture on disk, its target), picture by picture."""
    for images, targets in loader:
        height, width = images.shape[-2:]
        for target, detections in zip(targets, net.predict(images.to(device), **settings), strict=True):
            factors = target.original_size[1] / width, target.original_size[0] / height
            yield detections.to("cpu").scaled(*factors), target


def format_scores(scores: DetectionScores) -> str:
    """The twelve figures with what they mean, and a table of the classes."""
    figures = [f"{name:<6}{_shown(scores.figures[name]):>6}   {meaning}" for name, meaning in MEANINGS.items()]
    rows = [
        [name, _shown(row["AP"]), _shown(row["AP50"]), _shown(row["AR100"]), str(int(row["boxes"]))]
        for name, row in scores.per_class.items()
    ]
    lines = [*figures, "", format_table(["class", "AP", "AP50", "AR100", "objects"], rows)]
    if scores.unusable_boxes:
        lines += ["", f"{scores.unusable_boxes} boxes of the ground truth have no area and were left out"]
    return "\n".join(lines)


def _shown(figure: float) -> str:
    """Three digits, or a dash where the ground truth has no such objects."""
    return "-" if figure < 0 else f"{figure:.3f}"
