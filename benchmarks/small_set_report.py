"""The tables of benchmarks/small_set.py: figures by run, with the spread over seeds, and times taken in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import ssdlite
import torch
from swiftsight_tools.configuration.config import load_config
from swiftsight_tools.scoring.detection_scoring import find_objects, open_data_and_net
from swiftsight_tools.table import format_markdown

from detect import Predictor
from detect.formats.boxed_pictures import BoxedPictures, collate
from detect.metrics import DetectionScores, evaluate_detections
from detect.results import Detections
from pictures.images import read_image, resize_image

SCORE_THRESHOLD = 0.01  # low, because AP counts the whole curve
WEIGHTS = "best.safetensors"
PROPOSALS = (25, 50, 100, 200, 300, 400)

Find = Callable[[np.ndarray], Detections]  # [H, W, 3] uint8 RGB -> objects


def open_run(run: str, **options: int) -> tuple[BoxedPictures, Any]:
    """The test part of a run's data, and its best net, with other options of its builder."""
    config = load_config(Path(run) / "config.yaml")
    config.model.update(options)
    part = config.data.test or config.data.val
    data, net = open_data_and_net(config, str(Path(run) / WEIGHTS), part, config.eval_size)
    return data, net.eval()


def scores_of(net: Any, data: BoxedPictures) -> DetectionScores:
    """COCO's figures of the net on the pictures."""
    loader = torch.utils.data.DataLoader(data, 8, collate_fn=collate)
    found = list(find_objects(net, loader, data, {"score_threshold": SCORE_THRESHOLD}))
    return evaluate_detections(found, data.ground_truth(), image_ids=data.image_ids, category_ids=data.category_ids)


def finder(net: Any) -> Find:
    """The net as a user runs it: ours by `Predictor`, torchvision's by itself."""
    if net.name != ssdlite.NAME:
        return Predictor(net, score_threshold=SCORE_THRESHOLD)

    def find(image: np.ndarray) -> Detections:
        resized = torch.from_numpy(np.ascontiguousarray(resize_image(image, net.input_size)))
        return net.predict(resized.permute(2, 0, 1)[None], score_threshold=SCORE_THRESHOLD)[0]

    return find


def race(finders: Mapping[str, Find], data: BoxedPictures, count: int) -> dict[str, list[float]]:
    """Milliseconds on each of the first `count` pictures, by name, in turn; the first picture of each warms up."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    times: dict[str, list[float]] = {name: [] for name in finders}
    names = data.file_names[:count]
    for name in (names[0], *names):
        image = read_image(data.images / name)
        for who, find in finders.items():
            start = time.perf_counter()
            find(image)
            times[who].append(1000 * (time.perf_counter() - start))
    return {who: found[1:] for who, found in times.items()}


def take_times(figures: Sequence[Mapping[str, Any]], count: int) -> dict[str, list[float]]:
    """As `race`, of the first seed of each run."""
    nets, data = {}, None
    for row in reversed(figures):
        data, net = open_run(row["run"])
        nets[row["name"]] = finder(net)
    assert data is not None
    return race(nets, data, count)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean, and the least and the most where there are several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def shown_times(times: Sequence[float]) -> str:
    """Median (10 % to 90 %)."""
    ordered = sorted(times)
    low, high = ordered[len(ordered) // 10], ordered[len(ordered) * 9 // 10]
    return f"{statistics.median(ordered):.1f} ({low:.1f} to {high:.1f})"


def table(figures: Sequence[Mapping[str, Any]], times: Mapping[str, Sequence[float]]) -> str:
    """A row for each name, over its seeds; below it the commands."""
    rows_of: dict[str, list[Mapping[str, Any]]] = {}
    for row in figures:
        rows_of.setdefault(row["name"], []).append(row)
    classes = list(figures[0]["per_class"])
    heads = ["run", "AP", "AP50", *(f"AP {name}" for name in classes), "minutes", "steps", "seeds", "parameters",
             "file, MB", "ms (10 % to 90 %)"]  # fmt: skip
    lines = []
    for name, rows in rows_of.items():
        scores = [spread([row[key] for row in rows]) for key in ("AP", "AP50")]
        scores += [spread([row["per_class"][label] for row in rows]) for label in classes]
        cost = [spread([row["minutes"] for row in rows], 1), f"{rows[0]['steps']:,}", str(len(rows))]
        size = [f"{rows[0]['parameters']:,}", f"{rows[0]['bytes'] / 1e6:.2f}"]
        lines.append([name, *scores, *cost, *size, shown_times(times[name])])
    commands = "\n".join(f"{row['command']}    # {row['name']}: {row['run']}/log.jsonl" for row in figures)
    return f"{format_markdown(heads, lines)}\n\n```sh\n{commands}\n```"


def proposals_table(figures: Sequence[Mapping[str, Any]], count: int) -> str:
    """AP and milliseconds of each run's net with other numbers of proposals; torchvision's has none."""
    lines = []
    for row in figures:
        if row["model"] == ssdlite.NAME:
            continue
        nets = {}
        for number in PROPOSALS:
            data, nets[str(number)] = open_run(row["run"], test_proposals=number)
        times = race({number: finder(net) for number, net in nets.items()}, data, count)
        for number, net in nets.items():
            scores = scores_of(net, data)
            figure = [f"{scores.figures[key]:.3f}" for key in ("AP", "AP50", "AR100")]
            lines.append([f"{row['name']}, seed {row['seed']}", number, *figure, shown_times(times[number])])
    return format_markdown(["run", "proposals", "AP", "AP50", "AR100", "ms (10 % to 90 %)"], lines)
