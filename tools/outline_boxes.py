"""Outlines for objects that have a box alone, drawn by a segmenter that has learnt from those that have outlines.

    python -m swiftsight_tools.outline_boxes best.safetensors --annotations person_train.json --pictures train \
        --output outlined.json

writes the annotations anew in COCO's format, to learn from (`data.layout: coco`), never to score by. An object with an
outline of its own keeps it. Any other gets, as run lengths, the pixels of its box that surely belong to it; the pixels
of the boxes that may or may not go into one crowd region a picture, which a training ignores. Outside the boxes
everything is background. Boxes around several others (crowds, mostly) are ignored but for what the others claim.

References: Dai et al., BoxSup, ICCV 2015, arXiv:1503.01640: boxes correct guessed masks. Rother et al., GrabCut, ACM
Transactions on Graphics 23(3), 2004: two models of colour, and a cut along edges. A box says that there is an object
even where the net sees none, so its pixels are ranked by their probability: of the outlines in COCO's person set half
fill 42 to 58 % of their boxes. GrabCut starts from the best of the rank; sure is what both agree upon.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from backbones.files import write_atomically
from pictures.coco_json import load_coco, read_index
from pictures.folders import check_files
from pictures.images import read_image
from segment import Predictor, create_segmenter

from .destinations import new_file
from .model_choice import choose_weights
from .progress import show_progress

MARGIN = 0.2  # of a box's sides, seen around it
SIZES_WHOLE, SIZE_BOX = (256, 320), 192  # sides of the squares whose number of pixels the net sees
LEAST_SIDE = 32  # pixels: a box with a shorter side is not looked at closely
LIKELY = 0.55  # of a box's pixels, the most probable first, for GrabCut to start from
CERTAIN, CERTAIN_SHARE = 0.8, 0.2  # what GrabCut may not give up: so probable, and among so many
SURE_SHARE, OFF_SHARE = 0.5, 0.3  # among so many of the most, and of the least, probable, if GrabCut agrees
SMALL_SURE, SMALL_SURE_SHARE = 0.6, 0.35  # in small boxes, without GrabCut: so probable, or among so many
SMALL_OFF, SMALL_OFF_SHARE = 0.15, 0.2  # less probable, and among so many
GRABCUT_ROUNDS = 2
MOST_INSIDE = 3  # a box around the middles of more other boxes is taken for a crowd

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole pixels


class BoxOutliner:
    """The pixels of objects whose boxes are known. weights: of a segmenter that knows the class `class_name`."""

    def __init__(self, weights: Path, class_name: str) -> None:
        name, path = choose_weights(None, str(weights))
        net = create_segmenter(name, weights=path)
        if class_name not in net.class_names:
            raise ValueError(f"{path} knows {', '.join(net.class_names)}, but not {class_name}")
        self.class_name, self._label = class_name, net.class_names.index(class_name)
        sizes = sorted({*SIZES_WHOLE, SIZE_BOX})
        self._predictors = {size: Predictor(net, size=(size, size), keep_scores=True) for size in sizes}

    def outline(self, image: np.ndarray, boxes: Sequence[Box]) -> tuple[list[np.ndarray], np.ndarray]:
        """image [H, W, 3] uint8 RGB -> of each box the sure pixels [H, W] bool; and those that nothing is known of."""
        whole = self._probabilities(image, SIZES_WHOLE)
        sure_of_each, unsure = [], np.zeros(whole.shape, bool)
        for number, box in enumerate(boxes):
            x1, y1, x2, y2 = box
            sure = np.zeros(whole.shape, bool)
            if _holds_many(box, [*boxes[:number], *boxes[number + 1 :]]):
                unsure[y1:y2, x1:x2] = True
            else:
                is_sure, is_off = self._judge(image, whole, box)
                sure[y1:y2, x1:x2] = is_sure
                unsure[y1:y2, x1:x2] |= ~is_sure & ~is_off
            sure_of_each.append(sure)
        return sure_of_each, unsure

    def _judge(self, image: np.ndarray, whole: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Of the box's pixels, [y2 - y1, x2 - x1] bool: which are surely the object, which surely not."""
        x1, y1, x2, y2 = box
        seen = whole[y1:y2, x1:x2]
        if min(seen.shape) < LEAST_SIDE:
            is_sure = (seen > SMALL_SURE) | _best(seen, SMALL_SURE_SHARE)
            return is_sure, (seen < SMALL_OFF) & _worst(seen, SMALL_OFF_SHARE) & ~is_sure
        right, down = round((x2 - x1) * MARGIN), round((y2 - y1) * MARGIN)
        left, top = max(0, x1 - right), max(0, y1 - down)
        part = np.ascontiguousarray(image[top : y2 + down, left : x2 + right])
        inside = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
        seen = (seen + self._probabilities(part, [SIZE_BOX])[inside]) / 2
        cut = _grab_cut(part, inside, seen)
        return cut & _best(seen, SURE_SHARE), ~cut & _worst(seen, OFF_SHARE)

    def _probabilities(self, image: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
        """[H, W] float32: of the class, averaged over the sizes and over the picture as it is and mirrored."""
        mirrored = np.ascontiguousarray(image[:, ::-1])
        total = np.zeros(image.shape[:2], np.float32)
        for size in sizes:
            total += self._score(size, image) + self._score(size, mirrored)[:, ::-1]
        return total / (2 * len(sizes))

    def _score(self, size: int, image: np.ndarray) -> np.ndarray:
        scores = self._predictors[size](image).scores
        assert scores is not None  # asked for in __init__
        return scores[self._label].numpy()


def _best(seen: np.ndarray, share: float) -> np.ndarray:
    """[h, w] bool: so many of the pixels, the most probable first; of equals at the end all."""
    return seen >= np.quantile(seen, 1 - share)


def _worst(seen: np.ndarray, share: float) -> np.ndarray:
    """[h, w] bool: so many of the pixels, the least probable first; of equals at the end all."""
    return seen <= np.quantile(seen, share)


def _grab_cut(part: np.ndarray, inside: tuple[slice, slice], seen: np.ndarray) -> np.ndarray:
    """The object [h, w] bool inside a box of the picture `part`, by colours and edges; `seen`: its probabilities."""
    mask = np.full(part.shape[:2], cv2.GC_BGD, np.uint8)
    mask[inside] = np.where(_best(seen, LIKELY), cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    mask[inside][(seen > CERTAIN) & _best(seen, CERTAIN_SHARE)] = cv2.GC_FGD
    if not np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).any():  # the net sees the same everywhere
        mask[inside] = cv2.GC_PR_FGD
    if not np.isin(mask, (cv2.GC_BGD, cv2.GC_PR_BGD)).any():  # a box as large as the picture
        return np.ones(seen.shape, bool)
    cv2.setRNGSeed(0)  # the models of colour begin with random groups
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(part, mask, (0, 0, 1, 1), *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    return np.isin(mask[inside], (cv2.GC_FGD, cv2.GC_PR_FGD))


def _holds_many(box: Box, others: Sequence[Box]) -> bool:
    x1, y1, x2, y2 = box
    inside = sum(x1 < (a + c) / 2 < x2 and y1 < (b + d) / 2 < y2 for a, b, c, d in others)
    return inside > MOST_INSIDE


def outline_boxes(outliner: BoxOutliner, annotations: Path, pictures: Path) -> tuple[dict[str, Any], str]:
    """The annotations of the outliner's class with an outline for every box, and a line of report.

    pictures: the folder of the pictures. Raises ValueError or OSError for what is missing or wrong in either.
    """
    content = load_coco(annotations)
    index = read_index(annotations, class_names=[outliner.class_name])
    check_files([picture.file_name for picture in index.pictures], pictures, annotations)
    by_picture: list[list[dict[str, Any]]] = [[] for _ in index.pictures]
    for entry in index.entries:
        by_picture[entry.picture].append(entry.content)
    written: list[dict[str, Any]] = []
    drawn, crowd_id = 0, 1 + max((int(entry.content.get("id", 0)) for entry in index.entries), default=0)
    pictures_and_entries = zip(index.pictures, by_picture, strict=True)
    for picture, entries in show_progress(pictures_and_entries, len(by_picture), "pictures"):
        boxes = {
            number: box
            for number, entry in enumerate(entries)
            if not entry.get("segmentation") and (box := _whole_pixels(entry["bbox"], picture.size))
        }
        if boxes:
            sure, unsure = outliner.outline(read_image(pictures / picture.file_name), list(boxes.values()))
            for number, mask in zip(boxes, sure, strict=True):
                entries[number] = entries[number] | {"segmentation": _run_lengths(mask)}
            crowd = {"id": crowd_id, "image_id": picture.image_id, "category_id": index.category_ids[0], "iscrowd": 1}
            whole = [0, 0, picture.size[1], picture.size[0]]
            entries.append(crowd | {"bbox": whole, "area": int(unsure.sum()), "segmentation": _run_lengths(unsure)})
            drawn, crowd_id = drawn + len(boxes), crowd_id + 1
        written += entries
    ours = [category for category in content["categories"] if category["id"] == index.category_ids[0]]
    kept = len(index.entries) - drawn
    report = f"{len(index.pictures)} pictures: {drawn} outlines drawn, {kept} objects left as they were"
    return {"images": content["images"], "annotations": written, "categories": ours}, report


def _whole_pixels(box_xywh: Sequence[float], size: tuple[int, int]) -> Box | None:
    """The pixels that a box touches, inside a picture of (height, width); None where there are none."""
    x, y, width, height = box_xywh
    x1, y1 = max(0, int(x)), max(0, int(y))
    x2, y2 = min(size[1], int(np.ceil(x + width))), min(size[0], int(np.ceil(y + height)))
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """mask [H, W] bool as COCO's compressed run lengths."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def main(words: Sequence[str] | None = None) -> int:
    """Run the script with `words` (the process's own by default); 0, or 1 with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m swiftsight_tools.outline_boxes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", type=Path, help="of a segmenter")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO's json with boxes")
    parser.add_argument("--pictures", type=Path, required=True, help="the folder of its pictures")
    parser.add_argument("--class", dest="class_name", default="person", help="whose boxes are outlined (person)")
    parser.add_argument("--output", type=Path, required=True, help="the json to write")
    args = parser.parse_args(words)
    try:
        new_file(args.output)
        outliner = BoxOutliner(args.weights, args.class_name)
        content, report = outline_boxes(outliner, args.annotations, args.pictures)
        write_atomically(args.output, json.dumps(content).encode())
    except (ValueError, OSError) as error:
        print(f"outline_boxes: {error}", file=sys.stderr)
        return 1
    print(f"{report}; written to {args.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
