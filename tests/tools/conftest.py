"""A tiny detector and a tiny segmenter, exported once for all tests of exported files, and one to squeeze."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from detect import TwoStageDetector, create_detector, save_detector
from segment import Segmenter, create_segmenter, save_segmenter

_BLOCK_CONFIG = """
model: {{name: thundernet_snet49, fc_channels: 32, rpn_channels: 32, train_proposals: 60, samples: 20}}
data:
  train: {{annotations: {folder}/train.json, images: {folder}/images}}
  val: {{annotations: {folder}/val.json, images: {folder}/images}}
sizes: [[64, 64]]
eval_size: [64, 64]
batch_size: 4
epochs: 40
optimizer: {{kind: adamw, lr: 0.003, weight_decay: 0.05}}
clip_grad: 5.0
workers: 0
threads: 1
"""


class ExportedPair(NamedTuple):
    """A net, its weights file, its exported file, and what the command said."""

    net: TwoStageDetector | Segmenter
    weights: Path
    path: Path
    said: str


def _picture(seed: int) -> np.ndarray:
    """Coloured blocks on noise, 72 x 104."""
    random = np.random.default_rng(seed)
    made = random.integers(90, 166, (72, 104, 3), dtype=np.uint8)
    for colour in ((214, 40, 40), (40, 90, 214), (250, 250, 250)):
        top, left = (int(place) for place in random.integers(0, 40, 2))
        made[top : top + 30, left : left + 45] = colour
    return made


@pytest.fixture(scope="session")
def block_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three pictures to compare on and to calibrate with."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("block_pictures")
    for seed in range(3):
        Image.fromarray(_picture(seed)).save(folder / f"{seed}.png")
    return folder


def _settle(net: torch.nn.Module, images: torch.Tensor) -> None:
    """Gives the norms statistics of their own, so that the net does not answer the same to everything."""
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            net.train()(images)
    net.eval()


@pytest.fixture(scope="session")
def exported_detector(tmp_path_factory: pytest.TempPathFactory, block_pictures: Path) -> ExportedPair:
    """ThunderNet on SqueezeNet at 64 x 96, any batch, two classes, 20 boxes at most."""
    for package in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    torch.manual_seed(1)
    net = create_detector(
        "thundernet", backbone="squeezenet1_1", num_classes=2, input_size=(64, 96), rpn_channels=16, fc_channels=32,
        test_proposals=30, test_before_nms=80,
    )  # fmt: skip
    net.class_names = ("red block", "blue block")
    images = torch.randint(0, 256, (4, 3, 64, 96), dtype=torch.uint8)
    _settle(net, images)
    with torch.no_grad():  # answers that differ from place to place
        net.head.classify.weight.mul_(100)
        net.head.regress.weight.mul_(30)
        net.rpn.objectness.weight.mul_(30)
    folder = tmp_path_factory.mktemp("exported_detector")
    save_detector(net, folder / "net.safetensors", half=False)
    said = _export(folder, "--batch", "free", "--max-detections", "20", "--pictures", block_pictures)
    return ExportedPair(net, folder / "net.safetensors", folder / "net.onnx", said)


@pytest.fixture(scope="session")
def exported_segmenter(tmp_path_factory: pytest.TempPathFactory, block_pictures: Path) -> ExportedPair:
    """BiSeNet on SqueezeNet for any size, one picture at a time, two classes, with scores."""
    for package in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    torch.manual_seed(2)
    net = create_segmenter("bisenet", backbone="squeezenet1_1", num_classes=2, input_size=(64, 96))
    net.class_names = ("background", "person")
    images = torch.randint(0, 256, (4, 3, 64, 96), dtype=torch.uint8)
    _settle(net, images)
    with torch.no_grad():  # either class wins somewhere
        net.classifier[-1].bias -= net(images).mean(dim=(0, 2, 3))
    folder = tmp_path_factory.mktemp("exported_segmenter")
    save_segmenter(net, folder / "net.safetensors", half=False)
    said = _export(folder, "--free-size", "--scores", "--pictures", block_pictures)
    return ExportedPair(net, folder / "net.safetensors", folder / "net.onnx", said)


def _export(folder: Path, *words: object) -> str:
    import contextlib
    import io

    from swiftsight_tools.cli import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(["export", "--weights", str(folder / "net.safetensors"), "--output", str(folder / "net.onnx"),
                     *map(str, words)])  # fmt: skip
    assert code == 0, said.getvalue()
    return said.getvalue()


@pytest.fixture(scope="session")
def block_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small detector of `tiny_coco`'s two classes, with weights as drawn."""
    torch.manual_seed(0)
    net = create_detector("thundernet_snet49", num_classes=2, fc_channels=32, rpn_channels=32, input_size=(64, 64))
    net.class_names = ("red block", "blue block")
    path = tmp_path_factory.mktemp("weights") / "blocks.safetensors"
    save_detector(net, path)
    return path


@pytest.fixture
def block_config(tiny_coco: Path, tmp_path: Path) -> Path:
    """A config that trains that detector on `tiny_coco`; more epochs than a test wants."""
    path = tmp_path / "blocks.yaml"
    path.write_text(_BLOCK_CONFIG.format(folder=tiny_coco))
    return path
