"""The scores of a detector, or of anybody's results file: COCO's figures, or VOC's."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from backbones.files import write_atomically
from backbones.registry import find_builder
from detect import Detections, TwoStageDetector, create_detector
from detect.formats.boxed_pictures import BoxedPictures, collate
from detect.metrics import DetectionScores, coco_results, evaluate_detections
from detect.multi_pass import MultiPassPredictor
from detect.predictor import Predictor
from detect.registry import DETECTORS, find_weights, read_saved
from detect.result_rows import read_results
from detect.transforms import Resize
from detect.voc_metric import VOC_RULES, VocScores, evaluate_voc

from ..configuration.detection_config import BoxesPart, DetectionConfig
from ..configuration.schema import arguments, section
from ..engine_words import is_exported, runs_elsewhere
from ..engines.engine_choice import AUTO
from ..engines.exported import ExportedDetector, ExportedNet
from ..engines.exported_words import DETECTION
from ..multi_pass import passes_in_words, several_passes, wants_several_passes
from ..progress import show_progress
from ..table import format_table
from ..training.assembly import validation_loader
from ..training.detection_task import open_data
from ..training.loader_errors import unwrap_worker_error

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
VOC_MEANINGS = {
    "voc2007": "mean of the classes' AP, precision at eleven recalls, overlap 0.50 (VOC2007)",
    "voc2012": "mean of the classes' AP, area under the curve, overlap 0.50 (VOC2010 to 2012)",
}


def score_file(predictions: Path, annotations: Path, plots: Path | None, rule: str) -> str:
    """The figures of a COCO results file, in words; draws the curves into `plots`."""
    results = read_results(predictions)
    pictures = len({row["image_id"] for row in results})
    try:
        scores = _evaluate(results, annotations, rule)
    except ValueError as error:
        # Complaints about the annotations begin with their path already.
        raise (error if str(error).startswith(str(annotations)) else ValueError(f"{predictions}: {error}")) from None
    title = f"{predictions.name}: {len(results)} detections in {pictures} pictures, scored by {annotations}"
    return _shown_scores(scores, title, plots)


def score_net(config: DetectionConfig, part: BoxesPart, device: torch.device, args: argparse.Namespace) -> str:
    """The figures of `args.weights` on a part of the config's data, in words; writes --output and --plots."""
    if runs_elsewhere(args):
        return _score_in_engine(config, part, args)
    size = tuple(args.size) if args.size else config.eval_size
    data, net = open_data_and_net(config, args.weights, part, size)
    settings: dict[str, Any] = {
        "max_detections": args.max_detections or 100,
        "score_threshold": 0.05 if args.score_threshold is None else args.score_threshold,
        "suppression": "hard" if args.hard_nms else "soft",
    }
    net = net.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    if wants_several_passes(args):
        data.transform = None  # whole pictures as they are on disk: each pass resizes for itself
        predictor = several_passes(Predictor(net, size=size, **settings), args)
        _check_windows(predictor, data)
        loader = validation_loader(data, 1, config.workers, collate=collate)
        results = list(find_objects(predictor, loader, data, {}))
    else:
        loader = validation_loader(data, config.eval_batch_size, config.workers, collate=collate)
        results = list(find_objects(net, loader, data, settings))
    return _scored(results, data, net.name, f"{size[0]} x {size[1]}{passes_in_words(args)}", args)


def _check_windows(predictor: MultiPassPredictor, data: BoxedPictures) -> None:
    """ValueError, before any of them is looked at, where a picture would have too many windows."""
    for index, name in enumerate(data.file_names):
        try:
            predictor.looks(data.size_of(index))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def _score_in_engine(config: DetectionConfig, part: BoxesPart, args: argparse.Namespace) -> str:
    """The same for an exported file, or for the net converted into another engine; suppression happens in the file."""
    threshold = 0.05 if args.score_threshold is None else args.score_threshold
    limits = {"score_threshold": threshold, "max_detections": args.max_detections}
    if is_exported(args.weights):
        net = ExportedNet(Path(args.weights), engine=args.engine or AUTO, threads=args.threads)
        if net.words.task == DETECTION and net.name != config.model["name"]:
            raise ValueError(f"{args.weights} is an exported {net.name}; the config's net is {config.model['name']}")
        detector = ExportedDetector(net, size=args.size, **limits)
        with section("data"):
            data = open_data(config.data, part, config.data.class_names or detector.class_names, Resize(detector.size))
        _check_classes(args.weights, detector.class_names, data.class_names)
    else:
        from ..engines.conversion import in_engine  # here: what exports takes time to load

        size = tuple(args.size) if args.size else config.eval_size
        data, plain = open_data_and_net(config, args.weights, part, size)
        wanted = {word: value for word, value in limits.items() if value is not None}
        found = in_engine(
            plain, args.engine, size=size, batch=config.eval_batch_size, threads=args.threads, limits=wanted
        )
        if found is None:  # torch is the quickest
            return score_net(config, part, torch.device("cpu"), argparse.Namespace(**{**vars(args), "engine": None}))
        net, detector = found, ExportedDetector(found, **limits)
    words = net.words
    if words.resize_inside:
        data.transform = None  # pictures as they are on disk
    loader = validation_loader(
        data, 1 if words.resize_inside else words.batch or config.eval_batch_size, config.workers, collate=collate
    )
    results = list(find_objects(detector, loader, data, {}))
    how = f"{detector.size[0]} x {detector.size[1]}, {words.precision} in {net.engine.name}, hard suppression"
    return _scored(results, data, net.name, how, args)


def _scored(
    results: Sequence[Mapping[str, Any]], data: BoxedPictures, name: str, how: str, args: argparse.Namespace
) -> str:
    """The figures of what was found, in words; writes --output and --plots."""
    if args.output:
        write_atomically(args.output, json.dumps(named_results(results, data)).encode())
    scores = _evaluate(results, data.ground_truth(), args.rule or "coco", data.image_ids, data.category_ids)
    title = f"{name} {args.weights} on the part {args.split or 'val'}, {data.annotations.name}, {how}"
    text = _shown_scores(scores, title, args.plots, data.report)
    return f"{text}\ndetections: {args.output}" if args.output else text


def _evaluate(
    results: Sequence[Mapping[str, Any]],
    truth: Path | Mapping[str, Any],
    rule: str,
    image_ids: Sequence[int] | None = None,
    category_ids: Sequence[int] | None = None,
) -> DetectionScores | VocScores:
    if rule in VOC_RULES:
        return evaluate_voc(results, truth, rule=rule, image_ids=image_ids, category_ids=category_ids)
    return evaluate_detections(results, truth, image_ids=image_ids, category_ids=category_ids)


def named_results(results: Sequence[Mapping[str, Any]], data: BoxedPictures) -> list[dict[str, Any]]:
    """The results, each with the file name of its picture and the name of its class: the numbers may be ours alone."""
    pictures = dict(zip(data.image_ids, data.file_names, strict=True))
    classes = dict(zip(data.category_ids, data.class_names, strict=True))
    return [
        {**row, "file_name": pictures[row["image_id"]], "category_name": classes[row["category_id"]]} for row in results
    ]


def _shown_scores(scores: DetectionScores | VocScores, title: str, plots: Path | None, note: Any = None) -> str:
    """Title, figures, and where the curves are."""
    text = "\n".join([title, *([str(note)] if note else []), "", format_scores(scores)])
    if plots and isinstance(scores, DetectionScores):
        from ..plots import draw_curves  # matplotlib takes a second to load

        draw_curves(scores, plots / CURVES_FILE, title)
        text += f"\n\ncurves: {plots / CURVES_FILE}"
    return text


def open_data_and_net(
    config: DetectionConfig, weights: str, part: BoxesPart, size: tuple[int, int]
) -> tuple[BoxedPictures, TwoStageDetector]:
    """The pictures of one part of the data, and the config's net with `weights`: both of the same classes.

    Raises ValueError for weights of another net or other classes.
    """
    name = str(config.model["name"])
    with section("model"):
        builder = find_builder(DETECTORS, name)
    file = find_weights(name, weights)
    saved_names = read_saved(file, name).class_names
    data = open_data(config.data, part, config.data.class_names or saved_names or None, Resize(size))
    # What training began with is not what is scored.
    starting_points = ("name", "weights", "new_classes", "backbone_weights")
    options = {key: value for key, value in config.model.items() if key not in starting_points}
    with section("model"):
        checked = arguments(builder, options, "model")
    net = create_detector(name, num_classes=len(data.class_names), weights=file, **checked)
    if saved_names:
        _check_classes(file, saved_names, data.class_names)
    return data, net


def _check_classes(file: str | Path, known: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    """ValueError where the weights know other classes than the data has."""
    if known != wanted:
        raise ValueError(f"{file} knows the classes {', '.join(known)}; the data has {', '.join(wanted)}")


def find_objects(
    net: TwoStageDetector | MultiPassPredictor | ExportedDetector,
    loader: Any,
    data: BoxedPictures,
    settings: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """The net's detections in all pictures as COCO results, with progress on the screen.

    A `MultiPassPredictor` wants them one by one and as they are on disk, and has its settings already.
    """
    if isinstance(net, MultiPassPredictor):
        answers = _whole_pictures(net, loader)
    else:
        device = net.device if isinstance(net, ExportedDetector) else next(net.parameters()).device
        answers = _one_by_one(net, loader, device, settings)
    try:
        for detections, target in show_progress(answers, len(data), "pictures"):
            yield from coco_results(detections, target.image_id, data.category_ids)
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise unwrap_worker_error(error) from None


def _one_by_one(
    net: TwoStageDetector | ExportedDetector, loader: Any, device: torch.device, settings: dict[str, Any]
) -> Iterator[tuple[Detections, Any]]:
    """(detections in the pixels of the picture on disk, its target), picture by picture."""
    for images, targets in loader:
        height, width = images.shape[-2:]
        for target, detections in zip(targets, net.predict(images.to(device), **settings), strict=True):
            factors = target.original_size[1] / width, target.original_size[0] / height
            yield detections.to("cpu").scaled(*factors), target


def _whole_pictures(predictor: MultiPassPredictor, loader: Any) -> Iterator[tuple[Detections, Any]]:
    """As `_one_by_one`."""
    for images, (target,) in loader:
        yield predictor(images[0].permute(1, 2, 0).numpy()), target


def format_scores(scores: DetectionScores | VocScores) -> str:
    """The figures with what they mean, and a table of the classes."""
    lines = _voc_lines(scores) if isinstance(scores, VocScores) else _coco_lines(scores)
    if scores.unusable_boxes:
        lines += ["", f"{scores.unusable_boxes} boxes of the ground truth have no area and were left out"]
    return "\n".join(lines)


def _voc_lines(scores: VocScores) -> list[str]:
    rows = [
        [name, _shown(row["AP"]), _shown(row["recall"]), *(str(int(row[key])) for key in ("objects", "difficult"))]
        for name, row in scores.per_class.items()
    ]
    mean = f"mAP   {_shown(scores.mean):>6}   {VOC_MEANINGS[scores.rule]}"
    return [mean, "", format_table(["class", "AP", "recall", "objects", "difficult"], rows)]


def _coco_lines(scores: DetectionScores) -> list[str]:
    figures = [f"{name:<6}{_shown(scores.figures[name]):>6}   {meaning}" for name, meaning in MEANINGS.items()]
    rows = [
        [name, _shown(row["AP"]), _shown(row["AP50"]), _shown(row["AR100"]), str(int(row["boxes"]))]
        for name, row in scores.per_class.items()
    ]
    return [*figures, "", format_table(["class", "AP", "AP50", "AR100", "objects"], rows)]


def _shown(figure: float) -> str:
    """Three digits, or a dash where the ground truth has no such objects."""
    return "-" if figure < 0 else f"{figure:.3f}"
