"""Runs a list of short trainings one after the other, scores each, and prints the table for docs/results.md.

    python benchmarks/small_set.py scratch                     # also: helps, person, fine_tuning
    python benchmarks/small_set.py helps --only "OHEM" --seeds 0 1
    python benchmarks/small_set.py helps --table               # of what is finished, without training
    python benchmarks/small_set.py scratch --proposals         # AP and time against the number of proposals

The lists stand in benchmarks/small_set.yaml; --lists FILE reads others. A run lasts as many epochs as its list says, or
as fit into its minutes: the time of a step is then measured first, over a few steps of the very training, and written
down, so that the epochs stay the same when a run that was stopped (Ctrl-C, kill) is resumed by the same words. The
table's minutes are those that the steps took in the end, validations left out. Scores are from 0.01 on, on the config's
test part; milliseconds are one thread's from the decoded picture to its boxes, the nets in turn.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import small_set_report
import ssdlite
import torch
import yaml
from swiftsight_tools.cli import main as swiftsight
from swiftsight_tools.configuration.config import load_config
from swiftsight_tools.configuration.schema import build
from swiftsight_tools.configuration.training_config import Count, Positive
from swiftsight_tools.training.hooks import StoppedError
from swiftsight_tools.training.journal import Screen
from swiftsight_tools.training.session import TrainingSession

LISTS = Path(__file__).with_suffix(".yaml")
MEASURED_STEPS, WARM_UP_STEPS = 15, 5


@dataclass(frozen=True, kw_only=True)
class Run:
    """A row of the table: a config, changes to it, and for how long, in minutes or in epochs, of which epochs count
    where both are said; what is not said here the list says.
    """

    name: str
    config: str | None = None
    set: tuple[str, ...] = ()
    minutes: Positive | None = None
    epochs: Count | None = None
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True, kw_only=True)
class RunList:
    """A table."""

    title: str
    runs: tuple[Run, ...]
    config: str | None = None
    set: tuple[str, ...] = ()
    minutes: Positive | None = None
    epochs: Count | None = None


@dataclass(frozen=True)
class Job:
    """One training with one seed. folder: where plan, run and figures lie."""

    name: str
    config: str
    changes: tuple[str, ...]
    seed: int
    minutes: float | None
    epochs: int | None
    folder: Path

    @property
    def words(self) -> list[str]:
        """As `swiftsight train` takes them, without the number of epochs."""
        changes = (*self.changes, f"seed={self.seed}")
        return [self.config, *(word for change in changes for word in ("--set", change))]


def read_list(path: Path, name: str) -> RunList:
    """The list called `name`. Raises ValueError where there is none, or it is not as it should be."""
    lists = yaml.safe_load(path.read_text(encoding="utf-8"))
    if name not in lists:
        raise ValueError(f"{path} has no list {name!r}; it has {', '.join(lists)}")
    found = build(RunList, lists[name], name)
    for run in found.runs:
        for keys in (("config",), ("epochs", "minutes")):
            if all(getattr(part, key) is None for part in (run, found) for key in keys):
                raise ValueError(f"{path}: {name} says no {' or '.join(keys)} for the run {run.name!r}")
    return found


def jobs_of(runs: RunList, folder: Path, args: argparse.Namespace) -> Iterator[Job]:
    """The trainings that were asked for, seed by seed: the first seed of all comes before the second of any."""
    chosen = [run for run in runs.runs if not args.only or any(word in run.name for word in args.only)]
    if not chosen:
        raise ValueError(f"--only {args.only}: the runs are called {', '.join(run.name for run in runs.runs)}")
    seeds = [tuple(args.seeds) if args.seeds else run.seeds for run in chosen]
    for place in range(max(map(len, seeds))):
        for run, own_seeds in zip(chosen, seeds, strict=True):
            if place < len(own_seeds):
                slug = re.sub(r"[^a-z0-9]+", "_", run.name.lower()).strip("_")
                minutes = args.minutes or run.minutes or runs.minutes
                epochs = args.epochs or (None if args.minutes else run.epochs or runs.epochs)
                changes = (*runs.set, *run.set, *args.set)
                seed, config = own_seeds[place], run.config or runs.config
                yield Job(run.name, config, changes, seed, minutes, epochs, folder / f"{slug}_seed{seed}")


class StopAfter(Screen):
    """A screen that asks the training to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__(silent=True)
        self.left = steps
        self.session: TrainingSession | None = None

    def show(self, line: str) -> None:  # noqa: ARG002
        """Called once a step."""
        self.left -= 1
        if self.left <= 0:
            self.session.stop.asked = signal.SIGINT


def plan_epochs(job: Job) -> int:
    """What the job says, or as many as fit into its minutes, measured once and kept in plan.json."""
    if job.epochs:
        return job.epochs
    path = job.folder / "plan.json"
    if not path.exists():
        trial = job.folder / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        trial.mkdir(parents=True)
        own = [f"seed={job.seed}", f"epochs={MEASURED_STEPS}", f"validate_every={MEASURED_STEPS}"]
        config = load_config(job.config, [*job.changes, *own])
        screen = StopAfter(MEASURED_STEPS)
        screen.session = TrainingSession(config, trial, torch.device("cpu"), screen)
        try:
            screen.session.run(None)
        except StoppedError as stop:
            if screen.left > 0:  # not by the screen: somebody wants all of this to end
                sys.exit(128 + stop.number)
        seconds = statistics.mean(row["seconds"] for row in read_steps(trial)[WARM_UP_STEPS:])
        steps = len(screen.session.sampler)
        epochs = max(1, round(60 * job.minutes / (seconds * steps)))
        plan = {"minutes": job.minutes, "seconds_per_step": seconds, "steps_per_epoch": steps, "epochs": epochs}
        path.write_text(json.dumps(plan))
        shutil.rmtree(trial)
        print(f"{job.name}: {seconds:.2f} s a step, so {epochs} epochs of {steps} steps in {job.minutes:g} minutes")
    plan = json.loads(path.read_text())
    if plan["minutes"] != job.minutes:
        raise ValueError(f"{path} was made for {plan['minutes']:g} minutes, not {job.minutes:g}; choose another folder")
    return int(plan["epochs"])


def read_steps(folder: Path) -> list[dict[str, Any]]:
    """The records of training steps in a run's log."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "train"]


def train(job: Job, epochs: int) -> None:
    """To the end, from where it was. Leaves the program where the training was stopped or failed."""
    words = ["train", *job.words, "--set", f"epochs={epochs}", "--resume", "--device", "cpu"]
    code = swiftsight([*words, "--work-dir", str(job.folder / "run")])
    if code:
        sys.exit(code)


def score(job: Job, epochs: int) -> dict[str, Any]:
    """The figures of the best weights on the test part, and what the run cost."""
    run = job.folder / "run"
    data, net = small_set_report.open_run(str(run))
    scores = small_set_report.scores_of(net, data)
    steps = read_steps(run)
    return {
        "name": job.name,
        "model": net.name,
        "seed": job.seed,
        "command": command_of(job, epochs),
        "AP": scores.figures["AP"],
        "AP50": scores.figures["AP50"],
        "per_class": {name: row["AP"] for name, row in scores.per_class.items()},
        "minutes": sum(row["seconds"] for row in steps) / 60,
        "steps": len(steps),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "bytes": (run / small_set_report.WEIGHTS).stat().st_size,
        "run": str(run),
    }


def command_of(job: Job, epochs: int) -> str:
    """What makes the same run again; only this script knows torchvision's net."""
    if ssdlite.NAME in "".join(job.words):
        return f"python benchmarks/small_set.py {job.folder.parent.name} --only {_quoted(job.name)} --epochs {epochs}"
    return f"swiftsight train {' '.join(map(_quoted, [*job.words, '--set', f'epochs={epochs}']))}"


def _quoted(word: str) -> str:
    return f'"{word}"' if re.search(r"[^\w./=-]", word) else word


def read_figures(jobs: list[Job]) -> list[dict[str, Any]]:
    """Those of the jobs that are finished."""
    paths = [job.folder / "figures.json" for job in jobs]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def run_all(jobs: list[Job]) -> None:
    """Whatever of it is not finished."""
    for job in jobs:
        if (job.folder / "figures.json").exists():
            continue
        job.folder.mkdir(parents=True, exist_ok=True)
        count = plan_epochs(job)
        train(job, count)
        (job.folder / "figures.json").write_text(json.dumps(score(job, count)))


def parse_words(words: list[str] | None) -> argparse.Namespace:
    """The command's words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", help="which list of trainings")
    parser.add_argument("--lists", type=Path, default=LISTS, help="the file of lists")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/small_set"))
    parser.add_argument("--only", nargs="+", metavar="WORD", help="runs whose name holds one of these")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of the list's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one more change to every run")
    parser.add_argument("--minutes", type=float, help="instead of the list's")
    parser.add_argument("--epochs", type=int, help="instead of the list's minutes or epochs")
    parser.add_argument("--pictures", type=int, default=30, help="how many of the test part to take the time on")
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--proposals", action="store_true", help="each run's AP and time by the number of proposals")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Runs what is not finished, then prints the table."""
    args = parse_words(words)
    ssdlite.register()
    try:
        runs = read_list(args.lists, args.list)
        jobs = list(jobs_of(runs, args.work_dir / args.list, args))
        if not args.table:
            run_all(jobs)
    except (ValueError, OSError) as error:
        sys.exit(f"small_set.py: {error}")
    figures = read_figures(jobs)
    if not figures:
        sys.exit(f"small_set.py: nothing of {args.list} is finished in {args.work_dir}")
    print(f"\n## {runs.title}\n")
    if args.proposals:
        print(small_set_report.proposals_table(figures, args.pictures))
    else:
        print(small_set_report.table(figures, small_set_report.take_times(figures, args.pictures)))


if __name__ == "__main__":
    main()
