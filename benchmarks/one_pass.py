"""Milliseconds of a detector and a segmenter on one backbone pass, beside the same two with a backbone each.

    python benchmarks/one_pass.py [--pairs joint_thundernet_bisenet_snet535 ...] [--engine openvino] [--size 320 320]
        [--threads 2] [--rounds 30] [--picture FILE] [--clip FILE [--frames 200]] [--graphs DIR] [--json FILE]

For each pair four graphs are made of one joint net and run by one engine on one picture, in turns within each round:
the joint net, its detector alone, its segmenter alone, and the backbone alone (with normalising). Pictures are uint8,
answers final: boxes after suppression, the class of each pixel. The weights are random, and the score threshold lies
where some 100 boxes of the picture stay before the suppression. `bound` is the joint time over (detector + segmenter -
backbone), `apart` over (detector + segmenter): medians of the rounds' own ratios (10 % to 90 %).

--graphs: exported files are kept in this folder and used again, which saves minutes. --clip: also the whole way of a
video's frames, decoded beforehand: resizing (once for the joint net, once for each of the two), the net, boxes and
labels brought to the frame's size.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from swiftsight_tools.cores import processor_name
from swiftsight_tools.engines.engine import ENGINES, Engine
from swiftsight_tools.engines.engine_choice import open_engine
from swiftsight_tools.engines.picture_graph import GraphSettings, PictureGraph, onnx_model
from swiftsight_tools.measuring.report import choose_picture, spread
from swiftsight_tools.table import format_markdown
from swiftsight_tools.video import frames
from torch import Tensor, nn

from backbones.lean import lean_copy
from detect.deployed import normalized_rows
from joint import JointNet, apart, create_joint
from pictures.images import resize_image

PAIRS = tuple(
    f"joint_thundernet_bisenet_{backbone}"
    for backbone in ("shufflenet_v2_x0_5", "snet49", "snet146", "snet535", "xception39", "resnet18")
)
CANDIDATES = 100  # pairs of box and class above the threshold, before the suppression
WARM_UP = 3

Times = dict[str, list[float]]  # "joint", "detector", "segmenter", "backbone" -> milliseconds of each round


class BackboneGraph(nn.Module):
    """What the two nets would do twice: pictures [N, H, W, 3] uint8 -> the backbone's maps."""

    def __init__(self, net: JointNet, settings: GraphSettings) -> None:
        super().__init__()
        self.backbone, self.settings = lean_copy(net.backbone), settings
        self.mean, self.std = net.detector.mean, net.detector.std
        self.output_names = tuple(f"map_{info.stride}" for info in self.backbone.feature_info)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return tuple(self.backbone(normalized_rows(images.permute(0, 3, 1, 2), self.mean, self.std)))


def contenders(net: JointNet, picture: np.ndarray, engine: str, threads: int, folder: Path) -> dict[str, Engine]:
    """The four, ready to run."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = GraphSettings(net.input_size, score_threshold=fitting_threshold(net, picture))
    detector, segmenter = apart(net)
    graphs: dict[str, Any] = {
        "joint": PictureGraph(net, settings),
        "detector": PictureGraph(detector, settings),
        "segmenter": PictureGraph(segmenter, settings),
        "backbone": BackboneGraph(net, settings),
    }
    found = {}
    for name, graph in graphs.items():
        source: Any = graph
        if engine != "torch":
            source = folder / f"{name}.onnx"
            if not source.exists():
                source.write_bytes(onnx_model(graph, {}).SerializeToString())
        found[name] = open_engine(source, engine, threads=threads)
    return found


@torch.inference_mode()
def fitting_threshold(net: JointNet, picture: np.ndarray) -> float:
    """A score that about `CANDIDATES` pairs of box and class of the picture exceed."""
    seen = np.ascontiguousarray(resize_image(picture, net.input_size))
    scores = net(torch.from_numpy(seen).permute(2, 0, 1)[None]).detections.scores.flatten()
    return float(scores.topk(min(CANDIDATES + 1, len(scores))).values[-1])


def race(engines: dict[str, Engine], images: np.ndarray, rounds: int) -> Times:
    """Milliseconds of each, round by round; those before the clock counts are left out."""
    times: Times = {name: [] for name in engines}
    for _ in range(WARM_UP + rounds):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(images)
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: values[WARM_UP:] for name, values in times.items()}


def ratios(times: Times) -> dict[str, list[float]]:
    """Round by round, see above."""
    rounds = zip(*(times[name] for name in ("joint", "detector", "segmenter", "backbone")), strict=True)
    found: dict[str, list[float]] = {"bound": [], "apart": []}
    for joint, detector, segmenter, backbone in rounds:
        found["bound"].append(joint / (detector + segmenter - backbone))
        found["apart"].append(joint / (detector + segmenter))
    return found


def whole_way(engines: Sequence[Engine], size: tuple[int, int], frame: np.ndarray) -> list[np.ndarray]:
    """Frame [H, W, 3] uint8 RGB -> boxes in its pixels and a class for each of them; each engine gets its own copy."""
    answers = []
    for engine in engines:
        seen = np.ascontiguousarray(resize_image(frame, size))
        answers += list(engine(seen[None].transpose(0, 3, 1, 2)))
    boxes, labels = answers[0][0], answers[4][0]
    scale = np.array([frame.shape[1] / size[1], frame.shape[0] / size[0]] * 2, np.float32)
    return [boxes * scale, cv2.resize(labels, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_NEAREST_EXACT)]


def race_on_video(engines: dict[str, Engine], size: tuple[int, int], seen: Sequence[np.ndarray]) -> Times:
    """Milliseconds a frame: "joint", and "apart" for the detector and then the segmenter."""
    ways: dict[str, Callable[[np.ndarray], Any]] = {
        "joint": lambda frame: whole_way([engines["joint"]], size, frame),
        "apart": lambda frame: whole_way([engines["detector"], engines["segmenter"]], size, frame),
    }
    times: Times = {name: [] for name in ways}
    for frame in [*seen[:WARM_UP], *seen]:
        for name, way in ways.items():
            start = time.perf_counter()
            way(frame)
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: values[WARM_UP:] for name, values in times.items()}


def shown(values: Sequence[float], digits: int) -> str:
    """The median (10 % to 90 %)."""
    median, low, high = spread(values)
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def rows_of(times: dict[str, Times]) -> str:
    """Markdown: a row for each pair."""
    rows = []
    for name, own in times.items():
        found = ratios(own)
        rows.append([name, *(shown(own[part], 1) for part in own), *(shown(values, 3) for values in found.values())])
    parts = ["joint", "detector", "segmenter", "backbone"]
    return format_markdown(["pair", *(f"{part}, ms" for part in parts), "bound", "apart"], rows)


def video_rows(times: dict[str, Times]) -> str:
    """Markdown: milliseconds and frames per second on the clip."""
    rows = []
    for name, own in times.items():
        medians = {way: spread(values)[0] for way, values in own.items()}
        speeds = [f"{1000 / medians[way]:.1f}" for way in own]
        both = [joint / two for joint, two in zip(own["joint"], own["apart"], strict=True)]
        rows.append([name, *(shown(values, 1) for values in own.values()), *speeds, shown(both, 3)])
    return format_markdown(["pair", "joint, ms", "apart, ms", "joint, fps", "apart, fps", "ratio"], rows)


def parse_arguments() -> argparse.Namespace:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), metavar="NAME")
    parser.add_argument("--engine", choices=ENGINES, default="openvino")
    parser.add_argument("--size", type=int, nargs=2, default=[320, 320], metavar=("H", "W"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="what to look at (the sample picture, or noise)")
    parser.add_argument("--clip", metavar="FILE", help="a video: also the whole way of its frames")
    parser.add_argument("--frames", type=int, default=200, help="of the clip")
    parser.add_argument("--graphs", type=Path, metavar="DIR", help="keep exported files here, and use those that are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time here as well")
    return parser.parse_args()


def main() -> None:
    """Reads the arguments, runs the races, prints the tables."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    picture, picture_name = choose_picture(args.picture)
    size = (args.size[0], args.size[1])
    images = np.ascontiguousarray(resize_image(picture, size))[None].transpose(0, 3, 1, 2)
    clip: list[np.ndarray] = []
    if args.clip:
        with frames(args.clip) as video:
            clip = [frame.picture for frame in islice(video, args.frames)]
    times: dict[str, Times] = {}
    on_video: dict[str, Times] = {}
    for name in args.pairs:
        print(f"{name} ...", file=sys.stderr, flush=True)
        torch.manual_seed(0)
        net = create_joint(name, input_size=size).eval()
        with tempfile.TemporaryDirectory() as scratch:
            folder = (args.graphs or Path(scratch)) / f"{name}_{size[0]}_{size[1]}_{picture_name}"
            engines = contenders(net, picture, args.engine, args.threads, folder)
            times[name] = race(engines, images, args.rounds)
            if clip:
                on_video[name] = race_on_video(engines, size, clip)
    where = f"{processor_name()}, threads: {args.threads}, {args.engine}, {size[0]} x {size[1]}, {picture_name}"
    print(f"{where}, {args.rounds} rounds in turns\n\n{rows_of(times)}")
    if clip:
        print(f"\n{Path(args.clip).name}, {len(clip)} frames of {clip[0].shape[1]} x {clip[0].shape[0]}\n")
        print(video_rows(on_video))
    if args.json:
        args.json.write_text(json.dumps({"picture": times, "clip": on_video}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
