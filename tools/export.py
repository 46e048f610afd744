"""`swiftsight export`: a detector or segmenter as one file for onnxruntime or OpenVINO, from whole pictures to answers.

How it is written, and when it is not: `engines/export_file.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detect import TwoStageDetector
from detect.deployed import EXPORTABLE
from joint import JointNet

from .destinations import prepare_file, refuse_file
from .engines.export_check import check_pictures
from .engines.export_file import NO_LICENCE, settings_for, words_for, write_export
from .engines.exported_words import FLOAT, INT8, SUFFIXES
from .engines.picture_graph import GraphSettings
from .engines.quantize import add_int8_arguments, calibration_pictures, check_int8_words
from .errors import UsageError
from .model_choice import Net, choose_weights, create_net, is_shipped

SHIPPED_LICENCE = "Apache-2.0; trained on pictures and annotations of COCO (CC BY 4.0): see NOTICE of swiftsight"
_DETECTOR_OPTIONS = ("score_threshold", "iou_threshold", "max_detections", "roi_align")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """[MODEL] [--weights W] --output FILE, and what the file is made for."""
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a detector or segmenter (default: the shipped person detector)")
    add("--weights", metavar="W", help="a weights file, or the data set's name of shipped weights, such as person")
    add("--format", choices=tuple(SUFFIXES), help="whose file it is (as --output ends: .onnx, or .xml of OpenVINO)")
    add("--output", required=True, type=Path, metavar="FILE", help="the file to write (replaced if there)")
    sizes = parser.add_argument_group("what the file takes")
    sizes.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="input size (what the net is meant for)")
    free = "pictures of any size (detectors: multiples of 16), seen as they are"
    sizes.add_argument("--free-size", action="store_true", help=free)
    resize = "pictures of any size, resized inside; answers in their own pixels"
    sizes.add_argument("--resize", action="store_true", help=resize)
    sizes.add_argument("--batch", type=_batch, default=1, metavar="N", help="pictures at a time, or 'free' (1)")
    answers = parser.add_argument_group("what it answers")
    answers.add_argument("--scores", action="store_true", help="segmenters: the classes' probabilities, too")
    answers.add_argument(
        "--score-threshold", type=float, metavar="S", help="detectors: what scores more is kept (0.05)"
    )
    answers.add_argument("--iou-threshold", type=float, metavar="T", help="detectors: overlap of two objects (0.5)")
    sampling = "detectors: how proposals are sampled; roi_align is quicker in onnxruntime, grid_sample in OpenVINO"
    answers.add_argument("--roi-align", choices=EXPORTABLE, help=sampling)
    answers.add_argument("--max-detections", type=int, metavar="N", help="detectors: boxes a picture (100)")
    add_int8_arguments(parser.add_argument_group("int8"))
    add(
        "--pictures", type=Path, metavar="DIR", help="compare with torch on pictures of this folder (samples, or noise)"
    )
    add("--licence", metavar="TEXT", help="the licence of the weights, for the file's metadata")


def run(args: argparse.Namespace) -> int:
    """0 when the file is written and answers as torch does."""
    form = _check_words(args)
    name, weights = choose_weights(args.model, args.weights)
    net = create_net(name, weights)
    _check_words_for(net, args)
    settings = settings_for(
        net,
        size=args.size,
        batch=args.batch,
        free_size=args.free_size,
        resize_inside=args.resize,
        keep_scores=args.scores,
        **{option: value for option in _DETECTOR_OPTIONS if (value := getattr(args, option)) is not None},
    )
    pictures, what = check_pictures(args.pictures)
    licence = args.licence or (SHIPPED_LICENCE if is_shipped(weights) else NO_LICENCE)
    words = words_for(net, settings, licence=licence, precision=INT8 if args.int8 else FLOAT)
    calibration = calibration_pictures(args, settings) if args.int8 else None
    lines = write_export(
        net, settings, words, args.output, form=form, pictures=pictures,
        calibration=calibration, float_heads=args.float_heads,
    )  # fmt: skip
    print(f"{args.output}: {name} {weights.name}, {_size_in_words(settings)}, {_file_bytes(args.output) / 1e6:.2f} MB")
    print(f"compared with torch on {what}:", *lines, sep="\n  ")
    return 0


def _check_words(args: argparse.Namespace) -> str:
    """The format; UsageError for words that do not go together."""
    endings = {suffix: form for form, suffix in SUFFIXES.items()}
    form = args.format or endings.get(args.output.suffix.lower())
    if form is None or args.output.suffix.lower() != SUFFIXES[form]:
        expected = SUFFIXES[form] if form else " or ".join(SUFFIXES.values())
        raise UsageError(f"--output {args.output}: expected a file that ends in {expected}")
    if args.free_size and args.resize:
        raise UsageError("--free-size and --resize do not go together: pictures are seen as they are, or resized")
    check_int8_words(args)
    refuse_file(args.output.parent)
    if not args.output.parent.is_dir():
        raise FileNotFoundError(f"no folder {args.output.parent} for {args.output.name}")
    prepare_file(args.output)
    beside = args.output.with_suffix(".bin")
    if form == "openvino" and beside.exists() and not args.output.exists():
        raise ValueError(f"{beside} exists already, where the numbers of {args.output} would go; name another")
    return str(form)


def _check_words_for(net: Net, args: argparse.Namespace) -> None:
    """UsageError for an option of the other kind of net."""
    if isinstance(net, JointNet):
        odd = []  # it takes those of both
    elif isinstance(net, TwoStageDetector):
        odd = ["scores"] if args.scores else []
    else:
        odd = [option for option in _DETECTOR_OPTIONS if getattr(args, option) is not None]
    if odd:
        kinds = ("detectors", "segmenters")
        for_whom, is_one = kinds if odd[0] != "scores" else reversed(kinds)
        raise UsageError(f"--{odd[0].replace('_', '-')} is for {for_whom}; {net.name} is one of the {is_one}")


def _batch(word: str) -> int | None:
    if word == "free":
        return None
    if not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r}; expected a whole number, 1 or more, or 'free'")
    return int(word)


def _size_in_words(settings: GraphSettings) -> str:
    height, width = settings.size
    sizes = "any size" if settings.free_size else f"{height} x {width}"
    if settings.resize_inside:
        sizes = f"any picture, seen at {sizes}"
    return f"{sizes}, batch {settings.batch or 'free'}"


def _file_bytes(path: Path) -> int:
    files = [path, path.with_suffix(".bin")] if path.suffix.lower() == SUFFIXES["openvino"] else [path]
    return sum(file.stat().st_size for file in files)
