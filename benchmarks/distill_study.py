"""Small nets alone and under a teacher, at the same schedule: handwritten digits, and objects cut out of pictures.

    python benchmarks/distill_study.py --work-dir runs/distill [--data digits objects] [--seeds 0 1 2]

Trains what is not trained yet, a teacher for each set and then each student alone and under it, seed by seed; a run
that is done is kept in `runs.jsonl` and not run again. All of it takes some ten minutes on one core. The teacher of the
digits is the net of factorized_study.py, that of the objects a ShuffleNetV2 x0.5 that starts from the pretrained trunk.
Temperature 4 and a tenth of the weight for the truth are the paper's advice (arXiv:1503.02531), not tuned here; the
test part is scored once a run, at its end. SWIFTSIGHT_DATA names the folder of the data.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from factorized_study import Examples, Schedule, batches, build, digits, middle, normalize, objects, vary
from object_crops import Crops, data_folder
from torch import Tensor, nn

from backbones import create_classifier
from backbones.layers import conv_norm_act, pooled_linear
from backbones.layers.factorized import CONVOLUTIONS
from compress import Distiller, LogitLesson

TEMPERATURE, TRUTH_WEIGHT = 4.0, 0.1
TEACHER, ALONE, TAUGHT = "teacher", "alone", "taught"
SEEN_SIDE = 80  # pixels: how large the teacher of the objects sees a crop

Losses = Callable[[Tensor, Tensor], dict[str, Tensor]]


class Net(nn.Module):
    """A classifier of uint8 pictures, as a student and as a teacher."""

    def __init__(self, body: nn.Module) -> None:
        """body: pictures normalised to -2..2 -> logits."""
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """images [N, 3, H, W] uint8 -> logits."""
        return self.body(normalize(images))

    def outputs(self, images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002 (a lesson asks for it so)
        """Logits."""
        return self(images)

    def losses_from(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy."""
        return {"loss_class": F.cross_entropy(outputs, labels)}

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The same, of images."""
        return self.losses_from(self.outputs(images, labels), labels)


class Enlarged(nn.Module):
    """A published net that sees small crops larger."""

    def __init__(self, num_classes: int) -> None:
        """Starts from the pretrained trunk."""
        super().__init__()
        trunk = data_folder() / "weights" / "shufflenetv2_x0_5_trunk.pth"
        self.net = create_classifier("shufflenet_v2_x0_5", num_classes=num_classes, backbone_weights=trunk)

    def forward(self, images: Tensor) -> Tensor:
        """images [N, 3, h, w] in -2..2 -> logits."""
        seen = F.interpolate(64 * (images + 2), size=(SEEN_SIDE, SEEN_SIDE), mode="bilinear", align_corners=False)
        return self.net(self.net.normalize(seen))


def small(channels: Sequence[int], num_classes: int) -> nn.Module:
    """Plain convolutions, each of which halves the picture, and a linear layer."""
    widths = [3, *channels]
    rows = [conv_norm_act(before, after, 3, 2) for before, after in zip(widths[:-1], channels, strict=True)]
    return nn.Sequential(*rows, pooled_linear(channels[-1], num_classes))


class Set(NamedTuple):
    """Data, who teaches, who learns, and how long each of them does."""

    load: Callable[[], Examples]
    create_teacher: Callable[[int], nn.Module]
    teacher_schedule: Schedule
    create_student: Callable[[int], nn.Module]
    student_schedule: Schedule


_DIGITS = Schedule(epochs=8, batch_size=64, side=28, margin=2, lr=0.05)
_OBJECTS = Schedule(epochs=30, batch_size=32, side=40, flips=True, lr=0.05)
SETS = {
    "digits": Set(
        load=digits,
        create_teacher=lambda count: build(CONVOLUTIONS["standard"], count),
        teacher_schedule=_DIGITS,
        create_student=lambda count: small((4, 8, 8), count),
        student_schedule=_DIGITS,
    ),
    "objects": Set(
        load=objects,
        create_teacher=Enlarged,
        teacher_schedule=_OBJECTS._replace(epochs=12, lr=0.02),
        create_student=lambda count: small((16, 32, 64), count),
        student_schedule=_OBJECTS,
    ),
}


def train(net: nn.Module, losses: Losses, crops: Crops, schedule: Schedule, seed: int) -> None:
    """Train the parameters of `net` as the schedule says."""
    generator = torch.Generator().manual_seed(seed)
    steps = batches(len(crops.labels), schedule, generator)
    optimizer = torch.optim.SGD(
        net.parameters(), schedule.lr, momentum=0.9, weight_decay=schedule.weight_decay, nesterov=True
    )
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.lr, total_steps=len(steps), pct_start=0.2, cycle_momentum=False
    )
    net.train()
    for chosen in steps:
        loss = sum(losses(vary(crops.images[chosen], schedule, generator), crops.labels[chosen]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()


def accuracy(net: nn.Module, crops: Crops, side: int) -> float:
    """The share of right answers, 0..1."""
    net.eval()
    with torch.inference_mode():
        answers = [net(batch).argmax(1) for batch in middle(crops.images, side).split(250)]
    return (torch.cat(answers) == crops.labels).double().mean().item()


def run_one(chosen: Set, examples: Examples, way: str, seed: int, teacher_file: Path) -> dict[str, Any]:
    """Train one net and score it; a teacher is kept in `teacher_file`, which the taught ones read."""
    torch.manual_seed(seed)
    count = len(examples.train.class_names)
    net = Net((chosen.create_teacher if way == TEACHER else chosen.create_student)(count))
    schedule = chosen.teacher_schedule if way == TEACHER else chosen.student_schedule
    start, learner = time.process_time(), net
    if way == TAUGHT:
        teacher = Net(chosen.create_teacher(count))
        teacher.load_state_dict(torch.load(teacher_file, weights_only=True))
        lesson = LogitLesson(temperature=TEMPERATURE)
        learner = Distiller(net, teacher, lesson, truth_weight=TRUTH_WEIGHT)
    train(learner, learner.losses, examples.train, schedule, seed)
    if way == TEACHER:
        torch.save(net.state_dict(), teacher_file)
    return {
        "accuracy": accuracy(net, examples.test, schedule.side),
        "train_accuracy": accuracy(net, examples.train, schedule.side),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "seconds": round(time.process_time() - start, 1),
        "schedule": schedule._asdict(),
    }


def run_all(folder: Path, sets: Sequence[str], seeds: Sequence[int]) -> None:
    """Train everything that `folder` does not hold yet, one job at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "runs.jsonl"
    done = read_runs(path)
    for name in sets:
        todo = [(TEACHER, 0), *((way, seed) for seed in seeds for way in (ALONE, TAUGHT))]
        todo = [(way, seed) for way, seed in todo if (name, way, seed) not in done]
        if not todo:
            continue
        examples = SETS[name].load()
        for way, seed in todo:
            run = {"data": name, "way": way, "seed": seed, "test": len(examples.test.labels)}
            run |= run_one(SETS[name], examples, way, seed, folder / f"teacher_{name}.pt")
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(run) + "\n")
            print(name, way, seed, f"{run['accuracy']:.4f}", f"{run['seconds']} s", flush=True)


def read_runs(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The runs that are done; ValueError for one that was made by another schedule than today's."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    runs = {(run["data"], run["way"], run["seed"]): run for run in map(json.loads, lines)}
    for (name, way, seed), run in runs.items():
        chosen = SETS[name]
        schedule = chosen.teacher_schedule if way == TEACHER else chosen.student_schedule
        if run["schedule"] != schedule._asdict():
            raise ValueError(f"{path}: {name}, {way}, seed {seed} had another schedule: name another --work-dir")
    return runs


def report(folder: Path) -> str:
    """A table of means and deviations over the seeds."""
    rows = [
        "| data | net | parameters | seeds | accuracy on the test part | on the train part |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for (name, way, _), run in read_runs(folder / "runs.jsonl").items():
        groups.setdefault((name, way), []).append(run)
    for (name, way), runs in groups.items():
        found = [run["accuracy"] for run in runs]
        spread = f" ± {100 * statistics.stdev(found):.2f}" if len(found) > 1 else ""
        mean = f"{100 * statistics.fmean(found):.2f}{spread}"
        own = 100 * statistics.fmean(run["train_accuracy"] for run in runs)
        rows.append(f"| {name} | {way} | {runs[0]['parameters']:,} | {len(runs)} | {mean} | {own:.2f} |")
    return "\n".join(rows)


def main() -> None:
    """Reads the arguments; trains, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--data", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    run_all(args.work_dir, args.data, args.seeds)
    print(report(args.work_dir))


if __name__ == "__main__":
    main()
