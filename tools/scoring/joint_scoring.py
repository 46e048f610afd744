"""The scores of a joint net: COCO's figures of its boxes, IoU and accuracy of its classes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backbones.files import write_atomically
from detect.metrics import coco_results, evaluate_detections
from detect.results import Target
from joint import JointTruth
from joint.registry import find_weights, read_saved
from segment.metrics import ConfusionMatrix

from ..configuration.joint_config import JointConfig, JointPart
from ..configuration.schema import section
from ..engine_words import is_exported, runs_elsewhere
from ..engines.engine_choice import AUTO
from ..engines.exported import ExportedNet
from ..engines.exported_joint import ExportedJoint
from ..progress import show_progress
from ..training.assembly import validation_loader
from ..training.joint_data import ScoredPictures, collate
from ..training.joint_task import ClassNames, Found, create_net, open_scored, predict
from ..training.loader_errors import unwrap_worker_error
from ..training.sampler import Size
from .detection_scoring import format_scores, named_results
from .segmentation_report import class_table

_LEAST_SCORE = 0.05  # as the net's own `predict` has it


def score_net(config: JointConfig, part: JointPart, device: torch.device, args: argparse.Namespace) -> str:
    """The figures of `args.weights` on a part of the config's data, in words; writes --output (the boxes)."""
    look = _look_by_file(config, args) if is_exported(args.weights) else _look_by_net(config, device, args)
    data = open_scored(config, part, look.names, look.size)
    counts = Counts(data, look.names)
    for target, labels, found in show_progress(answers(look, data, config), len(data), "pictures"):
        counts.update(target, labels, found)
    title = f"{look.name} {args.weights} on {args.split or 'val'}, {look.size[0]} x {look.size[1]}{look.how}"
    if args.output:
        rows = [] if data.boxed is None else named_results(counts.rows, data.boxed)
        write_atomically(args.output, json.dumps(rows).encode())
    text = [title, data.report, *counts.tables()]
    if args.output:
        text.append(f"\ndetections: {args.output}")
    return "\n".join(text)


class Look(NamedTuple):
    """What is scored: what finds boxes in its own pixels or labels in the picture's, as the truth asks, of pictures
    [N, 3, h, w] of `size`. how: in words, where torch does not do it.
    """

    find: Callable[[Tensor, JointTruth], list[Found]]
    name: str
    names: ClassNames
    size: Size
    how: str = ""


def _look_by_net(config: JointConfig, device: torch.device, args: argparse.Namespace) -> Look:
    """The config's net with `args.weights`, in torch or in the engine that is meant."""
    size: Size = tuple(args.size) if args.size else config.eval_size
    name = str(config.model["name"])
    with section("model"):
        path = find_weights(name, args.weights)
        saved = read_saved(path, name)
        names = ClassNames(saved.detector_names, saved.segmenter_names)
        net = create_net(config, names, weights=path)
    if runs_elsewhere(args):
        from ..engines.conversion import in_engine  # here: what exports takes time to load

        net.detector.class_names, net.segmenter.class_names = names
        found = in_engine(net, args.engine, size=size, batch=config.eval_batch_size, threads=args.threads)
        if found is not None:
            return _look_by_predictor(ExportedJoint(found, score_threshold=_LEAST_SCORE), names)
    placed = net.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @torch.inference_mode()
    def find(images: Tensor, truth: JointTruth) -> list[Found]:
        return predict(placed, images.to(device).contiguous(memory_format=torch.channels_last), truth)

    return Look(find, name, names, size)


def _look_by_file(config: JointConfig, args: argparse.Namespace) -> Look:
    """An exported file. ValueError for one of another net."""
    file = ExportedNet(Path(args.weights), engine=args.engine or AUTO, threads=args.threads)
    exported = ExportedJoint(file, size=args.size, score_threshold=_LEAST_SCORE)
    if file.name != config.model["name"]:
        raise ValueError(f"{args.weights} is an exported {file.name}; the config's net is {config.model['name']}")
    return _look_by_predictor(exported, ClassNames(file.words.class_names, file.words.pixel_class_names))


def _look_by_predictor(exported: ExportedJoint, names: ClassNames) -> Look:
    def find(images: Tensor, truth: JointTruth) -> list[Found]:
        raw = exported.net(images.numpy())
        found: list[Found] = []
        for place, (target, labels) in enumerate(zip(truth.targets or (), truth.labels or (), strict=True)):
            boxes, pixels = exported.parts(tuple(each[place : place + 1] for each in raw))
            if target is not None:
                found.append(Found(exported.boxes.finish(boxes, exported.size), None))
            else:
                assert labels is not None  # a picture of which nothing is known is in no data set
                size = (labels.shape[-2], labels.shape[-1])
                found.append(Found(None, exported.pixels.finish(pixels, size).labels))
        return found

    how = f", {exported.net.words.precision} in {exported.net.engine.name}, hard suppression"
    return Look(find, exported.net.name, names, exported.size, how)


class Counts:
    """What is counted as the pictures of `data` go by: rows of COCO results, and the confusion of the classes."""

    def __init__(self, data: ScoredPictures, names: ClassNames) -> None:
        self.data, self.names = data, names
        self.rows: list[dict[str, Any]] = []
        self.confusion = ConfusionMatrix(len(names.segmenter))

    def update(self, target: Target | None, labels: Tensor | None, found: Found) -> None:
        """One picture: its truth, of either kind, and the answer to it."""
        if target is None:
            assert found.labels is not None  # what there is to score
            assert labels is not None
            self.confusion.update(found.labels, labels)
            return
        assert self.data.boxed is not None  # where the target came from
        assert found.detections is not None
        (height, width), size = target.original_size, self.data.size
        detections = found.detections.scaled(width / size[1], height / size[0]).to("cpu")
        self.rows += coco_results(detections, int(target.image_id), self.data.boxed.category_ids)

    def tables(self) -> list[str]:
        """The figures of each kind that the data has, in words."""
        tables, boxed = [], self.data.boxed
        if boxed is not None:
            chosen = {"image_ids": boxed.image_ids, "category_ids": boxed.category_ids}
            tables += ["", format_scores(evaluate_detections(self.rows, boxed.ground_truth(), **chosen))]
        if self.data.labelled is not None:
            tables += ["", class_table(self.confusion.scores(self.names.segmenter))]
        return tables


def answers(look: Look, data: ScoredPictures, config: JointConfig) -> Iterator[tuple[Any, Any, Found]]:
    """(target or None, labels or None, what was found), picture by picture."""
    loader = validation_loader(data, config.eval_batch_size, config.workers, collate=collate)
    try:
        for images, truth in loader:
            yield from zip(truth.targets, truth.labels, look.find(images, truth), strict=True)
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise unwrap_worker_error(error) from None
