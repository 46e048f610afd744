"""What a benchmark found, its setting and its table."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictures.report import counted

from ..cores import processor_name
from ..table import format_table

if TYPE_CHECKING:
    import numpy as np

    from backbones.cost import Cost

NOISE_SIZE = (480, 640)  # (height, width) of the made-up picture


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    setting: how it was measured; costs: part or "total" -> its cost for one picture; milliseconds: stage or "total" ->
    one value per repetition, for a whole batch.
    """

    setting: dict[str, Any]
    costs: dict[str, Cost]
    milliseconds: dict[str, list[float]]


def options_of(args: argparse.Namespace, builder: Callable[..., Any]) -> dict[str, Any]:
    """What --set says, for the builder of the net. ValueError for what it does not take."""
    from ..configuration.config import assign
    from ..configuration.schema import arguments

    values: dict[str, Any] = {}
    for assignment in args.set:
        assign(values, assignment)
    return arguments(builder, values, args.model)


def choose_picture(path: Path | None) -> tuple[np.ndarray, str]:
    """[H, W, 3] uint8 RGB and its name: the one asked for, the sample picture where it is installed, or noise."""
    import numpy as np

    from pictures.images import read_image

    from ..samples import PICTURE, find_sample

    if path is not None:
        return read_image(path), path.name
    try:
        sample = find_sample(PICTURE)
    except FileNotFoundError:
        return np.random.default_rng(0).integers(0, 256, (*NOISE_SIZE, 3), dtype=np.uint8), "noise"
    return read_image(sample), sample.name


def setting_of(args: argparse.Namespace, size: Sequence[int], options: Mapping[str, Any]) -> dict[str, Any]:
    """How it is measured, for the report."""
    import torch

    return {
        "model": args.model,
        **({"options": dict(options)} if options else {}),
        "weights": args.weights or "random",
        "size": list(size),
        "batch": args.batch,
        "repeat": args.repeat,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": processor_name(),
    }


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, the value that 10 % stay below, the value that 90 % stay below)."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return statistics.median(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)]


def as_json(report: Report) -> dict[str, Any]:
    """The report in plain values; times per batch, in milliseconds."""
    parts: dict[str, dict[str, Any]] = {}
    for name, values in report.milliseconds.items():
        median, low, high = spread(values)
        parts[name] = {"ms": median, "ms_10": low, "ms_90": high}
        if name in report.costs:
            parts[name] |= report.costs[name]._asdict()
    return {**report.setting, "frames_per_second": frames_per_second(report), "parts": parts}


def frames_per_second(report: Report) -> float:
    """Pictures per second at the median time."""
    return 1000 * report.setting["batch"] / statistics.median(report.milliseconds["total"])


def format_report(report: Report) -> str:
    """The table, with how it was measured above it and the frames per second below."""
    setting = report.setting
    rows = []
    for name, values in report.milliseconds.items():
        cost = report.costs.get(name)
        counts = [f"{cost.parameters:,}", f"{cost.multiply_adds / 1e6:.2f} M"] if cost else ["", ""]
        rows.append([name, *counts, *(f"{value:.2f}" for value in spread(values))])
    looking_at = f", looking at {setting['picture']}" if "picture" in setting else ""
    height, width = setting["size"]
    options = "".join(f", {name} {value}" for name, value in setting.get("options", {}).items())
    net = f"{setting['model']}{options}, weights: {setting['weights']}"
    what = f"{net}, {height} x {width}, batch {setting['batch']}{looking_at}"
    engine = setting.get("engine", f"torch {setting['torch']}")
    where = f"{setting['processor']}, threads: {setting['threads']}, {engine}"
    table = format_table(["part", "parameters", "multiply-adds", "ms", "10 %", "90 %"], rows)
    medians = f"medians of {counted(setting['repeat'], 'repetitions')}"
    speed = f"{frames_per_second(report):.1f} frames per second ({medians})"
    return f"{what}\n{where}\n\n{table}\n\n{speed}"
