"""Two processes on gloo: the gradients, figures and files of one, and a killed run that goes on exactly."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from swiftsight_tools.cli import main
from swiftsight_tools.configuration.config import load_config
from swiftsight_tools.errors import UsageError
from swiftsight_tools.training import session
from swiftsight_tools.training.checkpoint import checksum, load_checkpoint
from swiftsight_tools.training.freezing import BATCH_NORMS
from swiftsight_tools.training.processes import Processes, find_processes, own_device
from swiftsight_tools.training.tasks import open_task
from torch import nn

TOLD = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
PATIENCE = 600  # seconds; only a machine that others use too needs more than a few
COMMAND = [sys.executable, "-c", "import sys; from swiftsight_tools.cli import main; sys.exit(main())"]

# Nothing random inside a net and the same number of examples from each picture: hard ones, and every anchor.
CONFIGS = {
    "detect": """
model: {{name: thundernet_snet49, fc_channels: 32, rpn_channels: 32, train_proposals: 20, samples: 16,
         rpn_positive_iou: 0.5, rpn_negative_iou: 0.5}}
data:
  train: {{annotations: {coco}/train.json, images: {coco}/images, file_names: {folder}/whole.txt}}
  val: {{annotations: {coco}/val.json, images: {coco}/images, file_names: {folder}/three.txt}}
eval_size: [64, 64]
batch_size: 2
""",
    "classify": """
task: classify
model: {{name: shufflenet_v2_x0_5}}
data: {{train: {folder}/train, val: {folder}/val}}
eval_size: [32, 32]
batch_size: 4
""",
    "segment": """
task: segment
model: {{name: bisenet_xception39, pixels: all}}
augmentation: {{scale: [2.0, 2.0]}}
data:
  layout: masks
  class_names: [ground, block]
  train: {{images: {folder}/pictures, labels: {folder}/labels}}
  val: {{images: {folder}/pictures, labels: {folder}/labels}}
eval_size: [32, 32]
batch_size: 4
""",
}
SHARED = """
sizes: [[64, 64]]
epochs: 1
optimizer: {kind: sgd, lr: 0.02, weight_decay: 0.01}
schedule: {final_factor: 1.0}
ema: {momentum: 0.2, gamma: null}
clip_grad: 5.0
workers: 0
threads: 1
"""
# A run as users have it: batch norms learn, examples are drawn at random, sizes vary.
LIVELY = """
model:
  {{name: thundernet_snet49, fc_channels: 32, rpn_channels: 32, train_proposals: 60, samples: 20, sampling: random}}
data:
  train: {{annotations: {coco}/train.json, images: {coco}/images}}
  val: {{annotations: {coco}/val.json, images: {coco}/images, file_names: {folder}/three.txt}}
sizes: [[64, 64], [96, 64]]
eval_size: [64, 64]
eval_batch_size: 1
batch_size: 2
epochs: 3
optimizer: {{kind: adamw, lr: 0.003, weight_decay: 0.05}}
checkpoint: {{every_iters: 3}}
workers: 0
threads: 1
log_every: 1
"""


def freeze_norms(net: nn.Module, names: Any) -> list[nn.Module]:
    """Stands where `freeze` does: all norms stay in evaluation mode, and every anchor counts."""
    if hasattr(net, "rpn_samples"):
        net.rpn_samples = 10_000
    return [module for module in net.modules() if isinstance(module, BATCH_NORMS)]


def spoilt_losses(losses: Any) -> Any:
    """The same, except that one of the second step is no number."""
    calls: list[int] = []

    def spoilt(net: nn.Module, images: torch.Tensor, targets: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        terms = losses(net, images, targets)
        return terms if len(calls) != 2 else {**terms, "loss_class": terms["loss_class"] * float("nan")}

    return spoilt


def run_words(folder: Path, name: str, work_dir: Path) -> list[str]:
    return ["train", str(folder / f"{name}.yaml"), "--work-dir", str(work_dir), "--device", "cpu"]


# One of two processes: run after run, as if torchrun had started it anew for each.
WORKER = """
import json, os, sys
from swiftsight_tools.training import session
from swiftsight_tools.cli import main
from detect.two_stage import TwoStageDetector
sys.path.insert(0, sys.argv[1])
from test_processes import freeze_norms, spoilt_losses
normal = session.freeze, TwoStageDetector.losses
for port, kind, code, words in json.loads(sys.argv[2]):
    os.environ["MASTER_PORT"] = str(port)
    session.freeze, TwoStageDetector.losses = normal
    if kind == "exact":
        session.freeze = freeze_norms
    if kind == "spoilt" and os.environ["RANK"] == "1":
        TwoStageDetector.losses = spoilt_losses(normal[1])
    assert main(words) == code, words
"""


@pytest.fixture(scope="module")
def folder(tiny_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configs, and what they need: the pictures without a crowd, three to score, two classes of blocks, their masks."""
    made = tmp_path_factory.mktemp("processes")
    (made / "whole.txt").write_text("".join(f"blocks_{index:02d}.jpg\n" for index in (0, 1, 2, 3, 4, 6, 7)))
    (made / "three.txt").write_text("".join(f"blocks_{index:02d}.jpg\n" for index in (8, 9, 11)))
    random = np.random.default_rng(0)
    for index in range(9):
        picture = random.integers(90, 166, (32, 32, 3), dtype=np.uint8)
        labels = np.zeros((32, 32), np.uint8)
        picture[8:24, 8:24, index % 2], labels[8:24, 8 : 16 + index] = 220, 1
        for part in ("train", "val"):
            write(made / part / ("red", "green")[index % 2] / f"{index}.png", picture)
        write(made / "pictures" / f"{index}.png", picture)
        write(made / "labels" / f"{index}.png", labels)
    for name, text in {**{name: text + SHARED.replace("{", "{{").replace("}", "}}") for name, text in CONFIGS.items()},
                       "lively": LIVELY}.items():  # fmt: skip
        (made / f"{name}.yaml").write_text(text.format(coco=tiny_coco, folder=made))
    return made


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """two/<name>: runs of two processes; one/<name>: of one; errors_0 and errors_1: what the two said of a loss that is
    no number, and of a batch that cannot be shared. Read them, never write into them.
    """
    made = tmp_path_factory.mktemp("runs")
    exact = [(free_port(), "exact", 0, run_words(folder, name, made / "two" / name)) for name in CONFIGS]
    refused = [*run_words(folder, "lively", made / "two" / "refused"), "--set", "batch_size=3"]
    jobs = [
        *exact,
        (free_port(), "plain", 0, run_words(folder, "lively", made / "two" / "lively")),
        (free_port(), "spoilt", 1, run_words(folder, "lively", made / "two" / "spoilt")),
        (free_port(), "plain", 1, refused),
    ]
    command = [sys.executable, "-c", WORKER, str(Path(__file__).parent)]
    command += [json.dumps(jobs)]
    workers = []
    for rank in "01":
        environment = {**os.environ, **TOLD, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"}
        with (made / f"errors_{rank}").open("w") as errors:
            workers.append(subprocess.Popen(command, env=environment, stderr=errors, stdout=subprocess.DEVNULL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "freeze", freeze_norms)
        for name in CONFIGS:
            assert main(run_words(folder, name, made / "one" / name)) == 0
    codes = [worker.wait(timeout=PATIENCE) for worker in workers]
    assert codes == [0, 0], [(made / f"errors_{rank}").read_text() for rank in "01"]
    return made


def newest(work_dir: Path) -> dict[str, Any]:
    return load_checkpoint(max(work_dir.glob("checkpoint_*.pt")))


def read_log(work_dir: Path, kind: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (work_dir / "log.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in record.items() if key not in ("seconds", "waited")}
        for record in records
        if record["kind"] == kind
    ]


@pytest.mark.parametrize("task", CONFIGS)
def test_two_processes_take_the_steps_of_one_with_the_whole_batch(task: str, runs: Path) -> None:
    """SGD with a constant rate: weights that are the same after the steps had the same gradients."""
    two, one = newest(runs / "two" / task), newest(runs / "one" / task)
    assert one["step"] == two["step"] >= 2
    change = max(
        float((tensor.double() - one["averaged"][f"module.net.{name}"]).abs().max())
        for name, tensor in one["net"].items()
    )
    assert change > 1e-3  # the average lags behind the weights
    for part in ("net", "averaged"):
        torch.testing.assert_close(two[part], one[part], rtol=0, atol=change / 200)  # three steps amplify rounding
    losses = [[record["loss"] for record in read_log(runs / part / task, "train")] for part in ("two", "one")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_figures_are_those_of_one_process(task: str, runs: Path) -> None:
    """An odd number of pictures: one process scores one more than the other."""
    found, expected = (read_log(runs / part / task, "val") for part in ("two", "one"))
    assert len(found) == len(expected) == 1
    figures = [{key: value for key, value in records[0].items() if key != "kind"} for records in (found, expected)]
    assert figures[0] == pytest.approx(figures[1], rel=1e-4)


def test_a_detectors_figures_are_those_of_its_weights_in_one_process(folder: Path, runs: Path) -> None:
    """Three pictures, one by one, with the very weights: a detector at the start answers to the last digit of them."""
    task = open_task(load_config(folder / "lively.yaml"))
    net, metric = task.create_net(), task.create_metric()
    averaged = newest(runs / "two" / "lively")["averaged"]
    net.load_state_dict({name.removeprefix("module.net."): averaged[name] for name in averaged if "net." in name})
    for index in range(3):
        images, truth = task.collate([task.val_data[index]])
        metric.process((images, truth), task.predict(net, images, truth))
    figures = {name.removeprefix("val/"): value for name, value in metric.evaluate(3).items()}
    found = read_log(runs / "two" / "lively", "val")[-1]
    assert 0 < figures["AR100"] < 1
    assert {name: found[name] for name in figures} == pytest.approx(figures, rel=1e-5)


def test_only_the_first_process_writes(runs: Path) -> None:
    files = [path.name for path in (runs / "two" / "lively").iterdir() if not path.name.startswith("checkpoint_")]
    assert sorted(files) == [".lock", "best.safetensors", "config.yaml", "log.jsonl", "tensorboard"]
    assert [record["step"] for record in read_log(runs / "two" / "lively", "train")] == list(range(1, 13))
    assert not Path(".dist_test").exists()  # mmengine's folder for figures that are exchanged as files


def test_a_killed_process_ends_the_others_and_the_run_goes_on_exactly(folder: Path, runs: Path, tmp_path: Path) -> None:
    """By torchrun, which starts both again; the second process is killed in the second epoch."""
    work_dir, output = tmp_path / "run", tmp_path / "output"
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    more = ["--max-restarts", "1", "--no-python"]
    command = [*start, *more, *COMMAND, *run_words(folder, "lively", work_dir), "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with output.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as parent:
        os.kill(second_process(parent, work_dir / "log.jsonl"), signal.SIGKILL)
        assert parent.wait(timeout=PATIENCE) == 0, output.read_text()
    lines = output.read_text().splitlines()
    complaints = [line for line in lines if line.startswith("swiftsight: ")]
    assert len(complaints) <= 1  # none where torchrun's own signal came first
    assert all("another process was lost" in line for line in complaints)
    assert len([line for line in lines if line.startswith("going on from checkpoint_")]) == 1
    found, expected = newest(work_dir), newest(runs / "two" / "lively")
    assert [key for key in expected if checksum({key: found[key]}) != checksum({key: expected[key]})] == []
    for kind in ("train", "val"):
        assert read_log(work_dir, kind) == read_log(runs / "two" / "lively", kind)


def second_process(parent: subprocess.Popen, log: Path) -> int:
    """The process with RANK 1, once five steps are done."""
    deadline = time.monotonic() + PATIENCE
    while not (log.exists() and '"step": 5' in log.read_text()):
        assert parent.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    (found,) = [child for child in children if b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes()]
    return int(found)


def test_a_run_of_two_goes_on_in_one_and_says_so(
    folder: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "two" / "lively", tmp_path / "run")
    assert main([*run_words(folder, "lively", tmp_path / "run"), "--resume", "--set", "epochs=4"]) == 0
    assert "warning: 2 processes before, 1 now" in capsys.readouterr().out
    assert newest(tmp_path / "run")["step"] == 16


def test_who_a_process_is() -> None:
    assert find_processes(None, {}) == Processes(0, 0, 1)
    assert find_processes(None, TOLD) == find_processes("pytorch", TOLD) == Processes(1, 1, 2)
    assert find_processes("none", TOLD) == Processes(0, 0, 1)
    assert find_processes(None, {"WORLD_SIZE": "4"}) == Processes(0, 0, 1)  # not torchrun's
    with pytest.raises(UsageError, match="RANK is not set; expected a start by torchrun"):
        find_processes("pytorch", {})
    for odd in ({"RANK": "2"}, {"LOCAL_RANK": "-1"}, {"WORLD_SIZE": "two"}):
        with pytest.raises(UsageError, match="expected 0 <= LOCAL_RANK <= RANK < WORLD_SIZE"):
            find_processes(None, {**TOLD, **odd})


def test_a_device_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert own_device(cpu, Processes(1, 1, 2)) == cpu
    assert own_device(cuda, Processes()) == cuda
    assert own_device(cuda, Processes(1, 0, 2)) == torch.device("cuda", 0)
    with pytest.raises(ValueError, match="1 CUDA devices for process 1 of this machine"):
        own_device(cuda, Processes(1, 1, 2))


@pytest.mark.parametrize(
    ("more", "word"),
    [(["--launcher", "pytorch"], "expected a start by torchrun"), (["--timeout", "0"], "expected more than 0 seconds")],
)
def test_wrong_words_are_one_line(
    more: list[str], word: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*run_words(folder, "lively", tmp_path / "run"), *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert word in error
    assert not (tmp_path / "run").exists()


def complaints_of(runs: Path, rank: int) -> list[str]:
    """What a process said of the loss, and of the batch."""
    lines = (runs / f"errors_{rank}").read_text().splitlines()
    return [line for line in lines if line.startswith("swiftsight: ")]


def test_a_loss_of_one_process_stops_all_before_the_weights_change(runs: Path) -> None:
    """And the whole batch is kept, the parts of both."""
    work_dir = runs / "two" / "spoilt"
    for rank in (0, 1):
        assert "not finite: loss_class is nan; epoch 1, batch 2; the batch is kept in" in complaints_of(runs, rank)[0]
    kept = load_checkpoint(work_dir / "not_finite_batch.pt")
    assert len(kept["requests"]) == len(kept["images"]) == 2
    assert [record["step"] for record in read_log(work_dir, "train")] == [1]


def test_a_batch_that_cannot_be_shared_is_refused_by_every_process_in_its_own_name(runs: Path) -> None:
    for rank in (0, 1):
        assert "batch_size is 3; 2 processes need a multiple, such as 2" in complaints_of(runs, rank)[1]
    assert complaints_of(runs, 1)[1].startswith("swiftsight: process 1 of 2: ")
    assert not (runs / "two" / "refused").exists()
