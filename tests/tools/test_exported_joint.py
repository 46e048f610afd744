"""A joint net as one exported file: compared with its two nets on the way out, and used in a demo."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from swiftsight_tools.cli import main
from swiftsight_tools.engines.exported import ExportedDetector, ExportedNet
from swiftsight_tools.engines.exported_joint import ExportedJoint

from joint import JointNet, Predictor, create_joint, save_joint

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

NAME = "joint_thundernet_bisenet_snet49"
SMALL = {"fc_channels": 32, "rpn_channels": 32, "test_proposals": 20, "test_before_nms": 60}


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    made = np.random.default_rng(0).integers(90, 166, (72, 100, 3), dtype=np.uint8)
    made[10:60, 20:70] = (214, 40, 40)
    return made


@pytest.fixture(scope="module")
def net() -> JointNet:
    torch.manual_seed(0)
    made = create_joint(NAME, detector_classes=1, segmenter_classes=3, detector_options=SMALL, input_size=(64, 96))
    made.detector.class_names, made.segmenter.class_names = ("block",), ("ground", "sky", "block")
    with torch.no_grad():
        for _ in range(3):
            made(torch.randint(0, 256, (4, 3, 64, 96), dtype=torch.uint8))
    return made.eval()


@pytest.fixture(scope="module")
def exported(net: JointNet, picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by the command, which compares it with torch."""
    folder = tmp_path_factory.mktemp("exported")
    save_joint(net, folder / "joint.safetensors", half=False)
    (folder / "pictures").mkdir()
    Image.fromarray(picture).save(folder / "pictures" / "block.png")
    words = ["--weights", folder / "joint.safetensors", "--output", folder / "joint.onnx", "--scores",
             "--pictures", folder / "pictures"]  # fmt: skip
    assert main(["export", *map(str, words)]) == 0
    return folder / "joint.onnx"


@pytest.mark.export
def test_the_file_answers_as_the_net_does(exported: Path, net: JointNet, picture: np.ndarray) -> None:
    file = ExportedNet(exported, engine="onnxruntime", threads=1)
    assert (file.words.task, file.words.class_names) == ("joint", ("block",))
    assert file.words.pixel_class_names == ("ground", "sky", "block")
    found = ExportedJoint(file, score_threshold=0.4, keep_scores=True)(picture)
    expected = Predictor(net, score_threshold=0.4, suppression="hard", keep_scores=True)(picture)
    assert len(expected.detections) > 0
    torch.testing.assert_close(found.detections.boxes, expected.detections.boxes, rtol=0, atol=0.05)
    torch.testing.assert_close(found.detections.scores, expected.detections.scores, rtol=0, atol=5e-4)
    assert (found.segmentation.labels == expected.segmentation.labels).float().mean() > 0.98
    # Probabilities are enlarged here, logits there.
    torch.testing.assert_close(found.segmentation.scores, expected.segmentation.scores, rtol=0, atol=0.05)


@pytest.mark.export
def test_a_demo_takes_the_file(exported: Path, picture: np.ndarray, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture).save("scene.png")
    words = [exported, "--engine", "onnxruntime", "--source", "scene.png", "--score", "0.1", "--json", "found.json"]
    assert main(["demo", *map(str, words)]) == 0
    (record,) = json.loads(Path("found.json").read_text())
    assert record["detections"]
    assert set(record["shares"]) <= {"ground", "sky", "block"}
    assert Path("demo_output/scene_detected.png").is_file()


@pytest.mark.export
def test_bench_measures_the_file(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(exported), "--engine", "onnxruntime", "--threads", "1", "--repeat", "1"]) == 0
    said = capsys.readouterr().out
    assert "64 x 96, batch 1" in said
    for stage in ("prepare", "net", "finish", "total"):
        assert f"\n{stage} " in said


@pytest.mark.export
def test_eval_scores_the_file_as_it_scores_the_net(
    exported: Path, picture: np.ndarray, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both kinds of truth; torch suppresses softly, so that its boxes score a little differently."""
    monkeypatch.chdir(tmp_path)
    _scene(tmp_path, picture)
    said = {}
    for weights, more in ((exported.with_suffix(".safetensors"), []), (exported, ["--engine", "onnxruntime"])):
        assert main(["eval", "config.yaml", str(weights), "--output", f"{len(said)}.json", *more]) == 0
        said[weights.suffix] = capsys.readouterr().out
    assert "float32 in onnxruntime, hard suppression" in said[".onnx"]
    assert len(json.loads(Path("1.json").read_text())) > 0
    means = [float(re.search(r"^mean of classes +([0-9.]+)", text, re.MULTILINE).group(1)) for text in said.values()]
    assert means[1] == pytest.approx(means[0], abs=1.0)
    assert main(["eval", "config.yaml", str(exported), "--size", "96", "96"]) == 1
    assert "is made for 64x96 alone" in capsys.readouterr().err
    assert main(["eval", "config.yaml", str(exported), "--set", "model.name=joint_thundernet_bisenet_snet535"]) == 1
    assert f"is an exported {NAME}; the config's net is joint_thundernet_bisenet_snet535" in capsys.readouterr().err


def _scene(folder: Path, picture: np.ndarray) -> None:
    """A config, and a set of one picture with a box and labels."""
    Image.fromarray(picture).save(folder / "scene.png")
    labels = np.zeros(picture.shape[:2], np.uint8)
    labels[10:60, 20:70] = 2
    (folder / "labels").mkdir()
    Image.fromarray(labels).save(folder / "labels" / "scene.png")
    (folder / "images").mkdir()
    Image.fromarray(picture).save(folder / "images" / "scene.png")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 10, 50, 50], "area": 2500, "iscrowd": 0}
    image = {"id": 1, "file_name": "scene.png", "width": picture.shape[1], "height": picture.shape[0]}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "block"}]}
    (folder / "truth.json").write_text(json.dumps(content))
    boxes = {"annotations": "truth.json", "images": "images"}
    masks = {"images": "images", "labels": "labels"}
    config = {
        "task": "joint",
        "model": {"name": NAME, "detector_options": SMALL},
        "data": {"boxes": {"train": boxes, "val": boxes},
                 "masks": {"layout": "masks", "class_names": ["ground", "sky", "block"], "train": masks, "val": masks}},
        "sizes": [[64, 96]], "eval_size": [64, 96], "batch_size": 1, "epochs": 1, "workers": 0, "ema": None,
        "optimizer": {"kind": "adamw", "lr": 0.001},
    }  # fmt: skip
    (folder / "config.yaml").write_text(json.dumps(config))


@pytest.mark.export
def test_it_is_no_detector_and_takes_its_own_size_alone(exported: Path) -> None:
    file = ExportedNet(exported, engine="onnxruntime", threads=1)
    with pytest.raises(ValueError, match="expected a detector"):
        ExportedDetector(file)
    with pytest.raises(ValueError, match="is made for 64x96 alone"):
        ExportedJoint(file, size=(96, 96))
    with pytest.raises(ValueError, match=r"score_threshold is 0\.01; the file leaves out"):
        ExportedJoint(file, score_threshold=0.01)
