"""`swiftsight demo`: what a net finds in a picture, a folder of pictures, a video or a camera, drawn and noted down.

A detector draws boxes. A segmenter colours the pixels of each class, or puts a person before another background.

Results: annotated files in a folder (`demo_output` unless --output names another) are called `<name>_detected` and
replace those of an earlier run; --output FILE replaces that file; a source is never overwritten. A camera without
a window is recorded under a name with the time in it. Videos carry no sound.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from .destinations import (
    PICTURE_SUFFIXES,
    SourceKind,
    detected_name,
    make_label_folder,
    pictures_in,
    refuse_overwriting,
    result_file,
    result_folder,
    source_kind,
)
from .device import add_device_argument
from .engine_words import add_engine_arguments
from .errors import UsageError
from .frames.annotate import Annotator, workers_for
from .frames.frame_log import FrameLog
from .frames.model_views import create_view
from .frames.video_sink import CODECS, VideoSink
from .frames.views import count
from .frames.window import Window, why_no_window
from .multi_pass import add_multi_pass_arguments
from .progress import show_progress
from .samples import CLIP, PICTURE, find_sample
from .table import format_table
from .termination import termination_as_interrupt
from .video import VIDEO_SUFFIXES, BrokenOffError, frames, without_password

INTERRUPTED = 130
_RECORDING_RATE = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """[MODEL] [--weights W] --source S [--output PATH] [--json FILE] and the settings of finding and showing."""
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a net, or an exported file (default: the shipped person detector)")
    add("--weights", metavar="W", help="a weights file, or the data set's name of shipped weights, such as person")
    add(
        "--source",
        required=True,
        help="sample, a picture, a folder of pictures, a video, rtsp://..., or a camera number",
    )
    add(
        "--output",
        type=Path,
        metavar="PATH",
        help="a file (replaced if there) or a folder for what is drawn (default: demo_output)",
    )
    add("--json", type=Path, metavar="FILE", help="what is found in each frame: .json for a list, .jsonl for lines")
    size = "the net's input size (default: what it was trained for); segmenters keep the picture's shape"
    add("--size", type=int, nargs=2, metavar=("H", "W"), help=size)
    add("--score", type=_fraction, metavar="S", help="detectors: the least score that counts, 0..1 (default: 0.5)")
    add("--classes", nargs="+", metavar="NAME", help="show only these classes")
    behind = "segmenters: blur, a colour or a picture to stand behind the person, in place of what is there"
    add("--background", metavar="B", help=behind)
    add("--labels", type=Path, metavar="DIR", help="segmenters: a folder for the classes of the pixels, as grey PNG")
    add_multi_pass_arguments(parser.add_argument_group("detectors: several looks at each picture, slower and surer"))
    add("--max-frames", type=_positive, metavar="N", help="stop a video or camera after N frames")
    show = "a window (default: for a camera, where one can open); q or Escape closes it"
    add("--show", action=argparse.BooleanOptionalAction, help=show)
    add_device_argument(parser)
    add_engine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 done, 1 something could not be read, 130 interrupted."""
    kind = source_kind(args.source)
    if args.threads is not None and args.threads < 1:
        raise UsageError(f"--threads {args.threads}: expected at least 1")
    _check_words_for(args, kind)
    moving = kind in (SourceKind.VIDEO, SourceKind.SAMPLE)
    view = create_view(args, max(1, workers_for(is_live=not moving, threads=args.threads)))
    if args.labels is not None:
        make_label_folder(args.labels, args.output, args.source, kind)
    with FrameLog(args.json) if args.json else nullcontext() as log, termination_as_interrupt():
        annotator = Annotator(view, log=log, threads=args.threads)
        annotator.start_over()
        return _DEMOS[kind](annotator, args)


def _check_words_for(args: argparse.Namespace, kind: SourceKind) -> None:
    """UsageError for a word that says nothing about this kind of source."""
    if args.show and kind in (SourceKind.FOLDER, SourceKind.SAMPLE):
        raise UsageError(f"--show is for one picture, a video or a camera; --source {args.source} gives several files")
    if args.max_frames is not None and kind in (SourceKind.FOLDER, SourceKind.PICTURE):
        raise UsageError(f"--max-frames is for videos and cameras; --source {args.source} has no frames")
    new_folder = None if args.output is None or args.output.exists() else args.output
    if new_folder and kind is SourceKind.FOLDER and new_folder.suffix.lower() in PICTURE_SUFFIXES + VIDEO_SUFFIXES:
        raise UsageError(f"--output {new_folder} is named as a file; a folder of pictures needs a folder")


def _demo_sample(annotator: Annotator, args: argparse.Namespace) -> int:
    picture, clip = find_sample(PICTURE), find_sample(CLIP)
    if args.output is not None and args.output.suffix and not args.output.is_dir():
        raise ValueError(f"--output {args.output} is no folder; the sample gives two files and needs a folder")
    folder = result_folder(args.output)
    _annotate_picture(annotator, picture, folder / detected_name(picture, picture.suffix), None)
    print()
    annotator.start_over()
    return _annotate_video(annotator, str(clip), folder / detected_name(clip, ".mp4"), None, args.max_frames)


def _demo_picture(annotator: Annotator, args: argparse.Namespace) -> int:
    source = Path(args.source)
    target = result_file(args.output, detected_name(source, source.suffix), PICTURE_SUFFIXES)
    refuse_overwriting(target, [source])
    _annotate_picture(annotator, source, target, _open_window(args))
    _print_speed(annotator)
    return 0


def _demo_folder(annotator: Annotator, args: argparse.Namespace) -> int:
    sources = pictures_in(Path(args.source))
    if args.output is not None and args.output.is_file():
        raise ValueError(f"--output {args.output} is a file; a folder of pictures needs a folder")
    folder = result_folder(args.output)
    if folder.samefile(args.source):
        raise ValueError(f"--output {folder} is the source folder itself; choose another, to keep the two apart")
    failed: list[str] = []
    try:
        for source in show_progress(sources, len(sources), "pictures"):
            _annotate_one_of_many(annotator, source, folder, failed)
    except KeyboardInterrupt:
        print(f"interrupted after {annotator.tally.frames} of {len(sources)} pictures", file=sys.stderr)
        return INTERRUPTED
    finally:
        print(f"{annotator.tally.frames} annotated pictures are in {folder}")
        _print_tally(annotator, "pictures")
        _print_speed(annotator)
    if failed:
        print(f"{len(failed)} of {len(sources)} pictures could not be read: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _demo_video(annotator: Annotator, args: argparse.Namespace) -> int:
    target = result_file(args.output, detected_name(args.source, ".mp4"), tuple(CODECS))
    refuse_overwriting(target, [Path(args.source)])
    return _annotate_video(annotator, args.source, target, _open_window(args), args.max_frames)


def _demo_live(annotator: Annotator, args: argparse.Namespace) -> int:
    window = _open_window(args)
    target = None
    if window is None or args.output is not None:
        what = f"camera_{args.source}" if args.source.isdigit() else "stream"
        name = f"{what}_{time.strftime('%Y%m%d_%H%M%S')}.mp4"
        target = result_file(args.output, name, tuple(CODECS))
    return _annotate_video(annotator, args.source, target, window, args.max_frames)


_DEMOS: dict[SourceKind, Callable[[Annotator, argparse.Namespace], int]] = {
    SourceKind.SAMPLE: _demo_sample,
    SourceKind.PICTURE: _demo_picture,
    SourceKind.FOLDER: _demo_folder,
    SourceKind.VIDEO: _demo_video,
    SourceKind.LIVE: _demo_live,
}


def _annotate_picture(annotator: Annotator, source: Path, target: Path, window: Window | None) -> None:
    drawn, found = annotator.annotate_picture(annotator.read_picture(source), str(source), target)
    print(f"{source.name}, {drawn.shape[1]} x {drawn.shape[0]} pixels: {annotator.view.describe(found)}")
    print(f"drawn in {target}")
    if window is not None:
        with window:
            window.show(drawn, wait=True)


def _annotate_one_of_many(annotator: Annotator, source: Path, folder: Path, failed: list[str]) -> None:
    """A picture that cannot be read is named, noted down and passed over; a result that cannot be written is not."""
    try:
        picture = annotator.read_picture(source)
    except (ValueError, OSError) as error:
        failed.append(source.name)
        print(f"skipped: {error}", file=sys.stderr)
        return
    annotator.annotate_picture(picture, str(source), folder / detected_name(source, source.suffix))


def _annotate_video(
    annotator: Annotator, source: str, target: Path | None, window: Window | None, max_frames: int | None
) -> int:
    code, name = 0, without_password(source)
    with frames(source) as video:
        rate = min(video.info.rate, _RECORDING_RATE) if video.is_live else video.info.rate
        sink = VideoSink(target, rate) if target else None
        if video.is_live and sink is not None:
            print(f"recording into {target}; Ctrl-C ends it", flush=True)
        try:
            with sink or nullcontext(), window or nullcontext():
                annotator.annotate_video(video, name, sink=sink, window=window, max_frames=max_frames)
        except BrokenOffError as error:
            _say_cut_off(str(error))
            code = 1
        except KeyboardInterrupt:
            _say_cut_off("interrupted")
            code = INTERRUPTED
    print(f"{Path(name).name}: {count(annotator.tally.frames, 'frame')}")
    _print_tally(annotator, "frames")
    _print_speed(annotator)
    if sink is not None and sink.frames_written:
        print(f"drawn in {target}")
    return code


def _say_cut_off(reason: str) -> None:
    after_progress = "\n" if sys.stderr.isatty() else ""
    print(f"{after_progress}{reason}; what came before is kept", file=sys.stderr)


def _open_window(args: argparse.Namespace) -> Window | None:
    """A window if one is wanted and can open; else a word about why not."""
    wanted = args.show if args.show is not None else source_kind(args.source) is SourceKind.LIVE
    reason = why_no_window() if wanted else None
    if reason is not None:
        print(f"no window can open here: {reason}; the result goes into a file", flush=True)
    return Window("swiftsight") if wanted and reason is None else None


def _print_tally(annotator: Annotator, noun: str) -> None:
    tally = annotator.tally
    if tally.frames and not tally.amounts:
        print(f"nothing was found in {tally.frames} {noun}")
    for name, amount in sorted(tally.amounts.items(), key=lambda item: -item[1]):
        much = annotator.view.describe_amount(name, amount, tally.frames)
        print(f"{name}: found in {tally.frames_with[name]} of {tally.frames} {noun}, {much}")


def _print_speed(annotator: Annotator) -> None:
    medians, frames_seen = annotator.clock.medians(), annotator.tally.frames
    if not frames_seen:
        return
    print(format_table(("stage", "ms (median)"), [(stage, f"{value:.1f}") for stage, value in medians.items()]))
    at_once, whole = annotator.frames_at_once, frames_seen / annotator.clock.elapsed()
    if at_once > 1:
        print(f"{at_once} frames at a time, their stages overlapping; each stage's time is its own")
    net = sum(medians[stage] for stage in ("prepare", "net", "finish")) / at_once
    print(f"{1000 / net:.1f} frames per second for prepare + net + finish, {whole:.1f} with everything")


def _positive(word: str) -> int:
    if not re.fullmatch("[1-9][0-9]*", word):
        raise argparse.ArgumentTypeError(f"{word!r}; expected a whole number, 1 or more")
    return int(word)


def _fraction(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{word!r}; expected a number in 0..1")
    return value
