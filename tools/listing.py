"""Show the names of the nets that can be built, what they cost, and the weights that come with the package."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UsageError
from .table import format_markdown, format_table

if TYPE_CHECKING:
    from torch import nn

    from backbones.task_net import TaskNet

Format = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """[backbones|detectors|segmenters|joints] [--markdown]."""
    parser.add_argument("kind", metavar="KIND", nargs="?", help="backbones, detectors, segmenters or joints (all)")
    parser.add_argument("--markdown", action="store_true", help="tables for a page of documentation")


def run(args: argparse.Namespace) -> int:
    """0 when the tables are printed."""
    if args.kind is not None and args.kind not in LISTS:
        from backbones.registry import nearest

        *first, last = LISTS
        expected = f"{', '.join(first)} or {last}"
        raise UsageError(f"there is no list of {args.kind!r}{nearest(args.kind, LISTS)}: expected {expected}")
    chosen = [args.kind] if args.kind else list(LISTS)
    table = format_markdown if args.markdown else format_table
    print("\n\n".join(LISTS[kind](table) for kind in chosen))
    return 0


def backbone_table() -> tuple[list[str], list[list[str]]]:
    """Heads and rows of every backbone: the catalogue's figures."""
    from backbones import CATALOGUE

    heads = ["backbone", "parameters", "multiply-adds", "top-1 %", "source"]
    rows = [
        [
            row.name,
            f"{row.parameters:,}",
            f"{row.multiply_adds:.2f} M",
            "-" if row.top1 is None else f"{row.top1:.1f}",
            row.source,
        ]
        for row in CATALOGUE.values()
    ]
    return heads, rows


def describe_backbones(table: Format) -> str:
    """Every backbone with its counts and its paper's accuracy."""
    note = (
        "Counts with the classifier for 1000 classes, multiply-adds at 224 x 224; "
        "top-1 accuracy on ImageNet as the source gives it."
    )
    return f"{table(*backbone_table())}\n\n{note}"


def describe_detectors(table: Format) -> str:
    """Every detector with its costs, and the shipped weights."""
    import torch

    from detect import create_detector, list_detectors, shipped_weights
    from detect.registry import DEFAULT_CLASSES

    with torch.device("meta"):  # there nothing is computed, only shapes are found: at the papers' sizes that counts
        nets = {name: create_detector(name) for name in list_detectors()}
    note = f"Multiply-adds of one picture of the input size, with {DEFAULT_CLASSES} classes."
    return _describe_nets("detector", nets, note, shipped_weights(), create_detector, table)


def describe_segmenters(table: Format) -> str:
    """Every segmenter with its costs, and the shipped weights."""
    import torch

    from segment import create_segmenter, list_segmenters, shipped_weights
    from segment.registry import DEFAULT_CLASSES

    with torch.device("meta"):  # as for detectors
        nets = {name: create_segmenter(name) for name in list_segmenters()}
    note = f"Multiply-adds of one picture of the input size, with {DEFAULT_CLASSES} classes."
    return _describe_nets("segmenter", nets, note, shipped_weights(), create_segmenter, table)


def describe_joints(table: Format) -> str:
    """Every joint net with its costs and those of its two nets apart, and the shipped weights."""
    import torch

    from backbones import read_metadata
    from backbones.cost import measure_cost_by_part
    from joint import create_joint, list_joints, shipped_weights
    from joint.registry import PARTS, read_saved

    rows = []
    for name in list_joints():
        with torch.device("meta"):  # as for detectors
            net = create_joint(name)
        costs = measure_cost_by_part(net, net.input_size, ("backbone", *PARTS))
        backbone, *heads = (costs[part] for part in ("backbone", *PARTS))
        parameters, work = (sum(cost[place] for cost in (backbone, *heads)) for place in (0, 1))
        apart = f"{(work + backbone.multiply_adds) / 1e6:.2f} M"
        rows.append([name, f"{parameters:,}", f"{work / 1e6:.2f} M", apart, _size(net.input_size)])
    costs_table = table(["joint net", "parameters", "multiply-adds", "of the two apart", "input"], rows)
    files = []
    for stem, path in shipped_weights().items():
        saved = read_saved(path, read_metadata(path)["name"])
        classes = ", ".join(dict.fromkeys((*saved.detector_names, *saved.segmenter_names)))
        files.append([stem, f"{path.stat().st_size / 1e6:.1f}", _size(saved.options["input_size"]), classes])
    shipped = table(["shipped weights", "MB", "input", "classes"], files) if files else _nothing_shipped("joint")
    return f"{costs_table}\n\n{shipped}"


def _describe_nets(
    kind: str,
    nets: Mapping[str, TaskNet],
    note: str,
    shipped: Mapping[str, Path],
    create: Callable[..., TaskNet],
    table: Format,
) -> str:
    rows = [[name, *_cost(net, net.input_size), _size(net.input_size)] for name, net in nets.items()]
    costs = table([kind, "parameters", "multiply-adds", "input"], rows)
    weights = [_describe_weights(stem, path, create) for stem, path in shipped.items()]
    files = table(["shipped weights", "MB", "input", "classes"], weights) if weights else _nothing_shipped(kind)
    return f"{costs}\n\n{note}\n\n{files}"


def _describe_weights(stem: str, path: Path, create: Callable[..., TaskNet]) -> list[str]:
    from backbones import read_metadata

    metadata = read_metadata(path)
    names = json.loads(metadata["class_names"])
    net = create(metadata["name"], weights=path)
    classes = ", ".join(names) if len(names) <= 5 else f"{len(names)}: {', '.join(names[:4])}, ..."
    return [stem, f"{path.stat().st_size / 1e6:.1f}", _size(net.input_size), classes]


def _cost(net: nn.Module, size: tuple[int, int]) -> list[str]:
    """Parameters to the digit and multiply-adds in millions."""
    from backbones import measure_cost

    cost = measure_cost(net, size)
    return [f"{cost.parameters:,}", f"{cost.multiply_adds / 1e6:.2f} M"]


def _nothing_shipped(kind: str) -> str:
    return f"no {kind} weights come with this package"


def _size(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"


LISTS: dict[str, Callable[[Format], str]] = {
    "backbones": describe_backbones,
    "detectors": describe_detectors,
    "segmenters": describe_segmenters,
    "joints": describe_joints,
}
