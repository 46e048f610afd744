"""What objects without a label cost a detector's figures: what it is sure of where no box is.

    python benchmarks/unlabelled_objects.py runs/cells --pictures runs/cells/suspects

A suspect is a detection with at least --score that overlaps no labelled box of any class by --iou. Some are mistakes,
some are objects that nobody labelled: the pictures (labels thin and white, suspects in their class's colour) let a
person tell which. AP is given as it is, with the suspects left out (as if labels had a box to be ignored there), and
with the suspects as labels (as if each were right); the cost of the missing labels lies below the difference to the
last. RUN is the folder of a finished training; its config's test part is scored.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import small_set_report
import torch
from PIL import Image
from swiftsight_tools.frames.draw import class_colour
from swiftsight_tools.scoring.detection_scoring import find_objects
from swiftsight_tools.table import format_markdown
from torchvision.ops import box_convert, box_iou

from detect.formats.boxed_pictures import collate
from detect.metrics import evaluate_detections
from detect.result_rows import read_truth
from pictures.images import read_image

Row = Mapping[str, Any]  # a box in COCO's form


def find_suspects(results: Sequence[Row], labels: Sequence[Row], score: float, iou: float) -> list[Row]:
    """The results of at least `score` whose overlap with every label of their picture is below `iou`."""
    boxes_of: dict[Any, list[list[float]]] = defaultdict(list)
    for label in labels:
        boxes_of[label["image_id"]].append(label["bbox"])
    return [
        row
        for row in results
        if row["score"] >= score and float(_overlaps(row["bbox"], boxes_of[row["image_id"]]).max(initial=0)) < iou
    ]


def _overlaps(box_xywh: Sequence[float], boxes_xywh: Sequence[Sequence[float]]) -> np.ndarray:
    """Intersection over union of one box with each of the others."""
    one, others = (
        box_convert(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4), "xywh", "xyxy")
        for boxes in (box_xywh, boxes_xywh)
    )
    return box_iou(one, others)[0].numpy()


def as_label(row: Row) -> dict[str, Any]:
    """An annotation where the result is."""
    return {**row, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3]}


def draw(image: np.ndarray, labels: Sequence[Row], suspects: Sequence[Row], colour_of: Mapping[Any, int]) -> np.ndarray:
    """The picture with labels thin and white, suspects thick and in their class's colour."""
    canvas = np.ascontiguousarray(image).copy()
    for rows, width in ((labels, 1), (suspects, 3)):
        for row in rows:
            x, y, w, h = (round(value) for value in row["bbox"])
            colour = (255, 255, 255) if width == 1 else class_colour(colour_of[row["category_id"]])
            cv2.rectangle(canvas, (x, y), (x + w, y + h), colour, width)
    return canvas


def parse_words(words: list[str] | None) -> argparse.Namespace:
    """The command's words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the folder of a finished training")
    parser.add_argument("--score", type=float, default=0.5)
    parser.add_argument("--iou", type=float, default=0.3)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw those that have suspects into it")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Scores the test part three times and prints a row for each class."""
    args = parse_words(words)
    data, net = small_set_report.open_run(args.run)
    loader = torch.utils.data.DataLoader(data, 8, collate_fn=collate)
    results = list(find_objects(net, loader, data, {"score_threshold": small_set_report.SCORE_THRESHOLD}))
    truth = read_truth(data.ground_truth())
    labels, rest = truth.boxes, {"images": [*truth.images.values()], "categories": [*truth.categories.values()]}
    suspects = find_suspects(results, labels, args.score, args.iou)
    left_out = {id(row) for row in suspects}
    as_it_is, more = {**rest, "annotations": labels}, {**rest, "annotations": [*labels, *map(as_label, suspects)]}
    ways = [
        evaluate_detections(found, against, image_ids=data.image_ids, category_ids=data.category_ids)
        for found, against in (
            (results, as_it_is),
            ([row for row in results if id(row) not in left_out], as_it_is),
            (results, more),
        )
    ]
    names = dict(zip(data.category_ids, net.class_names, strict=True))
    labelled, suspected = (Counter(names[row["category_id"]] for row in rows) for rows in (labels, suspects))
    heads = ["class", "labels", "suspects", "AP", "AP without suspects", "AP, suspects as labels", "AP50 of the three"]
    lines = [
        [name, str(labelled[name]), str(suspected[name])]
        + [f"{way.per_class[name]['AP']:.3f}" for way in ways]
        + [", ".join(f"{way.per_class[name]['AP50']:.3f}" for way in ways)]
        for name in names.values()
    ]
    figures = [[f"{way.figures[key]:.3f}" for way in ways] for key in ("AP", "AP50")]
    lines.append(["all", str(labelled.total()), str(suspected.total()), *figures[0], ", ".join(figures[1])])
    print(format_markdown(heads, lines))
    if args.pictures is not None:
        _draw_all(data, labels, suspects, args.pictures)


def _draw_all(data: Any, labels: Sequence[Row], suspects: Sequence[Row], folder: Path) -> None:
    """A PNG of each picture that has a suspect."""
    folder.mkdir(parents=True, exist_ok=True)
    colour_of = {number: place for place, number in enumerate(data.category_ids)}
    for image_id, name in zip(data.image_ids, data.file_names, strict=True):
        own, suspected = ([row for row in rows if row["image_id"] == image_id] for rows in (labels, suspects))
        if suspected:
            picture = draw(read_image(data.images / name), own, suspected, colour_of)
            Image.fromarray(picture).save(folder / f"{Path(name).stem}.png")


if __name__ == "__main__":
    main()
