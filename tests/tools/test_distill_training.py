"""The section `distill` of a config, from the words to the files: trained, resumed exactly, refused in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from swiftsight_tools.cli import main
from swiftsight_tools.configuration.config import find_config, load_config
from swiftsight_tools.configuration.distill_config import DetectorDistillConfig
from swiftsight_tools.configuration.schema import build
from swiftsight_tools.training.checkpoint import checksum, load_checkpoint
from swiftsight_tools.training.teaching import taught_pictures

from backbones import create_classifier, save_classifier
from compress import Distiller, LogitLesson
from detect import create_detector, save_detector
from detect.formats.taught_pictures import bare_pictures
from detect.transforms import SSDAugmentation
from segment import create_segmenter, save_segmenter

NAMES = ("blue", "red")
TRAINING = """
batch_size: 4
epochs: 2
ema: {{momentum: 0.2, gamma: 10}}
optimizer: {{kind: adamw, lr: 1.0e-3, backbone_lr_factor: 0.5}}
workers: 0
threads: 1
log_every: 1
"""
CLASSIFIER = (
    TRAINING
    + """
task: classify
model: {{name: shufflenet_v2_x0_5}}
data: {{train: {folder}/train, val: {folder}/val}}
sizes: [[32, 32]]
eval_size: [32, 32]
distill:
  teacher: {{name: snet49, weights: {folder}/teacher.safetensors}}
  temperature: 3
  truth_weight: 0.5
  hints: {{"backbone[2]": "backbone[2]"}}
"""
)
SEGMENTER = (
    TRAINING
    + """
task: segment
model: {{name: dfanet_b, pixels: all}}
data:
  layout: masks
  class_names: [ground, red]
  train: {{images: {folder}/pictures, labels: {folder}/labels}}
  val: {{images: {folder}/pictures, labels: {folder}/labels}}
sizes: [[32, 32]]
eval_size: [32, 32]
distill:
  teacher: {{name: bisenet_shufflenet_v2_x0_5, weights: {folder}/teacher.safetensors}}
  unlabelled: {{images: {folder}/bare}}
"""
)
DETECTOR = (
    TRAINING
    + """
model: {{name: thundernet_snet49, fc_channels: 32, rpn_channels: 32, train_proposals: 60, samples: 20}}
data:
  train: {{annotations: {folder}/train.json, images: {folder}/images}}
  val: {{annotations: {folder}/val.json, images: {folder}/images}}
sizes: [[64, 64]]
eval_size: [64, 64]
distill:
  teacher: {{kind: results, file: {results}}}
"""
)


def train(config: Path, work_dir: Path, *more: str) -> int:
    return main(["train", str(config), "--work-dir", str(work_dir), "--device", "cpu", *more])


def newest(work_dir: Path) -> dict[str, Any]:
    return load_checkpoint(max(work_dir.glob("checkpoint_*.pt")))


def log_of(work_dir: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (work_dir / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in ("seconds", "waited")} for record in records]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config, and class folders of plain pictures with a teacher of their two classes."""
    folder = tmp_path_factory.mktemp("colours")
    for part, count in (("train", 6), ("val", 2)):
        for name, colour in zip(NAMES, ((30, 40, 200), (200, 40, 30)), strict=True):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                picture = np.full((32, 32, 3), colour, np.uint8) + np.uint8(index)
                Image.fromarray(picture).save(folder / part / name / f"{index}.png")
    teacher = create_classifier("snet49", num_classes=2)
    teacher.class_names, teacher.input_size = NAMES, (32, 32)
    save_classifier(teacher, folder / "teacher.safetensors")
    (folder / "colours.yaml").write_text(CLASSIFIER.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def taught_run(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("taught")
    assert train(colours / "colours.yaml", work_dir) == 0
    return work_dir


def test_a_classifier_under_a_teacher_is_saved_as_itself(taught_run: Path) -> None:
    first = log_of(taught_run)[0]
    terms = {name for name in first if name.startswith("loss_")}
    assert terms == {"loss_class", "loss_soft", "loss_hint_1"}
    assert first["loss"] == pytest.approx(sum(first[name] for name in terms), rel=1e-4)
    net = create_classifier("shufflenet_v2_x0_5", weights=taught_run / "best.safetensors")
    assert net.class_names == NAMES
    assert set(load_file(taught_run / "best.safetensors")) == set(net.state_dict())
    state = newest(taught_run)
    assert list(state["net"]) == list(net.state_dict())
    assert {name: tensor.shape[:2] for name, tensor in state["regressors"].items()} == {"0.mix.weight": (60, 48)}
    assert state["config"]["distill"]["teacher"]["name"] == "snet49"
    groups = load_checkpoint(min(taught_run.glob("checkpoint_*.pt")))["optimizer"]["param_groups"]
    assert 0 < groups[0]["lr"] == pytest.approx(groups[-1]["lr"] / 2), "the student's backbone is known as such"


@pytest.mark.parametrize("mode", ["bwn", "xnor"])
def test_a_binary_student_is_saved_as_what_it_is(mode: str, tmp_path: Path) -> None:
    student, teacher = (create_classifier("snet49", num_classes=2) for _ in range(2))
    student.class_names = ("a", "b")
    student.binarize_(mode)
    save_classifier(Distiller(student, teacher, LogitLesson()), tmp_path / "net.safetensors")
    assert create_classifier("snet49", weights=tmp_path / "net.safetensors").binary["mode"] == mode


def test_a_run_under_a_teacher_resumes_bit_for_bit(colours: Path, taught_run: Path, tmp_path: Path) -> None:
    """The regressors too; a killed run is a folder without its last checkpoints and lines."""
    shutil.copytree(taught_run, tmp_path / "run")
    last = max((tmp_path / "run").glob("checkpoint_*.pt"))
    last.unlink()
    assert train(colours / "colours.yaml", tmp_path / "run", "--resume") == 0
    found, expected = newest(tmp_path / "run"), newest(taught_run)
    assert checksum({key: found[key] for key in found}) == checksum({key: expected[key] for key in expected})


def test_a_segmenter_learns_from_bare_pictures_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for folder in ("pictures", "labels", "bare"):
        (tmp_path / folder).mkdir()
    for index in range(4):
        picture = random.integers(0, 255, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{index}.png")
        Image.fromarray(picture).save(tmp_path / "bare" / f"{index}.jpg")
        Image.fromarray((picture[..., 0] > 127).astype(np.uint8)).save(tmp_path / "labels" / f"{index}.png")
    teacher = create_segmenter("bisenet_shufflenet_v2_x0_5", num_classes=2)
    teacher.class_names = ("ground", "red")
    save_segmenter(teacher, tmp_path / "teacher.safetensors")
    config = tmp_path / "street.yaml"
    config.write_text(SEGMENTER.format(folder=tmp_path))
    assert train(config, tmp_path / "run", "--set", "epochs=1") == 0
    said = capsys.readouterr()
    assert "4 unlabelled pictures" in said.out + said.err
    assert "taught by bisenet_shufflenet_v2_x0_5 (" in said.out + said.err
    assert {"loss_main", "loss_soft"} <= set(log_of(tmp_path / "run")[0])
    assert newest(tmp_path / "run")["step"] == 2, "8 pictures in batches of 4"
    assert create_segmenter("dfanet_b", weights=tmp_path / "run" / "best.safetensors").class_names == ("ground", "red")


@pytest.fixture
def blocks(tiny_coco: Path, tmp_path: Path) -> Path:
    """A config of a detector under a results file."""
    rows = [
        {"image_id": row["image_id"], "category_id": row["category_id"], "bbox": row["bbox"], "score": 0.8}
        for row in json.loads((tiny_coco / "train.json").read_text())["annotations"]
    ]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    path = tmp_path / "blocks.yaml"
    path.write_text(DETECTOR.format(folder=tiny_coco, results=tmp_path / "results.json"))
    return path


def test_a_detector_learns_from_a_results_file(blocks: Path, tmp_path: Path) -> None:
    assert train(blocks, tmp_path / "run", "--set", "epochs=1") == 0
    assert "loss_soft_class" in log_of(tmp_path / "run")[0]
    net = create_detector("thundernet_snet49", weights=tmp_path / "run" / "best.safetensors")
    assert net.class_names == ("red block", "blue block")


def test_the_sections_object_score_says_what_crops_treat_as_objects(tmp_path: Path) -> None:
    """A box of score 0.4: crops never leave a sliver of it where the section takes it for an object."""
    Image.new("RGB", (100, 50)).save(tmp_path / "a.png")
    boxes = (([0, 0, 30, 50], 0.4), ([60, 0, 30, 50], 0.9))
    rows = [{"image_id": 1, "category_id": 1, "bbox": box, "score": score} for box, score in boxes]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    crops = SSDAugmentation(expand_probability=0, crop_min_overlaps=[0.3], crop_aspect=(0.2, 5))
    data = bare_pictures(tmp_path, [(1, "person")], transform=crops)
    left = []
    for score in (0.3, 0.5):
        teacher = {"kind": "results", "file": str(tmp_path / "results.json"), "object_score": score}
        taught = taught_pictures(data, build(DetectorDistillConfig, {"teacher": teacher}), None, crops, cache=False)
        views = [taught[0, seed, (50, 100)][1] for seed in range(40)]
        left.append(sum(int((view.scores < 0.5).sum()) for view in views))
    assert 0 < left[0] < left[1]


def test_a_detector_learns_from_a_detector(blocks: Path, tmp_path: Path) -> None:
    teacher = create_detector("thundernet_snet49", num_classes=2, fc_channels=64)
    teacher.class_names = ("red block", "blue block")
    save_detector(teacher, tmp_path / "teacher.safetensors")
    words = f"distill.teacher={{name: thundernet_snet49, weights: {tmp_path / 'teacher.safetensors'}}}"
    assert train(blocks, tmp_path / "run", "--set", words, "--set", "epochs=1") == 0
    assert {"loss_soft_class", "loss_soft_objectness"} <= set(log_of(tmp_path / "run")[0])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("distill.temprature=2", "unknown key 'distill.temprature' (nearest: 'temperature')"),
        ("distill.temperature=0", "distill.temperature is 0.0; expected more than 0"),
        ("distill.teacher.kind=yolox", "distill.teacher.kind is 'yolox'; expected one of net, yolox_nano, fastestdet,"),
        ("distill.teacher.name=snet49", "unknown key 'distill.teacher.name'"),
        ("distill.teacher.ignore_score=0.6", "distill.teacher.ignore_score is 0.6; expected at most object_score, 0.5"),
        ("distill.teacher.file=lost.json", "distill: "),
        ("distill.hints={neck: '990'}", "distill.hints is set, but teacher.kind is results"),
        ("distill={teacher: {kind: results, file: x}, soft_weight: 0, truth_weight: 0}", "nothing would be learnt"),
        ("distill.unlabelled={images: .}", "distill.unlabelled is set, but teacher.kind is results"),
    ],
)  # fmt: skip
def test_a_wrong_section_is_refused_in_one_line(
    assignment: str, message: str, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(blocks, tmp_path / "run", "--set", assignment) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("distill.hints={body: neck}", "distill: a hint names 'body', which this net does not have; its parts are "),
        ("distill.teacher.name=snet146", "distill: "),
        ("distill.pixels=all", "unknown key 'distill.pixels'"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    assignment: str, message: str, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(colours / "colours.yaml", tmp_path / "run", "--set", assignment) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_teacher_of_other_classes_is_refused(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = create_classifier("snet49", num_classes=2)
    other.class_names = ("cat", "dog")
    save_classifier(other, tmp_path / "other.safetensors")
    words = f"distill.teacher.weights={tmp_path / 'other.safetensors'}"
    assert train(colours / "colours.yaml", tmp_path / "run", "--set", words) == 1
    error = capsys.readouterr().err
    assert "knows 2 classes (cat, dog); expected the student's 2 (blue, red)" in error
    assert error.count("\n") == 1


def test_the_defaults_of_a_detectors_section() -> None:
    config = build(DetectorDistillConfig, {"teacher": {"name": "thundernet_snet49", "weights": "person"}})
    assert (config.temperature, config.teacher.kind, str(config.teacher)) == (1.0, "net", "thundernet_snet49 (person)")


CONFIGS = find_config("detect/thundernet_snet49_bccd.yaml").parents[1]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*_distilled.yaml")), ids=lambda path: path.stem)
def test_the_shipped_configs_differ_from_their_students_by_the_teacher_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SWIFTSIGHT_DATA", "SWIFTSIGHT_FOLDERS", "TEACHER_WEIGHTS"):
        monkeypatch.setenv(name, "/data")
    config: Any = load_config(path)
    alone: Any = load_config(path.with_name(path.name.replace("_distilled", "")))
    assert config.distill is not None
    assert alone.distill is None
    same = [name for name in vars(alone) if name != "distill"]
    assert [name for name in same if vars(config)[name] != vars(alone)[name]] == []
