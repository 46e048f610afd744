"""The scores of a detector, or of anybody's results file: COCO's figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from backbones.files import write_atomically
from backbones.registry import find_builder
from detect import Detections, TwoStageDetector, create_detector
from detect.formats.coco import CocoDetection, collate
from detect.metrics import DetectionScores, coco_results, evaluate_detections, read_results
from detect.registry import DETECTORS, find_weights, read_saved
from detect.transforms import Resize

from .assembly import validation_loader
from .detection_config import DetectionConfig, PartConfig
from .detection_task import open_data
from .loader_errors import unwrap_worker_error
from .progress import show_progress
from .schema import arguments, section
from .table import format_table

CURVES_FILE = "precision_recall.png"
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


def score_file(predictions: Path, annotations: Path, plots: Path | None) -> str:
    """The figures of a COCO results file, in words; draws the curves into `plots`."""
    results = read_results(predictions)
    pictures = len({row["image_id"] for row in results})
    try:
        scores = evaluate_detections(results, annotations)
    except ValueError as error:
        # Complaints about the annotations begin with their path already.
        raise (error if str(error).startswith(str(annotations)) else ValueError(f"{predictions}: {error}")) from None
    title = f"{predictions.name}: {len(results)} detections in {pictures} pictures, scored by {annotations}"
    return _shown_scores(scores, title, plots)


def score_net(config: DetectionConfig, part: PartConfig, device: torch.device, args: argparse.Namespace) -> str:
    """The figures of `args.weights` on a part of the config's data, in words; writes --output and --plots."""
    size = tuple(args.size) if args.size else config.eval_size
    data, net = open_data_and_net(config, args.weights, part, size)
    loader = validation_loader(data, config.eval_batch_size, config.workers, collate=collate)
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
    text = _shown_scores(scores, title, args.plots, data.report)
    return f"{text}\ndetections: {args.output}" if args.output else text


def _shown_scores(scores: DetectionScores, title: str, plots: Path | None, note: Any = None) -> str:
    """Title, figures, and where the curves are."""
    text = "\n".join([title, *([str(note)] if note else []), "", format_scores(scores)])
    if plots:
        from .plots import draw_curves  # matplotlib takes a second to load

        draw_curves(scores, plots / CURVES_FILE, title)
        text += f"\n\ncurves: {plots / CURVES_FILE}"
    return text


def open_data_and_net(
    config: DetectionConfig, weights: str, part: PartConfig, size: tuple[int, int]
) -> tuple[CocoDetection, TwoStageDetector]:
    """The pictures of one part of the data, and the config's net with `weights`: both of the same classes.

    Raises ValueError for weights of another net or other classes.
    """
    name = str(config.model["name"])
    with section("model"):
        builder = find_builder(DETECTORS, name)
    file = find_weights(name, weights)
    saved_names = read_saved(file, name).class_names
    data = open_data(part, config.data.class_names or saved_names or None, Resize(size))
    starting_points = ("name", "weights", "backbone_weights")  # what training began with is not what is scored
    options = {key: value for key, value in config.model.items() if key not in starting_points}
    with section("model"):
        checked = arguments(builder, options, "model")
    net = create_detector(name, num_classes=len(data.class_names), weights=file, **checked)
    if saved_names and saved_names != data.class_names:
        raise ValueError(
            f"{file} knows the classes {', '.join(saved_names)}; the data has {', '.join(data.class_names)}"
        )
    return data, net


def find_objects(
    net: TwoStageDetector, loader: Any, data: CocoDetection, settings: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The net's detections in all pictures as COCO results, with progress on the screen."""
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
