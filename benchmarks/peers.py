"""Scores and times well-known small detectors on the person pictures, and ours beside them, picture by picture in turn.

    python benchmarks/peers.py --yolox yolox_nano_416.onnx --fastestdet fastestdet_352.onnx \
        --annotations person_val.json --pictures val [--model thundernet_snet49 --weights person]

That YOLOX-nano and FastestDet get the figures here that others measured shows that the metric and the reading of the
files are right. Everything runs on one thread of the processor unless --threads says otherwise; a picture's time is
from the decoded picture to its boxes. Needs onnxruntime (the extra `fast`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
from swiftsight_tools.peer_detectors import SCORE_THRESHOLD, FastestDet, YoloxNano

from detect.metrics import DetectionScores, coco_results, evaluate_detections
from detect.results import Detections
from pictures.images import read_image

Find = Callable[[np.ndarray], Detections]  # [H, W, 3] uint8 RGB -> persons in the picture's own pixels


def open_ours(model: str, weights: str) -> Find:
    """One of this project's detectors, answering for class 0."""
    from detect import Predictor, create_detector

    return Predictor(create_detector(model, weights=weights), score_threshold=SCORE_THRESHOLD)


def race(finders: dict[str, Find], pictures: dict[int, Path]) -> tuple[dict[str, list], dict[str, list[float]]]:
    """Every finder on every picture, in turn -> COCO results and seconds per picture, by name."""
    results: dict[str, list] = {name: [] for name in finders}
    seconds: dict[str, list[float]] = {name: [] for name in finders}
    for image_id, path in pictures.items():
        image = read_image(path)
        for name, find in finders.items():
            start = time.perf_counter()
            detections = find(image)
            seconds[name].append(time.perf_counter() - start)
            results[name] += coco_results(detections, image_id, (1,))
    return results, seconds


def report(name: str, scores: DetectionScores, seconds: list[float]) -> None:
    """One line of the table."""
    times = sorted(1000 * value for value in seconds)
    figures = "  ".join(f"{scores.figures[key]:.3f}" for key in ("AP", "AP50", "AP75", "APs", "APm", "APl"))
    low, high = times[len(times) // 10], times[len(times) * 9 // 10]
    print(f"{name:<44}{figures}  {statistics.median(times):7.1f}  ({low:.1f} to {high:.1f})")


def main() -> None:
    """Reads the arguments, runs the race, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yolox", type=Path, help="yolox_nano_416.onnx")
    parser.add_argument("--fastestdet", type=Path, help="fastestdet_352.onnx")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO json with person as category 1")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of its pictures")
    parser.add_argument("--model", action="append", default=[], help="a detector of ours; may be repeated")
    parser.add_argument("--weights", action="append", default=[], help="its weights, in the same order")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    finders: dict[str, Find] = {}
    if args.yolox:
        finders["YOLOX-nano 416 (onnxruntime)"] = YoloxNano(args.yolox, threads=args.threads)
    if args.fastestdet:
        finders["FastestDet 352 (onnxruntime)"] = FastestDet(args.fastestdet, threads=args.threads)
    for model, weights in zip(args.model, args.weights, strict=True):
        finders[f"{model} (torch)"] = open_ours(model, weights)
    rows = json.loads(args.annotations.read_text(encoding="utf-8"))["images"]
    results, seconds = race(finders, {row["id"]: args.pictures / row["file_name"] for row in rows})
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    print(f"{len(rows)} pictures, threads: {args.threads}, {versions}; ms per picture: median (10 % to 90 %)")
    print(f"{'':<44}AP     AP50   AP75   APs    APm    APl         ms")
    for name, found in results.items():
        report(name, evaluate_detections(found, args.annotations), seconds[name])


if __name__ == "__main__":
    main()
