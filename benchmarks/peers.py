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
from torchvision.ops import nms

from detect.metrics import DetectionScores, coco_results, evaluate_detections
from detect.results import Detections
from pictures.images import read_image

Find = Callable[[np.ndarray], Detections]  # [H, W, 3] uint8 RGB -> persons in the picture's own pixels

SCORE_THRESHOLD = 0.01  # low, because AP counts the whole curve
MAX_DETECTIONS = 100


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """The file in onnxruntime on the processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
    """The one output for one input."""
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def select(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> Detections:
    """boxes [K, 4] xyxy, scores [K] -> the best of them after suppression, all of class 0."""
    keep = scores > SCORE_THRESHOLD
    kept_boxes, kept_scores = torch.from_numpy(boxes[keep]), torch.from_numpy(scores[keep])
    order = nms(kept_boxes, kept_scores, iou_threshold)[:MAX_DETECTIONS]
    return Detections(kept_boxes[order], kept_scores[order], torch.zeros(len(order), dtype=torch.int64))


class YoloxNano:
    """YOLOX-nano at 416: the picture in proportion in the top left corner, the rest grey; BGR 0..255."""

    def __init__(self, path: Path, threads: int) -> None:
        """Opens the file and lays out the cells of its three maps."""
        self.session = open_session(path, threads)
        self.size = 416
        cells, strides = [], []
        for stride in (8, 16, 32):
            side = self.size // stride
            rows, columns = np.divmod(np.arange(side * side), side)
            cells.append(np.stack([columns, rows], 1))
            strides.append(np.full((side * side, 1), stride))
        self.cells = np.concatenate(cells).astype(np.float32)
        self.strides = np.concatenate(strides).astype(np.float32)

    def __call__(self, image: np.ndarray) -> Detections:
        """Persons in `image` [H, W, 3] uint8 RGB."""
        height, width = image.shape[:2]
        scale = min(self.size / height, self.size / width)
        resized = cv2.resize(image, (int(width * scale), int(height * scale)), interpolation=cv2.INTER_LINEAR)
        canvas = np.full((self.size, self.size, 3), 114, np.float32)
        canvas[: resized.shape[0], : resized.shape[1]] = resized[:, :, ::-1]
        rows = run_session(self.session, np.ascontiguousarray(canvas.transpose(2, 0, 1)[None]))[0]
        centres = (rows[:, :2] + self.cells) * self.strides
        halves = np.exp(rows[:, 2:4]) * self.strides / 2
        boxes = np.concatenate([centres - halves, centres + halves], 1) / scale
        return select(boxes, rows[:, 4] * rows[:, 5], iou_threshold=0.65)


class FastestDet:
    """FastestDet at 352: the picture stretched to a square; BGR 0..1; one map of 22 x 22 cells."""

    def __init__(self, path: Path, threads: int) -> None:
        """Opens the file."""
        self.session = open_session(path, threads)

    def __call__(self, image: np.ndarray) -> Detections:
        """Persons in `image` [H, W, 3] uint8 RGB."""
        height, width = image.shape[:2]
        resized = cv2.resize(image, (352, 352), interpolation=cv2.INTER_LINEAR)[:, :, ::-1]
        images = np.ascontiguousarray(resized.transpose(2, 0, 1)[None], np.float32) / 255
        cells = run_session(self.session, images)[0].reshape(85, -1)
        side = int(cells.shape[1] ** 0.5)
        rows, columns = np.divmod(np.arange(side * side, dtype=np.float32), side)
        centres = np.stack([columns + np.tanh(cells[1]), rows + np.tanh(cells[2])], 1) / side
        halves = 0.5 / (1 + np.exp(-cells[3:5].T))
        boxes = np.concatenate([centres - halves, centres + halves], 1) * [width, height, width, height]
        scores = cells[0] ** 0.6 * cells[5] ** 0.4
        scores[cells[5:].argmax(0) != 0] = 0  # a cell speaks for its best class only
        return select(boxes.astype(np.float32), scores, iou_threshold=0.45)


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
        finders["YOLOX-nano 416 (onnxruntime)"] = YoloxNano(args.yolox, args.threads)
    if args.fastestdet:
        finders["FastestDet 352 (onnxruntime)"] = FastestDet(args.fastestdet, args.threads)
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
