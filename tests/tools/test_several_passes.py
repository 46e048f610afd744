"""--flip, --scales and --window of `swiftsight demo` and `swiftsight eval`, for detectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from swiftsight_tools import cli
from swiftsight_tools.frames import model_views
from torch import Tensor, nn

from detect import RawDetections, create_detector, save_detector

CLASSES = ("red block", "blue block")


class SpeckFinder(nn.Module):
    """Answers like a detector: a box around all that is red, if that is not too small in what it is shown."""

    class_names = ("block",)
    input_size = (96, 128)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> RawDetections:
        rows, columns = torch.nonzero((images[0, 0] > 150) & (images[0, 1] < 100), as_tuple=True)
        if len(rows) < 200:
            return RawDetections(torch.zeros(1, 1, 4), torch.zeros(1, 1, 1))
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return RawDetections(torch.stack(corners).float()[None, None], torch.tensor([[[0.875]]]))


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    net = SpeckFinder()
    monkeypatch.setattr(model_views, "create_detector", lambda name, weights: net)
    monkeypatch.setattr(model_views, "choose_weights", lambda model, weights: ("blocks", Path("blocks")))
    monkeypatch.chdir(tmp_path)
    picture = np.full((384, 512, 3), 128, np.uint8)
    picture[200:220, 300:320] = (220, 20, 20)
    Image.fromarray(picture).save("scene.png")


@pytest.mark.parametrize(
    ("words", "amount"), [([], 0), (["--window", "96", "128"], 1), (["--flip", "--scales", "1", "4"], 0)]
)
@pytest.mark.usefixtures("finder")
def test_the_demo_looks_as_it_is_told(words: list[str], amount: int) -> None:
    """The block is 5 x 5 pixels in the net's input: only a window, or four times the input, shows it large enough.

    Of two scales and their mirror pictures two looks of four find it, with 0.875: 0.4375 together.
    """
    assert cli.main(["demo", "--source", "scene.png", "--json", "found.json", *words]) == 0
    (record,) = json.loads(Path("found.json").read_text())
    assert len(record["detections"]) == amount
    if amount:
        np.testing.assert_allclose(record["detections"][0]["box"], [300, 200, 320, 220], atol=2)
    assert cli.main(["demo", "--source", "scene.png", "--json", "found.json", "--score", "0.4", *words]) == 0
    assert len(json.loads(Path("found.json").read_text())[0]["detections"]) == int(bool(words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--overlap", "0.5"], "--overlap 0.5: expected a number from 0 to less than 1, and --window"),
        (["--window", "8", "320"], "--window 8 320: expected at least 16"),
        (["--scales", "0"], "--scales 0.0: expected numbers above 0"),
        (["--scales", "1", "1e9"], "--scales 1.0 1000000000.0: expected numbers above 0, at most 16"),
        (["bisenet_xception39", "--flip"], "--flip is for detectors"),
    ],
)
def test_the_demo_refuses(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        model_views, "choose_weights", lambda model, weights: (model or "thundernet_snet49", Path("none"))
    )
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "scene.png")
    assert cli.main(["demo", *words, "--source", str(tmp_path / "scene.png")]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def scored(tiny_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`eval CONFIG WEIGHTS` over the made-up pictures."""
    folder = tmp_path_factory.mktemp("several_passes")
    parts = {
        part: {"annotations": str(tiny_coco / f"{part}.json"), "images": str(tiny_coco / "images")}
        for part in ("train", "val")
    }
    values = {
        "model": {"name": "thundernet_snet49"},
        "data": {**parts, "class_names": list(CLASSES)},
        "epochs": 1,
        "optimizer": {"lr": 0.01},
        "eval_size": [64, 64],
        "sizes": [[64, 64]],
        "workers": 0,
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    torch.manual_seed(0)
    net = create_detector("thundernet_snet49", num_classes=2)
    net.class_names = CLASSES
    save_detector(net, folder / "blocks.safetensors")
    return ["eval", str(folder / "tiny.yaml"), str(folder / "blocks.safetensors"), "--device", "cpu"]


def results_of(scored: list[str], tmp_path: Path, *words: str) -> list[dict[str, object]]:
    target = tmp_path / "results.json"
    assert cli.main([*scored, "--output", str(target), "--max-detections", "9", *words]) == 0
    return json.loads(target.read_text())


def test_eval_with_one_scale_is_eval(scored: list[str], tmp_path: Path) -> None:
    """One look at the picture as it is on disk: the same boxes but for rounding."""
    plain, single = results_of(scored, tmp_path), results_of(scored, tmp_path, "--scales", "1")
    assert len(plain) == len(single) == 4 * 9
    for one, other in zip(plain, single, strict=True):
        assert one["image_id"] == other["image_id"]
        np.testing.assert_allclose(one["score"], other["score"], atol=1e-4)


def test_eval_says_what_it_did(scored: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--flip", "--scales", "1", "1.5", "--window", "48", "48", "--overlap", "0.1", "--hard-nms"]
    found = results_of(scored, tmp_path, *words)
    assert len({row["image_id"] for row in found}) == 4
    assert "64 x 64, windows of 48 x 48, scales 1 1.5, also mirrored" in capsys.readouterr().out
