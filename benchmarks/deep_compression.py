"""What Deep Compression reaches: digits with retraining, the shipped nets in one go, seconds, and damaged files.

    python benchmarks/deep_compression.py lenets --work-dir runs/deep_compression [--choose] [--seeds 0 1 2 3 4]
    python benchmarks/deep_compression.py shipped --work-dir runs/deep_compression
    python benchmarks/deep_compression.py speed
    python benchmarks/deep_compression.py damages --count 10000

What is done is kept in the work dir, a line of JSON each, and not done again. `lenets` trains LeNet-300-100 and LeNet-5
five times each and scores the test part once a stage; `--choose` compares densities on the last 1,500 digits of the
training part, by which settings are to be chosen. `shipped` squeezes the person detector and the cut-out without
training at several settings, and scores the file that comes out. `speed` packs SqueezeNet's weights; `damages` reads
damaged copies of that file. SWIFTSIGHT_DATA names the folder of the pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lenets
import numpy as np
import torch
from shipped_scores import SCORED
from swiftsight_tools.cli import main as main_of_command
from swiftsight_tools.table import format_table

from backbones import create_classifier
from compress import Packed, pack, prune_, share_, unpack

HELD_OUT = 1500
CHOICES = tuple({"density": density} for density in (0.05, 0.07, 0.09))
SHIPPED_SETTINGS = (
    "--density 0.6 --bits 6",
    "--bits 8",
    "--bits 6",
    "--bits 5",
    "--density 0.8 --bits 7 6",
    "--density 0.6 --bits 7 5",
    "--density 0.5 --bits 6",
    "--density 0.5 --bits 7 5",
    "--density 0.4 --bits 8 5",
    "--density 0.6 --bits 8 5",
)

Row = dict[str, Any]


def data_folder() -> Path:
    """Where the pictures lie."""
    folder = os.environ.get("SWIFTSIGHT_DATA")
    if not folder:
        raise SystemExit("SWIFTSIGHT_DATA is not set: it names the folder of the pictures")
    return Path(folder)


def read_rows(path: Path) -> list[Row]:
    """What is done already."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def fill(path: Path, todo: Sequence[Row], run: Callable[[Row], Row]) -> list[Row]:
    """Run what `path` does not hold yet, one after the other; `todo`: what tells one row from another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = read_rows(path)
    for key in todo:
        if any(row["key"] == key for row in rows):
            continue
        row = {"key": key, **run(key)}
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        rows.append(row)
        print({**key, **{name: value for name, value in row.items() if name not in ("key", "layers")}}, flush=True)
    return [row for row in rows if row["key"] in todo]


def run_lenets(work_dir: Path, seeds: Sequence[int], names: Sequence[str]) -> None:
    """Train, compress, score; print the means."""
    digits = lenets.read_digits(data_folder())

    def run(key: Row) -> Row:
        name, seed = key["net"], key["seed"]
        return lenets.compress_one(name, digits, lenets.RECIPES[name], seed, work_dir / f"{name}_{seed}.packed")

    todo = [
        {"net": name, "seed": seed, "recipe": json.loads(json.dumps(lenets.RECIPES[name]._asdict()))}
        for name in names
        for seed in seeds
    ]
    rows = fill(work_dir / "lenets.jsonl", todo, run)
    table = []
    for name in names:
        own = [row for row in rows if row["key"]["net"] == name]
        errors = [statistics.mean(row["errors"][stage] for row in own) for stage in ("dense", "pruned", "packed")]
        sizes = [row["bytes"] for row in own]
        ratio = min(row["ratio"] for row in own)
        table.append([name, str(len(own)), *(f"{error:.2f}" for error in errors), f"{errors[2] - errors[0]:+.2f}",
                      f"{max(sizes):,}", f"{ratio:.1f}"])  # fmt: skip
    heads = ["net", "seeds", "error % dense", "pruned", "packed", "change", "most bytes", "least ratio"]
    print(format_table(heads, table))


def choose(work_dir: Path, names: Sequence[str]) -> None:
    """Errors and sizes on what is held out of the training part."""
    digits = lenets.read_digits(data_folder()).without_test(HELD_OUT)

    def run(key: Row) -> Row:
        recipe = lenets.RECIPES[key["net"]]._replace(**key["changes"])
        return lenets.compress_one(key["net"], digits, recipe, key["seed"], work_dir / "choice.packed")

    todo = [
        {"net": name, "seed": seed, "changes": changes} for name in names for changes in CHOICES for seed in (10, 11)
    ]
    rows = fill(work_dir / "choices.jsonl", todo, run)
    table = [
        [row["key"]["net"], json.dumps(row["key"]["changes"]), str(row["key"]["seed"]),
         *(f"{error:.2f}" for error in row["errors"].values()), f"{row['ratio']:.1f}"]
        for row in rows
    ]  # fmt: skip
    print(format_table(["net", "changes", "seed", "error % dense", "pruned", "packed", "ratio"], table))


def squeeze_shipped(net: str, settings: str, work_dir: Path) -> Path:
    """The packed file of a shipped net by these settings, made by the command if it is not there."""
    file = work_dir / f"{net} {settings}.packed"
    if not file.is_file():
        words = ["squeeze", net, "--weights", "person", "--output", str(file), *settings.split()]
        with contextlib.redirect_stdout(io.StringIO()):
            code = main_of_command(words)
        if code:
            raise SystemExit(f"squeezing {net} by {settings} failed")
    return file


def score_shipped(work_dir: Path, net: str, settings: str | None, count: int | None = None) -> Row:
    """Figure, bytes and ratio of a shipped net by these settings, None for as it is; count: on the first pictures."""

    def run(_: Row) -> Row:
        scored = SCORED[net]
        dense = scored.create(weights="person")
        parameters = 4 * sum(tensor.numel() for tensor in dense.state_dict().values())
        file = None if settings is None else squeeze_shipped(net, settings, work_dir)
        size = parameters if file is None else file.stat().st_size
        made = dense if file is None else scored.create(weights=file)
        figure = scored.score(made, data_folder() / "coco_person", count)
        return {"figure": figure, "bytes": size, "ratio": parameters / size}

    key = {"net": net, "settings": settings, **({"pictures": count} if count else {})}
    return fill(work_dir / "shipped.jsonl", [key], run)[0]


def run_shipped(work_dir: Path) -> None:
    """Squeeze both nets by the command at every setting, and score what is read from its file."""
    for name, scored in SCORED.items():
        own = {settings: score_shipped(work_dir, name, settings) for settings in (None, *SHIPPED_SETTINGS)}
        table = [
            [settings or "float32", f"{row['bytes']:,}", f"{row['ratio']:.1f}", f"{row['figure']:.4f}",
             f"{100 * (row['figure'] - own[None]['figure']):+.2f}"]
            for settings, row in own.items()
        ]  # fmt: skip
        print(f"\n{name}\n{format_table(['settings', 'bytes', 'ratio', scored.what, 'points'], table)}")


def squeezed_squeezenet() -> tuple[torch.nn.Module, list[float]]:
    """SqueezeNet with random weights, a third of them kept, shared by 8 bits; seconds of pruning and of sharing."""
    torch.manual_seed(0)
    net = create_classifier("squeezenet1_0")
    seconds = [_seconds(lambda: prune_(net, density=0.33)), _seconds(lambda: share_(net, bits=8))]
    return net, seconds


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run_speed(rounds: int) -> None:
    """Seconds to prune, share, pack and unpack SqueezeNet's 1.24 million weights: medians."""
    times: dict[str, list[float]] = {"prune": [], "share": [], "pack": [], "unpack": []}
    packed: list[Packed] = []
    for _ in range(rounds):
        net, (pruning, sharing) = squeezed_squeezenet()
        times["prune"].append(pruning)
        times["share"].append(sharing)
        times["pack"].append(_seconds(lambda net=net: packed.append(pack(net))))
        times["unpack"].append(_seconds(lambda: unpack(packed[-1].content)))
    rows = [[what, f"{statistics.median(values):.3f}", f"{min(values):.3f}"] for what, values in times.items()]
    print(format_table([f"SqueezeNet, {len(packed[-1].content):,} bytes", "median s", "least s"], rows))


def damaged(content: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Copies with a byte or several changed, a part cut out, cut off, put in, doubled, made zero or turned round."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        kind = str(random.choice(["bytes", "cut out", "cut off", "put in", "doubled", "zeroed", "turned round"]))
        start = int(random.integers(len(content)))
        end = min(len(content), start + int(random.integers(1, 2000)))
        changed = bytearray(content)
        if kind == "bytes":
            for place in random.integers(len(content), size=int(random.integers(1, 9))):
                changed[place] ^= int(random.integers(1, 256))
        elif kind == "cut off":
            del changed[start:]
        elif kind == "cut out":
            del changed[start:end]
        elif kind == "put in":
            changed[start:start] = random.bytes(end - start)
        elif kind == "doubled":
            changed[start:start] = changed[start:end]
        elif kind == "zeroed":
            changed[start:end] = bytes(end - start)
        else:
            changed[start:end] = changed[start:end][::-1]
        yield kind, bytes(changed)


def run_damages(count: int, seed: int) -> None:
    """Read damaged copies of SqueezeNet's file: each has to be refused in one line, or to give the right weights."""
    content = pack(squeezed_squeezenet()[0]).content
    right = unpack(content).state
    told: dict[str, int] = {}
    slowest = 0.0
    for kind, changed in damaged(content, count, seed):
        start = time.perf_counter()
        try:
            state = unpack(changed).state
        except ValueError as error:
            said = str(error)
            if "\n" in said:
                raise SystemExit(f"{kind}: more than one line: {said!r}") from None
            outcome = "refused: " + "".join(letter for letter in said if not letter.isdigit())
        else:
            if any(not torch.equal(state[name], tensor) for name, tensor in right.items()):
                raise SystemExit(f"{kind}: wrong weights")
            outcome = "the right weights"
        slowest = max(slowest, time.perf_counter() - start)
        told[outcome] = told.get(outcome, 0) + 1
    print(format_table([f"{count} damages of {len(content):,} bytes", "times"],
                       [[outcome, str(times)] for outcome, times in told.items()]))  # fmt: skip
    print(f"the slowest took {slowest:.2f} s")


def main() -> None:
    """Reads the arguments; measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["lenets", "shipped", "speed", "damages"])
    parser.add_argument("--work-dir", type=Path, default=Path("runs/deep_compression"), help="where results are kept")
    parser.add_argument("--nets", nargs="+", choices=lenets.NETS, default=list(lenets.NETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--choose", action="store_true", help="lenets: compare densities on held-out digits")
    parser.add_argument("--rounds", type=int, default=5, help="speed: repetitions")
    parser.add_argument("--count", type=int, default=10000, help="damages: how many")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "lenets" and args.choose:
        choose(args.work_dir, args.nets)
    elif args.what == "lenets":
        run_lenets(args.work_dir, args.seeds, args.nets)
    elif args.what == "shipped":
        run_shipped(args.work_dir)
    elif args.what == "speed":
        run_speed(args.rounds)
    else:
        run_damages(args.count, seed=0)


if __name__ == "__main__":
    main()
