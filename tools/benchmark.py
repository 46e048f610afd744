"""Measure what a net costs on this processor: parameters, multiply-adds and milliseconds, part by part."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .table import format_table

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from backbones.cost import Cost
    from detect import TwoStageDetector

PARTS = ("backbone", "neck", "rpn", "refine", "head")
STAGES = ("prepare", "backbone", "neck", "rpn", "refine", "propose", "head", "finish")
WARM_UP = 3
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
    parser.add_argument("model", metavar="MODEL", help="a detector or backbone (see swiftsight list)")
    parser.add_argument("--weights", metavar="W", help="a weights file, or the name of shipped ones (random weights)")
    parser.add_argument("--size", metavar=("H", "W"), nargs=2, type=int, help="input size (what the net is meant for)")
    parser.add_argument("--batch", metavar="N", type=int, default=1, help="pictures at a time (1)")
    parser.add_argument("--repeat", metavar="N", type=int, default=30, help="measurements (30)")
    parser.add_argument("--threads", metavar="N", type=int, help="threads of the processor (torch's choice)")
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
    from backbones import list_backbones
    from backbones.registry import nearest
    from detect import list_detectors

    if args.model in list_detectors():
        return _measure_detector(args)
    if args.model in list_backbones():
        return _measure_backbone(args)
    names = [*list_detectors(), *list_backbones()]
    raise ValueError(
        f"no detector or backbone is called {args.model!r}{nearest(args.model, names)}: see swiftsight list"
    )


def _measure_detector(args: argparse.Namespace) -> Report:
    from backbones.cost import measure_cost_by_part
    from detect import Predictor, create_detector

    net = create_detector(args.model, weights=args.weights)
    size = tuple(args.size) if args.size else net.input_size
    costs = measure_cost_by_part(net, size, PARTS)
    picture, seen = choose_picture(args.picture)
    timed = TimedDetector(net)
    predictor = Predictor(timed, size=size)
    setting = {**_setting(args, size), "picture": seen}
    return Report(setting, costs, time_detector(predictor, timed, picture, args.batch, args.repeat))


def _measure_backbone(args: argparse.Namespace) -> Report:
    import torch

    from backbones import create_backbone
    from backbones.cost import measure_cost
    from backbones.fusion import fused_copy

    if args.picture:
        raise UsageError("--picture: a backbone takes the same time whatever it sees; leave it out")
    backbone = create_backbone(args.model, weights=args.weights)
    size = tuple(args.size) if args.size else _BACKBONE_SIZE
    net = fused_copy(backbone).to(memory_format=torch.channels_last)
    images = torch.rand(args.batch, 3, *size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        seconds = _repeat(lambda: _timed(lambda: net(images)), args.repeat)
    times = {"total": [1000 * value for value in seconds]}
    return Report(_setting(args, size), {"total": measure_cost(backbone, size)}, times)


class TimedDetector:
    """A detector that answers as ever, made fast as the predictor makes it, while a clock runs over its parts.

    seconds: stage -> what the last call spent there. What comes before the backbone (normalising) is "prepare", what
    lies between the refined map and the head is "propose", and what follows the head (decoding) is "finish".
    """

    def __init__(self, net: TwoStageDetector) -> None:
        import torch

        from backbones.fusion import fused_copy

        self.net: Any = fused_copy(net).to(memory_format=torch.channels_last)
        self.class_names, self.input_size = net.class_names, net.input_size
        self.seconds: dict[str, float] = {}
        self._last = 0.0
        before = {"backbone": "prepare", "head": "propose"}
        for name in PARTS:
            part = self.net.get_submodule(name)
            part.register_forward_pre_hook(self._lap_hook(before.get(name, name)))
            part.register_forward_hook(self._lap_hook(name))

    def __call__(self, images: Tensor) -> Any:
        """See `TwoStageDetector.forward`."""
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()
        raw = self.net(images)
        self._lap("finish")
        return raw

    def _lap_hook(self, stage: str) -> Callable[..., None]:
        return lambda *_: self._lap(stage)

    def _lap(self, stage: str) -> None:
        """All since the last lap was spent in `stage`."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now


def time_detector(
    predictor: Any, timed: TimedDetector, picture: np.ndarray, batch: int, repeat: int
) -> dict[str, list[float]]:
    """Milliseconds of every stage, and in total, of each repetition: from `batch` pictures to their detections."""
    import torch

    from detect import RawDetections

    def once() -> dict[str, float]:
        start = time.perf_counter()
        images = torch.cat([predictor.prepare(picture) for _ in range(batch)])
        prepared = time.perf_counter()
        raw = predictor.infer(images)
        answered = time.perf_counter()
        for boxes, scores in zip(raw.boxes, raw.scores, strict=True):
            predictor.finish(RawDetections(boxes[None], scores[None]), picture.shape[:2])
        end = time.perf_counter()
        seconds = dict(timed.seconds)
        seconds["prepare"] += prepared - start
        seconds["finish"] += end - answered
        return {**seconds, "total": end - start}

    runs = _repeat(once, repeat)
    return {stage: [1000 * seconds[stage] for seconds in runs] for stage in (*STAGES, "total")}


def _repeat(once: Callable[[], Any], repeat: int) -> list[Any]:
    """The results of `repeat` calls, after a few that do not count."""
    return [once() for _ in range(WARM_UP + repeat)][WARM_UP:]


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def choose_picture(path: Path | None) -> tuple[np.ndarray, str]:
    """[H, W, 3] uint8 RGB and its name: the one asked for, the sample picture where it is installed, or noise."""
    import numpy as np

    from detect.formats.images import read_image

    from .samples import PICTURE, find_sample

    if path is not None:
        return read_image(path), path.name
    try:
        sample = find_sample(PICTURE)
    except FileNotFoundError:
        return np.random.default_rng(0).integers(0, 256, (*NOISE_SIZE, 3), dtype=np.uint8), "noise"
    return read_image(sample), sample.name


def _setting(args: argparse.Namespace, size: Sequence[int]) -> dict[str, Any]:
    import torch

    return {
        "model": args.model,
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
    what = (
        f"{setting['model']}, weights: {setting['weights']}, {height} x {width}, batch {setting['batch']}{looking_at}"
    )
    where = f"{setting['processor']}, threads: {setting['threads']}, torch {setting['torch']}"
    table = format_table(["part", "parameters", "multiply-adds", "ms", "10 %", "90 %"], rows)
    speed = f"{frames_per_second(report):.1f} frames per second (medians of {setting['repeat']} repetitions)"
    return f"{what}\n{where}\n\n{table}\n\n{speed}"
