"""Where a video frame's time goes, stage by stage, and how fast the whole loop runs when its stages overlap.

    python benchmarks/frame_budget.py --clip motorway_cars_1280x720.mp4 \
        --run "thundernet_shufflenet_v2_x0_5" --run "thundernet_snet49.onnx --engine openvino" \
        --yolox yolox_nano_416.onnx --fastestdet fastestdet_352.onnx

Every --run holds words as `swiftsight demo` takes them. First one thing is done after the other, each with one thread,
and the processor time of each stage is taken. "Around the net" is what is neither the net nor decoding nor encoding:
colours turned for the codec, resizing and copying (prepare), finishing, drawing. Then the same frames go through the
demo's own loop, where stages overlap; with everything spread evenly a frame would take its core-milliseconds divided by
the cores. All runs take turns, the clip is looped, results go into a video that is thrown away. The peers run in
onnxruntime and answer for persons, as the shipped detector does. What counts is each run's quickest round; "others"
is the part of the cores that other processes had meanwhile, which should be next to nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
from peers import FastestDet, YoloxNano
from swiftsight_tools import demo
from swiftsight_tools.cores import one_thread_each, processor_name, usable_cores
from swiftsight_tools.frames import model_views
from swiftsight_tools.frames.annotate import Annotator, workers_for
from swiftsight_tools.frames.detection_view import DetectionView
from swiftsight_tools.frames.stages import StageClock
from swiftsight_tools.frames.video_sink import VideoSink
from swiftsight_tools.frames.views import View
from swiftsight_tools.table import format_table
from swiftsight_tools.video import Frame, VideoFile

PEER_SCORE = 0.5  # the demo's own
AROUND = ("colour", "prepare", "finish", "draw")
STAGES = ("decode", *AROUND[:2], "net", *AROUND[2:], "write")


class LoopedClip(VideoFile):
    """A clip that begins again at its end, until so many frames were given."""

    def __init__(self, path: Path, count: int) -> None:
        """Raises as `VideoFile`."""
        super().__init__(path)
        self.info = self.info._replace(frames=None)  # no line about the progress
        self.count = count

    def __iter__(self) -> Iterator[Frame]:
        """Numbers go on, times begin again with the clip."""
        number = 0
        while True:
            with VideoFile(self.path) as once:
                for frame in once:
                    if number == self.count:
                        return
                    yield frame._replace(number=number)
                    number += 1


def open_view(words: str, clip: Path) -> View[Any]:
    """What `swiftsight demo WORDS --source CLIP` looks with."""
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    args = parser.parse_args([*shlex.split(words), "--source", str(clip)])
    return model_views.create_view(args, max(1, workers_for(is_live=False)))


def core_milliseconds(view: View[Any], clip: Path, count: int, sink: Path) -> dict[str, float]:
    """Stage -> processor time per frame, over `count` frames; nothing overlaps, and each stage has one thread."""
    annotator = Annotator(view)
    annotator.start_over()
    annotator.clock = StageClock(now=time.process_time)
    with one_thread_each(), LoopedClip(clip, count) as video, VideoSink(sink, video.info.rate) as written:
        annotator.annotate_video(video, "clip", sink=written, workers=0)
        colour = _colour_milliseconds(clip)
    means = {stage: 1000 * statistics.fmean(seconds) for stage, seconds in annotator.clock.seconds.items()}
    # A decoder gives blue first and an encoder wants it: both stages hold a turning of colours.
    means |= {"decode": means["decode"] - colour, "write": means["write"] - colour, "colour": 2 * colour}
    return {stage: means[stage] for stage in STAGES}


def _colour_milliseconds(clip: Path, repeat: int = 50) -> float:
    with VideoFile(clip) as video:
        picture = next(iter(video)).picture
    start = time.process_time()
    for _ in range(repeat):
        cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return 1000 * (time.process_time() - start) / repeat


class Round(NamedTuple):
    """One round of the demo's loop: milliseconds per frame, and the part of the cores that others had."""

    milliseconds: float
    others: float


def overlapped(view: View[Any], clip: Path, count: int, sink: Path) -> Round:
    """The demo's loop over `count` frames."""
    annotator = Annotator(view)
    annotator.start_over()
    with LoopedClip(clip, count) as video, VideoSink(sink, video.info.rate) as written:
        busy, own, start = _busy_seconds(), time.process_time(), time.perf_counter()
        annotator.annotate_video(video, "clip", sink=written)
        seconds = time.perf_counter() - start
        others = _busy_seconds() - busy - (time.process_time() - own)
    return Round(1000 * seconds / annotator.tally.frames, max(0.0, others) / (seconds * usable_cores()))


def _busy_seconds() -> float:
    """What all processes have spent on this machine so far; 0 where that is not told."""
    try:
        user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    except OSError:
        return 0.0
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def measure(views: dict[str, View[Any]], clip: Path, count: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Name -> figures, see `summary`. All take turns within a round."""
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in views}
    loops: dict[str, list[Round]] = {name: [] for name in views}
    with tempfile.TemporaryDirectory() as folder:
        sink = Path(folder) / "drawn.mp4"
        for _ in range(rounds):
            for name, view in views.items():
                stages[name].append(core_milliseconds(view, clip, max(1, count // 3), sink))
                loops[name].append(overlapped(view, clip, count, sink))
    return {name: summary(stages[name], loops[name]) for name in views}


def summary(stages: list[dict[str, float]], loops: list[Round]) -> dict[str, Any]:
    """The figures of one run.

    "stages": core-ms, the rounds' medians, and "core_ms" their sum; "around": part of a frame that is neither decoded
    nor encoded; "ms" and "others" of the quickest round; "ratio" of its ms to core_ms / cores; "rounds".
    """
    median = {stage: statistics.median(each[stage] for each in stages) for stage in STAGES}
    core_ms, around = sum(median.values()), sum(median[stage] for stage in AROUND)
    best = min(loops)
    return {
        "stages": median,
        "core_ms": core_ms,
        "around": around / (around + median["net"]),
        "ms": best.milliseconds,
        "others": best.others,
        "ratio": best.milliseconds * usable_cores() / core_ms,
        "rounds": [loop._asdict() for loop in loops],
    }


def format_results(results: dict[str, dict[str, Any]]) -> str:
    """The table."""
    head = (
        "run",
        *STAGES,
        "core-ms",
        "around the net",
        "ms a frame",
        f"x core-ms / {usable_cores()}",
        "frames/s",
        "others",
    )
    rows = [
        [
            name,
            *(f"{found['stages'][stage]:.2f}" for stage in STAGES),
            f"{found['core_ms']:.1f}",
            f"{found['around']:.1%}",
            f"{found['ms']:.1f}",
            f"{found['ratio']:.2f}",
            f"{1000 / found['ms']:.1f}",
            f"{found['others']:.0%}",
        ]
        for name, found in results.items()
    ]
    return format_table(head, rows)


def main() -> None:
    """Reads the arguments, measures, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True, help="a video file")
    parser.add_argument("--run", metavar="WORDS", action="append", default=[], help="words of a demo; may be repeated")
    parser.add_argument("--yolox", type=Path, help="yolox_nano_416.onnx")
    parser.add_argument("--fastestdet", type=Path, help="fastestdet_352.onnx")
    parser.add_argument("--frames", type=int, default=150, help="in a round (150)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    args = parser.parse_args()
    views = {words: open_view(words, args.clip) for words in args.run}
    for path, peer in ((args.yolox, YoloxNano), (args.fastestdet, FastestDet)):
        if path is not None:
            views[f"{path.name} --engine onnxruntime"] = DetectionView(peer(path, 1, PEER_SCORE))
    with VideoFile(args.clip) as video:
        height, width = video.info.size
    results = measure(views, args.clip, args.frames, args.rounds)
    where = f"{processor_name()}, {usable_cores()} cores, {workers_for(is_live=False)} frames at a time"
    print(f"{args.clip.name}, {width} x {height}, {args.frames} frames, {args.rounds} rounds; {where}")
    print(format_results(results))
    if args.json is not None:
        args.json.write_text(json.dumps({"words": sys.argv[1:], "where": where, "runs": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
