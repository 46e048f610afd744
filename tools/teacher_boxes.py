"""Boxes of another detector, as a COCO results file to learn from or to score.

    python -m swiftsight_tools.teacher_boxes yolox_nano_416.onnx --annotations person_train.json --pictures train \
        --output boxes.json

    python -m swiftsight_tools.teacher_boxes yolox_nano_416.onnx --pictures folder --output boxes.json --list list.json

The first answers for the categories of the annotations, under their ids; their names have to be COCO's, and their boxes
are not read. The second takes all pictures of a folder, in the order of their names and numbered from 1, for the
classes of --classes; --list writes which is which, as COCO annotations without boxes. Any program that writes such a
results file can teach as well (`distill.teacher: {kind: results, file: boxes.json}`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones.files import write_atomically
from detect.formats.boxed_pictures import BoxedPictures
from detect.formats.coco import CocoDetection
from detect.formats.taught_pictures import bare_pictures
from detect.metrics import coco_results

from .destinations import new_file
from .errors import UsageError
from .peer_detectors import PEERS, PeerDetector
from .progress import show_progress


def find_boxes(peer: PeerDetector, data: BoxedPictures, least_score: float = 0.01) -> list[dict[str, Any]]:
    """The peer's boxes on all pictures, in pixels of the pictures on disk; its classes are those of the data."""
    rows: list[dict[str, Any]] = []
    for index in show_progress(range(len(data)), len(data), "pictures"):
        image, target = data[index]
        found = peer(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
        rows += coco_results(found[found.scores >= least_score], int(target.image_id), data.category_ids)
    return rows


def main(words: Sequence[str] | None = None) -> int:
    """Reads the words, writes the files; 0 when done, 1 or 2 as the command."""
    parser = argparse.ArgumentParser(
        prog="python -m swiftsight_tools.teacher_boxes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the detector, an ONNX file")
    parser.add_argument("--kind", choices=PEERS, default="yolox_nano", help="how the file is read (%(default)s)")
    parser.add_argument("--annotations", metavar="JSON", type=Path, help="COCO annotations of the pictures")
    parser.add_argument("--pictures", metavar="DIR", type=Path, required=True, help="their folder")
    parser.add_argument("--classes", metavar="NAME", nargs="+", default=["person"], help="without annotations")
    parser.add_argument("--least-score", metavar="P", type=float, default=0.01, help="%(default)s")
    parser.add_argument("--threads", metavar="N", type=int, default=1)
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="the results")
    parser.add_argument("--list", metavar="FILE", type=Path, help="without annotations: which picture has which number")
    args = parser.parse_args(words)
    try:
        print(_run(args))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> str:
    if args.list is not None and args.annotations is not None:
        raise UsageError("--list comes without --annotations, which say already which picture has which number")
    if not 0 <= args.least_score < 1:
        raise UsageError(f"--least-score {args.least_score:g}: expected at least 0, below 1")
    if args.threads < 1:
        raise UsageError(f"--threads {args.threads}: expected at least 1")
    if args.list is not None and args.list.resolve() == args.output.resolve():
        raise UsageError(f"--list and --output are one file, {args.output}; name two")
    for file in filter(None, (args.output, args.list)):
        new_file(file)
    if args.annotations is None:
        data = bare_pictures(args.pictures, list(enumerate(args.classes, start=1)))
    else:
        data = CocoDetection(args.annotations, args.pictures)
    peer = PEERS[args.kind](args.file, class_names=data.class_names, threads=args.threads)
    rows = find_boxes(peer, data, args.least_score)
    write_atomically(args.output, json.dumps(rows).encode())
    if args.list is not None:
        write_atomically(args.list, json.dumps(data.ground_truth()).encode())
    return f"{len(rows)} boxes in {len(data)} pictures, in {args.output}"


if __name__ == "__main__":
    sys.exit(main())
