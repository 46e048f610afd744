"""Small detectors, or segmenters, side by side on the processor: from a decoded picture to its final answer.

    python benchmarks/cpu_peers.py --pictures val --onnx yolox_nano=yolox_nano_416.onnx \
        --onnx fastestdet=fastestdet_352.onnx [--engine onnxruntime] [--json peers.json] [--plot peers.png]
    python benchmarks/cpu_peers.py --task segment --pictures val [--size 480x360]

The same engine, threads and pictures for all, which take turns within each round. A turn has three parts, each with its
own time: prepare (resizing, and what else the net wants of a picture), net (what the engine runs), finish (decoding and
suppression, where the graph does not hold them, and the way back into the picture's pixels; over whole arrays).

Detectors answer for 80 classes (torchvision's for 90). Those without weights get statistics of the pictures and
stretched scores (`lifelike_nets`); of the ONNX files the score threshold is lowered until MIN_BOXES boxes survive. Nets
see 320 x 320, the ONNX files what they were made for, and Faster R-CNN 320 x 427, padded to 448: the shorter side is
320 by its own rule. What is not installed is named and left out. --graphs: a folder where exported graphs are kept for
the next run. Run it on an idle machine. Needs the extra `fast`.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from graph_cost import CALIBRATION, SIDE, ChannelsLast, Kept, Run, open_graph, ours
from lifelike_nets import (
    SSDLiteParts,
    SSDLiteReader,
    as_onnx,
    lifelike_detector,
    lifelike_ssdlite,
    read_pictures,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from peer_nets import FASTER_SIZE, YOLO, LRASPPLabels, YoloParts, as_traced_onnx, lifelike_faster_rcnn, read_yolo
from segmenters import NUM_CLASSES, parse_size
from segmenters import OURS as SEGMENTERS
from segmenters import PEER as LRASPP
from swiftsight_tools.cores import processor_name
from swiftsight_tools.engines.picture_graph import GraphSettings, PictureGraph
from swiftsight_tools.fast_packages import installed_version
from swiftsight_tools.measuring.report import spread
from swiftsight_tools.peer_detectors import COCO_CLASSES, PEERS
from swiftsight_tools.plots import COLOURS
from swiftsight_tools.table import format_table
from torch import Tensor, nn

from pictures.images import read_image, resize_image
from segment import create_segmenter

ENGINES = ("openvino", "onnxruntime", "torch")
PARTS = ("prepare", "net", "finish")
DETECTORS = tuple(
    f"thundernet_{trunk}"
    for trunk in (
        "snet49",
        "snet146",
        "snet535",
        *(f"shufflenet_v2_{width}" for width in ("x0_5", "x1_0", "x1_5", "x2_0")),
    )
)
MIN_BOXES = 20  # that the threshold of an ONNX file leaves of a picture on average
THRESHOLDS = (0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001)
SSDLITE, FASTER_RCNN = "ssdlite320", "fasterrcnn_320"

Size = tuple[int, int]  # (height, width)


class Contender(NamedTuple):
    """One way from a picture [H, W, 3] uint8 RGB to its answer, in three steps.

    finish takes what `net` gave and the picture's (height, width), and gives something that has a length: boxes, or
    rows of labels. size: of what the net sees.
    """

    prepare: Callable[[np.ndarray], np.ndarray]
    net: Run
    finish: Callable[[Sequence[np.ndarray], Size], Any]
    size: Size


class Bench:
    """What all contenders are built from: the engine, and the pictures that made-up nets get their statistics from."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.kept = args, Kept(args.graphs)

    @cached_property
    def pictures(self) -> np.ndarray:
        """[N, 320, 320, 3] uint8."""
        return read_pictures(self.args.pictures, (SIDE, SIDE), CALIBRATION)

    def open(self, name: str, make: Callable[[], nn.Module], size: Size, export: Callable[..., bytes] = as_onnx) -> Run:
        """The net that `make` gives, which takes pictures [1, *size, 3] uint8, in the engine."""
        if self.args.engine == "torch":
            return run_by_torch(make())
        example = torch.zeros(1, *size, 3, dtype=torch.uint8)
        graph = self.kept(f"peer {name} {self.args.engine} {size[1]}x{size[0]}", lambda: export(make().eval(), example))
        return open_graph(graph, self.args.engine, self.args.threads)


def run_by_torch(net: nn.Module) -> Run:
    """The module itself, channels last."""
    net.eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(images: np.ndarray) -> list[np.ndarray]:
        found = net(torch.from_numpy(images))
        return [each.numpy() for each in ((found,) if isinstance(found, Tensor) else found)]

    return run


def squeezed(size: Size) -> Callable[[np.ndarray], np.ndarray]:
    """Pictures resized to `size`, whatever their proportion: [1, h, w, 3]."""
    return lambda picture: np.ascontiguousarray(resize_image(picture, size))[None]


def in_picture(boxes: np.ndarray, seen: Size, size: Size) -> np.ndarray:
    """Boxes [K, 4] in what the net saw -> in the picture of (height, width), and inside it."""
    sides = np.array([size[1], size[0]] * 2, np.float32)
    return np.clip(boxes * (sides / np.array([seen[1], seen[0]] * 2, np.float32)), 0, sides)


def own_detector(bench: Bench, name: str) -> Contender:
    """A ThunderNet as it is exported; suppression is inside."""
    run = bench.open(
        name, lambda: ChannelsLast(ours(lifelike_detector(name, bench.pictures), bench.args.engine)), (SIDE, SIDE)
    )

    def finish(raw: Sequence[np.ndarray], size: Size) -> np.ndarray:
        return in_picture(raw[0][0, : int(raw[3][0])], (SIDE, SIDE), size)

    return Contender(squeezed((SIDE, SIDE)), run, finish, (SIDE, SIDE))


def ssdlite(bench: Bench) -> Contender:
    """torchvision's ssdlite320; logits and deltas leave the engine."""
    run = bench.open(SSDLITE, lambda: lifelike_ssdlite(bench.pictures), (SIDE, SIDE))
    read = SSDLiteReader(SSDLiteParts().anchors)

    def finish(raw: Sequence[np.ndarray], size: Size) -> np.ndarray:
        return in_picture(read(raw[0][0], raw[1][0])[0].numpy(), (SIDE, SIDE), size)

    return Contender(squeezed((SIDE, SIDE)), run, finish, (SIDE, SIDE))


def faster_rcnn(bench: Bench) -> Contender:
    """torchvision's Faster R-CNN on MobileNetV3, its "320" variant."""

    def make() -> nn.Module:
        return lifelike_faster_rcnn(read_pictures(bench.args.pictures, FASTER_SIZE, CALIBRATION))

    run = bench.open(FASTER_RCNN, make, FASTER_SIZE, as_traced_onnx)
    return Contender(squeezed(FASTER_SIZE), run, lambda raw, size: in_picture(raw[0], FASTER_SIZE, size), FASTER_SIZE)


def onnx_file(bench: Bench, name: str, path: Path) -> Contender:
    """A COCO-trained detector's file, read by `peer_detectors`."""
    peer = PEERS[name](path, bench.args.threads, THRESHOLDS[0], class_names=COCO_CLASSES)
    run = open_graph(path.read_bytes(), bench.args.engine, bench.args.threads)
    answers = [(run(peer.prepare(picture))[0].copy(), picture.shape[:2]) for picture in bench.pictures]
    for threshold in THRESHOLDS:
        peer.score_threshold = threshold
        if statistics.fmean(len(peer.finish([raw], size).boxes) for raw, size in answers) >= MIN_BOXES:
            break
    return Contender(
        peer.prepare, run, lambda raw, size: peer.finish(list(raw)[:1], size).boxes, (peer.side, peer.side)
    )


def yolo(bench: Bench) -> Contender:
    """The smallest YOLO of the user's ultralytics."""
    run = bench.open(YOLO, lambda: YoloParts(bench.pictures), (SIDE, SIDE))
    return Contender(
        squeezed((SIDE, SIDE)),
        run,
        lambda raw, size: in_picture(read_yolo(raw[0]), (SIDE, SIDE), size),
        (SIDE, SIDE),
    )


def segmenter(bench: Bench, name: str) -> Contender:
    """One of our segmenters or LRASPP, 19 classes; the labels of what the net saw become those of the picture."""
    size: Size = bench.args.size

    def make() -> nn.Module:
        torch.manual_seed(0)
        if name == LRASPP:
            return LRASPPLabels()
        return PictureGraph(create_segmenter(name, num_classes=NUM_CLASSES), GraphSettings(size))

    def finish(raw: Sequence[np.ndarray], picture_size: Size) -> np.ndarray:
        return cv2.resize(raw[0][0], picture_size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)

    return Contender(squeezed(size), bench.open(name, make, size), finish, size)


def choices(args: argparse.Namespace) -> tuple[dict[str, Callable[[Bench], Contender]], list[str]]:
    """Name -> what builds it, of all that can take part; and a line for each that cannot."""
    if args.task == "segment":
        return {name: partial(segmenter, name=name) for name in (*SEGMENTERS, LRASPP)}, []
    found: dict[str, Callable[[Bench], Contender]] = {name: partial(own_detector, name=name) for name in DETECTORS}
    found |= {SSDLITE: ssdlite, FASTER_RCNN: faster_rcnn}
    absent = []
    for name, path in args.onnx:
        if args.engine == "torch":
            absent.append(f"{name}: an ONNX file, which torch does not run")
        else:
            found[name] = partial(onnx_file, name=name, path=path)
    if installed_version("ultralytics"):
        found[YOLO] = yolo
    else:
        absent.append(f"{YOLO}: ultralytics is not installed")
    return found, absent


def race(
    contenders: dict[str, Contender], pictures: Sequence[np.ndarray], rounds: int
) -> tuple[dict[str, list[list[float]]], dict[str, float]]:
    """Name -> [prepare, net, finish] milliseconds of each round; and the mean length of the answers."""
    lengths: dict[str, float] = {}
    for name, (prepare, net, finish, _) in contenders.items():  # wakes everything up, too
        lengths[name] = statistics.fmean(len(finish(net(prepare(each)), each.shape[:2])) for each in pictures)
    times: dict[str, list[list[float]]] = {name: [] for name in contenders}
    for turn in range(rounds):
        picture = pictures[turn % len(pictures)]
        for name, (prepare, net, finish, _) in contenders.items():
            marks = [time.perf_counter()]
            images = prepare(picture)
            marks.append(time.perf_counter())
            raw = net(images)
            marks.append(time.perf_counter())
            finish(raw, picture.shape[:2])
            marks.append(time.perf_counter())
            times[name].append([1000 * (end - start) for start, end in pairwise(marks)])
    return times, lengths


def summary(times: dict[str, list[list[float]]]) -> dict[str, dict[str, float]]:
    """Name -> median milliseconds of each part and of the whole ("ms"), what 10 % and 90 % of the rounds stay below,
    and the median ratio to the first contender's turn of the same round.
    """
    sums = {name: [sum(parts) for parts in turns] for name, turns in times.items()}
    first = next(iter(sums.values()))
    rows: dict[str, dict[str, float]] = {}
    for name, turns in times.items():
        median, low, high = spread(sums[name])
        ratio = statistics.median(own / other for own, other in zip(sums[name], first, strict=True))
        parts = (statistics.median(column) for column in zip(*turns, strict=True))
        rows[name] = {"ms": median, "ms_10": low, "ms_90": high, "of_first": ratio} | dict(
            zip(PARTS, parts, strict=True)
        )
    return rows


def table(rows: dict[str, dict[str, float]], sizes: dict[str, Size], lengths: dict[str, float] | None) -> str:
    """A row for each contender. lengths: boxes a picture, None for segmenters."""
    heads = ["net", "sees", "ms", "10 % to 90 %", *PARTS, "of first", *(["boxes"] if lengths else [])]
    lines = []
    for name, row in rows.items():
        cells = [
            name,
            f"{sizes[name][1]}x{sizes[name][0]}",
            f"{row['ms']:.2f}",
            f"{row['ms_10']:.2f} to {row['ms_90']:.2f}",
        ]
        cells += [*(f"{row[part]:.2f}" for part in PARTS), f"{row['of_first']:.2f}"]
        lines.append([*cells, *([f"{lengths[name]:.0f}"] if lengths else [])])
    return format_table(heads, lines)


def draw(rows: dict[str, dict[str, float]], path: Path, title: str) -> None:
    """Writes a picture of the table: a bar for each contender, its parts side by side, the spread as a line."""
    figure = Figure(figsize=(10, 1.2 + 0.42 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = list(rows)
    left = np.zeros(len(rows))
    for part, colour in zip(PARTS, COLOURS, strict=False):
        widths = np.array([row[part] for row in rows.values()])
        axes.barh(names, widths, left=left, color=colour, label=part)
        left += widths
    for place, row in enumerate(rows.values()):
        axes.plot([row["ms_10"], row["ms_90"]], [place, place], color="black", linewidth=1, marker="|")
        axes.text(max(row["ms_90"], left[place]), place, f"  {row['ms']:.1f}", va="center")
    axes.margins(x=0.1)
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds a picture: medians; the line from 10 % to 90 % of the rounds", title=title)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def parse_file(word: str) -> tuple[str, Path]:
    """NAME=FILE, NAME one of PEERS."""
    name, _, path = word.partition("=")
    if name not in PEERS or not path:
        raise argparse.ArgumentTypeError(f"{word!r}; expected NAME=FILE, NAME one of {', '.join(PEERS)}")
    return name, Path(path)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--pictures", type=Path, required=True, help="folder of pictures")
    add("--task", choices=("detect", "segment"), default="detect")
    add("--engine", choices=ENGINES, default="openvino")
    add(
        "--onnx", type=parse_file, nargs="+", action="extend", default=[], metavar="NAME=FILE", help="trained detectors"
    )
    add("--size", type=parse_size, default=(360, 480), metavar="WxH", help="what segmenters see (480x360)")
    add("--select", nargs="+", metavar="NAME", help="only these, in this order")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=40)
    add("--graphs", type=Path, help="a folder to keep the exported graphs in")
    add("--json", type=Path, help="write every time here as well")
    add("--plot", type=Path, help="draw the table into this file")
    return parser.parse_args()


def selected(found: dict[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    """Those of these names; SystemExit for one that is not there."""
    for name in names or ():
        if name not in found:
            raise SystemExit(f"no net {name!r} to race; expected some of {', '.join(found)}")
    return {name: found[name] for name in names or found}


def main() -> None:
    """Reads the arguments, builds what takes part, runs the race, prints the table."""
    args = parse()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    found, absent = choices(args)
    bench, contenders = Bench(args), {}
    for name, build in selected(found, args.select).items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        contenders[name] = build(bench)
    paths = sorted(path for path in args.pictures.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    times, lengths = race(contenders, [read_image(path) for path in paths[:CALIBRATION]], args.rounds)
    rows, sizes = summary(times), {name: one.size for name, one in contenders.items()}
    versions = ", ".join(f"{name} {installed_version(name)}" for name in {"torch": 0, "torchvision": 0, args.engine: 0})
    title = f"{args.engine}, {args.threads} threads, {args.rounds} rounds in turns"
    print(f"{processor_name()}; {versions}; {title}; milliseconds")
    print(table(rows, sizes, lengths if args.task == "detect" else None))
    print("".join(f"{line}\n" for line in absent), end="")
    if args.json:
        report = {"versions": versions, "race": title, "rows": rows, "boxes": lengths, "times": times, "absent": absent}
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        draw(rows, args.plot, title)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # here, not in main: it is the whole process's
    logging.disable(logging.WARNING)
    main()
