"""Measure what a net costs on this processor: parameters, multiply-adds and milliseconds, part by part."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .engine_words import add_engine_arguments, is_exported
from .errors import UsageError
from .part_times import DETECTOR_STAGES, JOINT_STAGES, SEGMENTER_STAGES, Stages, TimedNet, repeated, time_stages
from .table import format_table

if TYPE_CHECKING:
    import numpy as np

    from backbones.cost import Cost

NOISE_SIZE = (480, 640)  # (height, width) of the made-up picture
_BACKBONE_SIZE = (224, 224)


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    setting: how it was measured; costs: part or "total" -> its cost for one picture; milliseconds: stage or "total" ->
    one value per repetition, for a whole batch.
    """

    setting: dict[str, Any]
    costs: dict[str, Cost]
    milliseconds: dict[str, list[float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL and how to measure it."""
    parser.add_argument("model", metavar="MODEL", help="a net or backbone (see swiftsight list), or an exported file")
    parser.add_argument("--weights", metavar="W", help="a weights file, or the name of shipped ones (random weights)")
    parser.add_argument(
        "--set", metavar="OPTION=VALUE", action="append", default=[], help="one option of the net, as in thin_stride=16"
    )
    parser.add_argument("--size", metavar=("H", "W"), nargs=2, type=int, help="input size (what the net is meant for)")
    parser.add_argument("--batch", metavar="N", type=int, default=1, help="pictures at a time (1)")
    parser.add_argument("--repeat", metavar="N", type=int, default=30, help="measurements (30)")
    add_engine_arguments(parser)
    parser.add_argument("--picture", metavar="FILE", type=Path, help="what to look at (the sample picture, or noise)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers here as well")


def run(args: argparse.Namespace) -> int:
    """0 when the table is printed."""
    for name in ("batch", "repeat", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: expected at least 1")
    import cv2
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    report = measure(args)
    print(format_report(report))
    if args.json:
        from backbones.files import write_atomically

        write_atomically(args.json, (json.dumps(as_json(report), indent=1) + "\n").encode())
    return 0


def measure(args: argparse.Namespace) -> Report:
    """Build the net that `args` names and measure it. ValueError for an unknown name, with the nearest one."""
    import detect
    import joint
    import segment
    from backbones import list_backbones
    from backbones.registry import find_builder, nearest
    from detect.registry import DETECTORS
    from joint.registry import JOINTS
    from segment.registry import SEGMENTERS

    if is_exported(args.model) or args.engine not in (None, "torch"):
        from .engine_times import measure_in_engine  # here: what exports takes time to load

        return measure_in_engine(args)
    if args.model in detect.list_detectors():
        builder = find_builder(DETECTORS, args.model)
        return _measure_net(args, builder, detect.create_detector, detect.Predictor, DETECTOR_STAGES)
    if args.model in segment.list_segmenters():
        builder = find_builder(SEGMENTERS, args.model)
        return _measure_net(args, builder, segment.create_segmenter, segment.Predictor, SEGMENTER_STAGES)
    if args.model in joint.list_joints():
        return _measure_net(args, find_builder(JOINTS, args.model), joint.create_joint, joint.Predictor, JOINT_STAGES)
    if args.model in list_backbones():
        return _measure_backbone(args)
    names = [*detect.list_detectors(), *segment.list_segmenters(), *joint.list_joints(), *list_backbones()]
    near = nearest(args.model, names)
    raise ValueError(
        f"no detector, segmenter, joint net or backbone is called {args.model!r}{near}: see swiftsight list"
    )


def _measure_net(
    args: argparse.Namespace,
    builder: Callable[..., Any],
    create: Callable[..., Any],
    predictor_of: Callable[..., Any],
    stages: Stages,
) -> Report:
    from backbones.cost import measure_cost_by_part
    from pictures.images import resize_image

    options = options_of(args, builder)
    net = create(args.model, weights=args.weights, **options)
    size = tuple(args.size) if args.size else net.input_size
    timed = TimedNet(net, stages)
    predictor = predictor_of(timed, size=size)
    costs = measure_cost_by_part(net, size, timed.parts)
    picture, seen = choose_picture(args.picture)
    if stages is SEGMENTER_STAGES:  # it answers for every pixel of a picture, and keeps its shape
        picture = resize_image(picture, size)
    setting = {**setting_of(args, size, options), "picture": seen}
    return Report(setting, costs, time_stages(predictor, timed, picture, args.batch, args.repeat))


def _measure_backbone(args: argparse.Namespace) -> Report:
    import torch

    from backbones import create_backbone
    from backbones.cost import measure_cost
    from backbones.fusion import fused_copy
    from backbones.registry import BACKBONES, find_builder

    if args.picture:
        raise UsageError("--picture: a backbone takes the same time whatever it sees; leave it out")
    options = options_of(args, find_builder(BACKBONES, args.model))
    backbone = create_backbone(args.model, weights=args.weights, **options)
    size = tuple(args.size) if args.size else _BACKBONE_SIZE
    net = fused_copy(backbone).to(memory_format=torch.channels_last)
    images = torch.rand(args.batch, 3, *size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        seconds = repeated(lambda: _timed(lambda: net(images)), args.repeat)
    times = {"total": [1000 * value for value in seconds]}
    return Report(setting_of(args, size, options), {"total": measure_cost(backbone, size)}, times)


def options_of(args: argparse.Namespace, builder: Callable[..., Any]) -> dict[str, Any]:
    """What --set says, for the builder of the net. ValueError for what it does not take."""
    from .config import assign
    from .schema import arguments

    values: dict[str, Any] = {}
    for assignment in args.set:
        assign(values, assignment)
    return arguments(builder, values, args.model)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def choose_picture(path: Path | None) -> tuple[np.ndarray, str]:
    """[H, W, 3] uint8 RGB and its name: the one asked for, the sample picture where it is installed, or noise."""
    import numpy as np

    from pictures.images import read_image

    from .samples import PICTURE, find_sample

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


def processor_name() -> str:
    """What the system calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "unknown"


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
    speed = f"{frames_per_second(report):.1f} frames per second (medians of {setting['repeat']} repetitions)"
    return f"{what}\n{where}\n\n{table}\n\n{speed}"
