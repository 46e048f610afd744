"""Score weights on a config's data, or anybody's results: COCO's or VOC's figures, top-1 and top-5, or mean IoU."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .configuration.classification_config import ClassificationConfig
from .configuration.config import find_config, load_config
from .configuration.detection_config import DetectionConfig
from .configuration.joint_config import JointConfig
from .configuration.schema import SectionError
from .configuration.segmentation_config import SegmentationConfig
from .configuration.training_config import TrainingConfig
from .destinations import prepare_file, result_folder
from .device import add_device_argument, choose_device
from .engine_words import add_engine_arguments, check_engine_words, runs_elsewhere
from .errors import UsageError
from .multi_pass import MULTI_PASS_OPTIONS, add_multi_pass_arguments, check_multi_pass_words

RULES = ("coco", "voc2007", "voc2012")  # the first is what counts where none is named
_LEAST_SIDE = 16
_FOR_SEGMENTERS = ("matrix", "colours", "label_ids")
_IN_ENGINES = ("detect", "segment", "joint")
_FOR_SOME_TASKS = {
    ("detect",): ("rule", "strict", "plots", "max_detections", "score_threshold", "hard_nms"),
    ("segment",): _FOR_SEGMENTERS,
    ("detect", "segment"): MULTI_PASS_OPTIONS,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG WEIGHTS and their options, or --predictions with --annotations."""
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="a YAML file, or a shipped one: detect/NAME.yaml")
    parser.add_argument(
        "weights", metavar="WEIGHTS", nargs="?", help="weights, the name of shipped ones, or an exported file"
    )
    parser.add_argument("--predictions", metavar="FILE", type=Path, help="score this COCO results file instead")
    parser.add_argument(
        "--annotations", metavar="FILE", type=Path, help="the COCO annotations that it is scored against"
    )
    parser.add_argument("--rule", choices=RULES, help="by whose rule a detector's boxes are scored (coco)")
    parser.add_argument("--plots", metavar="DIR", type=Path, help="draw a detector's curves into this folder")
    with_net = parser.add_argument_group("with CONFIG and WEIGHTS")
    with_net.add_argument("--output", metavar="FILE", type=Path, help="write what was found, as json (COCO results)")
    with_net.add_argument("--split", metavar="NAME", help="a part of the config's data, such as train (val)")
    with_net.add_argument("--set", metavar="KEY=VALUE", action="append", help="change one key of the config")
    with_net.add_argument("--size", metavar=("H", "W"), nargs=2, type=int, help="input size (the config's eval_size)")
    with_detector = parser.add_argument_group("with a detector")
    with_detector.add_argument("--max-detections", metavar="N", type=int, help="at most so many a picture (100)")
    with_detector.add_argument(
        "--score-threshold", metavar="S", type=float, help="leave out detections up to it (0.05)"
    )
    with_detector.add_argument(
        "--hard-nms", action="store_true", default=None, help="hard suppression instead of Soft-NMS"
    )
    with_detector.add_argument(
        "--strict", action="store_true", default=None, help="stop at data that would be left out or mended, and counted"
    )
    _add_segmenter_arguments(parser.add_argument_group("with a segmenter"))
    add_multi_pass_arguments(parser.add_argument_group("with a detector or a segmenter"))
    add_device_argument(parser)
    add_engine_arguments(parser)


def _add_segmenter_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--matrix", metavar="FILE", type=Path, help="draw the confusion matrix (.png)")
    group.add_argument("--colours", metavar="DIR", type=Path, help="write the predictions as coloured pictures")
    group.add_argument("--label-ids", metavar="DIR", type=Path,
                       help="write them as class numbers; Cityscapes' as label ids, as its server expects")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """0 when the figures are printed."""
    check_words(args)
    config = None if args.predictions else load_config(args.config, args.set or [])
    if config is not None:
        check_words_for(config, args)
        if args.strict:
            config = load_config(args.config, [*(args.set or []), "data.strict=true"])
    for file in (args.output, args.matrix):
        if file:
            prepare_file(file)
    for folder in (args.plots, args.colours, args.label_ids):
        if folder:
            result_folder(folder)
    try:
        print(score_file(args) if config is None else score_net(config, args))
    except SectionError as error:
        raise ValueError(f"{find_config(args.config)}: {error}") from error
    return 0


def score_file(args: argparse.Namespace) -> str:
    """The figures of a results file."""
    from .scoring.detection_scoring import (
        score_file,  # here: it brings OpenCV and more, which a misspelt word does not need
    )

    return score_file(args.predictions, args.annotations, args.plots, args.rule or RULES[0])


def score_net(config: TrainingConfig, args: argparse.Namespace) -> str:
    """The figures of weights on a part of the config's data; writes the files that were asked for."""
    import torch

    device = choose_device(args.device)
    threads = args.threads or config.threads
    if threads:
        torch.set_num_threads(threads)
    part = choose_part(config, args.split or "val")
    if isinstance(config, DetectionConfig):
        from .scoring import detection_scoring

        return detection_scoring.score_net(config, part, device, args)
    if isinstance(config, ClassificationConfig):
        from .scoring import classification_scoring

        return classification_scoring.score_net(config, part, device, args)
    if isinstance(config, SegmentationConfig):
        from .scoring import segmentation_scoring

        return segmentation_scoring.score_net(config, part, device, args)
    if isinstance(config, JointConfig):
        from .scoring import joint_scoring

        return joint_scoring.score_net(config, part, device, args)
    raise TypeError(f"no scoring is known for a {type(config).__name__}")


def check_words(args: argparse.Namespace) -> None:
    """UsageError where the two forms are mixed, something is missing, or a number cannot be."""
    if args.predictions is None and args.annotations is None:
        if args.config is None or args.weights is None:
            raise UsageError("expected CONFIG and WEIGHTS, or --predictions and --annotations")
    else:
        only_with_net = ("config", "weights", "output", "split", "set", "size", "strict", "max_detections",
                         "score_threshold", "hard_nms", *_FOR_SEGMENTERS, *MULTI_PASS_OPTIONS, "device",
                         "engine", "threads")  # fmt: skip
        mixed = [name for name in only_with_net if getattr(args, name) is not None]
        if mixed:
            raise UsageError(f"--predictions scores a file, no net: {mixed[0].replace('_', '-')} does not go with it")
        if args.predictions is None or args.annotations is None:
            raise UsageError("--predictions and --annotations go together: one of them is missing")
    if args.plots and args.rule not in (None, RULES[0]):
        raise UsageError(f"--plots draws the curves of {RULES[0]}'s rule; it does not go with --rule {args.rule}")
    if args.max_detections is not None and args.max_detections < 1:
        raise UsageError(f"--max-detections {args.max_detections}: expected at least 1")
    if args.score_threshold is not None and not 0 <= args.score_threshold < 1:
        raise UsageError(f"--score-threshold {args.score_threshold}: expected a number from 0 to less than 1")
    if args.matrix and args.matrix.suffix.lower() != ".png":
        raise UsageError(f"--matrix {args.matrix}: expected a file that ends in .png")
    check_multi_pass_words(args)
    check_engine_words(args)


def check_words_for(config: TrainingConfig, args: argparse.Namespace) -> None:
    """UsageError for an option that does not go with the config's task, or a size that its nets do not take."""
    if runs_elsewhere(args) and config.task not in _IN_ENGINES:
        raise UsageError(
            f"exported files and --engine go with {' and '.join(_IN_ENGINES)}; this config's is {config.task}"
        )
    for tasks, names in _FOR_SOME_TASKS.items():
        odd = [name for name in names if config.task not in tasks and getattr(args, name) is not None]
        if odd:
            expected = f"--{odd[0].replace('_', '-')} goes with the task {' or '.join(tasks)}"
            raise UsageError(f"{expected}; this config's is {config.task}")
    step = config.side_step
    if args.size and any(side < _LEAST_SIDE or side % step for side in args.size):
        expected = f"multiples of {step}" if step > 1 else f"at least {_LEAST_SIDE}"
        raise UsageError(f"--size {args.size[0]} {args.size[1]}: expected {expected}")


def choose_part(config: TrainingConfig, split: str) -> Any:
    """The part of the config's data called `split`; UsageError with the names that there are."""
    from backbones.registry import nearest

    parts = {name: part for name in ("train", "val", "test") if (part := getattr(config.data, name)) is not None}
    if split not in parts:
        raise UsageError(f"--split {split!r}{nearest(split, parts)}: the config's data has {', '.join(parts)}")
    return parts[split]
