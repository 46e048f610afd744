"""The scores of a classifier on class folders: top-1, top-5, and which classes are taken for which."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from backbones import Classifier
from backbones.classifier import read_saved
from backbones.files import write_atomically

from ..configuration.classification_config import ClassificationConfig
from ..configuration.schema import section
from ..progress import show_progress
from ..table import format_table
from ..training.assembly import validation_loader
from ..training.class_folders import ClassFolders, collate
from ..training.classification_task import create_net, top_figures, truth_ranks
from ..training.crops import MiddleCrop
from ..training.loader_errors import unwrap_worker_error

_SHOWN_CLASSES = 20
_WRITTEN_ANSWERS = 5


def score_net(config: ClassificationConfig, part: Path, device: torch.device, args: argparse.Namespace) -> str:
    """The figures of `args.weights` on the class folders `part`, in words; writes --output."""
    with section("model"):
        weights = Path(args.weights)
        net = create_net(config, None, weights=weights)
        names = read_saved(weights, net.name).class_names or None  # a published file has the folders in their order
    size = tuple(args.size) if args.size else config.eval_size
    middle = MiddleCrop(size, config.eval_crop)
    with section("data"):
        data = ClassFolders(part, middle, class_names=names, check=config.data.check_pictures)
        if len(data.class_names) != net.num_classes:
            raise ValueError(f"{part} has {len(data.class_names)} classes; {weights} has {net.num_classes}")
    probabilities = classify(net.to(device), data, config)
    ranks = truth_ranks(probabilities, torch.from_numpy(data.labels))
    if args.output:
        write_atomically(args.output, json.dumps(answers(data, probabilities)).encode())
    title = f"{net.name} {args.weights} on {part}, {size[0]} x {size[1]}"
    text = f"{title}\n{data.report}\n\n{format_figures(data, ranks, probabilities.argmax(dim=1))}"
    return f"{text}\nanswers: {args.output}" if args.output else text


def classify(net: Classifier, data: ClassFolders, config: ClassificationConfig) -> Tensor:
    """Probabilities [number of pictures, C], with progress on the screen."""
    loader = validation_loader(data, config.eval_batch_size, config.workers, collate=collate)
    found: list[Tensor] = []
    try:
        rows = (row for images, _ in loader for row in net.predict(images.to(net.mean.device)).cpu())
        found.extend(show_progress(rows, len(data), "pictures"))
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise unwrap_worker_error(error) from None
    return torch.stack(found)


def answers(data: ClassFolders, probabilities: Tensor) -> list[dict[str, object]]:
    """Picture by picture its file, its class, and the likeliest classes with their probabilities."""
    best = probabilities.topk(min(_WRITTEN_ANSWERS, probabilities.shape[1]), dim=1)
    return [
        {
            "file_name": file,
            "class": data.class_names[label],
            "found": [[data.class_names[place], score] for place, score in zip(places, scores, strict=True)],
        }
        for file, label, places, scores in zip(
            data.file_names, data.labels.tolist(), best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]


def format_figures(data: ClassFolders, ranks: Tensor, predicted: Tensor) -> str:
    """The two figures, and a table of the classes, the worst first."""
    meanings = {"top1": "the class is the likeliest", "top5": "the class is among the five likeliest"}
    figures = [f"{name}  {value:.4f}   share of the pictures where {meanings[name]}"
               for name, value in top_figures(ranks.tolist()).items()]  # fmt: skip
    labels = torch.from_numpy(data.labels)
    rows = []
    for index in sorted(
        set(data.labels.tolist()), key=lambda index: float((ranks[labels == index] == 0).float().mean())
    ):
        own = labels == index
        row = top_figures(ranks[own].tolist())
        rows.append([data.class_names[index], f"{row['top1']:.4f}", f"{row['top5']:.4f}", str(int(own.sum())),
                     _taken_for(predicted[own].tolist(), index, data.class_names)])  # fmt: skip
    lines = [*figures, "", format_table(["class", "top1", "top5", "pictures", "most taken for"], rows[:_SHOWN_CLASSES])]
    if len(rows) > _SHOWN_CLASSES:
        lines.append(f"and {len(rows) - _SHOWN_CLASSES} classes that are not worse")
    return "\n".join(lines)


def _taken_for(predicted: Sequence[int], index: int, names: Sequence[str]) -> str:
    """The wrong class that is found most often."""
    wrong = [other for other in predicted if other != index]
    return names[max(set(wrong), key=lambda other: (wrong.count(other), -other))] if wrong else "-"
