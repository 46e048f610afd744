"""The scores of a joint net: COCO's figures of its boxes, IoU and accuracy of its classes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from backbones.files import write_atomically
from detect.metrics import coco_results, evaluate_detections
from detect.results import Target
from joint.registry import find_weights, read_saved
from segment.metrics import ConfusionMatrix

from .assembly import validation_loader
from .detection_scoring import format_scores
from .joint_config import JointConfig, JointPart
from .joint_data import ScoredPictures, collate
from .joint_task import ClassNames, Found, create_net, open_scored, predict
from .loader_errors import unwrap_worker_error
from .progress import show_progress
from .sampler import Size
from .schema import section
from .segmentation_report import class_table


def score_net(config: JointConfig, part: JointPart, device: torch.device, args: argparse.Namespace) -> str:
    """The figures of `args.weights` on a part of the config's data, in words; writes --output (the boxes)."""
    size: Size = tuple(args.size) if args.size else config.eval_size
    name = str(config.model["name"])
    with section("model"):
        path = find_weights(name, args.weights)
        saved = read_saved(path, name)
        names = ClassNames(saved.detector_names, saved.segmenter_names)
        net = create_net(config, names, weights=path)
    data = open_scored(config, part, names, size)
    counts = Counts(data, names)
    for target, labels, found in show_progress(answers(net, data, config, device), len(data), "pictures"):
        counts.update(target, labels, found)
    text = [f"{net.name} {args.weights} on {args.split or 'val'}, {size[0]} x {size[1]}", data.report, *counts.tables()]
    if args.output:
        write_atomically(args.output, json.dumps(counts.rows).encode())
        text.append(f"\ndetections: {args.output}")
    return "\n".join(text)


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


def answers(
    net: nn.Module, data: ScoredPictures, config: JointConfig, device: torch.device
) -> Iterator[tuple[Any, Any, Found]]:
    """(target or None, labels or None, what was found), picture by picture."""
    net = net.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    loader = validation_loader(data, config.eval_batch_size, config.workers, collate=collate)
    try:
        for images, truth in loader:
            seen = images.to(device).contiguous(memory_format=torch.channels_last)
            with torch.inference_mode():
                found = predict(net, seen, truth)
            yield from zip(truth.targets, truth.labels, found, strict=True)
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise unwrap_worker_error(error) from None
