"""The layouts of boxes from config to figures: one made-up set as COCO json, as VOC's folders and as YOLO's files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from swiftsight_tools import cli
from swiftsight_tools.configuration.config import find_config, load_config
from swiftsight_tools.configuration.schema import arguments
from swiftsight_tools.training.detection_task import DetectionTask

import detect  # noqa: F401 - it registers the detectors
from backbones.registry import find_builder
from detect.registry import DETECTORS
from detect.transforms import SSDAugmentation

NAMES = {3: "red block", 7: "blue block"}
LAYOUTS = ("coco", "voc", "yolo")


@pytest.fixture(scope="module")
def folder(tiny_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of `tiny_coco` in three layouts, a config for each. Crowds are difficult in VOC, absent in YOLO."""
    folder = tmp_path_factory.mktemp("layouts")
    for name in ("Annotations", "ImageSets/Main", "images", "labels", "coco"):
        (folder / name).mkdir(parents=True)
    for picture in (tiny_coco / "images").iterdir():
        (folder / "images" / picture.name).symlink_to(picture)
    (folder / "JPEGImages").symlink_to(folder / "images")
    parts = {part: json.loads((tiny_coco / f"{part}.json").read_text()) for part in ("train", "val")}
    for part, content in parts.items():
        stems = [Path(image["file_name"]).stem for image in content["images"]]
        (folder / f"ImageSets/Main/{part}.txt").write_text("\n".join(stems))
        (folder / f"{part}.txt").write_text("\n".join(f"images/{stem}.jpg" for stem in stems))
        for image, stem in zip(content["images"], stems, strict=True):
            rows = [row for row in content["annotations"] if row["image_id"] == image["id"]]
            (folder / f"Annotations/{stem}.xml").write_text(_xml(image, rows))
            (folder / f"labels/{stem}.txt").write_text(_lines(image, rows))
    (folder / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [red block, blue block]\n")
    for layout in LAYOUTS:
        (folder / f"{layout}.yaml").write_text(yaml.safe_dump(_config(layout, folder, tiny_coco)))
    return folder


def _xml(image: Any, rows: list[Any]) -> str:
    objects = ""
    for row in rows:
        x, y, width, height = row["bbox"]
        objects += (
            f"<object><name>{NAMES[row['category_id']]}</name><difficult>{row['iscrowd']}</difficult><bndbox>"
            f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + width}</xmax><ymax>{y + height}</ymax></bndbox>"
            "</object>"
        )
    size = f"<size><width>{image['width']}</width><height>{image['height']}</height></size>"
    return f"<annotation>{size}{objects}</annotation>"


def _lines(image: Any, rows: list[Any]) -> str:
    lines = []
    for row in rows:
        x, y, width, height = row["bbox"]
        sides = image["width"], image["height"], image["width"], image["height"]
        values = [
            value / side for value, side in zip((x + width / 2, y + height / 2, width, height), sides, strict=True)
        ]
        if not row["iscrowd"]:
            lines.append(" ".join([str((3, 7).index(row["category_id"])), *(f"{value:.8f}" for value in values)]))
    return "\n".join(lines)


def _config(layout: str, folder: Path, tiny_coco: Path) -> dict[str, Any]:
    data: dict[str, Any] = {"layout": layout, "class_names": list(NAMES.values())}
    if layout == "coco":
        parts = ("train", "val")
        data |= {part: {"annotations": f"{tiny_coco}/{part}.json", "images": f"{tiny_coco}/images"} for part in parts}
    elif layout == "voc":
        data["root"] = str(folder)
    else:
        data["yaml"] = "data.yaml"
    return {
        "model": {"name": "thundernet_snet49", "sampling": "random"},
        "data": data,
        "epochs": 1,
        "batch_size": 4,
        "optimizer": {"lr": 0.01},
        "eval_size": [64, 64],
        "sizes": [[64, 64]],
        "workers": 0,
    }


@pytest.mark.parametrize("layout", ["voc", "yolo"])
def test_the_same_pictures_and_boxes_in_any_layout(folder: Path, layout: str) -> None:
    wanted, found = (DetectionTask(load_config(folder / f"{name}.yaml")) for name in ("coco", layout))  # type: ignore[arg-type]
    assert found.class_names == wanted.class_names
    for mine, theirs in ((found.train_data, wanted.train_data), (found.val_data, wanted.val_data)):
        assert [Path(name).name for name in mine.file_names] == list(theirs.file_names)
        assert mine.report.defects() == []
        for index in range(len(mine)):
            (image, target), (wanted_image, wanted_target) = mine[index, 1, (64, 64)], theirs[index, 1, (64, 64)]
            kept = ~wanted_target.is_crowd
            torch.testing.assert_close(target.boxes[~target.is_crowd], wanted_target.boxes[kept], rtol=0, atol=1e-4)
            assert target.labels[~target.is_crowd].tolist() == wanted_target.labels[kept].tolist()
            if layout == "voc":
                assert target.is_crowd.tolist() == wanted_target.is_crowd.tolist()
                torch.testing.assert_close(image, wanted_image, rtol=0, atol=0)


@pytest.fixture(scope="module")
def weights(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch on the VOC layout."""
    run = tmp_path_factory.mktemp("runs") / "voc"
    assert cli.main(["train", str(folder / "voc.yaml"), "--strict", "--work-dir", str(run), "--device", "cpu"]) == 0
    return run / "best.safetensors"


def figures(config: Path, weights: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The tables that eval shows, without the title and what was read."""
    assert cli.main(["eval", str(config), str(weights), "--score-threshold", "0.02", "--device", "cpu", *words]) == 0
    return capsys.readouterr().out.split("\n\n", 1)[1]


def test_a_rule_gives_the_same_figures_on_any_layout(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = []
    for layout in LAYOUTS:
        table = figures(folder / f"{layout}.yaml", weights, capsys, "--output", str(tmp_path / f"{layout}.json"))
        tables.append(table.split("detections: ")[0])
    assert tables[0] == tables[1] == tables[2]
    assert tables[0].startswith("AP ")
    annotations = load_config(folder / "coco.yaml").data.val.annotations
    by_file = []
    for rule, meaning in (("voc2007", "eleven recalls"), ("voc2012", "area under the curve")):
        words = ["--predictions", str(tmp_path / "coco.json"), "--annotations", str(annotations), "--rule", rule]
        assert cli.main(["eval", *words]) == 0
        by_file.append(capsys.readouterr().out.split("\n\n", 1)[1])
        assert re.match(rf"mAP +0\.\d+   mean of the classes' AP, .*{meaning}", by_file[-1])
    assert by_file[1] == figures(folder / "yolo.yaml", weights, capsys, "--rule", "voc2012")
    # The numbers of pictures are our own where the layout has none; so every row says what it is about.
    row = json.loads((tmp_path / "voc.json").read_text())[0]
    assert (row["image_id"], row["file_name"]) == (1, "blocks_08.jpg")
    assert row["category_name"] == list(NAMES.values())[row["category_id"] - 1]


@pytest.mark.parametrize("verb", ["train", "eval"])
def test_strict_stops_with_one_line_and_leaves_nothing(
    folder: Path, weights: Path, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it the same data is read, and what was left out is said."""
    words = ["--set", "data.class_names=[red block, blu block]", "--device", "cpu"]
    if verb == "train":
        words = [str(folder / "voc.yaml"), *words, "--work-dir", str(tmp_path / "run"), "--set", "epochs=1"]
    else:
        words = [str(folder / "yolo.yaml"), str(weights), "--set", f"data.yaml={_spoilt(folder, tmp_path)}"]
    assert cli.main([verb, *words, "--strict"]) == 1
    complaint = capsys.readouterr().err.strip().splitlines()
    assert len(complaint) == 1
    reason = "name not in the class list ('blue block' (nearest: 'blu block')" if verb == "train" else "numbers out of"
    assert reason in complaint[0]
    assert "strict is on" in complaint[0]
    assert not (tmp_path / "run").exists()
    if verb == "eval":
        assert cli.main([verb, *words]) == 0
        assert reason in capsys.readouterr().out


def _spoilt(folder: Path, target: Path) -> Path:
    """YOLO's files once more, with a number that is no part of a picture in the last label file of val."""
    for name in ("images", "labels"):
        (target / name).mkdir()
        for path in (folder / name).iterdir():
            (target / name / path.name).write_bytes(path.read_bytes())
    (target / "labels/blocks_11.txt").write_text("0 60 60 40 40\n")
    for name in ("train.txt", "val.txt", "data.yaml"):
        (target / name).write_text((folder / name).read_text())
    return target / "data.yaml"


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("data.layout=vok", ("data.layout is 'vok'", "coco, voc, yolo", "nearest: 'voc'")),
        ("data.layout=yolo", ("unknown key 'data.root'",)),
        ("data.rot=x", ("unknown key 'data.rot'", "nearest: 'root'")),
        ("data.val={part: x}", ("unknown key 'data.val.part'",)),
        ("data.val.split=tset", ("data.val: no list of pictures at",)),
        ("data.first_pixel=2", ("data.first_pixel is 2", "0, 1")),
        ("data.strict=maybe", ("data.strict is 'maybe'", "true or false")),
    ],
)
def test_a_wrong_key_of_a_layout_is_named(
    folder: Path, assignment: str, words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert cli.main(["train", str(folder / "voc.yaml"), "--set", assignment, "--work-dir", str(run)]) == 1
    complaint = capsys.readouterr().err.strip().splitlines()
    assert len(complaint) == 1
    assert all(word in complaint[0] for word in words), complaint
    assert not run.exists()


@pytest.mark.parametrize(
    "path", sorted(Path(find_config("detect/thundernet_snet49_person.yaml")).parent.glob("*.yaml"))
)
def test_shipped_configs_name_options_that_there_are(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWIFTSIGHT_DATA", "/data")
    config: Any = load_config(path)
    options = {key: value for key, value in config.model.items() if key not in ("name", "weights")}
    assert arguments(find_builder(DETECTORS, config.model["name"]), options, "model").keys() == options.keys()
    assert SSDAugmentation(**arguments(SSDAugmentation, config.augmentation, "augmentation")).is_random


def test_rules_of_the_words(folder: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", str(folder / "voc.yaml"), str(weights), "--rule", "voc2007", "--plots", "x"]
    assert cli.main(words) == 2
    assert "--plots draws the curves of coco's rule" in capsys.readouterr().err
    assert not Path("x").exists()
