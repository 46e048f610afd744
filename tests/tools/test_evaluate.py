"""`swiftsight eval`: both forms, its frames, its files, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from swiftsight_tools import cli, plots
from swiftsight_tools.scoring import detection_scoring
from swiftsight_tools.training.assembly import validation_loader
from swiftsight_tools.training.loader_errors import unwrap_worker_error
from torch import Tensor, nn

from detect import Detections, create_detector, save_detector
from detect.formats.boxed_pictures import collate
from detect.formats.coco import CocoDetection
from detect.metrics import FIGURES, DetectionScores, evaluate_detections
from detect.transforms import Resize

CLASSES = ("red block", "blue block")


@pytest.fixture(scope="module")
def config_file(tiny_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config over the made-up pictures, at 64 x 64, with a list of names as a file chosen by `--set`."""
    parts = {
        part: {"annotations": str(tiny_coco / f"{part}.json"), "images": str(tiny_coco / "images")}
        for part in ("train", "val")
    }
    values = {
        "model": {"name": "thundernet_snet49", "sampling": "random"},
        "data": {**parts, "class_names": list(CLASSES)},
        "epochs": 1,
        "optimizer": {"lr": 0.01},
        "eval_size": [64, 64],
        "sizes": [[64, 64]],
        "workers": 0,
    }
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def save_random_weights(path: Path, class_names: tuple[str, ...]) -> Path:
    torch.manual_seed(0)
    net = create_detector("thundernet_snet49", num_classes=len(class_names))
    net.class_names = class_names
    save_detector(net, path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_weights(tmp_path_factory.mktemp("weights") / "blocks.safetensors", CLASSES)


def figures_in(text: str) -> dict[str, str]:
    """The twelve lines, name -> number as printed."""
    return {name: number for name in FIGURES for number in re.findall(rf"^{name} +(-|\d\.\d\d\d)  ", text, re.M)}


def test_weights_are_scored_and_all_files_written(
    config_file: Path, weights: Path, tiny_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, folder = tmp_path / "new" / "results.json", tmp_path / "plots"
    words = ["eval", str(config_file), str(weights), "--output", str(results), "--plots", str(folder)]
    settings = ["--max-detections", "7", "--score-threshold", "0.01", "--hard-nms", "--device", "cpu"]
    assert cli.main([*words, *settings]) == 0
    shown, noted = capsys.readouterr()
    figures = figures_in(shown)
    assert list(figures) == list(FIGURES)
    assert all(name in shown for name in (*CLASSES, "4 pictures", "64 x 64"))
    assert "4 pictures in " in noted
    found = json.loads(results.read_text())
    pictures = json.loads((tiny_coco / "val.json").read_text())["images"]
    assert {row["image_id"] for row in found} == {row["id"] for row in pictures}
    assert {row["category_id"] for row in found} <= {3, 7}
    assert len(found) == 4 * 7
    curves = np.asarray(Image.open(folder / "precision_recall.png").convert("RGB"))
    assert curves.shape[0] > 400
    assert len(np.unique(curves.reshape(-1, 3), axis=0)) > 20
    # What was written scores as what was measured.
    assert cli.main(["eval", "--predictions", str(results), "--annotations", str(tiny_coco / "val.json")]) == 0
    assert figures_in(capsys.readouterr().out) == figures


def test_another_size_and_part(config_file: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", str(config_file), str(weights), "--size", "32", "96", "--split", "train"]) == 0
    shown = capsys.readouterr().out
    assert "train.json, 32 x 96" in shown
    assert "8 pictures (1 without objects)" in shown


def test_a_net_that_finds_nothing(
    config_file: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    words = ["eval", str(config_file), str(weights), "--score-threshold", "0.999", "--output", str(results)]
    assert cli.main(words) == 0
    assert figures_in(capsys.readouterr().out)["AP"] == "0.000"
    assert json.loads(results.read_text()) == []


class Oracle(nn.Module):
    """A net that has read the annotations: it gives them in pixels of its own input, whatever that is."""

    def __init__(self, annotations: Path) -> None:
        super().__init__()
        self.somewhere = nn.Parameter(torch.zeros(1))
        content = json.loads(annotations.read_text())
        self.pictures = {row["id"]: row for row in content["images"]}
        self.rows = content["annotations"]
        self.order = [row["id"] for row in content["images"]]

    def predict(self, images: Tensor, **_: Any) -> list[Detections]:
        return [self._remember(self.order.pop(0), images.shape[-2:]) for _ in images]

    def _remember(self, image_id: int, size: torch.Size) -> Detections:
        picture = self.pictures[image_id]
        rows = [row for row in self.rows if row["image_id"] == image_id]
        boxes = torch.tensor([row["bbox"] for row in rows], dtype=torch.float32).view(-1, 4)
        corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
        labels = torch.tensor([(3, 7).index(row["category_id"]) for row in rows], dtype=torch.int64)
        found = Detections(corners, torch.full((len(rows),), 0.5), labels)
        return found.scaled(size[1] / picture["width"], size[0] / picture["height"])


@pytest.mark.parametrize("part", ["train", "val"])
def test_boxes_come_back_to_the_picture_on_disk(tiny_coco: Path, part: str) -> None:
    """Lying and standing pictures squeezed to 64 x 128: whoever knows all the boxes there gets every figure right."""
    annotations = tiny_coco / f"{part}.json"
    data = CocoDetection(annotations, tiny_coco / "images", transform=Resize((64, 128)))
    loader = validation_loader(data, 3, 0, collate=collate)
    results = list(detection_scoring.find_objects(Oracle(annotations), loader, data, {}))
    scores = evaluate_detections(results, annotations)
    assert scores.figures["AP"] == pytest.approx(1.0)
    assert {row["AR100"] for row in scores.per_class.values()} == {1.0}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "expected CONFIG and WEIGHTS, or --predictions and --annotations"),
        (["{config}"], 2, "expected CONFIG and WEIGHTS"),
        (["--predictions", "{bad}"], 2, "go together"),
        (["--predictions", "{bad}", "--annotations", "{val}", "--size", "64", "64"], 2, "size does not go with it"),
        (["--predictions", "{bad}", "--annotations", "{val}"], 1, "bad.json: no JSON"),
        (["--predictions", "{missing}", "--annotations", "{val}"], 1, "missing.json: No such file"),
        (
            ["--predictions", "{val}", "--annotations", "{val}"],
            1,
            "val.json: a JSON object; expected a list of results",
        ),
        (
            ["--predictions", "{stranger}", "--annotations", "{val}"],
            1,
            "stranger.json: 1 results name an unknown category",
        ),
        (["--predictions", "{stranger}", "--annotations", "{stranger}"], 1, "expected COCO annotations"),
        (
            ["{config}", "{weights}", "--split", "vall"],
            2,
            "--split 'vall' (nearest: 'val'): the config's data has train, val",
        ),
        (["{config}", "{weights}", "--size", "64", "100"], 2, "--size 64 100: expected multiples of 16"),
        (["{config}", "{weights}", "--output", "{folder}"], 1, "is a folder; expected a file"),
        (["{config}", "{weights}", "--window", "1", "1"], 2, "--window 1 1: expected at least 16"),
        (["{segment}", "{weights}", "--strict"], 2, "--strict goes with the task detect; this config's is segment"),
        (["{config}", "{weights}", "--max-detections", "0"], 2, "--max-detections 0: expected at least 1"),
        (["{config}", "{weights}", "--score-threshold", "1"], 2, "--score-threshold 1.0: expected"),
        (["{config}", "{weights}", "--set", "modle.name=x"], 1, "unknown key 'modle' (nearest: 'model')"),
        (
            ["{config}", "{weights}", "--set", "model.name=thundernet_snet146"],
            1,
            "weights of thundernet_snet49, not of",
        ),
        (["{config}", "{one}"], 1, "has 1 classes (person), not 2"),
        (["{config}", "{others}"], 1, "knows the classes cat, dog; the data has red block, blue block"),
        (["{config}", "{bad}"], 1, "bad.json"),
        (["{config}", "nowhere"], 1, "no weights file 'nowhere'"),
        (["nowhere.yaml", "{weights}"], 1, "nowhere.yaml"),
    ],
)
def test_one_line_and_an_exit_code(
    words: list[str],
    code: int,
    message: str,
    config_file: Path,
    weights: Path,
    tiny_coco: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"config": config_file, "weights": weights, "val": tiny_coco / "val.json"}
    places |= {name: tmp_path / f"{name}.json" for name in ("bad", "missing", "stranger", "one", "others")}
    places |= {"folder": tmp_path, "segment": "segment/bisenet_xception39_camvid.yaml"}
    places["bad"].write_text("[{")
    picture = json.loads(places["val"].read_text())["images"][0]["id"]
    places["stranger"].write_text(
        json.dumps([{"image_id": picture, "category_id": 4, "bbox": [0, 0, 1, 1], "score": 1}])
    )
    for name, classes in (("one", ("person",)), ("others", ("cat", "dog"))):
        if any(name in word for word in words):
            save_random_weights(places[name], classes)
    assert cli.main(["eval", *(word.format(**places) for word in words)]) == code
    complaint = capsys.readouterr().err.strip().splitlines()
    assert len(complaint) == 1
    assert message in complaint[0]


def test_pictures_with_too_many_windows_are_named_before_any_is_looked_at(config_file, weights, capsys, monkeypatch):
    monkeypatch.setattr("detect.merging._MOST_WINDOWS", 1)
    monkeypatch.setattr(detection_scoring, "find_objects", None)
    assert cli.main(["eval", str(config_file), str(weights), "--window", "16", "16"]) == 1
    assert re.search(r"blocks_\d+\.jpg: \d+ windows of 16 x 16", capsys.readouterr().err)


def test_limits_beyond_the_usual_reach_the_converted_file(config_file, weights, capsys):
    words = ["--engine", "onnxruntime", "--max-detections", "120", "--score-threshold", "0.01"]
    assert cli.main(["eval", str(config_file), str(weights), *words]) == 0
    assert "hard suppression" in capsys.readouterr().out


def test_a_damaged_picture_is_named(
    tiny_coco: Path, tmp_path: Path, config_file: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a worker process finds it."""
    folder = tmp_path / "images"
    folder.mkdir()
    for file in (tiny_coco / "images").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "blocks_09.jpg").write_bytes(b"this is text")
    for workers in (0, 1):
        words = ["--set", f"data.val.images={folder}", "--set", f"workers={workers}"]
        assert cli.main(["eval", str(config_file), str(weights), *words]) == 1
        last_line = capsys.readouterr().err.strip().splitlines()[-1]
        assert "blocks_09.jpg is not a readable picture" in last_line
        assert "Traceback" not in last_line


def test_errors_of_a_worker_lose_their_wrapping() -> None:
    wrapped = (
        "Caught FileNotFoundError in DataLoader worker process 0.\nOriginal Traceback\nFileNotFoundError: no picture"
    )
    unwrapped = unwrap_worker_error(RuntimeError(wrapped))
    assert isinstance(unwrapped, OSError)
    assert str(unwrapped) == "no picture"
    plain = ValueError("two\nlines")
    assert unwrap_worker_error(plain) is plain


def made_up_scores(names: list[str]) -> DetectionScores:
    """One object of each class; the first half of the classes is found, the others are not."""
    ids = range(1, len(names) + 1)
    box = [0, 0, 10, 10]
    annotations = {
        "images": [{"id": 1}],
        "categories": [{"id": number, "name": name} for number, name in zip(ids, names, strict=True)],
        "annotations": [{"image_id": 1, "category_id": number, "bbox": box} for number in ids],
    }
    found = [{"image_id": 1, "category_id": number, "bbox": box, "score": 0.5} for number in ids[: len(names) // 2]]
    return evaluate_detections(found, annotations)


@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_curves_of_any_number_of_classes(count: int, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "curves.png"
    plots.draw_curves(made_up_scores([f"class {number}" for number in range(count)]), path, "made up")
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"


def test_best_operating_point_by_hand() -> None:
    """F1 is 2pr / (p + r): 0, 0.5 (p 1, r 1/3), 0.8 (p 0.8, r 0.8), 0.75 (p 0.6, r 1): the third is the best."""
    recalls, precision = np.array([0, 1 / 3, 0.8, 1.0]), np.array([1.0, 1.0, 0.8, 0.6])
    assert plots.best_operating_point(recalls, precision, np.array([0.9, 0.8, 0.4, 0.1])) == (0.8, 0.8, 0.4)


def test_undefined_figures_are_dashes() -> None:
    shown = detection_scoring.format_scores(made_up_scores(["cat", "dog"]))
    figures = figures_in(shown)
    assert (figures["AP"], figures["APs"], figures["APl"]) == ("0.500", "0.500", "-")
    assert shown.splitlines()[-2:] == [
        "cat    1.000  1.000  1.000        1",
        "dog    0.000  0.000  0.000        1",
    ]


def test_boxes_that_were_left_out_are_told() -> None:
    annotations = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 0, 5]}],
    }
    assert "1 boxes of the ground truth have no area" in detection_scoring.format_scores(
        evaluate_detections([], annotations)
    )
