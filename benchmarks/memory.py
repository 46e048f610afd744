"""Memory of the demo's process: its peak, and whether it stays flat over many frames.

    python benchmarks/memory.py --clip motorway_cars_1280x720.mp4 --frames 10000 \
        --run "person.onnx --engine openvino" --run "person.onnx --engine onnxruntime" --run "--engine torch"

Every --run holds words as `swiftsight demo` takes them and gets a process of its own, which goes through the looped
clip just as the demo does, a video of the results included. Resident memory is read at twenty places; by then that of
the first tenth has settled, and what it grows by later is what a day would add up.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from frame_budget import LoopedClip, open_view
from swiftsight_tools.frames.annotate import Annotator
from swiftsight_tools.frames.video_sink import VideoSink
from swiftsight_tools.table import format_table
from swiftsight_tools.video import Frame

PLACES = 20


class WatchedClip(LoopedClip):
    """A looped clip that notes the process's memory on the way: `resident`, in MB."""

    resident: list[float]

    def __iter__(self) -> Iterator[Frame]:
        """As a `LoopedClip`."""
        self.resident = []
        for frame in super().__iter__():
            if (frame.number + 1) % max(1, self.count // PLACES) == 0:
                self.resident.append(memory("VmRSS"))
            yield frame


def memory(key: str) -> float:
    """VmRSS, what the process has now, or VmHWM, the most that it ever had, in MB (Linux)."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(rows[key].split()[0]) / 1024


def watch(words: str, clip: Path, frames: int) -> dict[str, object]:
    """In a process of its own: "resident" at each place, "peak", both in MB, and "frames_per_second"."""
    annotator = Annotator(open_view(words, clip))
    annotator.start_over()
    with tempfile.TemporaryDirectory() as folder, WatchedClip(clip, frames) as video:
        with VideoSink(Path(folder) / "drawn.mp4", video.info.rate) as sink:
            annotator.annotate_video(video, "clip", sink=sink)
        rate = annotator.tally.frames / annotator.clock.elapsed()
    return {"resident": video.resident, "peak": memory("VmHWM"), "frames_per_second": rate}


def growth(resident: list[float]) -> float:
    """MB by which the last quarter's median lies above that of the second tenth up to the third."""
    tenth = max(1, len(resident) // 10)
    settled, last = resident[tenth : 3 * tenth], resident[-max(1, len(resident) // 4) :]
    return statistics.median(last) - statistics.median(settled)


def main() -> None:
    """Reads the arguments, starts a process for each run, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True, help="a video file")
    parser.add_argument("--run", metavar="WORDS", action="append", default=[], help="words of a demo; may be repeated")
    parser.add_argument("--frames", type=int, default=10000)
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # what the processes are started with
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(watch(args.run[0], args.clip, args.frames)))
        return
    found = {}
    for words in args.run:
        command = [sys.executable, __file__, "--alone", f"--run={words}", "--clip", args.clip, "--frames", args.frames]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=os.environ)
        if done.returncode:
            sys.exit(done.stderr)
        found[words] = json.loads(done.stdout.splitlines()[-1])
    print(f"{args.clip.name}, {args.frames} frames")
    rows = [
        [words, f"{one['peak']:.0f}", f"{growth(one['resident']):+.1f}", f"{one['frames_per_second']:.1f}"]
        for words, one in found.items()
    ]
    print(format_table(("run", "peak MB", "grew by MB", "frames/s"), rows))
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
