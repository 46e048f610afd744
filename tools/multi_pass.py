"""The words for testing a net by several passes over a picture: scales, mirrored pictures, windows."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pictures.windows import MOST_SCALE

from .errors import UsageError

if TYPE_CHECKING:
    from detect.multi_pass import MultiPassPredictor
    from detect.predictor import Predictor

MULTI_PASS_OPTIONS = ("window", "overlap", "scales", "flip")
_LEAST_SIDE = 16


def add_multi_pass_arguments(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """--window H W, --overlap P, --scales S ..., --flip; None where they are not given."""
    window = "the net sees windows of this size; a detector sees the whole picture, too"
    group.add_argument("--window", metavar=("H", "W"), nargs=2, type=int, help=window)
    overlap = "part of a window that its neighbour shows too (0.25)"
    group.add_argument("--overlap", metavar="P", type=float, help=overlap)
    scales = "merge the answers to pictures so many times as large"
    group.add_argument("--scales", metavar="S", nargs="+", type=float, help=scales)
    group.add_argument("--flip", action="store_true", default=None, help="merge those to mirrored pictures, too")


def check_multi_pass_words(args: argparse.Namespace) -> None:
    """UsageError for numbers that cannot be, or an overlap of nothing."""
    if args.window and min(args.window) < _LEAST_SIDE:
        raise UsageError(f"--window {args.window[0]} {args.window[1]}: expected at least {_LEAST_SIDE}")
    if args.overlap is not None and (args.window is None or not 0 <= args.overlap < 1):
        raise UsageError(f"--overlap {args.overlap}: expected a number from 0 to less than 1, and --window")
    if args.scales and not all(0 < scale <= MOST_SCALE for scale in args.scales):
        shown = " ".join(map(str, args.scales))
        raise UsageError(f"--scales {shown}: expected numbers above 0, at most {MOST_SCALE}")


def wants_several_passes(args: argparse.Namespace) -> bool:
    """Whether any of the options was given."""
    return any(getattr(args, name) is not None for name in MULTI_PASS_OPTIONS)


def several_passes(predictor: Predictor, args: argparse.Namespace) -> MultiPassPredictor:
    """A detector's predictor, looking as often as the words say."""
    from detect.multi_pass import MultiPassPredictor  # here: OpenCV takes time to load

    return MultiPassPredictor(
        predictor,
        scales=args.scales or (1.0,),
        flip=bool(args.flip),
        window=args.window,
        overlap=0.25 if args.overlap is None else args.overlap,
    )


def passes_in_words(args: argparse.Namespace) -> str:
    """What the options change, to stand behind a size; nothing where there are none."""
    words = []
    if args.window:
        words.append(f"windows of {args.window[0]} x {args.window[1]}")
    if args.scales:
        words.append(f"scales {' '.join(f'{scale:g}' for scale in args.scales)}")
    if args.flip:
        words.append("also mirrored")
    return "".join(f", {word}" for word in words)
