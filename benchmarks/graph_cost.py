"""How much of the time of an exported detector is its multiply-adds, and how it compares with other small detectors.

    python benchmarks/graph_cost.py --pictures val [--engine openvino] [--yolox yolox_nano_416.onnx] \
        [--fastestdet fastestdet_352.onnx] [--int8] [--steps] [--json graph_cost.json]

From a picture tensor to boxes: our graphs hold everything, the others' decoding and suppression run in NumPy and
torchvision's operator over whole arrays and are counted. All take turns, picture by picture. The bound is the net's
multiply-adds divided by the fastest matrix product measured in the same run. --int8: our nets also in 8 bits,
calibrated on the same few pictures. --steps: what each change of the graph gains. --graphs: a folder where the exported
graphs are kept for the next run. Run it on an idle machine. Needs the extra `fast`.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from lifelike_nets import (
    IOU_THRESHOLD,
    SCORE_THRESHOLD,
    SSDLiteParts,
    SSDLiteReader,
    as_onnx,
    lifelike_detector,
    lifelike_ssdlite,
    read_pictures,
)
from swiftsight_tools.engines.quantize import quantized
from swiftsight_tools.peer_detectors import COCO_CLASSES, PEERS
from torch import Tensor, nn

from backbones import measure_cost
from backbones.fusion import fused_copy
from backbones.lean import lean_copy
from detect import TwoStageDetector, create_detector
from detect.deployed import DeployedDetector
from detect.nms import kept_places
from detect.ps_roi_align import PSRoIAlign

MODELS = ("thundernet_snet49", "thundernet_snet146")
SIDE = 320
MATRIX = 1024
CALIBRATION = 8  # pictures that the made-up nets get their statistics from

Run = Callable[[np.ndarray], list[np.ndarray]]
Way = Callable[[int], int]  # number of a picture -> how many boxes


def open_graph(file: bytes, engine: str, threads: int) -> Run:
    """An ONNX file in an engine, 32-bit numbers, so many threads."""
    if engine == "openvino":
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        request = core.compile_model(core.read_model(file), "CPU", settings).create_infer_request()
        return lambda images: list(request.infer([images], share_inputs=True, share_outputs=True).values())
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or it takes cores from the next in turn
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {session.get_inputs()[0].name: images})


class ChannelsLast(nn.Module):
    """[N, H, W, 3], as pictures lie in memory, for a net that takes [N, 3, H, W]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Any:
        """See the class."""
        return self.net(images.permute(0, 3, 1, 2))


class PlainGraph(nn.Module):
    """A detector's `forward` as it stands, then the suppression within each class."""

    def __init__(self, detector: TwoStageDetector) -> None:
        super().__init__()
        self.detector = detector.eval()
        for part in self.detector.modules():
            if isinstance(part, PSRoIAlign):
                part.method = "grid_sample"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images [1, 3, H, W] -> boxes, labels, scores."""
        raw = self.detector(images)
        scores = raw.scores.transpose(1, 2)
        kept = kept_places(
            raw.boxes, scores, iou_threshold=IOU_THRESHOLD, score_threshold=SCORE_THRESHOLD, max_per_class=100
        )
        return raw.boxes[0][kept[:, 2]], kept[:, 1], scores[0][kept[:, 1], kept[:, 2]]


def ours(detector: TwoStageDetector, engine: str) -> DeployedDetector:
    """In the form that this engine is quickest at."""
    form = "grid_sample" if engine == "openvino" else "roi_align"
    return DeployedDetector(detector, score_threshold=SCORE_THRESHOLD, roi_align=form).eval()


def steps_of(detector: Callable[[], TwoStageDetector], engine: str) -> dict[str, Callable[[], bytes]]:
    """How to make the graph after each change, from the net as it is trained to what is exported."""
    images = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    return {
        "as trained": lambda: as_onnx(PlainGraph(detector()), images, native_suppression=False),
        "norms folded": lambda: as_onnx(PlainGraph(fused_copy(detector())), images, native_suppression=False),
        "shuffles folded": lambda: as_onnx(PlainGraph(lean_copy(detector())), images, native_suppression=False),
        "early cut, layers joined": lambda: as_onnx(ours(detector(), engine), images, native_suppression=False),
        "suppression by ONNX's operator": lambda: as_onnx(ours(detector(), engine), images),
        "pictures as they lie in memory": lambda: whole_graph(detector, engine),
    }


def whole_graph(detector: Callable[[], TwoStageDetector], engine: str) -> bytes:
    """What is exported: [1, 320, 320, 3] uint8 -> boxes, scores, labels, counts."""
    return as_onnx(ChannelsLast(ours(detector(), engine)), torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8))


def int8_graph(graph: bytes, inputs: list[np.ndarray]) -> bytes:
    """The graph in 8 bits, as `swiftsight export --int8` makes it."""
    with tempfile.TemporaryDirectory() as folder:
        model = quantized(onnx.load_from_string(graph), inputs, Path(folder), float_heads=False)
    file: bytes = model.SerializeToString()
    return file


class Kept:
    """Graphs in a folder, made where they are not there yet; without a folder all are made."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def __call__(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The graph of that name."""
        path = None if self.folder is None else self.folder / f"{name.replace(' ', '_')}.onnx"
        if path is not None and path.is_file():
            return path.read_bytes()
        graph = make()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(graph)
        return graph


def own_way(run: Run, inputs: list[np.ndarray]) -> Way:
    """A graph that gives boxes, scores, labels and counts, or just one row a box."""

    def find(number: int) -> int:
        found = run(inputs[number])
        return int(found[3][0]) if len(found) == 4 else len(found[0])

    return find


def ssdlite_way(pictures: np.ndarray, inputs: list[np.ndarray], args: argparse.Namespace) -> Way:
    """torchvision's ssdlite320."""
    read = SSDLiteReader(SSDLiteParts().anchors)
    graph = Kept(args.graphs)("ssdlite320", lambda: as_onnx(lifelike_ssdlite(pictures), torch.from_numpy(inputs[0])))
    run = open_graph(graph, args.engine, args.threads)

    def find(number: int) -> int:
        logits, deltas = run(inputs[number])
        return len(read(logits[0], deltas[0])[0])

    return find


def peer_way(name: str, path: Path, pictures: np.ndarray, engine: str, threads: int) -> Way:
    """A COCO-trained detector's ONNX file; its score threshold leaves about as many boxes as ours."""
    peer = PEERS[name](path, threads, SCORE_THRESHOLD, class_names=COCO_CLASSES)
    run = open_graph(path.read_bytes(), engine, threads)
    inputs = [peer.prepare(picture) for picture in pictures]
    return lambda number: len(peer.finish(run(inputs[number])[:1], pictures.shape[1:3]).boxes)


def matrix_products(engine: str, threads: int) -> dict[str, Callable[[], Any]]:
    """Products of two matrices of 1024 x 1024: 1.07 G multiply-adds each."""
    torch.set_num_threads(threads)
    one, other = torch.randn(MATRIX, MATRIX), nn.Linear(MATRIX, MATRIX, bias=False)
    run, matrix = open_graph(as_onnx(other, one), engine, threads), one.numpy()
    return {"torch": lambda: torch.mm(one, other.weight.detach()), engine: lambda: run(matrix)}


def race(
    ways: dict[str, Way], pictures: int, rounds: int, products: dict[str, Callable[[], Any]]
) -> tuple[dict[str, list[float]], dict[str, float], dict[str, float]]:
    """Milliseconds of each way's turns, boxes per picture, and G multiply-adds per second of each product."""
    boxes = {name: statistics.mean(way(number) for number in range(pictures)) for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    fastest = dict.fromkeys(products, float("inf"))
    for turn in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way(turn % pictures)
            times[name].append(1000 * (time.perf_counter() - start))
        for name, product in products.items():
            start = time.perf_counter()
            product()
            fastest[name] = min(fastest[name], time.perf_counter() - start)
    return times, boxes, {name: MATRIX**3 / seconds / 1e9 for name, seconds in fastest.items()}


def report(times: dict[str, list[float]], boxes: dict[str, float], bounds: dict[str, float], first: str) -> dict:
    """Prints a row for each way, and gives the rows. bounds: the least milliseconds that the multiply-adds need."""
    print(f"{'':<34}{'median':>8}{'least':>8}{'of first':>10}{'boxes':>7}{'bound':>8}{'ratio':>7}{'least':>7}")
    rows: dict[str, Any] = {}
    for name, own in times.items():
        median, least = statistics.median(own), min(own)
        shares = [one / other for one, other in zip(own, times[first], strict=True)]
        row = {"median_ms": median, "least_ms": least, "of_first": statistics.median(shares), "boxes": boxes[name]}
        line = f"{name:<34}{median:>8.2f}{least:>8.2f}{row['of_first']:>10.2f}{boxes[name]:>7.0f}"
        if name in bounds:
            row |= {"bound_ms": bounds[name], "ratio": median / bounds[name], "least_ratio": least / bounds[name]}
            line += f"{bounds[name]:>8.2f}{row['ratio']:>7.2f}{row['least_ratio']:>7.2f}"
        print(line)
        rows[name] = row
    return rows


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--engine", choices=("openvino", "onnxruntime"), default="openvino")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="detectors of ours")
    parser.add_argument("--proposals", type=int, default=200)
    parser.add_argument("--yolox", type=Path, help="yolox_nano_416.onnx")
    parser.add_argument("--fastestdet", type=Path, help="fastestdet_352.onnx")
    parser.add_argument("--int8", action="store_true", help="our detectors in 8 bits too")
    parser.add_argument("--steps", action="store_true", help="the graphs of the first model, change by change")
    parser.add_argument("--graphs", type=Path, help="a folder to keep the exported graphs in")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def open_ways(args: argparse.Namespace, pictures: np.ndarray) -> tuple[dict[str, Way], dict[str, float]]:
    """All that take part, and the G multiply-adds of those that are ours."""
    last = [np.ascontiguousarray(picture[None]) for picture in pictures]
    first = [np.ascontiguousarray(images.transpose(0, 3, 1, 2)) for images in last]
    ways: dict[str, Way] = {}
    costs: dict[str, float] = {}
    kept = Kept(args.graphs)
    for model in args.models[: 1 if args.steps else None]:
        made = cache(partial(lifelike_detector, model, pictures, test_proposals=args.proposals))
        plain = create_detector(model, test_proposals=args.proposals)
        cost = measure_cost(plain, (SIDE, SIDE)).multiply_adds / 1e9
        steps = steps_of(made, args.engine) if args.steps else {model: partial(whole_graph, made, args.engine)}
        for name, make in steps.items():
            file = f"{model} {args.engine} {args.proposals} {name}"
            graph = kept(file, make)
            inputs = last if make is list(steps.values())[-1] else first
            ways[name] = own_way(open_graph(graph, args.engine, args.threads), inputs)
            costs[name] = cost
            if args.int8:
                int8 = kept(f"{file} int8", partial(int8_graph, graph, inputs))
                ways[f"{name}, int8"] = own_way(open_graph(int8, args.engine, args.threads), inputs)
    if not args.steps:
        ways["ssdlite320"] = ssdlite_way(pictures, last, args)
        for name, path in (("yolox_nano", args.yolox), ("fastestdet", args.fastestdet)):
            if path is not None:
                ways[name] = peer_way(name, path, pictures, args.engine, args.threads)
    return ways, costs


def main() -> None:
    """Reads the arguments, builds the graphs, runs them in turn, prints the table."""
    args = parse()
    pictures = read_pictures(args.pictures, (SIDE, SIDE), CALIBRATION)
    ways, costs = open_ways(args, pictures)
    times, boxes, speeds = race(ways, len(pictures), args.rounds, matrix_products(args.engine, args.threads))
    speed = max(speeds.values())
    words = ", ".join(f"{name} {2 * value:.0f}" for name, value in speeds.items())
    print(f"{args.engine}, {args.threads} threads, {args.rounds} rounds, {SIDE} x {SIDE}, {args.proposals} proposals")
    print(f"float matrix products, GFLOP/s: {words}; milliseconds:")
    rows = report(times, boxes, {name: 1000 * cost / speed for name, cost in costs.items()}, next(iter(ways)))
    if args.json:
        args.json.write_text(json.dumps({"speeds": speeds, "multiply_adds": costs, "rows": rows}, indent=1))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # here, not in main: it is the whole process's
    logging.disable(logging.WARNING)
    main()
