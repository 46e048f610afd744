"""What an exported file, or a net converted into another engine, costs: milliseconds of its three stages."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones.cost import Cost, measure_cost
from backbones.registry import find_builder
from detect import TwoStageDetector, create_detector, list_detectors
from detect.registry import DETECTORS
from joint import JointNet, create_joint, list_joints
from joint.registry import JOINTS
from pictures.images import resize_image
from segment import Segmenter, create_segmenter, list_segmenters
from segment.registry import SEGMENTERS

from ..engine_words import is_exported
from ..engines.conversion import in_engine
from ..engines.engine_choice import AUTO
from ..engines.exported import ExportedDetector, ExportedNet, ExportedSegmenter
from ..engines.exported_joint import ExportedJoint
from ..engines.exported_words import DETECTION, SEGMENTATION
from ..errors import UsageError
from ..fast_packages import installed_version
from .part_times import repeated
from .report import Report, choose_picture, options_of, setting_of


def measure_in_engine(args: argparse.Namespace) -> Report | None:
    """Runs `args.model` as its words say; None where torch is the quickest.

    ValueError for a name that is no such net, or a wrong size.
    """
    costs: dict[str, Cost] = {}
    if is_exported(args.model):
        if args.weights or args.set:
            raise UsageError(f"{args.model} holds its weights and options; leave out --weights and --set")
        net = ExportedNet(Path(args.model), engine=args.engine or AUTO, threads=args.threads)
        options: dict[str, Any] = {}
    else:
        plain, options = _plain_net(args)
        size = tuple(args.size) if args.size else plain.input_size
        found = in_engine(plain, args.engine, size=size, batch=args.batch, threads=args.threads)
        if found is None:
            return None
        net, costs = found, {"total": measure_cost(plain, size)}
    if net.words.batch not in (None, args.batch) and args.batch % (net.words.batch or 1):
        raise ValueError(f"--batch {args.batch}: the file takes {net.words.batch} pictures at a time")
    predictor = _predictor(net, args.size)
    picture, name = choose_picture(args.picture)
    if net.words.task == SEGMENTATION and not net.words.resize_inside:
        picture = resize_image(picture, predictor.size)  # it answers for every pixel of a picture, and keeps its shape
    engine = f"{net.engine.name} {installed_version(net.engine.name)}, {net.words.precision}"
    setting = {**setting_of(args, predictor.size, options), "picture": name, "engine": engine}
    if is_exported(args.model):
        setting["weights"] = f"{net.name}, {Path(args.model).name}"
    return Report(setting, costs, time_predictor(predictor, picture, args.batch, args.repeat))


def time_predictor(
    predictor: ExportedDetector | ExportedSegmenter | ExportedJoint, picture: np.ndarray, batch: int, repeat: int
) -> dict[str, list[float]]:
    """Milliseconds of every stage, and in total, of each repetition: from `batch` pictures to their answers."""

    def once() -> Sequence[float]:
        times = [time.perf_counter()]
        images = np.concatenate([predictor.prepare(picture) for _ in range(batch)]) if batch > 1 else None
        seen = predictor.prepare(picture) if images is None else images
        times.append(time.perf_counter())
        raw = predictor.infer(seen)
        times.append(time.perf_counter())
        for place in range(batch):
            predictor.finish(tuple(each[place : place + 1] for each in raw), (picture.shape[0], picture.shape[1]))
        return [*times, time.perf_counter()]

    runs = np.diff(np.array(repeated(once, repeat)), axis=1) * 1000
    stages = {name: runs[:, place].tolist() for place, name in enumerate(("prepare", "net", "finish"))}
    return {**stages, "total": runs.sum(axis=1).tolist()}


def _predictor(net: ExportedNet, size: Sequence[int] | None) -> ExportedDetector | ExportedSegmenter | ExportedJoint:
    kinds = {DETECTION: ExportedDetector, SEGMENTATION: ExportedSegmenter}
    predictor: ExportedDetector | ExportedSegmenter | ExportedJoint = kinds.get(net.words.task, ExportedJoint)(
        net, size=size
    )
    return predictor


def _plain_net(args: argparse.Namespace) -> tuple[TwoStageDetector | Segmenter | JointNet, dict[str, Any]]:
    """The net that is named, and its options."""
    if args.model in list_detectors():
        options = options_of(args, find_builder(DETECTORS, args.model))
        return create_detector(args.model, weights=args.weights, **options), options
    if args.model in list_segmenters():
        options = options_of(args, find_builder(SEGMENTERS, args.model))
        return create_segmenter(args.model, weights=args.weights, **options), options
    if args.model in list_joints():
        options = options_of(args, find_builder(JOINTS, args.model))
        return create_joint(args.model, weights=args.weights, **options), options
    raise ValueError(
        f"--engine {args.engine} is for detectors, segmenters and joint nets; {args.model} is none of them"
    )
