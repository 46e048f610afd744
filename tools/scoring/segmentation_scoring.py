"""The scores of a segmenter: IoU and accuracy of the classes, Cityscapes' own figures; its predictions as pictures."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from backbones.files import write_atomically
from segment import Segmenter
from segment.cityscapes_scores import CityscapesEvaluation
from segment.formats.cityscapes import to_label_ids
from segment.formats.cityscapes_folders import Cityscapes
from segment.formats.labelled_pictures import collate
from segment.inference import predict_labels, predict_probabilities
from segment.metrics import ConfusionMatrix, SegmentationScores
from segment.registry import find_weights, read_saved

from ..configuration.schema import section
from ..configuration.segmentation_config import LabelledPart, SegmentationConfig
from ..engine_words import is_exported, runs_elsewhere
from ..engines.engine_choice import AUTO
from ..engines.exported import ExportedNet, ExportedSegmenter
from ..frames.label_pictures import write_cityscapes_ids, write_colours, write_labels
from ..frames.overlay import class_colours
from ..progress import show_progress
from ..training.assembly import validation_loader
from ..training.known_classes import refuse_other_classes
from ..training.loader_errors import unwrap_worker_error
from ..training.segmentation_data import JoinedPictures, WholePictures, open_pictures
from ..training.segmentation_task import create_net, mean_figures
from .segmentation_report import cityscapes_table, class_table, draw_confusion

Answer = Callable[[Tensor, tuple[int, int]], Tensor]  # images [1, 3, h, w], (H, W) of the labels -> labels [H, W]


def score_net(
    config: SegmentationConfig, parts: Sequence[LabelledPart], device: torch.device, args: argparse.Namespace
) -> str:
    """The figures of `args.weights` on some parts of the config's data, in words; writes the files asked for."""
    size = tuple(args.size) if args.size else config.eval_size
    if is_exported(args.weights):
        data, exported = _open_data_and_file(config, parts, args)
        size, name, class_names = exported.size, exported.net.name, exported.class_names
        words = exported.net.words
        pictures = WholePictures(data, None if words.resize_inside else size, keep_shape=words.free_size)
        answer: Answer = exported.labels
    else:
        data, net = open_data_and_net(config, parts, args.weights)
        name, class_names = net.name, net.class_names
        pictures = WholePictures(data, size)
        answer = _answer_of(net, size, device, args)
    counts, writers = Counts(data), _writers(data, args)
    answers = predictions(pictures, config.workers, device, answer)
    for index, (predicted, labels) in enumerate(show_progress(answers, len(data), "pictures")):
        counts.update(index, predicted, labels)
        for write in writers:
            write(index, predicted)
    mode = _mode(size, args) + ("" if pictures.keep_shape else ", squeezed into it")
    text = [f"{name} {args.weights} on {args.split or 'val'}, {mode}", data.report, ""]
    files = {"colours": args.colours, "label ids": args.label_ids}
    if writers and counts.is_empty:  # a test part whose labels are kept by a scoring server
        text.append("nothing to score: all pixels are to be ignored")
    else:
        text.append(counts.tables())
        files |= {"confusion matrix": args.matrix, "figures": args.output}
        if args.matrix:
            draw_confusion(counts.confusion, class_names, args.matrix, f"{name}, {mode}")
        if args.output:
            write_atomically(args.output, json.dumps(figures_as_json(counts), indent=1).encode())
    written = [f"{what}: {path}" for what, path in files.items() if path]
    return "\n".join([*text, *([""] if written else []), *written])


class Counts:
    """What is counted as the pictures of `data` go by; pictures of Cityscapes are also counted as its scripts do."""

    def __init__(self, data: JoinedPictures) -> None:
        self.data, self.confusion = data, ConfusionMatrix(len(data.class_names))
        is_cityscapes = all(isinstance(part, Cityscapes) for part in data.parts)
        self.cityscapes = CityscapesEvaluation() if is_cityscapes else None
        self.without_instances = 0

    @property
    def is_empty(self) -> bool:
        """Whether no pixel was labelled."""
        return not self.confusion.matrix[:-1].any()

    def update(self, index: int, predicted: np.ndarray, labels: np.ndarray) -> None:
        """Picture `index`: predicted and labelled classes [H, W] uint8."""
        self.confusion.update(predicted, labels)
        if self.cityscapes is not None:
            instances = _instances(self.data, index)
            self.without_instances += instances is None
            self.cityscapes.update(to_label_ids(predicted), to_label_ids(labels), instances)

    def scores(self) -> SegmentationScores:
        """The figures of the classes. ValueError where nothing was labelled."""
        return self.confusion.scores(self.data.class_names)

    def tables(self) -> str:
        """All figures in words."""
        tables = [class_table(self.scores())]
        if self.cityscapes is not None:
            tables.append(cityscapes_table(self.cityscapes.scores()))
        if self.without_instances:
            lacking = f"{self.without_instances} of {len(self.data)} pictures"
            tables.append(f"{lacking} have no *_instanceIds.png: the iIoU says nothing")
        return "\n\n".join(tables)


def open_data_and_net(
    config: SegmentationConfig, parts: Sequence[LabelledPart], weights: str
) -> tuple[JoinedPictures, Segmenter]:
    """Some parts of the data, and the config's net with `weights`: both of the same classes.

    Raises ValueError for weights of another net or other classes.
    """
    name = str(config.model["name"])
    with section("model"):
        file = find_weights(name, weights)
        saved_names = read_saved(file, name).class_names
    with section("data"):
        data = open_pictures(config.data, parts, class_names=saved_names or None)
    refuse_other_classes(f"{file} knows", saved_names, data.class_names)
    with section("model"):
        return data, create_net(config, data.class_names, weights=file)


def predictions(
    pictures: WholePictures, workers: int, device: torch.device, answer: Answer
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(predicted [H, W], labels [H, W]) uint8, picture by picture at full size."""
    loader = validation_loader(pictures, 1, workers, collate=collate)
    try:
        for images, labels in loader:
            seen = images.to(device).contiguous(memory_format=torch.channels_last)
            yield answer(seen, labels.shape[-2:]).to("cpu", torch.uint8).numpy(), labels[0].numpy()
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise unwrap_worker_error(error) from None


def _open_data_and_file(
    config: SegmentationConfig, parts: Sequence[LabelledPart], args: argparse.Namespace
) -> tuple[JoinedPictures, ExportedSegmenter]:
    """Some parts of the data, and an exported file that runs: both of the same classes, else ValueError."""
    net = ExportedNet(Path(args.weights), engine=args.engine or AUTO, threads=args.threads)
    exported = ExportedSegmenter(net, size=args.size)
    with section("data"):
        data = open_pictures(config.data, parts, class_names=exported.class_names)
    if data.class_names != exported.class_names:
        known, wanted = ", ".join(exported.class_names), ", ".join(data.class_names)
        raise ValueError(f"{args.weights} knows the classes {known}; the data has {wanted}")
    return data, exported


def _answer_of(net: Segmenter, size: tuple[int, int], device: torch.device, args: argparse.Namespace) -> Answer:
    """How the net answers in the engine that is meant."""
    if runs_elsewhere(args):
        from ..engines.conversion import in_engine  # here: what exports takes time to load

        converted = in_engine(net, args.engine, size=size, threads=args.threads)
        if converted is not None:
            return ExportedSegmenter(converted).labels
    return _answer(net.to(device, memory_format=torch.channels_last).eval(), args)  # type: ignore[call-overload]


def _answer(net: Segmenter, args: argparse.Namespace) -> Answer:
    """How the net answers, as the words say."""

    @torch.inference_mode()
    def answer(images: Tensor, size: tuple[int, int]) -> Tensor:
        if args.window is None and args.scales is None and args.flip is None:
            return predict_labels(net(images), size)[0]
        overlap = 0.25 if args.overlap is None else args.overlap
        probabilities = predict_probabilities(
            net, images, window=args.window, overlap=overlap, scales=args.scales or (1.0,), flip=bool(args.flip)
        )
        return predict_labels(probabilities, size)[0]

    return answer


def _mode(size: tuple[int, int], args: argparse.Namespace) -> str:
    """How the net sees the pictures: a figure without that cannot be compared."""
    words = [f"seen at {size[0]} x {size[1]}", f"in windows of {args.window[0]} x {args.window[1]}"
             if args.window else "whole"]  # fmt: skip
    if args.scales:
        words.append(f"at scales {', '.join(f'{scale:g}' for scale in args.scales)}")
    return ", ".join(words + ["also mirrored"] * bool(args.flip))


def _writers(data: JoinedPictures, args: argparse.Namespace) -> list[Callable[[int, np.ndarray], None]]:
    """What writes the prediction of picture `index` into the folders asked for. ValueError for a name that is twice."""
    names = [Path(name).with_suffix(".png") for name in data.file_names]
    twice = {name for name in names if names.count(name) > 1} if args.colours or args.label_ids else set()
    if twice:
        raise ValueError(f"several pictures are called {min(twice)}; their predictions would be written over")
    colours = class_colours(len(data.class_names), data.colours)

    def write_picture(index: int, predicted: np.ndarray) -> None:
        path = args.colours / names[index]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_colours(path, predicted, colours)

    def write_ids(index: int, predicted: np.ndarray) -> None:
        if isinstance(data.locate(index)[0], Cityscapes):
            write_cityscapes_ids(args.label_ids, data.file_names[index], predicted)
            return
        path = args.label_ids / names[index]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, predicted)

    return [write for write, folder in ((write_picture, args.colours), (write_ids, args.label_ids)) if folder]


def _instances(data: JoinedPictures, index: int) -> np.ndarray | None:
    """The instance ids [H, W] of a Cityscapes picture, None where there is no such file. ValueError for a bad one."""
    part, place = data.locate(index)
    assert isinstance(part, Cityscapes)
    path = part.instance_path(place)
    if not path.is_file():
        return None
    try:
        with Image.open(path) as picture:
            return np.array(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path} is no readable picture of instance ids: {error}") from None


def figures_as_json(counts: Counts) -> dict[str, object]:
    """The figures 0..1 and the matrix (rows: labels, columns: predictions, ignored last); null where undefined."""
    scores = counts.scores()

    def by_class(values: np.ndarray) -> dict[str, float | None]:
        named = zip(scores.class_names, values.tolist(), strict=True)
        return {name: None if math.isnan(value) else value for name, value in named}

    return {
        **mean_figures(scores),
        "class_IoU": by_class(scores.class_iou),
        "class_accuracy": by_class(scores.class_accuracy),
        "matrix": counts.confusion.matrix.tolist(),
    }
