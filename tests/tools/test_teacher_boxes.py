"""Others' ONNX detectors as teachers: boxes that they write down, views that they are asked about, their features."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from swiftsight_tools import teacher_boxes
from swiftsight_tools.configuration.config import load_config
from swiftsight_tools.peer_detectors import COCO_CLASSES, SCORE_THRESHOLD, FastestDet, YoloxNano, select
from swiftsight_tools.training.tasks import open_task
from torch.testing import assert_close

from compress.distill import Distiller
from detect.metrics import evaluate_detections
from pictures.images import read_image, resize_image

PARTS = ("990", "1024")  # what YOLOX-nano's head reads at strides 16 and 32


@pytest.fixture(scope="module")
def peers(data_dir: Path) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    return data_dir / "peers"


def some_person(data_dir: Path, count: int) -> dict[str, Any]:
    """The annotations of the first pictures of the person set's val part."""
    content = json.loads((data_dir / "coco_person" / "person_val.json").read_text())
    images = content["images"][:count]
    kept = {image["id"] for image in images}
    return {**content, "images": images, "annotations": [a for a in content["annotations"] if a["image_id"] in kept]}


def test_boxes_are_chosen_class_by_class() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]], np.float32)
    scores = np.array([[0.9, 0.2], [0.8, 0.3], [0.005, 0.4]], np.float32)
    found = select(boxes, scores, 0.5, SCORE_THRESHOLD)
    assert found.scores.tolist() == pytest.approx([0.9, 0.4, 0.3])
    assert found.labels.tolist() == [0, 1, 1]
    assert (len(COCO_CLASSES), COCO_CLASSES[0], COCO_CLASSES[11]) == (80, "person", "stop sign")


def test_a_results_file_scores_as_its_detector(data_dir: Path, peers: Path, tmp_path: Path) -> None:
    truth = some_person(data_dir, 12)
    (tmp_path / "few.json").write_text(json.dumps(truth))
    words = ["--pictures", str(data_dir / "coco_person" / "val"), "--output", str(tmp_path / "boxes.json")]
    words = [str(peers / "yolox_nano_416.onnx"), "--annotations", str(tmp_path / "few.json"), *words]
    assert teacher_boxes.main(words) == 0
    rows = json.loads((tmp_path / "boxes.json").read_text())
    assert {row["image_id"] for row in rows} <= {image["id"] for image in truth["images"]}
    assert min(row["score"] for row in rows) >= 0.01
    assert evaluate_detections(rows, truth).figures["AP50"] > 0.5


def test_a_folder_gets_numbers_of_its_own(data_dir: Path, peers: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    source = sorted((data_dir / "coco_mini" / "train2017").glob("*.jpg"))[:3]
    for path in source:
        (tmp_path / "pictures" / path.name).write_bytes(path.read_bytes())
    words = ["--pictures", str(tmp_path / "pictures"), "--kind", "fastestdet", "--classes", "car", "person"]
    outputs = ["--output", str(tmp_path / "boxes.json"), "--list", str(tmp_path / "list.json")]
    assert teacher_boxes.main([str(peers / "fastestdet_352.onnx"), *words, *outputs]) == 0
    listed = json.loads((tmp_path / "list.json").read_text())
    assert [(image["id"], image["file_name"]) for image in listed["images"]] == [
        (number, path.name) for number, path in enumerate(source, start=1)
    ]
    assert [category["name"] for category in listed["categories"]] == ["car", "person"]
    assert {row["category_id"] for row in json.loads((tmp_path / "boxes.json").read_text())} <= {1, 2}


def test_a_stretched_view_is_seen_in_its_own_proportion(data_dir: Path, peers: Path) -> None:
    """The same boxes, but for what resizing twice loses; the features lie over the whole view in either case."""
    image = read_image(data_dir / "coco_person" / "val" / some_person(data_dir, 1)["images"][0]["file_name"])
    teacher = YoloxNano(peers / "yolox_nano_416.onnx", parts=PARTS)
    assert teacher.part_channels == (128, 256)
    plain, stretched = teacher.look(image), teacher.look(np.ascontiguousarray(resize_image(image, (416, 416))),
                                                         image.shape[:2])  # fmt: skip
    scaled = plain.detections.scaled(416 / image.shape[1], 416 / image.shape[0])
    assert_close(stretched.detections.boxes[0], scaled.boxes[0], atol=12, rtol=0)
    assert_close(stretched.detections.scores[0], scaled.scores[0], atol=0.1, rtol=0)
    assert [tuple(values.shape) for values in plain.features] == [(128, 26, 26), (256, 13, 13)]
    both = torch.stack([plain.features[0].flatten(), stretched.features[0].flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.8
    again = pickle.loads(pickle.dumps(teacher))
    assert_close(again(image).boxes, plain.detections.boxes)


def test_what_is_not_there_is_refused(peers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = peers / "yolox_nano_416.onnx"
    with pytest.raises(ValueError, match="knows COCO's 80 classes, but not 'persn' \\(nearest: 'person'\\)"):
        YoloxNano(file, class_names=["persn"])
    with pytest.raises(ValueError, match="has no tensor called 'neck'"):
        YoloxNano(file, parts=["neck"])
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no net")
    with pytest.raises(ValueError, match=r"broken.onnx does not open as an ONNX file"):
        FastestDet(broken)
    words = ["--pictures", str(tmp_path), "--output", str(tmp_path / "boxes.json")]
    assert teacher_boxes.main([str(tmp_path / "lost.onnx"), *words]) == 1
    assert teacher_boxes.main([str(file), *words, "--threads", "0"]) == 2
    (tmp_path / "old.json").write_text("[]")
    assert teacher_boxes.main([str(file), *words[:2], "--output", str(tmp_path / "old.json")]) == 1
    assert teacher_boxes.main([str(file), *words, "--list", words[-1]]) == 2
    assert not (tmp_path / "boxes.json").exists()
    said = capsys.readouterr().err.splitlines()
    assert said[2] == f"error: {tmp_path / 'old.json'} exists already; name another file"
    assert said[3].startswith("error: --list and --output are one file")
    assert said[0] == f"error: no pictures in {tmp_path}; expected files such as .jpg or .png"
    assert said[1] == "error: --threads 0: expected at least 1"


def test_the_person_detector_is_taught_about_each_view(
    data_dir: Path, peers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped config, on six pictures: boxes, features and losses of a batch."""
    monkeypatch.setenv("SWIFTSIGHT_DATA", str(data_dir))
    names = [image["file_name"] for image in json.loads(
        (data_dir / "coco_person" / "person_train.json").read_text())["images"][:6]]  # fmt: skip
    (tmp_path / "few.txt").write_text("\n".join(names))
    few = [f"data.train.file_names={tmp_path / 'few.txt'}", "data.cache=false"]
    more = f"distill.unlabelled={{images: {data_dir / 'coco_mini' / 'train2017'}}}"
    task = open_task(load_config("detect/thundernet_shufflenet_v2_x0_5_person_distilled.yaml", [*few, more]))
    assert len(task.train_data) == 6 + 343
    net = task.create_net()
    assert isinstance(net, Distiller)
    assert net.teacher is None
    images, truth = task.collate([task.train_data[0, 3, (96, 128)], task.train_data[6, 4, (96, 128)]])
    assert truth[0].features[0].shape == (128, 26, 26)
    assert len(truth[1].target.boxes) == 0
    losses = net.train().losses(images, truth)
    assert {"loss_class", "loss_soft_class", "loss_hint_1", "loss_hint_2"} <= set(losses)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert 0.8 < losses["loss_hint_1"] / task.config.distill.hint_weight < 1.2, "nothing is alike yet"
