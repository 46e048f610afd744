"""`swiftsight train` from the words to the files: exact resumption, refusals, stops."""

import importlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from swiftsight_tools.cli import main
from swiftsight_tools.configuration.config import load_config
from swiftsight_tools.configuration.training_config import EarlyStopConfig, EmaConfig
from swiftsight_tools.training.checkpoint import checksum, load_checkpoint, save_checkpoint
from swiftsight_tools.training.detection_task import DetectionTask
from swiftsight_tools.training.hooks import (
    BestHook,
    JournalHook,
    StopHook,
    StoppedError,
    create_averaging,
    create_early_stop,
)
from swiftsight_tools.training.journal import Screen
from swiftsight_tools.training.processes import Processes
from swiftsight_tools.training.run_folder import only_run_in
from swiftsight_tools.training.score_rule import scores_otherwise
from swiftsight_tools.training.session import TrainingSession

from detect import create_detector
from detect.two_stage import TwoStageDetector

EPOCHS, STEPS = 4, 4  # 8 pictures in batches of 2

CONFIG = """
model: {{name: thundernet_snet49, fc_channels: 32, rpn_channels: 32, train_proposals: 60, samples: 20}}
data:
  train: {{annotations: {folder}/train.json, images: {folder}/images}}
  val: {{annotations: {folder}/val.json, images: {folder}/images}}
sizes: [[64, 64], [96, 64]]
eval_size: [64, 64]
batch_size: 2
epochs: 4
optimizer: {{kind: adamw, lr: 0.003, weight_decay: 0.05, backbone_lr_factor: 0.5}}
schedule: {{warmup_iters: 3}}
clip_grad: 5.0
early_stop: {{patience: 10, min_delta: 0.5}}
workers: 0
threads: 1
log_every: 1
"""


@pytest.fixture(scope="module")
def config(tiny_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "blocks.yaml"
    path.write_text(CONFIG.format(folder=tiny_coco))
    return path


def words(config: Path, work_dir: Path, *more: str) -> list[str]:
    return ["train", str(config), "--work-dir", str(work_dir), "--device", "cpu", *more]


@pytest.fixture(scope="module")
def whole_run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs in one go; read it, never write into it."""
    work_dir = tmp_path_factory.mktemp("whole")
    assert main(words(config, work_dir)) == 0
    return work_dir


def newest(work_dir: Path) -> dict[str, Any]:
    return load_checkpoint(max(work_dir.glob("checkpoint_*.pt")))


def assert_same_run(found: Path, expected: Path) -> None:
    """Bit for bit: everything that a checkpoint holds, the log and the best weights."""
    states = newest(found), newest(expected)
    for state in states:
        state.pop("config")
    assert states[0].keys() == states[1].keys()
    assert [key for key in states[0] if checksum({key: states[0][key]}) != checksum({key: states[1][key]})] == []
    assert read_log(found) == read_log(expected)
    weights = [load_file(folder / "best.safetensors") for folder in (found, expected)]
    assert checksum(weights[0]) == checksum(weights[1])


def read_log(work_dir: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (work_dir / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in ("seconds", "waited")} for record in records]


def test_a_whole_run_leaves_what_it_promises(whole_run: Path, tiny_coco: Path) -> None:
    assert [path.name for path in sorted(whole_run.glob("checkpoint_*"))][-1] == "checkpoint_00000016.pt"
    state = newest(whole_run)
    assert (state["epoch"], state["position"], state["step"]) == (EPOCHS, 0, EPOCHS * STEPS)
    assert state["early_stop"]["wait_count"] == EPOCHS - 1  # no gain of 0.5 after the first validation
    scores = [record["AP"] for record in read_log(whole_run) if record["kind"] == "val"]
    assert state["best"]["score"] == pytest.approx(max(scores), rel=1e-5)
    log = read_log(whole_run)
    assert [record["step"] for record in log if record["kind"] == "train"] == list(range(1, EPOCHS * STEPS + 1))
    first = log[0]
    assert first["loss"] == pytest.approx(
        sum(value for key, value in first.items() if key.startswith("loss_")), rel=1e-4
    )
    assert first["lr"] == pytest.approx(0.003 * 0.01)  # warm-up begins at a hundredth
    assert {tuple(record["size"]) for record in log if "size" in record} == {(64, 64), (96, 64)}
    assert any((whole_run / "tensorboard").iterdir())
    assert sorted(path.name for path in whole_run.iterdir() if not path.name.startswith("checkpoint_")) == [
        ".lock", "best.safetensors", "config.yaml", "log.jsonl", "tensorboard",
    ]  # fmt: skip


def test_the_best_weights_are_the_averaged_ones_and_make_a_detector(whole_run: Path) -> None:
    detector = create_detector("thundernet_snet49", weights=whole_run / "best.safetensors")
    assert detector.class_names == ("red block", "blue block")
    assert tuple(detector.input_size) == (64, 64)
    best = newest(whole_run)["best"]
    averaged = load_checkpoint(whole_run / f"checkpoint_{best['step']:08d}.pt")["averaged"]
    for name, tensor in detector.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, averaged[f"module.net.{name}"].half().float(), rtol=0, atol=0)


def kill_when(path: Path, command: list[str], is_time: Any) -> None:
    """Start the command and kill -9 it as soon as `is_time()`; its output goes to `path`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with path.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        deadline = time.monotonic() + 300
        while not is_time() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL, path.read_text()


@pytest.mark.parametrize("where", ["at the end of an epoch", "inside an epoch"])
def test_a_killed_run_resumes_bit_for_bit(
    where: str, config: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed in the third epoch, with a worker; resumed without one. The second time the newest file is damaged too."""
    work_dir = tmp_path / "run"
    inside = ["--set", "checkpoint.every_iters=3"] if where == "inside an epoch" else []
    command = words(config, work_dir, "--set", "workers=1", *inside)
    program = [sys.executable, "-c", "import sys; from swiftsight_tools.cli import main; sys.exit(main())", *command]
    log = work_dir / "log.jsonl"
    kill_when(tmp_path / "output", program, lambda: log.exists() and f'"step": {2 * STEPS + 2}' in log.read_text())
    files = sorted(work_dir.glob("checkpoint_*.pt"))
    if inside:
        assert files[-1].name == "checkpoint_00000009.pt"
        assert load_checkpoint(files[-1])["position"] == 1
    else:
        assert files[-1].name == "checkpoint_00000008.pt"
        content = bytearray(files[-1].read_bytes())
        content[len(content) // 2] ^= 1
        files[-1].write_bytes(content)
    assert main(words(config, work_dir, "--resume", *inside)) == 0
    said = capsys.readouterr().out
    assert ("damaged" in said) == (not inside)
    assert f"going on from {files[-1 if inside else -2].name}" in said
    assert_same_run(work_dir, whole_run)


@pytest.mark.parametrize(
    "where",
    [
        "swiftsight_tools.training.hooks.JournalHook.after_train_iter",
        "swiftsight_tools.training.detection_task.DetectionMetric.process",
    ],
)
def test_ctrl_c_saves_and_the_run_goes_on_exactly(
    where: str, config: Path, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the sixth step, and in the second validation, where the averaged weights are in the net."""
    module, name, method = where.rsplit(".", 2)
    owner = getattr(importlib.import_module(module), name)
    original, calls = getattr(owner, method), []

    def interrupt(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == (6 if name == "JournalHook" else 2):
            signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, interrupt)
        assert main(words(config, tmp_path / "run")) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert newest(tmp_path / "run")["position"] in (2, STEPS)
    assert main(words(config, tmp_path / "run", "--resume")) == 0
    assert_same_run(tmp_path / "run", whole_run)


def test_a_closed_terminal_saves_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends SIGHUP, its shell once more, and nothing can be written to it."""

    def closed(*_: object) -> None:
        raise OSError(5, "Input/output error")

    def others(*_: object) -> None:
        """What takes the signal outside of a training."""

    saved: list[Any] = []
    hook = StopHook(saved.append, None, Processes())
    before = signal.signal(signal.SIGHUP, others)
    monkeypatch.setattr("swiftsight_tools.training.hooks.os.write", closed)
    try:
        hook.before_train(Any)
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
        with pytest.raises(StoppedError) as stop:
            hook.after_step(Any)
        assert (stop.value.number, len(saved)) == (signal.SIGHUP, 1)
        hook.give_back()
        assert signal.getsignal(signal.SIGHUP) is others
    finally:
        hook.give_back()
        signal.signal(signal.SIGHUP, before)


def test_a_folder_with_a_run_is_left_alone(config: Path, whole_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole_run.rglob("*")}
    assert main(words(config, whole_run)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "holds a run already" in error
    assert "--resume" in error
    assert {path: path.stat().st_mtime_ns for path in whole_run.rglob("*")} == before


@pytest.mark.parametrize(
    ("assignment", "word"),
    [
        ("model.fc_channels=64", "model.fc_channels was 32 and is 64"),
        ("ema=null", "ema was"),
        ("optimizer.kind=sgd", "optimizer.kind"),
    ],
)
def test_a_resumed_run_cannot_become_another(
    config: Path, whole_run: Path, assignment: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(config, whole_run, "--resume", "--set", assignment)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot resume" in error
    assert word in error


def test_a_resumed_run_may_be_longer_and_says_so(
    config: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    more = ["--set", "epochs=5", "--set", "optimizer.weight_decay=0.25"]
    assert main(words(config, tmp_path / "run", "--resume", *more)) == 0
    said = capsys.readouterr().out
    assert "warning: epochs was 4 and is 5" in said
    assert "warning: optimizer.weight_decay was 0.05 and is 0.25" in said
    state = newest(tmp_path / "run")
    assert (state["epoch"], state["step"]) == (5, 5 * STEPS)
    assert {group["weight_decay"] for group in state["optimizer"]["param_groups"]} == {0.0, 0.25}
    assert len(list((tmp_path / "run").glob("checkpoint_*.pt"))) in (3, 4)  # the last three, and the best if older


def test_figures_of_another_kind_are_not_compared(
    config: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    assert main(words(config, tmp_path / "run", "--resume", "--set", "epochs=5", "--set", "monitor=AP50")) == 0
    said = capsys.readouterr().out
    assert "the best weights are chosen anew from here on" in said
    assert f"after {5 * STEPS} steps" in said


@pytest.mark.parametrize(
    ("key", "before", "now", "otherwise"),
    [
        ("monitor", "AP", "AP50", True),
        ("eval_crop", 0.875, 1.0, True),
        ("data.first_pixel", 1, 0, True),
        ("data.root", "/data/VOC2007", "/data/VOC2012", True),
        ("data.root", "/data/VOC2007", "/home/me/VOC2007", False),
        ("data.yaml", "/data/cats/data.yaml", "/data/dogs/data.yaml", True),
        ("data.yaml", "/data/cats/data.yaml", "/home/me/cats/data.yaml", False),
        ("data.images", "JPEGImages", "Masked", True),
        ("data.ignore", [255], [0, 255], True),
        ("data.val", "/data/cats/val", "/data/dogs/val", True),
        ("data.val", [{"split": "val", "file_names": None}], [{"split": "test", "file_names": None}], True),
        ("data.val", [{"images": "/a/cats/val", "labels": "/a/cats/masks"}],
         [{"images": "/b/cats/val", "labels": "/b/cats/masks"}], False),
        ("data.val.annotations", "/data/cats/val.json", "/home/me/cats/val.json", False),
        ("data.boxes.val.annotations", "/a/cats/val.json", "/a/cats/test.json", True),
        ("data.boxes.first_pixel", 1, 0, True),
        ("data.masks.crowds", "ignore", "objects", True),
        ("data.masks.root", "/a/CamVid", "/b/CamVid", False),
        ("data.masks.train", [{"split": "train"}], [{"split": "trainval"}], False),
        ("data.train.images", "/a/cats/train", "/a/dogs/train", False),
        ("data.test", None, "/a/cats/test", False),
        ("data.class_balance", None, 0.1, False),
        ("data.check_pictures", True, False, False),
        ("batch_size", 16, 32, False),
    ],
)  # fmt: skip
def test_what_makes_figures_another_kind(key: str, before: Any, now: Any, otherwise: bool) -> None:
    assert scores_otherwise({"epochs": (4, 5), key: (before, now)}) == otherwise


@pytest.mark.parametrize(
    ("config", "averages"),
    [
        (EmaConfig(momentum=0.4, gamma=1), (4, 6, 4.4)),  # 1/1; 1/2: 4 + 4/2; 1/3, so 0.4: 6 - 0.4 * 4
        (EmaConfig(momentum=0.25, gamma=None), (4, 5, 4.25)),  # the first as it is; then 4 + 4/4; 5 - 3/4
    ],
)
def test_the_averages_of_weights_and_buffers_by_hand(config: EmaConfig, averages: tuple[float, ...]) -> None:
    """The weight is 4, 8 and 2 after the first three steps, the buffer ten times that."""
    net = torch.nn.Module()
    net.weight = torch.nn.Parameter(torch.tensor(0.0))
    net.register_buffer("statistic", torch.tensor(0.0))
    hook = create_averaging(config)
    assert hook is not None
    hook.before_run(SimpleNamespace(model=net))
    for step, (value, average) in enumerate(zip((4.0, 8.0, 2.0), averages, strict=True)):
        net.load_state_dict({"weight": torch.tensor(value), "statistic": torch.tensor(10 * value)})
        hook.after_train_iter(SimpleNamespace(iter=step), step)
        found = {name: tensor.item() for name, tensor in hook.ema_model.module.state_dict().items()}
        assert found == pytest.approx({"weight": average, "statistic": 10 * average})


def test_of_two_equal_scores_the_first_is_the_best() -> None:
    saved: list[int] = []
    hook = BestHook("val/AP", lambda: saved.append(step), Screen(silent=True))
    for step, score in ((10, 0.2), (20, 0.3), (30, 0.3), (40, 0.2)):
        hook.after_val_epoch(SimpleNamespace(iter=step, epoch=0), {"val/AP": score})
    assert (saved, hook.score, hook.step) == ([10, 20], 0.3, 20)


def test_while_a_figure_is_undefined_the_newest_weights_are_kept() -> None:
    saved: list[float] = []
    figures = iter((-1.0, math.nan, 0.2, -1.0, 0.1, 0.3))
    hook = BestHook("val/APs", lambda: saved.append(now), Screen(silent=True))
    for now in figures:
        hook.after_val_epoch(SimpleNamespace(iter=len(saved) + 1, epoch=0), {"val/APs": now})
    assert str(saved) == "[-1.0, nan, 0.2, 0.3]"
    assert (hook.score, hook.step) == (0.3, 4)


def test_undefined_figures_are_shown_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hook = JournalHook(tmp_path, Screen(), 1)
    runner: Any = SimpleNamespace(iter=0, epoch=0)
    hook.before_train(runner)
    hook.before_val(runner)
    hook.after_val_epoch(runner, {"val/AP": 0.25, "val/APs": -1.0, "val/mIoU": math.nan})
    hook.close()
    assert "epoch 1: AP 0.2500 APs - mIoU - (" in capsys.readouterr().out


def test_early_stopping_stops_and_stays_stopped(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ("early_stop.patience=1", "precision=mixed", "optimizer.kind=sgd", "ema=null", "channels_last=true")
    more = [part for assignment in other for part in ("--set", assignment)]
    assert main(words(config, tmp_path / "run", *more)) == 0
    assert "the CPU trains in float32" in capsys.readouterr().out
    assert newest(tmp_path / "run")["epoch"] == 2
    assert main(words(config, tmp_path / "run", "--resume", *more)) == 0
    assert newest(tmp_path / "run")["epoch"] == 2
    assert "nothing is left to train" in capsys.readouterr().out
    assert main(words(config, tmp_path / "run", "--resume", *more, "--set", "early_stop=null")) == 0
    assert newest(tmp_path / "run")["epoch"] == EPOCHS


def test_a_figure_that_stays_the_same_is_no_gain() -> None:
    hook = create_early_stop(EarlyStopConfig(patience=2), "AP")
    assert hook is not None
    assert [hook._check_stop_condition(score)[0] for score in (0.3, 0.3, 0.3)] == [False, False, True]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_batch(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, seen = TwoStageDetector.losses, []

    def losses(self: TwoStageDetector, images: torch.Tensor, targets: list[Any]) -> dict[str, torch.Tensor]:
        seen.append((images, {name: tensor.clone() for name, tensor in self.state_dict().items()}))
        terms = original(self, images, targets)
        return terms if len(seen) < 6 else {**terms, "loss_class": terms["loss_class"] * float("nan")}

    monkeypatch.setattr(TwoStageDetector, "losses", losses)
    assert main(words(config, tmp_path / "run")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "loss_class is nan" in error
    assert "epoch 2, batch 2" in error
    kept = load_checkpoint(tmp_path / "run" / "not_finite_batch.pt")
    torch.testing.assert_close(kept["images"], seen[-1][0], rtol=0, atol=0)
    assert len(kept["boxes"]) == len(kept["image_ids"]) == len(kept["requests"]) == 2
    torch.testing.assert_close(kept["net"]["head.fc.0.weight"], seen[-1][1]["head.fc.0.weight"], rtol=0, atol=0)
    assert newest(tmp_path / "run")["epoch"] == 1  # the checkpoint before it is there to go on from


def test_a_full_disk_leaves_the_older_checkpoint(
    config: Path, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_space(handle: int) -> None:
        if "checkpoint_00000008" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("backbones.files.os.fsync", no_space)
        assert main(words(config, tmp_path / "run")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "No space left on device; the one before it, checkpoint_00000004.pt, is whole" in error
    assert not list((tmp_path / "run").glob(".*.part"))
    assert main(words(config, tmp_path / "run", "--resume")) == 0
    assert_same_run(tmp_path / "run", whole_run)


@pytest.mark.parametrize(
    ("assignments", "word"),
    [
        (["data.train.annotations=nowhere.json"], "nowhere.json"),
        (["data.class_names=[red block, green block]"], "'green block'"),
        (["batch_size=9"], "batch_size is 9, but there are only 8 pictures; expected at most 8"),
        (["model.fc_chanels=3"], "unknown key 'model.fc_chanels' (nearest: 'fc_channels')"),
        (["model.name=thundernet_snet94"], "nearest: 'thundernet_snet49'"),
        (["optimizer.lr_factors={haed.*: 10}"], "optimizer.lr_factors: no parameter of this net is called 'haed.*'"),
        (["model.anchor_scales=[]"], "model: "),
        (["augmentation.crop_min_side=5"], "augmentation: crop_min_side is 5.0; expected a number in 0.01..1"),
        (["model.num_classes=3"], "model.num_classes follows from data.class_names"),
        (["augmentation.flip_prob=0.5"], "unknown key 'augmentation.flip_prob' (nearest: 'flip_probability')"),
        (["augmentation.flip_probability=often"], "augmentation.flip_probability is 'often'; expected a number"),
        (["optimizr.lr=1"], "unknown key 'optimizr' (nearest: 'optimizer')"),
        (["freeze=[backbne]"], "freeze: this net has no part called 'backbne' (nearest: 'backbone')"),
        (["freeze=[backbone, neck, rpn, refine, head]"], "frozen nothing is left to learn"),
        (["data.class_balance=2"], "data.class_balance is 2.0; expected at most 1"),
        (["model.new_classes=true"], "model: new_classes asks for other weights under new classes"),
        (["monitor=mAP"], "monitor is 'mAP'; expected one of AP, AP50"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    config: Path, tmp_path: Path, assignments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [part for assignment in assignments for part in ("--set", assignment)]
    assert main(words(config, tmp_path / "deep" / "run", *more)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"swiftsight: {config}: ")
    assert word in error
    assert list(tmp_path.iterdir()) == []  # a refused training leaves nothing


@pytest.mark.parametrize("parts", ["", " ,"])
def test_freezing_no_part_is_refused(
    config: Path, tmp_path: Path, parts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty shell variable would train the whole net without a word."""
    assert main(words(config, tmp_path / "run", "--freeze", parts)) == 2
    assert f"--freeze {parts!r} names no part of the net" in capsys.readouterr().err


def test_a_run_of_an_older_version_goes_on(
    config: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its checkpoints name no task and say nothing of the data."""
    run = tmp_path / "run"
    shutil.copytree(whole_run, run)
    newest_path = max(run.glob("checkpoint_*.pt"))
    newest_path.unlink()
    older_path = max(run.glob("checkpoint_*.pt"))
    state = load_checkpoint(older_path)
    del (
        state["data"],
        state["random_elsewhere"],
        state["config"]["task"],
        state["config"]["freeze"],
        state["config"]["data"]["class_balance"],
        state["config"]["optimizer"]["lr_factors"],
        state["config"]["schedule"]["power"],
    )
    save_checkpoint(older_path, state)
    assert main(words(config, run, "--resume")) == 0
    assert "warning" not in capsys.readouterr().out
    assert_same_run(run, whole_run)


def test_fine_tuning_to_another_class_with_frozen_parts(
    config: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """From the weights of two classes to one of them; backbone and neck stay, statistics and average too."""
    weights = whole_run / "best.safetensors"
    more = ["--set", f"model.weights={weights}", "--set", "data.class_names=[red block]", "--set", "epochs=1"]
    assert main(words(config, tmp_path / "refused", *more)) == 1
    error = capsys.readouterr().err
    assert "knows the classes red block, blue block; the data has red block; model.new_classes: true" in error
    assert not (tmp_path / "refused").exists()
    more += ["--set", "model.new_classes=true", "--set", "data.class_balance=1.0", "--freeze", "backbone,neck"]
    assert main(words(config, tmp_path / "run", *more)) == 0
    said = capsys.readouterr().out
    assert "frozen: backbone, neck;" in said
    assert "class balance: " in said
    assert "everything is taken except head.classify.weight, head.classify.bias, which start anew" in caplog.text
    state, started = newest(tmp_path / "run"), load_file(weights)
    for name, tensor in started.items():
        if name.startswith(("backbone.", "neck.")) and tensor.is_floating_point():
            torch.testing.assert_close(state["net"][name], tensor.float(), rtol=0, atol=0)
            torch.testing.assert_close(state["averaged"][f"module.net.{name}"], tensor.float(), rtol=0, atol=0)
    assert not torch.equal(state["net"]["head.fc.0.weight"], started["head.fc.0.weight"].float())
    assert state["net"]["head.classify.bias"].shape == (2,)
    assert main(words(config, tmp_path / "run", *more[:-2], "--resume", "--set", "epochs=2")) == 1
    assert "cannot resume: freeze was ['backbone', 'neck']" in capsys.readouterr().err


def test_weights_of_the_same_classes_are_not_started_anew(
    config: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--set", f"model.weights={whole_run / 'best.safetensors'}", "--set", "model.new_classes=true"]
    assert main(words(config, tmp_path / "run", *more)) == 1
    assert "as the data does: remove model.new_classes, and their last layer is kept" in capsys.readouterr().err


def test_weights_of_another_input_size_are_told_once(
    config: Path, tmp_path: Path, block_weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for size, lines in (("[64, 64]", 0), ("[64, 96]", 1)):
        caplog.clear()
        DetectionTask(load_config(config, [f"model.weights={block_weights}", f"eval_size={size}"])).create_net()
        assert len(caplog.messages) == lines
    assert caplog.messages[0].endswith("input_size [64, 64]; the net that starts from it gets eval_size, [64, 96]")


def test_data_without_a_box_is_refused_but_under_a_teacher(config: Path, tmp_path: Path, tiny_coco: Path) -> None:
    content = json.loads((tiny_coco / "train.json").read_text())
    (bare, results) = (tmp_path / "bare.json", tmp_path / "results.json")
    bare.write_text(json.dumps({**content, "annotations": []}))
    row = {"image_id": 100, "category_id": 3, "bbox": [1, 1, 20, 20], "score": 0.9}
    results.write_text(json.dumps([row]))
    changes = [f"data.train.annotations={bare}"]
    with pytest.raises(ValueError, match=r"data\.train: .*bare\.json leads to no usable box: none in 8 pictures$"):
        DetectionTask(load_config(config, changes))
    taught = load_config(config, [*changes, f"distill={{teacher: {{kind: results, file: {results}}}}}"])
    assert len(DetectionTask(taught).train_data) == 8
    red = [row for row in content["annotations"] if row["category_id"] == 3]
    bare.write_text(json.dumps({**content, "annotations": red}))
    with pytest.raises(ValueError, match=f"no usable box: {len(red)} boxes of other classes not read$"):
        DetectionTask(load_config(config, [*changes, "data.class_names=[blue block]"]))


def test_a_long_warm_up_is_told_at_the_start(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for steps, lines in ((7, 0), (20, 1)):
        changed = load_config(config, [f"schedule.warmup_iters={steps}", "epochs=4"])
        TrainingSession(changed, tmp_path / "run", torch.device("cpu"), Screen())._say_what()
        assert capsys.readouterr().out.count("warning: the warm-up of 20 steps takes all 16 steps") == lines


def test_a_file_where_the_run_would_lie_is_named(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").write_text("words")
    for place in ("notes", "notes/run"):
        for more in ([], ["--resume"]):
            assert main(words(config, tmp_path / place, *more)) == 1
            assert capsys.readouterr().err == f"swiftsight: {tmp_path / 'notes'} is a file; expected a folder\n"


class Hostile:
    """A pickle that would make a folder when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("key", ["weights", "backbone_weights"])
def test_weights_that_would_run_code_are_refused(
    key: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weight": Hostile(tmp_path / "was_run")}, tmp_path / "evil.pth")
    assert main(words(config, tmp_path / "run", "--set", f"model.{key}={tmp_path / 'evil.pth'}")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path / "evil.pth") in error
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(("content", "word"), [("{", "no json"), ("[]", "no COCO"), ('{"images": 3}', "no COCO")])
def test_annotations_that_are_none(
    config: Path, tmp_path: Path, content: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    assert main(words(config, tmp_path / "run", "--set", f"data.train.annotations={path}")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(path) in error
    assert word in error


def test_a_damaged_picture_is_named_although_a_worker_met_it(
    config: Path, tiny_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    shutil.copytree(tiny_coco / "images", images)
    (images / "blocks_03.jpg").write_text("this is no picture")
    more = ["--set", f"data.train.images={images}", "--set", "workers=1"]
    assert main(words(config, tmp_path / "run", *more)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(images / "blocks_03.jpg") in error
    assert "Traceback" not in error


def test_files_that_a_kill_left_unfinished_are_cleared_away(tmp_path: Path) -> None:
    """Those of the run alone: another program may be writing a file of its own here."""
    runs = ["checkpoint_00000004.pt", "config.yaml", "log.jsonl", "best.safetensors", "not_finite_batch.pt",
            "squeeze.json"]  # fmt: skip
    others = [".clip.mp4.part", ".results.json.part", "checkpoint_00000003.pt"]
    for name in (*(f".{name}.part" for name in runs), *others):
        (tmp_path / name).write_bytes(b"")
    with only_run_in(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".lock", *others])


def test_two_trainings_do_not_share_a_folder(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print(); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert main(words(config, tmp_path / "run")) == 1
    assert "another training is running" in capsys.readouterr().err


def test_a_finished_run_is_left_as_it_is(
    config: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole_run, run)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert main(words(config, run, "--resume", "--set", "batch_size=4")) == 0
    assert "is finished after 4 epochs" in "".join(capsys.readouterr())
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
