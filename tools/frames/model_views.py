"""The net that a demo means, in the engine that is meant, ready to look: what the words of `swiftsight demo` say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import detect
import joint
import segment
from detect import create_detector
from joint import create_joint, list_joints
from segment import create_segmenter, list_segmenters

from ..device import choose_device
from ..engine_words import is_exported
from ..engines.engine_choice import AUTO
from ..engines.exported import ExportedDetector, ExportedNet, ExportedSegmenter
from ..engines.exported_joint import ExportedJoint
from ..engines.exported_words import DETECTION, JOINT
from ..errors import UsageError
from ..model_choice import choose_weights, create_net
from ..multi_pass import MULTI_PASS_OPTIONS, check_multi_pass_words, several_passes, wants_several_passes
from .cutout import Background, parse_background
from .detection_view import DetectionView
from .joint_view import JointView
from .segmentation_view import SegmentationView
from .views import View


def create_view(args: argparse.Namespace, callers: int = 1) -> View[Any]:
    """The net that is meant, ready to look. UsageError for an option that is for another kind of net.

    callers: how many threads will look at frames at once; each has a thread of its own then.
    """
    check_multi_pass_words(args)
    background = None if args.background is None else parse_background(args.background)
    threads = args.threads or (1 if callers > 1 else None)
    if is_exported(args.model):
        refuse(args, ("weights",), f"is for a net by name; {args.model} holds its own")
        refuse(args, ("device",), "is for torch; exported files run on the processor")
        net = ExportedNet(Path(args.model), engine=args.engine or AUTO, threads=threads, callers=callers)
        return _exported_view(args, net, background)
    name, weights = choose_weights(args.model, args.weights)
    if args.engine not in (None, "torch"):
        refuse(args, ("device",), f"is for torch; {args.engine} runs on the processor")
        converted = _converted(args, name, weights, threads, callers)
        if converted is not None:
            return _exported_view(args, converted, background)
    if args.threads:
        torch.set_num_threads(args.threads)
    return _torch_view(args, name, weights, background)


def refuse(args: argparse.Namespace, options: tuple[str, ...], why: str) -> None:
    """UsageError where one of the options was given."""
    for option in options:
        if getattr(args, option) is not None:
            raise UsageError(f"--{option} {why}")


def _converted(
    args: argparse.Namespace, name: str, weights: Path, threads: int | None, callers: int
) -> ExportedNet | None:
    """The net in the engine that is meant; None where that is torch."""
    from ..engines.conversion import in_engine  # here: what exports takes time to load
    from ..engines.picture_graph import SCORE_THRESHOLD

    refuse(args, MULTI_PASS_OPTIONS, f"is for torch; in {args.engine} a net looks once")
    limits = {"score_threshold": min(_score(args), SCORE_THRESHOLD)}
    return in_engine(
        create_net(name, weights), args.engine, size=args.size, threads=threads, callers=callers, limits=limits
    )


def _torch_view(args: argparse.Namespace, name: str, weights: Path, background: Background | None) -> View[Any]:
    device = choose_device(args.device)
    shown = {"classes": args.classes, "background": background, "label_folder": args.labels}
    if name in list_joints():
        refuse(args, MULTI_PASS_OPTIONS, f"is for detectors alone; {name} labels pixels, too")
        both = create_joint(name, weights=weights).to(device)
        return JointView(joint.Predictor(both, size=args.size, score_threshold=_score(args)), **shown)
    if name not in list_segmenters():
        _refuse_for_boxes(args, name)
        detector = create_detector(name, weights=weights).to(device)
        finder = detect.Predictor(detector, size=args.size, score_threshold=_score(args))
        looking = several_passes(finder, args) if wants_several_passes(args) else finder
        return DetectionView(looking, classes=args.classes)
    _refuse_for_pixels(args, name)
    segmenter = create_segmenter(name, weights=weights).to(device)
    return SegmentationView(segment.Predictor(segmenter, size=args.size), **shown)


def _exported_view(args: argparse.Namespace, net: ExportedNet, background: Background | None) -> View[Any]:
    shown = {"classes": args.classes, "background": background, "label_folder": args.labels}
    refuse(args, MULTI_PASS_OPTIONS, "is for a net by name; an exported file looks once")
    if net.words.task == JOINT:
        both = ExportedJoint(net, size=args.size, score_threshold=_score(args), keep_scores=background is not None)
        return JointView(both, **shown)
    if net.words.task == DETECTION:
        _refuse_for_boxes(args, net.name)
        finder = ExportedDetector(net, size=args.size, score_threshold=_score(args))
        return DetectionView(finder, classes=args.classes)
    _refuse_for_pixels(args, net.name)
    return SegmentationView(ExportedSegmenter(net, size=args.size, keep_scores=background is not None), **shown)


def _refuse_for_boxes(args: argparse.Namespace, name: str) -> None:
    refuse(args, ("background", "labels"), f"is for nets that label pixels; {name} finds boxes")


def _refuse_for_pixels(args: argparse.Namespace, name: str) -> None:
    refuse(args, ("score", *MULTI_PASS_OPTIONS), f"is for detectors; {name} gives every pixel a class")
    if args.background is not None:
        refuse(args, ("classes",), "says what to colour; with --background nothing is coloured")


def _score(args: argparse.Namespace) -> float:
    return 0.5 if args.score is None else float(args.score)
