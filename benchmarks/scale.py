"""Training and data at scale: indexing and evaluation beside pycocotools, augmentation beside the JPEG decoder.

    python benchmarks/scale.py [index] [evaluate] [augment] [--pictures 118000 --boxes 860000] [--detections 500000]

Everything is made up by the benchmark in a temporary folder: for `index` a json of COCO train2017's size with outlines
(about 480 MB), for `evaluate` one of val2017's and a list of detections, for `augment` pictures of noise and shapes as
JPEG. Times are processor seconds; memory is the peak of a fresh process, what it imports included. SWIFTSIGHT_DATA adds
the real pictures of coco_person to `augment`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

CATEGORY_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
WAYS = {"pycocotools": "pycocotools", "boxes": "our reader, boxes", "outlines": "our reader, outlines kept"}
SIZES = (320, 480)


def annotations(random: np.random.Generator, pictures: int, boxes: int, *, outlines: bool) -> Iterator[dict[str, Any]]:
    """Boxes of COCO's usual sizes; one in a hundred is a crowd."""
    sides = np.exp(random.normal(4.2, 0.9, (boxes, 2))).clip(4, 400)
    corners = random.random((boxes, 2)) * (np.array([640, 480]) - sides)
    places, labels = random.integers(1, pictures + 1, boxes), random.integers(len(CATEGORY_IDS), size=boxes)
    rows = np.concatenate([corners, sides], axis=1).round(2).tolist()
    points = random.random((1000, 40, 2))
    for number, (box, place, label) in enumerate(zip(rows, places.tolist(), labels.tolist(), strict=True)):
        is_crowd = number % 100 == 0
        row = {"id": number + 1, "image_id": place, "category_id": CATEGORY_IDS[label], "bbox": box}
        row |= {"area": round(box[2] * box[3] * 0.6, 2), "iscrowd": int(is_crowd)}
        if outlines and is_crowd:
            row["segmentation"] = {"size": [480, 640], "counts": [307200]}
        elif outlines:
            shape = points[number % 1000, : 4 + number % 36] * box[2:] + box[:2]
            row["segmentation"] = [shape.round(2).ravel().tolist()]
        yield row


def write_truth(path: Path, pictures: int, boxes: int, *, outlines: bool) -> None:
    """A COCO json, written piece by piece."""
    images = ({"id": number, "file_name": f"{number:012d}.jpg", "width": 640, "height": 480, "license": 1,
               "coco_url": f"http://example.org/train2017/{number:012d}.jpg", "date_captured": "2013-11-14 11:18:45"}
              for number in range(1, pictures + 1))  # fmt: skip
    rows = annotations(np.random.default_rng(0), pictures, boxes, outlines=outlines)
    with path.open("w") as file:
        for opening, entries in (('{"info": {}, "images": [', images), ('], "annotations": [', rows)):
            file.write(opening)
            for number, entry in enumerate(entries):
                file.write((", " if number else "") + json.dumps(entry))
        categories = [{"id": number, "name": f"class {number}"} for number in CATEGORY_IDS]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def index_in_this_process(way: str, path: Path) -> None:
    """Read the file and print processor seconds and peak memory in MiB."""
    read: Callable[[Path], object]
    if way == "pycocotools":
        from pycocotools.coco import COCO

        def read(path: Path) -> object:
            return COCO(str(path))
    else:
        from pictures.coco_json import read_annotations, read_index

        read = read_annotations if way == "boxes" else read_index
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        index = read(path)
    seconds = time.process_time() - start
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps([seconds, int(peak.split()[1]) / 1024, type(index).__name__]))


def report_index(folder: Path, pictures: int, boxes: int) -> None:
    """Each way in a process of its own."""
    path = folder / "instances_train.json"
    write_truth(path, pictures, boxes, outlines=True)
    print(f"index: {pictures} pictures, {boxes} boxes, {path.stat().st_size / 1e6:.0f} MB of json")
    base: list[float] = []
    for way, name in WAYS.items():
        words = [sys.executable, __file__, "--way", way, "--file", str(path)]
        seconds, peak, _ = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        base = base or [seconds, peak]
        shares = f"{seconds / base[0]:5.2f} of the time, {peak / base[1]:5.2f} of the memory"
        print(f"  {name:<28}{seconds:7.2f} s {peak:7.0f} MiB   {shares}", flush=True)
    path.unlink()


def made_up_detections(truth: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Half are shaken objects, half lie in another picture."""
    random = np.random.default_rng(1)
    rows, images = truth["annotations"], [row["id"] for row in truth["images"]]
    boxes = np.array([row["bbox"] for row in rows])
    chosen, elsewhere = random.integers(len(rows), size=number), random.integers(len(images), size=number)
    shaken = boxes[chosen] + random.normal(0, 0.1, (number, 4)) * boxes[chosen][:, [2, 3, 2, 3]]
    shaken[:, 2:] = shaken[:, 2:].clip(1)
    scores = (random.random(number) ** 3).round(6).tolist()
    return [
        {
            "image_id": rows[place]["image_id"] if count % 2 else images[other],
            "category_id": rows[place]["category_id"],
            "bbox": box,
            "score": score,
        }
        for count, (place, other, box, score) in enumerate(
            zip(chosen.tolist(), elsewhere.tolist(), shaken.round(3).tolist(), scores, strict=True)
        )
    ]


def report_evaluation(folder: Path, pictures: int, boxes: int, detections: int) -> None:
    """pycocotools used plainly and ours, from the same file and list, reading the file included."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from detect.metrics import evaluate_detections

    path = folder / "instances_val.json"
    write_truth(path, pictures, boxes, outlines=False)
    found = made_up_detections(json.loads(path.read_bytes()), detections)
    print(f"evaluate: {pictures} pictures, {boxes} boxes, {detections} detections, {len(CATEGORY_IDS)} classes")
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        plain = COCOeval(truth, truth.loadRes([dict(row) for row in found]), "bbox")
        plain.evaluate()
        plain.accumulate()
        plain.summarize()
    theirs = time.process_time() - start
    start = time.process_time()
    scores = evaluate_detections(found, path)
    ours = time.process_time() - start
    equal = list(scores.figures.values()) == plain.stats.tolist()
    curves = np.array_equal(scores.precision, plain.eval["precision"][..., 0, 2])
    print(f"  pycocotools {theirs:.2f} s, ours {ours:.2f} s: {theirs / ours:.1f} times as fast")
    print(f"  twelve figures equal to the last digit: {equal}; precision-recall curves: {curves}", flush=True)


def picture_folder(folder: Path, count: int) -> None:
    """Pictures of 640 x 480 with smooth ground, some noise and boxes, and their json."""
    import cv2

    random = np.random.default_rng(2)
    images, rows = [], []
    for number in range(1, count + 1):
        ground = cv2.resize(random.integers(0, 256, (12, 16, 3), dtype=np.uint8), (640, 480))
        noise = random.integers(0, 24, ground.shape, dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), cv2.add(ground, noise), [cv2.IMWRITE_JPEG_QUALITY, 92])
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 640, "height": 480})
        for _ in range(7):
            box = [*random.integers(0, 300, 2).tolist(), *random.integers(20, 180, 2).tolist()]
            rows.append({"image_id": number, "category_id": 1, "bbox": box})
    content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "instances.json").write_text(json.dumps(content))


def report_augmentation(name: str, annotations_file: Path, folder: Path, count: int) -> None:
    """Pictures a second of one core: the decoder alone, our reading, and all up to the net."""
    import cv2
    import torch

    from detect.formats.coco import CocoDetection
    from detect.transforms import SSDAugmentation
    from pictures.images import read_image

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    data = CocoDetection(annotations_file, folder, transform=SSDAugmentation())
    places = range(min(count, len(data)))
    paths = [folder / data.file_names[place] for place in places]
    ways: dict[str, Any] = {
        "the JPEG decoder alone": lambda place: cv2.imdecode(np.fromfile(paths[place], np.uint8), cv2.IMREAD_COLOR),
        "read and checked": lambda place: read_image(paths[place]),
    }
    ways |= {f"augmented to {side}": lambda place, side=side: data[place, place, (side, side)] for side in SIZES}
    print(f"augment: {len(places)} pictures of {name}; pictures a second of one core, best of 3")
    for way, work in ways.items():
        rates = []
        for _ in range(3):
            start = time.process_time()
            for place in places:
                work(place)
            rates.append(len(places) / (time.process_time() - start))
        print(f"  {way:<28}{max(rates):8.0f}", flush=True)


def main() -> None:
    """Reads the arguments, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["index", "evaluate", "augment", []], help="(all)")
    parser.add_argument("--pictures", type=int, default=118_000, help="of `index` (118000)")
    parser.add_argument("--boxes", type=int, default=860_000, help="of `index` (860000)")
    parser.add_argument("--val-pictures", type=int, default=5_000, help="of `evaluate` (5000)")
    parser.add_argument("--val-boxes", type=int, default=36_000, help="of `evaluate` (36000)")
    parser.add_argument("--detections", type=int, default=500_000, help="of `evaluate` (500000)")
    parser.add_argument("--count", type=int, default=300, help="pictures of `augment` (300)")
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        index_in_this_process(args.way, args.file)
        return
    parts = args.parts or ["index", "evaluate", "augment"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "index" in parts:
            report_index(folder, args.pictures, args.boxes)
        if "evaluate" in parts:
            report_evaluation(folder, args.val_pictures, args.val_boxes, args.detections)
        if "augment" in parts:
            picture_folder(folder, args.count)
            report_augmentation("640 x 480, made up", folder / "instances.json", folder, args.count)
            if os.environ.get("SWIFTSIGHT_DATA"):
                real = Path(os.environ["SWIFTSIGHT_DATA"]) / "coco_person"
                report_augmentation("coco_person", real / "person_train.json", real / "train", args.count)


if __name__ == "__main__":
    main()
