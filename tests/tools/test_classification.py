"""`swiftsight train` and `swiftsight eval` on class folders: it learns, resumes exactly, refuses in one line."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from swiftsight_tools.cli import main
from swiftsight_tools.configuration.config import find_config, load_config
from swiftsight_tools.training.checkpoint import checksum, load_checkpoint, save_checkpoint
from swiftsight_tools.training.classification_task import ClassificationMetric, top_figures, truth_ranks
from swiftsight_tools.training.hooks import JournalHook

from backbones import Classifier, create_backbone, create_classifier, list_backbones, save_classifier
from detect import create_detector

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 40, 40)}

CONFIG = """
task: classify
model: {{name: snet49}}
data: {{train: {folder}/train, val: {folder}/val}}
label_smoothing: 0.1
augmentation: {{crop_area: [0.5, 1.0], brightness: 0.1, contrast: 0.1, saturation: 0.1}}
sizes: [[64, 64]]
eval_size: [64, 64]
batch_size: 12
epochs: 25
validate_every: 5
optimizer: {{kind: adamw, lr: 3.0e-3, weight_decay: 0.05}}
schedule: {{kind: linear, warmup_iters: 4}}
ema: {{momentum: 0.1, gamma: 10}}
checkpoint: {{every_epochs: 5}}
workers: 0
threads: 1
log_every: 10
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured blocks on noise: 12 pictures a colour to learn from, 6 to score."""
    made = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 6)):
        for name, colour in COLOURS.items():
            (made / part / name).mkdir(parents=True)
            for index in range(count):
                picture = random.integers(90, 166, (48, 64, 3), dtype=np.uint8)
                x, y = random.integers(0, 20, 2)
                picture[y : y + 28, x : x + 36] = colour
                Image.fromarray(picture).save(made / part / name / f"{index:02d}.png")
    return made


@pytest.fixture(scope="module")
def config(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "colours.yaml"
    path.write_text(CONFIG.format(folder=folder))
    return path


def words(config: Path, work_dir: Path, *more: str) -> list[str]:
    return ["train", str(config), "--work-dir", str(work_dir), "--device", "cpu", *more]


@pytest.fixture(scope="module")
def whole_run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read it, never write into it."""
    work_dir = tmp_path_factory.mktemp("whole")
    assert main(words(config, work_dir)) == 0
    return work_dir


def newest(work_dir: Path) -> dict[str, Any]:
    return load_checkpoint(max(work_dir.glob("checkpoint_*.pt")))


def read_log(work_dir: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (work_dir / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in ("seconds", "waited")} for record in records]


def test_colours_are_learned(whole_run: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = read_log(whole_run)
    validations = [record for record in log if record["kind"] == "val"]
    assert validations[-1]["top1"] > 0.9
    assert {record["top5"] for record in validations} == {1.0}  # of three classes
    rates = [record["lr"] for record in log if record["kind"] == "train"]
    assert rates[39] == pytest.approx(3e-3 * (1 - (39 - 4) / (75 - 4)), rel=1e-5)  # a straight line to 0 after 75 steps
    assert newest(whole_run)["data"] == {"class_names": ["blue", "green", "red"], "pictures": 36}
    capsys.readouterr()
    found = tmp_path / "new" / "found.json"
    assert main(["eval", str(config), str(whole_run / "best.safetensors"), "--output", str(found)]) == 0
    shown = capsys.readouterr().out
    best = max(record["top1"] for record in validations)
    assert f"top1  {best:.4f}" in shown
    assert "18 pictures of 3 classes" in shown
    rows = json.loads(found.read_text())
    assert len(rows) == 18
    assert np.mean([row["class"] == row["found"][0][0] for row in rows]) == pytest.approx(best, abs=1e-4)
    assert all(sum(score for _, score in row["found"]) == pytest.approx(1, abs=1e-4) for row in rows)


def test_the_best_weights_start_classifiers_and_detectors(whole_run: Path) -> None:
    best = whole_run / "best.safetensors"
    classifier = create_classifier("snet49", weights=best)
    assert classifier.class_names == tuple(COLOURS)
    assert classifier.input_size == (64, 64)
    picture = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    picture[0] = torch.tensor(COLOURS["green"], dtype=torch.uint8).view(3, 1, 1)
    assert classifier.class_names[int(classifier.predict(picture).argmax())] == "green"
    own = {name: tensor for name, tensor in classifier.backbone.state_dict().items() if name.startswith("stages.2")}
    backbone = create_backbone("snet49", weights=best)
    detector = create_detector("thundernet_snet49", num_classes=2, backbone_weights=best)
    assert len(own) > 10
    for name, tensor in own.items():
        torch.testing.assert_close(backbone.state_dict()[name], tensor, rtol=0, atol=0)
        torch.testing.assert_close(detector.backbone.state_dict()[name], tensor, rtol=0, atol=0)
    averaged = load_checkpoint(whole_run / f"checkpoint_{newest(whole_run)['best']['step']:08d}.pt")["averaged"]
    for name, tensor in classifier.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, averaged[f"module.net.{name}"].half().float(), rtol=0, atol=0)


def test_weights_of_other_classes_are_refused(
    config: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = create_classifier("snet49", weights=whole_run / "best.safetensors")
    net.class_names = net.class_names[::-1]
    save_classifier(net, tmp_path / "other.safetensors")
    more = ["--set", f"model.weights={tmp_path / 'other.safetensors'}"]
    assert main(words(config, tmp_path / "run", *more)) == 1
    assert "other.safetensors knows the classes" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_stopped_run_goes_on_bit_for_bit(
    config: Path, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On from step 60, Ctrl-C in the middle of the next epoch, then on with a worker process."""
    run = tmp_path / "run"
    shutil.copytree(whole_run, run)
    max(run.glob("checkpoint_*.pt")).unlink()
    original, calls = JournalHook.after_train_iter, []

    def interrupt(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(JournalHook, "after_train_iter", interrupt)
        assert main(words(config, run, "--resume")) == 130
    assert (newest(run)["step"], newest(run)["position"]) == (62, 2)
    assert main(words(config, run, "--resume", "--set", "workers=1")) == 0
    states = newest(run), newest(whole_run)
    for state in states:
        state.pop("config")
    assert [key for key in states[0] if checksum({key: states[0][key]}) != checksum({key: states[1][key]})] == []
    assert read_log(run) == read_log(whole_run)
    weights = [load_file(folder / "best.safetensors") for folder in (run, whole_run)]
    assert checksum(weights[0]) == checksum(weights[1])


def test_a_resumed_run_has_the_same_classes(
    config: Path, folder: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, run = tmp_path / "other", tmp_path / "run"
    shutil.copytree(folder, other)
    shutil.copytree(whole_run, run)
    (other / "train" / "red").rename(other / "train" / "rust")
    (other / "val" / "red").rename(other / "val" / "rust")
    more = [part for name in ("train", "val") for part in ("--set", f"data.{name}={other / name}")]
    assert main(words(config, run, "--resume", *more)) == 1
    assert "cannot resume: the data has other classes now (red, rust)" in capsys.readouterr().err
    (other / "train" / "rust").rename(other / "train" / "red")
    (other / "val" / "rust").rename(other / "val" / "red")
    (other / "train" / "red" / "00.png").unlink()
    assert main(words(config, run, "--resume", *more)) == 0
    assert "warning: 36 pictures to train on before, 35 now" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["weights", "backbone_weights"])
def test_a_run_goes_on_by_its_own_config_wherever_its_first_weights_lay(
    key: str, config: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The config of before named them from its own folder; the run's config.yaml names them in full."""
    run, weights = tmp_path / "run", tmp_path / "start.safetensors"
    shutil.copytree(whole_run, run)
    shutil.copy(run / "best.safetensors", weights)
    path = max(run.glob("checkpoint_*.pt"))
    state = load_checkpoint(path)
    state["config"]["model"][key] = weights.name
    save_checkpoint(path, state)
    assert main(words(config, run, "--resume", "--set", f"model.{key}={weights}")) == 0
    said = capsys.readouterr().out
    assert "is finished after 25 epochs" in said
    assert "warning" not in said


def test_pictures_that_cannot_be_read_are_left_out_and_said(
    config: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "train" / "red" / "03.png").write_text("no picture")
    (other / "val" / "pink").mkdir()
    shutil.copy(folder / "val" / "red" / "00.png", other / "val" / "pink" / "00.png")
    more = [f"data.{name}={other / name}" for name in ("train", "val")]
    sets = [part for assignment in [*more, "epochs=1"] for part in ("--set", assignment)]
    assert main(words(config, tmp_path / "run", *sets)) == 0
    said = capsys.readouterr().out
    assert "train: 35 pictures of 3 classes; left out: 1 pictures that cannot be read (red/03.png)" in said
    assert "val: 18 pictures of 3 classes; left out: 1 class folders that the net has no class for (pink)" in said
    assert main(words(config, tmp_path / "second", *sets, "--set", "data.check_pictures=false")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "03.png is not a readable picture" in error


@pytest.mark.parametrize(
    ("assignments", "words_in_error"),
    [
        (["data.train=nowhere"], ["data.train: no folder of class folders at", "nowhere"]),
        (["data.val={folder}/train/red"], ["data.val: ", "has no folders in it"]),
        (["data.train={folder}"], ["data.train: ", "holds train/ and val/"]),
        (["data.trian=x"], ["unknown key 'data.trian' (nearest: 'train')"]),
        (["augmentation.crop_area=[0.5, 2]"], ["augmentation: crop_area is [0.5, 2.0]; expected two rising"]),
        (["augmentation.flip=1"], ["unknown key 'augmentation.flip' (nearest: 'flip_probability')"]),
        (["model.name=snet94"], ["model: no backbone is called 'snet94' (nearest: 'snet49')"]),
        (["model.num_classes=3"], ["model.num_classes follows from the class folders"]),
        (["model.weights={folder}/nothing"], ["model: ", "nothing: No such file"]),
        (["label_smoothing=1"], ["label_smoothing is 1.0; expected at most 0.9"]),
        (["batch_size=37"], ["batch_size is 37, but there are only 36 pictures"]),
        (["monitor=AP"], ["monitor is 'AP'; expected one of top1, top5"]),
        (["task=clasify"], ["task is 'clasify'; expected one of detect, classify", "(nearest: 'classify')"]),
        (["late_sizes={after: 2, sizes: []}"], ["late_sizes.sizes is empty"]),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(
    config: Path,
    folder: Path,
    tmp_path: Path,
    assignments: list[str],
    words_in_error: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = [part for assignment in assignments for part in ("--set", assignment.replace("{folder}", str(folder)))]
    assert main(words(config, tmp_path / "deep" / "run", *more)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"swiftsight: {config}: ")
    assert all(part in error for part in words_in_error), error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["{best}", "--hard-nms"], 2, "--hard-nms goes with the task detect; this config's is classify"),
        (["{best}", "--split", "test"], 2, "--split 'test': the config's data has train, val"),
        (["{best}", "--size", "8", "64"], 2, "--size 8 64: expected at least 16"),
        (["{best}", "--set", "model.name=snet146"], 1, "holds weights of snet49, not of snet146"),
        (["{best}", "--set", "data.val={folder}"], 1, "no class folder with pictures for this net"),
        (["nowhere.safetensors"], 1, "nowhere.safetensors: No such file"),
    ],
)
def test_what_cannot_be_scored_is_one_line(
    config: Path, folder: Path, whole_run: Path, more: list[str], code: int, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    capsys.readouterr()
    if "{folder}" in more[-1]:  # class folders, but of other classes
        more = [*more[:-1], "data.val={folder}/strange"]
        (folder / "strange" / "pink").mkdir(parents=True, exist_ok=True)
    places = {"best": whole_run / "best.safetensors", "folder": folder}
    assert main(["eval", str(config), *(word.format(**places) for word in more)]) == code
    error = capsys.readouterr().err
    assert error.strip().count("\n") == 0
    assert message in error


def test_ranks_by_hand() -> None:
    """The right class is the likeliest, the second, behind a tie, the last of six, and nowhere in no numbers."""
    nan = float("nan")
    probabilities = torch.tensor(
        [[0.5, 0.1, 0.1, 0.1, 0.1, 0.1], [0.4, 0.3, 0.1, 0.1, 0.05, 0.05], [0.3, 0.3, 0.1, 0.1, 0.1, 0.1],
         [0.3, 0.2, 0.2, 0.1, 0.15, 0.05], [nan] * 6]
    )  # fmt: skip
    ranks = truth_ranks(probabilities, torch.tensor([0, 1, 1, 5, 0]))
    assert ranks.tolist() == [0, 1, 1, 5, 6]
    assert top_figures(ranks.tolist()) == {"top1": 0.2, "top5": 0.6}
    metric = ClassificationMetric()
    labels = torch.tensor([0, 1, 1, 5, 0])
    metric.process((torch.zeros(5, 3, 2, 2), labels), list(probabilities))
    assert metric.evaluate(5) == {"val/top1": 0.2, "val/top5": 0.6}


def test_a_loss_that_is_not_finite_keeps_the_batch(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Classifier, "losses", lambda *_, **__: {"loss_class": torch.tensor(float("nan"))})
    assert main(words(config, tmp_path / "run")) == 1
    assert "loss_class is nan" in capsys.readouterr().err
    kept = load_checkpoint(tmp_path / "run" / "not_finite_batch.pt")
    assert kept["images"].shape == (12, 3, 64, 64)
    classes = [sorted(COLOURS)[label] for label in kept["labels"].tolist()]
    assert classes == [name.split("/")[0] for name in kept["file_names"]]


SHIPPED = sorted(find_config("backbones/snet49_imagenet.yaml").parent.glob("*_*.yaml"))


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.stem != "imagenet_base"], ids=lambda path: path.stem)
def test_shipped_configs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGENET", "/imagenet")
    monkeypatch.setenv("SWIFTSIGHT_FOLDERS", "/folders")
    monkeypatch.setenv("TEACHER_WEIGHTS", "/teacher.safetensors")
    shipped = load_config(f"backbones/{path.name}")
    assert shipped.model["name"] in list_backbones()
    assert path.stem.startswith(shipped.model["name"])
    assert shipped.data.train in (Path("/imagenet/train"), Path("/folders/train"))
