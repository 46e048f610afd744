"""How steady a person's cut-out is in a video, and whether its edges are better than the net's.

    python benchmarks/cutout_steadiness.py --weights W [--clip people.mp4 [--max-frames 400]]
        [--annotations val.json --pictures val]

On a clip: which part of the pixels outside moving areas flips between person and not from frame to frame, for the net's
own mask, for its scores steadied, for its edges drawn to the picture's, and for both, which is what the demo shows; and
the IoU of each with the net's own mask over the whole clip, since a video has no ground truth. A pixel moves if, in two
frames on each other, the picture (smoothed) changes around it by more than noise. The goals: flips at least halved, IoU
within a point. On labelled pictures (COCO json with outlines): the person's IoU over the whole set, with and without
the edge filter.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from swiftsight_tools.frames.cutout import CutOut, blurred, working_size
from swiftsight_tools.frames.segmentation_view import PERSON
from swiftsight_tools.frames.soft_edges import refine_mask
from swiftsight_tools.frames.steady import SteadyScores
from swiftsight_tools.model_choice import choose_weights
from swiftsight_tools.table import format_table
from swiftsight_tools.video import frames

from segment import Predictor, create_segmenter
from segment.formats.coco_masks import CocoMasks
from segment.losses import IGNORE

MOVING = 8  # change of brightness (0..255) of a smoothed picture that a camera's noise does not reach
SMOOTHED, AROUND = 9, 25  # pixels: the box of the smoothing, the square around a moving pixel that moves as well

Mask = np.ndarray  # [H, W] bool
Cut = Callable[[np.ndarray, np.ndarray], Mask]  # picture [H, W, 3], person's scores [H, W] -> mask


class Overlap(NamedTuple):
    """Pixels in both masks and in either, to be added up."""

    both: int = 0
    either: int = 0

    def plus(self, mask: Mask, other: Mask) -> Overlap:
        """With another picture's."""
        return Overlap(self.both + int((mask & other).sum()), self.either + int((mask | other).sum()))

    def __str__(self) -> str:
        return f"{self.both / self.either:.4f}" if self.either else "-"


def moving_area(picture: np.ndarray, before: np.ndarray) -> Mask:
    """Where two frames [H, W, 3] differ by more than noise, and around it."""
    smooth = (cv2.blur(each, (SMOOTHED, SMOOTHED)) for each in (picture, before))
    change = cv2.absdiff(*smooth).max(axis=2) > MOVING
    return cv2.dilate(change.astype(np.uint8), np.ones((AROUND, AROUND), np.uint8)) > 0


def cuts() -> dict[str, Cut]:
    """The ways to a mask that are compared; those that remember start with the clip."""
    steady, cut_out = SteadyScores(), CutOut(blurred)
    return {
        "net": lambda _, scores: scores > 0.5,
        "steadied": lambda picture, scores: steady(picture, scores) > 0.5,
        "edges": lambda picture, scores: edges(picture, scores) > 0.5,
        "steadied, edges (the demo)": lambda picture, scores: cut_out.mask(picture, scores) > 127,
    }


def edges(picture: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The scores with the picture's edges, found at the size at which the demo works."""
    height, width = working_size((picture.shape[0], picture.shape[1]))
    return refine_mask(cv2.resize(scores, (width, height), interpolation=cv2.INTER_AREA), picture)


def person_scores(predictor: Predictor, picture: np.ndarray) -> np.ndarray:
    """[H, W] float32."""
    scores = predictor(picture).scores
    assert scores is not None  # the predictor was made to keep them
    return scores[predictor.class_names.index(PERSON)].numpy()


def measure_clip(predictor: Predictor, clip: Path, max_frames: int | None) -> str:
    """A table of flips and of IoU with the net's own mask."""
    ways = cuts()
    flips, overlap = dict.fromkeys(ways, 0), dict.fromkeys(ways, Overlap())
    still_pixels = seen = 0
    last: tuple[np.ndarray, dict[str, Mask]] | None = None
    with frames(str(clip)) as video:
        for frame in islice(video, max_frames):
            scores = person_scores(predictor, frame.picture)
            masks = {name: cut(frame.picture, scores) for name, cut in ways.items()}
            if last is not None:
                still = ~moving_area(frame.picture, last[0])
                still_pixels += int(still.sum())
                for name, mask in masks.items():
                    flips[name] += int(((mask ^ last[1][name]) & still).sum())
            overlap = {name: overlap[name].plus(mask, masks["net"]) for name, mask in masks.items()}
            last, seen = (frame.picture, masks), seen + 1
    rows = [
        [name, _per_million(flips[name], still_pixels), _ratio(flips[name], flips["net"]), str(overlap[name])]
        for name in ways
    ]
    title = f"{clip.name}, {seen} frames"
    heads = ["mask", "flips per million still pixels", "of the net's", "IoU with the net's"]
    return f"{title}\n\n{format_table(heads, rows)}"


def _per_million(part: int, whole: int) -> str:
    return f"{1e6 * part / whole:.1f}" if whole else "-"


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "-"


def measure_pictures(predictor: Predictor, annotations: Path, pictures: Path) -> str:
    """The person's IoU over a labelled set, without and with the edge filter."""
    data = CocoMasks(annotations, pictures, class_names=[PERSON])
    plain, filtered = Overlap(), Overlap()
    for index in range(len(data)):
        image, labels = data[index]
        picture, truth = np.ascontiguousarray(image.permute(1, 2, 0).numpy()), labels.numpy()
        scores, known = person_scores(predictor, picture), truth != IGNORE
        plain = plain.plus((scores > 0.5)[known], (truth == 1)[known])
        filtered = filtered.plus((edges(picture, scores) > 0.5)[known], (truth == 1)[known])
    rows = [["net", str(plain)], ["edges", str(filtered)]]
    return f"{annotations.name}, {len(data)} pictures with outlines\n\n{format_table(['mask', 'person IoU'], rows)}"


def main() -> None:
    """Reads the arguments, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a segmenter (what the weights say)")
    parser.add_argument("--weights", help="a weights file, or the name of shipped ones")
    parser.add_argument("--clip", type=Path, help="a video of persons before a camera that stands still")
    parser.add_argument("--max-frames", type=int, help="of the clip (all)")
    parser.add_argument("--annotations", type=Path, help="COCO json with persons' outlines")
    parser.add_argument("--pictures", type=Path, help="the folder of its pictures")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if (args.annotations is None) != (args.pictures is None) or not (args.clip or args.pictures):
        parser.error("expected --clip, or --annotations with --pictures, or both")
    torch.set_num_threads(args.threads)
    name, weights = choose_weights(args.model, args.weights)
    net = create_segmenter(name, weights=weights)
    if PERSON not in net.class_names:
        parser.error(f"{weights} knows no {PERSON}; its classes are {', '.join(net.class_names)}")
    predictor = Predictor(net, keep_scores=True)
    print(f"{name}, {weights.name}, about {predictor.size[0]} x {predictor.size[1]} pixels\n")
    if args.clip:
        print(measure_clip(predictor, args.clip, args.max_frames))
    if args.clip and args.pictures:
        print()
    if args.pictures:
        print(measure_pictures(predictor, args.annotations, args.pictures))


if __name__ == "__main__":
    main()
