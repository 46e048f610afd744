"""Measure what a net costs on this processor: parameters, multiply-adds and milliseconds, part by part."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .engine_words import add_engine_arguments, is_exported
from .errors import UsageError
from .measuring.part_times import (
    DETECTOR_STAGES,
    JOINT_STAGES,
    SEGMENTER_STAGES,
    Stages,
    TimedNet,
    repeated,
    time_stages,
)
from .measuring.report import Report, as_json, choose_picture, format_report, options_of, setting_of

_BACKBONE_SIZE = (224, 224)


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

    from .destinations import prepare_file

    if args.json:
        prepare_file(args.json)
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

    from .model_choice import refuse_weights_file

    if is_exported(args.model) or args.engine not in (None, "torch"):
        from .measuring.engine_times import measure_in_engine  # here: what exports takes time to load

        in_engine = measure_in_engine(args)
        if in_engine is not None:
            return in_engine
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
    refuse_weights_file(args.model, ", behind the name of its net")
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


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
