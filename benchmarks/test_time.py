"""What the test-time options gain and cost: mirrored pictures, scales, and windows, for any detector and data.

    python benchmarks/test_time.py --annotations person_val.json --pictures val \
        [--model thundernet_shufflenet_v2_x0_5 --weights person] [--large] [--limit 100]

Without --large the pictures are seen as they are: once, mirrored too, at several scales. With --large they are put
together to canvases of about 1408 x 1056 pixels, at their own size, and these are seen at once, in windows, and in
windows and mirrored. All ways take turns on each picture, on one thread; ms are medians of processor time, ratios the
median of each picture's ratio to one look.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from detect import MultiPassPredictor, Predictor, create_detector
from detect.formats.coco import CocoDetection
from detect.metrics import coco_results, evaluate_detections

SCORE_THRESHOLD = 0.05
CANVAS = (1056, 1408)
GREY = 114
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class Scene(NamedTuple):
    """image [H, W, 3] uint8 RGB; boxes [M, 4] and labels [M] of what it shows."""

    image: np.ndarray
    boxes: torch.Tensor
    labels: torch.Tensor


def single_scenes(data: CocoDetection, limit: int) -> Iterator[Scene]:
    """The pictures one by one, as they are on disk."""
    for index in range(min(limit, len(data))):
        image, target = data[index]
        yield Scene(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), target.boxes, target.labels)


def canvases(scenes: Iterator[Scene]) -> Iterator[Scene]:
    """The scenes put together row by row, as many as fit on each canvas."""
    height, width = CANVAS
    parts: list[tuple[Scene, int, int]] = []
    x = y = row_height = 0
    for scene in scenes:
        high, wide = scene.image.shape[:2]
        if x + wide > width:
            x, y, row_height = 0, y + row_height, 0
        if y + high > height:
            yield _painted(parts)
            parts, x, y, row_height = [], 0, 0, 0
        parts.append((scene, x, y))
        x, row_height = x + wide, max(row_height, high)
    yield _painted(parts)


def _painted(parts: list[tuple[Scene, int, int]]) -> Scene:
    image = np.full((*CANVAS, 3), GREY, np.uint8)
    for scene, x, y in parts:
        image[y : y + scene.image.shape[0], x : x + scene.image.shape[1]] = scene.image
    boxes = [scene.boxes + torch.tensor([x, y, x, y]) for scene, x, y in parts]
    return Scene(image, torch.cat(boxes), torch.cat([scene.labels for scene, _, _ in parts]))


def ground_truth(scenes: list[Scene], class_names: tuple[str, ...]) -> dict[str, Any]:
    """COCO annotations of the scenes, numbered from 1; the categories, too."""
    images, annotations = [], []
    for number, scene in enumerate(scenes, 1):
        high, wide = scene.image.shape[:2]
        images.append({"id": number, "height": high, "width": wide, "file_name": f"{number}"})
        for (x1, y1, x2, y2), label in zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "iscrowd": 0}
            annotations.append({**row, "bbox": box, "area": box[2] * box[3]})
    categories = [{"id": label, "name": name} for label, name in enumerate(class_names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def ways_of_looking(predictor: Predictor, large: bool) -> dict[str, Predictor | MultiPassPredictor]:
    """By name; the first is the plain one."""
    if large:
        return {
            "the whole picture": predictor,
            "+ windows 352": MultiPassPredictor(predictor, window=(352, 352)),
            "+ windows 480": MultiPassPredictor(predictor, window=(480, 480)),
            "+ windows 352, mirrored too": MultiPassPredictor(predictor, window=(352, 352), flip=True),
        }
    return {
        "one look": predictor,
        "mirrored too": MultiPassPredictor(predictor, flip=True),
        "scales 0.8 1 1.25": MultiPassPredictor(predictor, scales=(0.8, 1, 1.25)),
        "both": MultiPassPredictor(predictor, scales=(0.8, 1, 1.25), flip=True),
    }


def main() -> None:
    """Reads the arguments, looks at all pictures in all ways, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True, help="COCO json")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of its pictures")
    parser.add_argument("--model", default="thundernet_shufflenet_v2_x0_5")
    parser.add_argument("--weights", default="person")
    parser.add_argument("--large", action="store_true", help="put the pictures together to large ones")
    parser.add_argument("--limit", type=int, default=1_000_000, help="only the first so many pictures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    data = CocoDetection(args.annotations, args.pictures)
    net = create_detector(args.model, num_classes=len(data.class_names), weights=args.weights)
    predictor = Predictor(net, score_threshold=SCORE_THRESHOLD)
    single = single_scenes(data, args.limit)
    scenes = list(canvases(single) if args.large else single)
    ways = ways_of_looking(predictor, args.large)
    results, times = race(ways, scenes)
    print(f"{args.model} {args.weights}, {len(scenes)} pictures, {predictor.size}, torch {torch.__version__}")
    print(f"{'':<30}{''.join(f'{name:>8}' for name in FIGURES)}{'ms':>9}{'ratio':>8}")
    first = next(iter(times.values()))
    truth = ground_truth(scenes, data.class_names)
    for name, found in results.items():
        figures = evaluate_detections(found, truth).figures
        ratio = statistics.median(one / other for one, other in zip(times[name], first, strict=True))
        shown = "".join(f"{figures[key]:8.3f}" for key in FIGURES)
        print(f"{name:<30}{shown}{statistics.median(times[name]):9.1f}{ratio:8.2f}")


def race(
    ways: dict[str, Predictor | MultiPassPredictor], scenes: list[Scene]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[float]]]:
    """Every way on every picture, in turn -> COCO results and milliseconds per picture, by name."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    times: dict[str, list[float]] = {name: [] for name in ways}
    categories = range(1, 1 + len(next(iter(ways.values())).class_names))
    for way in ways.values():
        way(scenes[0].image)
    for number, scene in enumerate(scenes, 1):
        for name, way in ways.items():
            start = time.process_time()
            found = way(scene.image)
            times[name].append(1000 * (time.process_time() - start))
            results[name] += coco_results(found, number, categories)
    return results, times


if __name__ == "__main__":
    main()
