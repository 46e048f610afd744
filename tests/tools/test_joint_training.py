"""`swiftsight train`, `eval` and `demo` with a joint net: both kinds of truth, both figures, resumption, refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from swiftsight_tools.cli import main
from swiftsight_tools.configuration.config import find_config, load_config
from swiftsight_tools.configuration.joint_config import JointConfig
from swiftsight_tools.training.checkpoint import load_checkpoint
from swiftsight_tools.training.joint_data import LearntPictures, ScoredPictures
from swiftsight_tools.training.joint_task import ClassNames, JointMetric, JointTask

from detect import Detections
from detect.metrics import evaluate_detections
from joint import JointTruth, create_joint
from pictures.images import read_image

NAME = "joint_thundernet_bisenet_snet49"
BLOCK = (214, 40, 40)

CONFIG = """
task: joint
model:
  name: joint_thundernet_bisenet_snet49
  detector_options: {{fc_channels: 32, rpn_channels: 32, train_proposals: 60, samples: 20}}
  segmenter_options: {{pixels: all}}
data:
  boxes:
    train: {{annotations: {folder}/train.json, images: {folder}/train}}
    val: {{annotations: {folder}/val.json, images: {folder}/val}}
  masks:
    layout: masks
    class_names: [background, block]
    train: {{images: {folder}/train, labels: {folder}/train_labels}}
    val: {{images: {folder}/val, labels: {folder}/val_labels}}
augmentation: {{masks: {{scale: [0.8, 1.2], relative_to: stretched}}}}
sizes: [[64, 64]]
eval_size: [64, 64]
batch_size: 2
epochs: 2
optimizer: {{kind: adamw, lr: 0.003}}
ema: null
workers: 0
threads: 1
log_every: 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one red block on noise, lying and standing, with its box in COCO's json and its pixels as a PNG."""
    made = tmp_path_factory.mktemp("blocks")
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 3)):
        images, annotations = [], []
        for number in range(count):
            height, width = ((60, 80), (80, 60))[number % 2]
            picture = random.integers(90, 166, (height, width, 3), dtype=np.uint8)
            labels = np.zeros((height, width), np.uint8)
            y, x = int(random.integers(0, height - 36)), int(random.integers(0, width - 36))
            picture[y : y + 36, x : x + 36], labels[y : y + 36, x : x + 36] = BLOCK, 1
            _write(made / part / f"{number}.png", picture)
            _write(made / f"{part}_labels" / f"{number}.png", labels)
            images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
            box = {"image_id": number, "category_id": 1, "bbox": [x, y, 36, 36], "area": 1296, "iscrowd": 0}
            annotations.append({"id": number + 1, **box})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "block"}]}
        (made / f"{part}.json").write_text(json.dumps(content))
    return made


def _write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture(scope="module")
def config(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "blocks.yaml"
    path.write_text(CONFIG.format(folder=folder))
    return path


def words(config: Path, work_dir: Path, *more: str) -> list[str]:
    return ["train", str(config), "--work-dir", str(work_dir), "--device", "cpu", *more]


@pytest.fixture(scope="module")
def whole_run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of two steps; read it, never write into it."""
    work_dir = tmp_path_factory.mktemp("whole")
    assert main(words(config, work_dir)) == 0
    return work_dir


def records(work_dir: Path, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (work_dir / "log.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in ("seconds", "waited")} for line in lines
            if line["kind"] == kind]  # fmt: skip


def test_every_step_learns_from_both_kinds_and_both_are_scored(whole_run):
    steps, scores = records(whole_run, "train"), records(whole_run, "val")
    assert len(steps) == 4
    for step in steps:
        assert {"loss_detector_rpn_box", "loss_segmenter_main"} <= set(step), sorted(step)
    for score in scores:
        assert score["mean_of_both"] == pytest.approx((score["AP"] + score["mIoU"]) / 2)
        assert score["mIoU"] == pytest.approx((score["IoU/background"] + score["IoU/block"]) / 2)
    net = create_joint(NAME, weights=whole_run / "best.safetensors")
    assert (net.detector.class_names, net.segmenter.class_names) == (("block",), ("background", "block"))
    assert (net.input_size, net.detector.sampling.samples, net.segmenter.loss.pixels) == ((64, 64), 20, "all")


def test_a_run_that_was_broken_off_goes_on_as_if_it_had_not_been(config, whole_run, tmp_path):
    """From the checkpoint of the first epoch: the same weights at the end, bit for bit."""
    first, *_ = sorted(whole_run.glob("checkpoint_*.pt"))
    shutil.copy(first, tmp_path)
    assert load_checkpoint(first)["epoch"] == 1
    assert main(words(config, tmp_path, "--resume")) == 0
    newest = [load_checkpoint(max(run.glob("checkpoint_*.pt")))["net"] for run in (whole_run, tmp_path)]
    torch.testing.assert_close(*newest, rtol=0, atol=0)
    assert records(tmp_path, "train") == records(whole_run, "train")[2:]


def test_masks_alone_leave_the_frozen_detector_as_it_was(config, whole_run, tmp_path, capsys):
    start = whole_run / "best.safetensors"
    more = ("learn=masks", "freeze=[backbone, detector]", f"model.weights={start}", "epochs=1", "optimizer.lr=0.01",
            "model.detector_options={}", "model.segmenter_options={}")  # fmt: skip
    assert main(words(config, tmp_path / "run", *(part for word in more for part in ("--set", word)))) == 0
    assert "frozen: backbone, detector" in capsys.readouterr().out
    (step, *_) = records(tmp_path / "run", "train")
    assert [name for name in step if name.startswith("loss_detector")] == []
    before, after = load_file(start), load_file(tmp_path / "run" / "best.safetensors")
    changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"segmenter"}


def test_eval_counts_boxes_and_pixels(config, folder, whole_run, tmp_path, capsys):
    found = tmp_path / "found.json"
    weights = str(whole_run / "best.safetensors")
    assert main(["eval", str(config), weights, "--device", "cpu", "--output", str(found)]) == 0
    told = capsys.readouterr().out
    expected = records(whole_run, "val")
    best = max(expected, key=lambda score: score["mean_of_both"])
    assert f"AP     {best['AP']:.3f}" in told
    assert f"{100 * best['IoU/block']:.1f}" in told
    again = evaluate_detections(json.loads(found.read_text()), folder / "val.json")
    assert again.figures["AR100"] == pytest.approx(best["AR100"], abs=0.01)  # boxes and scores are rounded there
    assert main(["eval", str(config), weights, "--rule", "voc2007"]) == 2
    assert "--rule goes with the task detect; this config's is joint" in capsys.readouterr().err


def test_the_metric_scores_each_picture_by_the_truth_that_it_has(config):
    """Perfect boxes, and the upper half of the pixels of each picture right: AP 1, accuracy by hand."""
    task = JointTask(load_config(config))
    metric = task.create_metric()
    assert len(task.val_data) == 6
    confusion = np.zeros((2, 2))
    for index in range(6):
        images, truth = task.val_data[index]
        target, labels = truth.targets[0], truth.labels[0]
        assert (target is None) == (index >= 3)
        assert images.shape == (1, 3, 64, 64)
        if target is not None:
            answer = (Detections(target.boxes, torch.ones(1), target.labels), None)
        else:
            guess = labels.clone()
            guess[labels.shape[0] // 2 :] = 0
            answer = (None, guess)
            np.add.at(confusion, (labels.flatten().numpy(), guess.flatten().numpy()), 1)
        metric.process((images, truth), [_found(answer)])
    figures = metric.compute_metrics(metric.results)
    ious = [confusion[k, k] / (confusion[k].sum() + confusion[:, k].sum() - confusion[k, k]) for k in range(2)]
    assert figures["AP"] == pytest.approx(1)
    assert [figures["IoU/background"], figures["IoU/block"]] == pytest.approx(ious)
    assert figures["mean_of_both"] == pytest.approx((1 + np.mean(ious)) / 2)


def _found(answer: tuple[Any, Any]) -> Any:
    from swiftsight_tools.training.joint_task import Found

    return Found(*answer)


def test_learnt_pictures_lie_side_by_side_and_follow_from_the_request(config):
    task = JointTask(load_config(config))
    assert isinstance(task.train_data, LearntPictures)
    images, truth = task.train_data[2, 5, (64, 96)]
    again = task.train_data[2, 5, (64, 96)]
    assert images.shape == (2, 3, 64, 96)
    assert [each is None for each in (*truth.targets, *truth.labels)] == [False, True, True, False]
    assert truth.targets[0].image_id == 2
    torch.testing.assert_close(again, (images, truth), rtol=0, atol=0)
    batch, whole = task.collate([task.train_data[index, index, (64, 64)] for index in range(3)])
    assert (batch.shape, len(whole.targets), len(whole.labels)) == ((6, 3, 64, 64), 6, 6)
    drawn = {task.train_data[0, seed, (64, 64)][1].labels[1].sum().item() for seed in range(8)}
    assert len(drawn) > 1


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.input_size=[64, 64]", "model.input_size follows from eval_size"),
        ("model.detector_classes=3", "model.detector_classes follows from data.boxes"),
        ("model.detector_options={fc_chanels: 3}", "no option 'fc_chanels' (nearest: 'fc_channels')"),
        ("model.weights=nobody", "model: no weights file 'nobody'"),
        ("eval_size=[60, 64]", "eval_size holds [60, 64], no multiple of 16"),
        ("learn=pixels", "learn is 'pixels'; expected one of both, boxes, masks"),
        ("monitor=AP5", "monitor is 'AP5'"),
        ("data.boxes.class_balance=0.1", "boxes.class_balance is set, but a joint training does not read it"),
        ("augmentation.masks={scal: [1, 1]}", "unknown key 'augmentation.masks.scal' (nearest: 'scale')"),
        ("paste_probability=2", "paste_probability is 2"),
        ("data.masks.val={images: nowhere, labels: nowhere}", "nowhere"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(config, tmp_path, capsys, assignment, message):
    assert main(words(config, tmp_path / "run", "--set", assignment)) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "labels checked" not in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "run").exists()


def test_weights_of_other_classes_are_refused(config, whole_run, tmp_path, capsys):
    start = f"model.weights={whole_run / 'best.safetensors'}"
    more = ["--set", start, "--set", "data.masks.class_names=[ground, block]",
            "--set", "model.detector_options={}", "--set", "model.segmenter_options={}"]  # fmt: skip
    assert main(words(config, tmp_path / "run", *more)) == 1
    assert "the segmenter's weights know the classes background, block; the data has ground, block" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("stem", ["person_frozen", "person"])
def test_the_shipped_configs_are_read(stem, monkeypatch):
    for name in ("SWIFTSIGHT_DATA", "JOINT_WEIGHTS"):
        monkeypatch.setenv(name, "/data")
    config = load_config(find_config(f"joint/joint_thundernet_bisenet_shufflenet_v2_x0_5_{stem}.yaml"))
    assert isinstance(config, JointConfig)
    assert config.freeze == (("backbone", "detector") if stem == "person_frozen" else None)
    assert config.data.test is not None
    assert config.data.test.boxes is not None


def test_a_demo_draws_and_notes_down_both(whole_run, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    demo = ["demo", "--weights", str(whole_run / "best.safetensors"), "--source", str(folder / "val" / "0.png")]
    assert main([*demo, "--score", "0.01", "--json", "found.json", "--labels", "labels", "--device", "cpu"]) == 0
    (record,) = json.loads((tmp_path / "found.json").read_text())
    assert record["detections"]
    assert sum(record["shares"].values()) == pytest.approx(1, abs=1e-5)
    assert (read_image(tmp_path / "demo_output/0_detected.png") != read_image(folder / "val" / "0.png")).any()
    labels = np.asarray(Image.open(tmp_path / "labels/0.png"))
    assert labels.shape == (60, 80)
    told = capsys.readouterr().out
    assert "object" in told
    assert "class" in told
    assert main([*demo, "--flip"]) == 2
    assert "is for detectors alone" in capsys.readouterr().err
    assert main([*demo, "--classes", "blok"]) == 1
    assert "the net knows no class 'blok' (nearest: 'block')" in capsys.readouterr().err


def test_scored_pictures_are_those_that_a_joint_net_sees(config):
    """Stretched to the input's size; labels as large as the picture."""
    task = JointTask(load_config(config))
    assert isinstance(task.val_data, ScoredPictures)
    images, truth = task.val_data[3]
    assert isinstance(truth, JointTruth)
    assert images.shape == (1, 3, 64, 64)
    assert truth.labels[0].shape == (60, 80)


def test_where_pixels_alone_are_scored_there_is_no_mean_of_both(config):
    """Each picture's own labels are right everywhere: all overlaps are 1."""
    pictures = ScoredPictures(None, JointTask(load_config(config)).val_data.labelled, (64, 64))
    assert len(pictures) == 3
    metric = JointMetric(pictures, ClassNames(("block",), ("background", "block")))
    for index in range(3):
        images, truth = pictures[index]
        metric.process((images, truth), [_found((None, truth.labels[0]))])
    figures = metric.compute_metrics(metric.results)
    assert {"AP", "mean_of_both"} & set(figures) == set()
    assert [figures[name] for name in ("mIoU", "IoU/background", "IoU/block")] == [1, 1, 1]
