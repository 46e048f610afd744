"""Show the names of the nets that can be built, what they cost, and the weights that come with the package."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UsageError
from .table import format_table

if TYPE_CHECKING:
    from torch import nn

BACKBONE_SIZE = (224, 224)  # (height, width), the size at which classifiers are compared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """[backbones|detectors]."""
    parser.add_argument("kind", metavar="KIND", nargs="?", help="backbones or detectors (all)")


def run(args: argparse.Namespace) -> int:
    """0 when the tables are printed."""
    if args.kind is not None and args.kind not in LISTS:
        from backbones.registry import nearest

        raise UsageError(f"there is no list of {args.kind!r}{nearest(args.kind, LISTS)}: expected {' or '.join(LISTS)}")
    chosen = [args.kind] if args.kind else list(LISTS)
    print("\n\n".join(LISTS[kind]() for kind in chosen))
    return 0


def describe_backbones() -> str:
    """Every backbone with its maps and costs, without a classifier."""
    from backbones import create_backbone, list_backbones

    rows = []
    for name in list_backbones():
        backbone = create_backbone(name)
        maps = ", ".join(f"{info.stride}:{info.channels}" for info in backbone.feature_info)
        rows.append([name, *_cost(backbone, BACKBONE_SIZE), maps])
    heads = ["backbone", "parameters", "multiply-adds", "strides:channels"]
    return f"{format_table(heads, rows)}\nmultiply-adds at {_size(BACKBONE_SIZE)}, parameters without a classifier"


def describe_detectors() -> str:
    """Every detector with its costs, and the shipped weights."""
    from detect import create_detector, list_detectors, shipped_weights
    from detect.registry import DEFAULT_CLASSES

    rows = []
    for name in list_detectors():
        detector = create_detector(name)
        rows.append([name, *_cost(detector, detector.input_size), _size(detector.input_size)])
    table = format_table(["detector", "parameters", "multiply-adds", "input"], rows)
    weights = [_describe_weights(stem, path) for stem, path in shipped_weights().items()]
    if weights:
        files = format_table(["shipped weights", "MB", "input", "classes"], weights)
    else:
        files = "no weights come with this package"
    return f"{table}\nmultiply-adds of one picture, with {DEFAULT_CLASSES} classes\n\n{files}"


def _describe_weights(stem: str, path: Path) -> list[str]:
    from backbones import read_metadata
    from detect import create_detector

    metadata = read_metadata(path)
    names = json.loads(metadata["class_names"])
    detector = create_detector(metadata["name"], weights=path)
    classes = ", ".join(names) if len(names) <= 5 else f"{len(names)}: {', '.join(names[:4])}, ..."
    return [stem, f"{path.stat().st_size / 1e6:.1f}", _size(detector.input_size), classes]


def _cost(net: nn.Module, size: tuple[int, int]) -> list[str]:
    """Parameters to the digit and multiply-adds in millions."""
    from backbones import measure_cost

    cost = measure_cost(net, size)
    return [f"{cost.parameters:,}", f"{cost.multiply_adds / 1e6:.2f} M"]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


LISTS: dict[str, Callable[[], str]] = {"backbones": describe_backbones, "detectors": describe_detectors}
