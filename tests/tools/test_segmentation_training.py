"""`swiftsight train` and `swiftsight eval` on labelled pictures: it learns, resumes exactly, counts right, refuses."""

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
from swiftsight_tools.configuration.config import as_plain, find_config, load_config
from swiftsight_tools.configuration.schema import arguments
from swiftsight_tools.training.assembly import create_optimizer
from swiftsight_tools.training.checkpoint import checksum, load_checkpoint
from swiftsight_tools.training.hooks import JournalHook
from swiftsight_tools.training.segmentation_data import WholePictures, open_pictures
from swiftsight_tools.training.segmentation_task import SegmentationMetric

from pictures.images import read_image, read_size, read_values
from pictures.splits import read_split
from segment import Predictor, Segmenter, create_segmenter, save_segmenter
from segment.formats.cityscapes import CLASSES, to_label_ids
from segment.transforms import ScaleCropFlip

NAMES = ("ground", "red", "blue")
COLOURS = {1: (214, 40, 40), 2: (40, 90, 214)}
SIZES = ((64, 96), (96, 64))

CONFIG = """
task: segment
model: {{name: bisenet_xception39, pixels: all}}
data:
  layout: masks
  class_names: [ground, red, blue]
  train: {{images: {folder}/train, labels: {folder}/train_labels}}
  val: {{images: {folder}/val, labels: {folder}/val_labels}}
  cache: true
augmentation: {{scale: [0.6, 1.1], brightness: 0.1, contrast: 0.1, saturation: 0.1}}
sizes: [[64, 64]]
eval_size: [48, 72]
batch_size: 8
epochs: 12
validate_every: 3
optimizer: {{kind: adamw, lr: 4.0e-3, weight_decay: 0.01, lr_factors: {{"classifier.*": 2}}}}
schedule: {{kind: poly, warmup_iters: 4}}
ema: {{momentum: 0.2, gamma: 10}}
checkpoint: {{every_epochs: 3}}
channels_last: true
workers: 0
threads: 1
log_every: 10
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red and a blue block on noise, lying and standing pictures: 24 to learn from, 6 to score; a line is ignored."""
    made = tmp_path_factory.mktemp("blocks")
    random = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 6)):
        for index in range(count):
            height, width = SIZES[index % 2]
            picture = random.integers(90, 166, (height, width, 3), dtype=np.uint8)
            labels = np.zeros((height, width), np.uint8)
            for label, colour in COLOURS.items():
                y, x = (int(random.integers(0, side - 32)) for side in (height, width))
                picture[y : y + 32, x : x + 32], labels[y : y + 32, x : x + 32] = colour, label
            labels[:2] = 255
            write(made / part / f"{index:02d}.png", picture)
            write(made / f"{part}_labels" / f"{index:02d}.png", labels)
    return made


def write(path: Path, values: np.ndarray) -> None:
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
    """Read it, never write into it."""
    work_dir = tmp_path_factory.mktemp("whole")
    assert main(words(config, work_dir)) == 0
    return work_dir


def newest(work_dir: Path) -> dict[str, Any]:
    return load_checkpoint(max(work_dir.glob("checkpoint_*.pt")))


def read_log(work_dir: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (work_dir / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in ("seconds", "waited")} for record in records]


def counted_by_hand(predicted: list[np.ndarray], labels: list[np.ndarray], classes: int) -> list[float]:
    """IoU of each class over all pictures, pixel sets counted one by one."""
    ious = []
    for place in range(classes):
        found = [(guess == place) & (label != 255) for guess, label in zip(predicted, labels, strict=True)]
        there = [label == place for label in labels]
        both = sum(int((a & b).sum()) for a, b in zip(found, there, strict=True))
        ious.append(both / sum(int((a | b).sum()) for a, b in zip(found, there, strict=True)))
    return ious


def test_blocks_are_learned_and_scored_as_counted_by_hand(
    whole_run: Path, config: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = read_log(whole_run)
    validations = [record for record in log if record["kind"] == "val"]
    best = max(record["mIoU"] for record in validations)
    assert best > 0.7
    assert {"IoU/ground", "IoU/red", "IoU/blue", "pixel_accuracy", "mean_accuracy", "weighted_IoU"} <= set(log[-1])
    rates = [record["lr"] for record in log if record["kind"] == "train"]
    assert len(rates) == 36
    assert rates[20] == pytest.approx(8e-3 * (1 - 16 / 32) ** 0.9)  # of the classifier, which learns fastest

    net = create_segmenter("bisenet_xception39", weights=whole_run / "best.safetensors")
    assert (net.class_names, net.input_size) == (NAMES, (48, 72))
    predictor = Predictor(net)
    files = sorted((folder / "val").iterdir())
    predicted = [predictor(read_image(path)).labels.numpy() for path in files]
    labels = [read_values(folder / "val_labels" / path.name) for path in files]
    expected = counted_by_hand(predicted, labels, 3)

    capsys.readouterr()
    output, ids = tmp_path / "new" / "figures.json", tmp_path / "ids"
    more = ["--output", str(output), "--label-ids", str(ids), "--colours", str(tmp_path / "colours")]
    more += ["--matrix", str(tmp_path / "matrix.png")]
    assert main(["eval", str(config), str(whole_run / "best.safetensors"), *more]) == 0
    shown = capsys.readouterr().out
    figures = json.loads(output.read_text())
    written = [read_values(ids / path.name) for path in files]
    assert [list(values.shape) for values in written] == [list(values.shape) for values in labels]
    # Folding the norms, as the predictor does, may turn a pixel here and there.
    assert np.mean([np.mean(a == b) for a, b in zip(written, predicted, strict=True)]) > 0.999
    torch.testing.assert_close(list(figures["class_IoU"].values()), counted_by_hand(written, labels, 3))
    torch.testing.assert_close(list(figures["class_IoU"].values()), expected, rtol=0, atol=0.005)
    assert figures["mIoU"] == pytest.approx(best, abs=0.005)  # the file holds halves
    assert figures["mIoU"] == pytest.approx(np.mean(list(figures["class_IoU"].values())))
    assert np.sum(figures["matrix"]) == sum(label.size for label in labels)
    assert "seen at 48 x 72, whole" in shown
    means = next(line.split() for line in shown.splitlines() if line.startswith("mean of classes"))
    assert means[3:] == [f"{100 * figures[name]:.1f}" for name in ("mIoU", "mean_accuracy")]
    colours = read_image(tmp_path / "colours" / files[0].name)
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == len(np.unique(written[0]))
    assert read_size(tmp_path / "matrix.png")[1] > 300


def test_windows_scales_and_mirrors_are_said(
    whole_run: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = str(whole_run / "best.safetensors")
    more = ["--window", "48", "48", "--overlap", "0.5", "--scales", "1", "1.25", "--flip", "--set", "workers=1"]
    assert main(["eval", str(config), weights, *more]) == 0
    shown = capsys.readouterr().out
    assert "seen at 48 x 72, in windows of 48 x 48, at scales 1, 1.25, also mirrored" in shown

    def figures(*more: str) -> dict[str, Any]:
        output = tmp_path / "figures.json"
        assert main(["eval", str(config), weights, *more, "--output", str(output)]) == 0
        found: dict[str, Any] = json.loads(output.read_text())
        return found

    window = ["--window", "32", "32"]
    modes = [["--scales", "1"], ["--scales", "1", "1.5"], ["--flip"], window, [*window, "--overlap", "0.7"]]
    results = [figures(*mode) for mode in [*modes, ["--size", "64", "96"]]]
    assert len({str(result["matrix"]) for result in results}) == len(results)  # each really counts
    assert all(result["mIoU"] > 0.5 for result in results)
    # One window over the whole picture changes nothing but the order of sums.
    assert figures("--window", "96", "96")["mIoU"] == pytest.approx(results[0]["mIoU"], abs=2e-3)


def test_a_stopped_run_goes_on_bit_for_bit(
    config: Path, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On from the end of epoch 9, Ctrl-C in the middle of the next one, then on with a worker and without a cache."""
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
    assert (newest(run)["step"], newest(run)["position"]) == (29, 2)
    assert main(words(config, run, "--resume", "--set", "workers=1", "--set", "data.cache=false")) == 0
    states = newest(run), newest(whole_run)
    for state in states:
        state.pop("config")
    assert [key for key in states[0] if checksum({key: states[0][key]}) != checksum({key: states[1][key]})] == []
    assert read_log(run) == read_log(whole_run)
    weights = [load_file(folder / "best.safetensors") for folder in (run, whole_run)]
    assert checksum(weights[0]) == checksum(weights[1])


def test_weights_whose_classes_stand_in_another_order_are_refused(
    config: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = [
        "--set",
        f"model.weights={whole_run / 'best.safetensors'}",
        "--set",
        "data.class_names=[ground, blue, red]",
    ]
    assert main(words(config, tmp_path / "run", *start)) == 1
    assert "knows the classes ground, red, blue; the data has ground, blue, red" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("assignments", "words_in_error"),
    [
        (["data.layout=mask"], ["data.layout is 'mask'; expected one of cityscapes, camvid, masks, coco", "'masks'"]),
        (["data.layout=null"], ["data.layout is missing; expected one of"]),
        (["data.layout=camvid"], ["unknown key 'data.class_names'"]),
        (["data=7"], ["data is 7; expected a mapping"]),
        (["data.train={{images: {folder}/train}}"], ["data.train.labels is missing; expected a path"]),
        (["data.train=[]"], ["data.train is empty; expected at least one"]),
        (["data.train=[{{imgs: x}}]"], ["unknown key 'data.train[0].imgs' (nearest: 'images')"]),
        (["data.val.images=nowhere"], ["data.val: no folder at", "nowhere"]),
        (["data.ignor=[3]"], ["unknown key 'data.ignor' (nearest: 'ignore')"]),
        (["data.ignore=[]"], ["data.train: ", "00.png holds the value 255 ", "expected 0..2"]),
        (["data.class_names=[ground, red]"], ["data.train: ", "00.png holds the value 2 ", "expected 0..1"]),
        (["data.val.labels={folder}/train_labels"], ["data.val: ", "labels have no picture"]),
        (["augmentation.scales=[1, 2]"], ["unknown key 'augmentation.scales' (nearest: 'scale')"]),
        (["augmentation.scale=[0, 2]"], ["augmentation: scale is (0.0, 2.0); expected two rising"]),
        (["model.name=bisnet_xception39"], ["model: no segmenter is called", "(nearest: 'bisenet_xception39')"]),
        (["model.num_classes=3"], ["model.num_classes follows from the classes of the data"]),
        (["model.class_weights=[1, 2]"], ["model: 2 class_weights came with 3 classes"]),
        (["model.pixel=all"], ["unknown key 'model.pixel' (nearest: 'pixels')"]),
        (["batch_size=25"], ["batch_size is 25, but there are only 24 pictures"]),
        (
            ["eval_batch_size=2"],
            ["eval_batch_size is 2, but there are pictures of 96 x 64 (00.png) and 64 x 96 (01.png)"],
        ),
        (["monitor=IoU"], ["monitor is 'IoU'; expected one of mIoU"]),
        (["sizes=[]"], ["sizes is empty"]),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(
    config: Path, folder: Path, tmp_path: Path, assignments: list[str], words_in_error: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    more = [part for text in assignments for part in ("--set", text.format(folder=folder))]
    assert main(words(config, tmp_path / "deep" / "run", *more)) == 1
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if "labels checked" not in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"swiftsight: {config}: ")
    assert all(part in error for part in words_in_error), error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["{best}", "--hard-nms"], 2, "--hard-nms goes with the task detect; this config's is segment"),
        (["{best}", "--split", "test"], 2, "--split 'test': the config's data has train, val"),
        (["{best}", "--overlap", "0.5"], 2, "--overlap 0.5: expected a number from 0 to less than 1, and --window"),
        (["{best}", "--window", "8", "64"], 2, "--window 8 64: expected at least 16"),
        (["{best}", "--scales", "1", "0"], 2, "--scales 1.0 0.0: expected numbers above 0"),
        (["{best}", "--matrix", "a.jpg"], 2, "--matrix a.jpg: expected a file that ends in .png"),
        (["{best}", "--set", "model.name=dfanet_b"], 1, "holds weights of bisenet_xception39, not of dfanet_b"),
        (
            ["{best}", "--set", "data.class_names=[a, b, c]"],
            1,
            "knows the classes ground, red, blue; the data has a, b",
        ),
        (["nowhere.safetensors"], 1, "model: no weights file 'nowhere.safetensors'"),
    ],
)
def test_what_cannot_be_scored_is_one_line(
    config: Path, whole_run: Path, more: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["eval", str(config), *(word.format(best=whole_run / "best.safetensors") for word in more)]) == code
    error = capsys.readouterr().err
    assert error.strip().count("\n") == 0
    assert message in error


def test_a_loss_that_is_not_finite_keeps_the_batch(
    config: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Segmenter, "losses", lambda *_: {"loss_main": torch.tensor(float("nan"))})
    assert main(words(config, tmp_path / "run")) == 1
    assert "loss_main is nan" in capsys.readouterr().err
    kept = load_checkpoint(tmp_path / "run" / "not_finite_batch.pt")
    assert kept["images"].shape == (8, 3, 64, 64)
    assert (kept["labels"].shape, kept["labels"].dtype) == ((8, 64, 64), torch.int64)
    assert set(kept["file_names"]) < {path.name for path in (folder / "train").iterdir()}


def test_parts_are_put_together_and_seen_whole(config: Path, folder: Path) -> None:
    both = (f"{{images: {folder}/{name}, labels: {folder}/{name}_labels}}" for name in ("val", "train"))
    loaded = load_config(config, [f"data.val=[{', '.join(both)}]"])
    data = open_pictures(loaded.data, loaded.data.val)
    assert len(data) == 30
    assert data.report == "6 pictures; 24 pictures"
    assert [data.locate(index)[1] for index in (0, 5, 6, 29, -1)] == [0, 5, 0, 23, 23]
    own = open_pictures(loaded.data, loaded.data.train)
    for mine, theirs in zip(data[8], own[2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    image, labels = WholePictures(data, (32, 48))[7]  # a standing picture
    assert (list(image.shape), list(labels.shape)) == ([3, 48, 32], [96, 64])
    image, labels = WholePictures(data, (64, 96))[6]
    torch.testing.assert_close(image, own[0][0], rtol=0, atol=0)  # nothing to resize


def test_figures_come_from_one_matrix_of_all_pictures() -> None:
    """By hand: of class 0 (2 + 0 right of 2 + 2 labelled or found), class 1 (2 right of 2 + 2); 2 is nowhere."""
    metric = SegmentationMetric(("a", "b", "c"))
    batch = torch.zeros(1, 3, 2, 2), torch.tensor([[[0, 0], [1, 255]]])
    metric.process(batch, [torch.tensor([[0, 0], [0, 2]])])
    metric.process((batch[0], torch.tensor([[[1, 1], [0, 255]]])), [torch.tensor([[1, 1], [1, 0]])])
    figures = metric.evaluate(2)
    expected = {"mIoU": 0.5, "mean_accuracy": 2 / 3, "pixel_accuracy": 4 / 6, "weighted_IoU": 0.5}
    expected |= {"IoU/a": 2 / 4, "IoU/b": 2 / 4}
    torch.testing.assert_close(figures, {f"val/{name}": value for name, value in expected.items()})


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames to score, with instances, and one whose labels are not told."""
    root = tmp_path_factory.mktemp("cityscapes")
    random = np.random.default_rng(1)
    ids = np.array([label.id for label in CLASSES], np.uint8)
    for number, split in enumerate(("val", "val", "test")):
        name = f"{split}/bonn/bonn_00000{number}_000019"
        write(root / "leftImg8bit" / f"{name}_leftImg8bit.png", random.integers(0, 256, (64, 128, 3), np.uint8))
        label = (
            np.zeros((64, 128), np.uint8)
            if split == "test"
            else np.kron(random.permutation(np.resize(ids, 32)).reshape(4, 8), np.ones((16, 16), np.uint8))
        )
        write(root / "gtFine" / f"{name}_gtFine_labelIds.png", label)
        numbered = np.where(label >= 24, label.astype(np.uint16) * 1000 + 1, label)
        write(root / "gtFine" / f"{name}_gtFine_instanceIds.png", numbered)
    return root


def test_cityscapes_figures_and_submission(
    cityscapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = create_segmenter("dfanet_b", num_classes=19)
    weights = tmp_path / "random.safetensors"
    net.class_names = tuple(label.name for label in CLASSES)
    save_segmenter(net, weights)
    path = tmp_path / "street.yaml"
    path.write_text(
        "task: segment\nmodel: {name: dfanet_b}\nsizes: [[64, 64]]\neval_size: [32, 64]\nepochs: 1\nworkers: 0\n"
        f"optimizer: {{lr: 0.1}}\ndata: {{layout: cityscapes, root: {cityscapes}, test: {{split: test}}}}\n"
    )
    output = tmp_path / "figures.json"
    assert main(["eval", str(path), str(weights), "--label-ids", str(tmp_path / "ids"), "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    assert "iIoU %" in shown
    assert "have no *_instanceIds.png" not in shown
    assert "mean of categories" in shown
    assert sorted(file.name for file in (tmp_path / "ids").iterdir()) == [
        f"bonn_00000{number}_000019_labelIds.png" for number in (0, 1)
    ]
    submitted = [read_values(file) for file in sorted((tmp_path / "ids").iterdir())]
    truth = [read_values(file) for file in sorted((cityscapes / "gtFine" / "val" / "bonn").glob("*labelIds.png"))]
    assert submitted[0].shape == (64, 128)
    ious = json.loads(output.read_text())["class_IoU"]
    for label in CLASSES:
        both = sum(int(((a == label.id) & (b == label.id)).sum()) for a, b in zip(submitted, truth, strict=True))
        either = sum(int(((a == label.id) | (b == label.id)).sum()) for a, b in zip(submitted, truth, strict=True))
        assert ious[label.name] == pytest.approx(both / either)
    assert to_label_ids(np.array([0, 18, 255], np.uint8)).tolist() == [7, 33, 0]

    next((cityscapes / "gtFine" / "val" / "bonn").glob("*instanceIds.png")).unlink()
    assert main(["eval", str(path), str(weights)]) == 0
    assert "1 of 2 pictures have no *_instanceIds.png: the iIoU says nothing" in capsys.readouterr().out
    assert main(["eval", str(path), str(weights), "--split", "test", "--label-ids", str(tmp_path / "test")]) == 0
    shown = capsys.readouterr().out
    assert "nothing to score" in shown
    assert f"label ids: {tmp_path / 'test'}" in shown
    assert [file.name for file in (tmp_path / "test").iterdir()] == ["bonn_000002_000019_labelIds.png"]
    assert main(["eval", str(path), str(weights), "--split", "test"]) == 1
    assert "there is nothing to score" in capsys.readouterr().err


def test_objects_of_coco_with_a_background(tmp_path: Path) -> None:
    """Of two classes asked for, the second; a part of two files; the net's classes begin with the background."""
    write(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    triangle = [[0, 0, 10, 0, 10, 10, 0, 10]]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0,
                         "segmentation": triangle}],
        "categories": [{"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}],
    }  # fmt: skip
    (tmp_path / "all.json").write_text(json.dumps(content))
    path = tmp_path / "dogs.yaml"
    part = "{annotations: all.json, images: .}"
    path.write_text(
        "task: segment\nmodel: {name: dfanet_b}\nsizes: [[64, 64]]\neval_size: [64, 64]\nepochs: 1\n"
        f"optimizer: {{lr: 0.1}}\ndata: {{layout: coco, train: [{part}, {part}], val: {part}, class_names: [dog]}}\n"
    )
    loaded = load_config(path)
    data = open_pictures(loaded.data, loaded.data.train)
    assert data.class_names == ("background", "dog")
    assert len(data) == 2
    _, labels = data[1]
    torch.testing.assert_close(labels[:10, :10], torch.ones(10, 10, dtype=torch.uint8), rtol=0, atol=0)
    assert int(labels.sum()) == 100
    loaded = load_config(path, ["data.class_names=null"])
    assert open_pictures(loaded.data, loaded.data.val).class_names == ("background", "cat", "dog")
    content["categories"].append({"id": 9, "name": "emu"})
    (tmp_path / "more.json").write_text(json.dumps(content))
    both = (f"{{annotations: {tmp_path}/{name}.json, images: {tmp_path}}}" for name in ("all", "more"))
    mixed = load_config(path, ["data.class_names=null", f"data.train=[{', '.join(both)}]"])
    parts = open_pictures(mixed.data, mixed.data.train).parts  # of what the first has
    assert [part.class_names for part in parts] == [("background", "cat", "dog")] * 2
    known = open_pictures(loaded.data, loaded.data.val, class_names=("background", "dog"))
    assert known.class_names == ("background", "dog")


SHIPPED = sorted(find_config("segment/bisenet_xception39_camvid.yaml").parent.glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITYSCAPES", "/cityscapes")
    monkeypatch.setenv("SWIFTSIGHT_DATA", "/data")
    monkeypatch.setenv("PERSON_OUTLINED", "/data/outlined.json")
    monkeypatch.setenv("PERSON_WEIGHTS", "/data/best.safetensors")
    monkeypatch.setenv("TEACHER_WEIGHTS", "/data/teacher.safetensors")
    shipped = load_config(f"segment/{path.name}")
    name, pixels = shipped.model["name"], shipped.model["pixels"]
    assert path.stem.startswith(name)
    net = create_segmenter(name, num_classes=2, pixels=pixels)
    assert net.loss.pixels == pixels
    assert create_optimizer(net, shipped.optimizer).param_groups  # every pattern of lr_factors means something
    ScaleCropFlip(**arguments(ScaleCropFlip, shipped.augmentation, "augmentation"))
    again = tmp_path / "again.yaml"
    again.write_text(json.dumps(as_plain(shipped)))
    assert load_config(again) == shipped


def test_the_held_out_pictures_of_camvid(data_dir: Path) -> None:
    """Both lists together are the train part; of each sequence its end is held out."""
    lists = find_config("segment/bisenet_xception39_camvid.yaml").parent.parent / "splits"
    train, select = (read_split(lists / f"camvid_{name}.txt") for name in ("train", "select"))
    there = sorted(path.name for path in (data_dir / "camvid" / "train" / "images").iterdir())
    assert sorted(train + select) == there
    assert (len(train), len(select)) == (331, 36)
    for sequence in {name.split("_")[0] for name in there}:
        own = [name for name in there if name.startswith(sequence)]
        assert [name for name in own if name in select] == own[-(len(own) // 10) :]
