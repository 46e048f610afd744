"""One picture of it all: bytes on disk, accuracy and milliseconds of the shipped nets, as they are and made smaller.

    python benchmarks/squeezed_nets.py --work-dir runs/squeezed_nets [--nets thundernet_shufflenet_v2_x0_5] \
        --file bwn=person_bwn.packed --file xnor=person_xnor.packed --file distilled=taught.safetensors
    python benchmarks/squeezed_nets.py --work-dir runs/squeezed_nets --file ... --table

The person detector by AP and the cut-out by the person's IoU, on the person set's val part, by `shipped_scores`: in
float32 and float16 (the shipped numbers are halves: the same figure), pruned, by Deep Compression (without training),
in int8, and what --file names, which belongs to the detectors or the segmenters as it says itself. What is done is kept
in the work dir and not done again, in the lines of `deep_compression.py shipped` where that has done it. Then all take
turns at one picture, from decoded pixels to the answer: in torch, and in OpenVINO where `swiftsight export` makes a
graph. Nets of the same layers share a graph, since its time does not depend on numbers. A net of XNOR layers runs in
torch by floats and, "bits", as `deploy_bits` makes it. --table only prints and draws: table.txt, and NET.png and .svg.
--pictures: only the first so many, to try it. SWIFTSIGHT_DATA names the folder of the pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from deep_compression import Row, data_folder, fill, score_shipped, squeeze_shipped
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from shipped_scores import SCORED, outlined_iou, person_ap
from swiftsight_tools.cli import main as main_of_command
from swiftsight_tools.engines.exported import ExportedDetector, ExportedNet, ExportedSegmenter
from swiftsight_tools.plots import COLOURS
from swiftsight_tools.squeezing.squeezed_net import auxiliary_parts, empty_auxiliary
from swiftsight_tools.table import format_table
from torch import nn

import detect
import segment
from backbones.fusion import fused_copy
from backbones.weights import read_metadata, save_weights
from compress import XNORConv2d, XNORLinear, deploy_bits, pack, prune_
from pictures.images import read_image

SETTINGS = ("--bits 8", "--density 0.8 --bits 7 6", "--density 0.6 --bits 8 5", "--density 0.6 --bits 7 5",
            "--density 0.5 --bits 6")  # fmt: skip
DENSITIES = (0.8, 0.6, 0.4)
DETECTOR, SEGMENTER = SCORED
GIVEN = "given"  # the kind of what --file names; its names come first where a plot has no room for all
_WARM_UP = 2
_ROOM = (130, 11)  # pixels of a name in the plot


class Variant(NamedTuple):
    """name: in the table; kind: gives its colour in the plot; make: its file, written if it is not there."""

    name: str
    kind: str
    make: Callable[[], Path]


def create(net: str, file: Path) -> nn.Module:
    """The net of a weights file, whatever its name, of the same task as `net`."""
    name = read_metadata(file).get("name", net)
    made: nn.Module = (detect.create_detector if net == DETECTOR else segment.create_segmenter)(name, weights=file)
    return made.eval()


def variants(net: str, work_dir: Path, files: Sequence[tuple[str, Path]]) -> list[Variant]:
    """All that is compared with `net`, itself first."""
    own = [(name, path) for name, path in files if task_of(path) == net]
    return [
        Variant("float32", "dense", partial(_float32, net, work_dir)),
        Variant("float16", "dense", lambda: _shipped(net)),
        *(Variant(f"pruned to {density:.0%}", "pruned", partial(_pruned, net, work_dir, density))
          for density in DENSITIES),
        *(Variant(settings, "Deep Compression", partial(squeeze_shipped, net, settings, work_dir))
          for settings in SETTINGS),
        Variant("int8", "int8", partial(_int8, net, work_dir)),
        *(Variant(name, GIVEN, lambda path=path: path) for name, path in own),
    ]  # fmt: skip


def task_of(file: Path) -> str:
    """The shipped net that a weights file is to be compared with. SystemExit for another kind of net."""
    name = read_metadata(file).get("name")
    for net, names in ((DETECTOR, detect.list_detectors()), (SEGMENTER, segment.list_segmenters())):
        if name in names:
            return net
    raise SystemExit(f"{file} holds {name or 'a net that it does not name'}; expected a detector or a segmenter")


def _shipped(net: str) -> Path:
    return {**detect.shipped_weights(), **segment.shipped_weights()}[f"{net}_person"]


def _float32(net: str, work_dir: Path) -> Path:
    file = work_dir / f"{net}_float32.safetensors"
    if not file.is_file():
        save_weights(create(net, _shipped(net)), file, metadata=read_metadata(_shipped(net)), half=False)
    return file


def _pruned(net: str, work_dir: Path, density: float) -> Path:
    file = work_dir / f"{net}_pruned_{density}.packed"
    if not file.is_file():
        made = create(net, _shipped(net))
        empty_auxiliary(made)
        prune_(made, density=density, scope="net", skip=auxiliary_parts(made))
        file.write_bytes(pack(made, read_metadata(_shipped(net))).content)
    return file


def _int8(net: str, work_dir: Path) -> Path:
    file = work_dir / f"{net}_int8.onnx"
    words = ["--int8", "--calibration", str(data_folder() / "coco_person" / "train")]
    return file if file.is_file() else _exported(net, _shipped(net), file, words)


def _exported(net: str, weights: Path, file: Path, more: Sequence[str] = ()) -> Path:
    """SystemExit where the command fails."""
    name = read_metadata(weights).get("name", net)
    words = ["export", name, "--weights", str(weights), "--output", str(file), *more]
    if net == SEGMENTER:
        words.append("--free-size")
    with contextlib.redirect_stdout(io.StringIO()):
        code = main_of_command(words)
    if code:
        raise SystemExit(f"exporting {weights} failed")
    return file


def score(net: str, variant: Variant, work_dir: Path, count: int | None) -> Row:
    """Bytes and the figure of a variant, kept by the contents of its file."""
    if variant.kind == "Deep Compression":
        return score_shipped(work_dir, net, variant.name, count)
    file = variant.make()
    if variant.kind == "dense":
        return {**score_shipped(work_dir, net, None, count), "bytes": file.stat().st_size}
    digest = hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
    key = {"net": net, "file": digest, "pictures": count}

    def run(_: Row) -> Row:
        figure_of = SCORED[net].score
        made: Any
        if file.suffix == ".onnx":
            made = open_exported(net, file, torch.get_num_threads())
            figure_of = person_ap if net == DETECTOR else outlined_iou
        else:
            made = fused_copy(create(net, file))
        figure = figure_of(made, data_folder() / "coco_person", count)
        return {"variant": variant.name, "figure": figure, "bytes": file.stat().st_size}

    return fill(work_dir / "scores.jsonl", [key], run)[0]


def open_exported(net: str, file: Path, threads: int, engine: str = "onnxruntime") -> Any:
    """An exported file as what answers for whole pictures."""
    opened = ExportedNet(file, engine=engine, threads=threads)
    return ExportedDetector(opened, score_threshold=0.05) if net == DETECTOR else ExportedSegmenter(opened)


def contenders(net: str, found: Sequence[Variant], work_dir: Path, threads: int) -> dict[str, dict[str, Any]]:
    """Name -> way ("torch", "bits", "openvino") -> what answers for a picture."""
    predictor = detect.Predictor if net == DETECTOR else segment.Predictor
    graphs: dict[str, Path] = {}
    ways: dict[str, dict[str, Any]] = {}
    for variant in found:
        print(f"{net}, {variant.name}: opened for its times", file=sys.stderr, flush=True)
        file = variant.make()
        if file.suffix == ".onnx":
            ways[variant.name] = {"openvino": open_exported(net, file, threads, "openvino")}
            continue
        made = create(net, file)
        ways[variant.name] = {"torch": predictor(made)}
        if any(isinstance(part, XNORConv2d | XNORLinear) for part in made.modules()):
            ways[variant.name]["bits"] = predictor(deploy_bits(fused_copy(made)))
        layers = architecture(made)
        if layers not in graphs:
            graph = work_dir / f"{net}_{layers}.onnx"
            graphs[layers] = graph if graph.is_file() else _exported(net, file, graph)
        ways[variant.name]["openvino"] = open_exported(net, graphs[layers], threads, "openvino")
    return ways


def architecture(net: nn.Module) -> str:
    """A word for the layers of a net in use, the same whatever their numbers are."""
    used = fused_copy(net)
    said = [f"{name} {type(part).__name__} {part.extra_repr()}" for name, part in used.named_modules()]
    return hashlib.blake2b("\n".join(said).encode(), digest_size=6).hexdigest()


def race(ways: dict[str, dict[str, Any]], picture: np.ndarray, rounds: int) -> dict[str, dict[str, float]]:
    """Name -> way -> median milliseconds of an answer; all take turns in each round."""
    answers = {(name, way): answer for name, own in ways.items() for way, answer in own.items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in answers}
    for turn in range(_WARM_UP + rounds):
        for key, answer in answers.items():
            start = time.perf_counter()
            answer(picture)
            if turn >= _WARM_UP:
                times[key].append(1000 * (time.perf_counter() - start))
    found: dict[str, dict[str, float]] = {name: {} for name in ways}
    for (name, way), values in times.items():
        found[name][way] = statistics.median(values)
    return found


def run(net: str, args: argparse.Namespace) -> None:
    """Fill in what the work dir does not hold yet of a net and all that is compared with it."""
    found = variants(net, args.work_dir, args.file)
    rows = [{"name": one.name, "kind": one.kind, **_figures(score(net, one, args.work_dir, args.pictures))}
            for one in found]  # fmt: skip
    result = args.work_dir / f"{net}.json"
    known = json.loads(result.read_text()) if result.is_file() else {}
    times = known.get("times", {})
    if args.times or any(row["name"] not in times for row in rows):
        picture = read_image(sorted((data_folder() / "coco_person" / "val").iterdir())[0])
        times = race(contenders(net, found, args.work_dir, args.threads), picture, args.rounds)
    said = {"net": net, "what": SCORED[net].what, "pictures": args.pictures, "threads": args.threads}
    result.write_text(json.dumps({**said, "rows": rows, "times": times}, indent=1) + "\n")


def _figures(row: Row) -> Row:
    return {"bytes": row["bytes"], "figure": row["figure"]}


def table(result: Row) -> str:
    """A net's rows."""
    rows, times = result["rows"], result["times"]
    heads = ["", "bytes", "ratio", result["what"], "points", "torch ms", "bits ms", "OpenVINO ms"]
    cells = []
    for row in rows:
        own = times.get(row["name"], {})
        points = 100 * (row["figure"] - rows[0]["figure"])
        cells.append([row["name"], f"{row['bytes']:,}", f"{rows[0]['bytes'] / row['bytes']:.1f}",
                      f"{row['figure']:.4f}", f"{points:+.2f}",
                      *(f"{own[way]:.1f}" if way in own else "" for way in ("torch", "bits", "openvino"))])  # fmt: skip
    pictures = f"the first {result['pictures']} pictures" if result["pictures"] else "all pictures of val"
    return f"{result['net']}, {pictures}, {result['threads']} threads\n{format_table(heads, cells)}"


def draw(result: Row, path: Path) -> None:
    """Bytes against the figure, and milliseconds against the figure, of a net's rows; as PNG and SVG beside `path`."""
    figure = Figure(figsize=(13, 6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(result["net"])
    left, right = figure.subplots(1, 2, sharey=True)
    rows, times = result["rows"], result["times"]
    timed = [row for row in rows if times.get(row["name"])]
    quickest = [min(times[row["name"]].values()) for row in timed]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    left.set_xscale("log", base=2)
    left.xaxis.set_major_formatter("{x:g}")
    left.set(xlabel="KiB on disk", ylabel=result["what"])
    right.set(xlabel="milliseconds a picture, the quickest way", xlim=(0, 1.4 * max(quickest, default=1)))
    _points(left, rows, [row["bytes"] / 1024 for row in rows], kinds)
    _points(right, timed, quickest, kinds)
    left.legend(loc="lower right")
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=100)


def _points(axes: Any, rows: Sequence[Row], places: Sequence[float], kinds: Sequence[str]) -> None:
    """A point a row, a colour a kind, and its name above or below it where that hides no other name."""
    for kind, colour in zip(kinds, itertools.cycle(COLOURS)):
        own = [index for index, row in enumerate(rows) if row["kind"] == kind]
        axes.scatter(
            [places[index] for index in own], [rows[index]["figure"] for index in own], color=colour, label=kind
        )
    axes.grid(alpha=0.3)
    axes.margins(x=0.15)
    axes.autoscale_view()
    taken: list[np.ndarray] = []
    given_first = sorted(zip(rows, places, strict=True), key=lambda pair: pair[0]["kind"] != GIVEN)
    for row, place in given_first:
        for offset in (4, -9):
            at = axes.transData.transform((place, row["figure"])) + np.array([0, offset])
            if all(np.any(np.abs(at - other) > _ROOM) for other in taken):
                taken.append(at)
                axes.annotate(row["name"], (place, row["figure"]), xytext=(4, offset), textcoords="offset points",
                              fontsize="x-small")  # fmt: skip
                break


def parse_file(word: str) -> tuple[str, Path]:
    """NAME=FILE."""
    name, _, path = word.partition("=")
    if not name or not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{word!r}; expected NAME=FILE, and the file there")
    return name, Path(path)


def main() -> None:
    """Reads the arguments; fills in, prints, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--work-dir", type=Path, default=Path("runs/squeezed_nets"), help="where files and results are kept")
    add("--nets", nargs="+", choices=tuple(SCORED), default=list(SCORED))
    add("--file", type=parse_file, action="append", default=[], metavar="NAME=FILE", help="another weights file")
    add("--pictures", type=int, metavar="N", help="score only the first N")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=20)
    add("--times", action="store_true", help="measure the times again")
    add("--table", action="store_true", help="only print and draw what is there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    tables = []
    for net in args.nets:
        if not args.table:
            run(net, args)
        result = args.work_dir / f"{net}.json"
        if result.is_file():
            content = json.loads(result.read_text())
            tables.append(table(content))
            draw(content, args.work_dir / net)
    print("\n\n".join(tables))
    (args.work_dir / "table.txt").write_text("\n\n".join(tables) + "\n")


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # here, not in main: it is the whole process's
    main()
