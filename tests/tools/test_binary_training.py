"""`swiftsight train` with binary layers: what comes out is scored, loads again by name, and runs as bits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from swiftsight_tools.cli import main
from torch.testing import assert_close

from backbones import create_classifier, save_classifier
from compress import XNORConv2d, deploy_bits, holds_bits

CONFIG = """
task: classify
model: {{name: shufflenet_v2_x0_5}}
binarize: {{mode: xnor, skip: [head], scale_inputs: true}}
data: {{train: {folder}/train, val: {folder}/val}}
sizes: [[64, 64]]
eval_size: [64, 64]
batch_size: 4
epochs: 2
optimizer: {{kind: adamw, lr: 1.0e-3}}
workers: 0
threads: 1
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and blue pictures."""
    folder = tmp_path_factory.mktemp("colours")
    for part in ("train", "val"):
        for name, colour in (("blue", (40, 60, 200)), ("red", (200, 40, 40))):
            (folder / part / name).mkdir(parents=True)
            for index in range(4):
                picture = np.random.default_rng(index).integers(0, 60, (70, 70, 3)) + np.array(colour)
                Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / part / name / f"{index}.png")
    path = folder / "colours.yaml"
    path.write_text(CONFIG.format(folder=folder))
    return path


@pytest.fixture(scope="module")
def best(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a run. Read them, never write them."""
    work_dir = tmp_path_factory.mktemp("run")
    assert main(["train", str(config), "--work-dir", str(work_dir), "--device", "cpu"]) == 0
    return work_dir / "best.safetensors"


def test_a_trained_net_is_binary_wherever_its_weights_are_loaded(
    best: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = create_classifier("shufflenet_v2_x0_5", weights=best)
    binary = [layer for layer in net.modules() if isinstance(layer, XNORConv2d)]
    assert len(binary) > 20
    assert all(layer.scale_inputs for layer in binary)
    assert net.binary == {"mode": "xnor", "skip": ["head"], "keep_ends": True, "scale_inputs": True}
    assert any(layer.norm.running_mean.abs().max() > 0.01 for layer in binary)  # it was trained
    assert main(["eval", str(config), str(best)]) == 0
    assert "top1" in capsys.readouterr().out


def test_it_runs_as_bits_from_a_file_of_bits(best: Path, tmp_path: Path) -> None:
    net = create_classifier("shufflenet_v2_x0_5", weights=best).eval()
    save_classifier(deploy_bits(net), tmp_path / "bits.safetensors", half=False)
    bits = create_classifier("shufflenet_v2_x0_5", weights=tmp_path / "bits.safetensors")
    assert holds_bits(bits)
    assert bits.class_names == ("blue", "red")
    pictures = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    assert_close(bits.predict(pictures), net.predict(pictures))
    save_classifier(net, tmp_path / "numbers.safetensors", half=False)
    saved = sum(31 / 8 * layer.weight.numel() for layer in net.modules() if isinstance(layer, XNORConv2d))
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("numbers", "bits")]
    assert sizes[0] - sizes[1] > 0.9 * saved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("binarize.scale_inputs=false", "'scale_inputs': True}; the config says binarize: {'mode': 'xnor'"),
    ],
)
def test_a_config_of_other_layers_is_refused(
    best: Path, config: Path, change: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(config), str(best), "--set", change]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_config_that_says_nothing_scores_what_the_file_holds(best: Path, config: Path) -> None:
    assert main(["eval", str(config), str(best), "--set", "binarize=null"]) == 0


def test_real_weights_are_refused_by_a_binary_config(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = create_classifier("shufflenet_v2_x0_5", num_classes=2)
    save_classifier(net, tmp_path / "real.safetensors")
    assert main(["eval", str(config), str(tmp_path / "real.safetensors")]) == 1
    assert "is of real layers; the config says binarize: {'mode': 'xnor'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("[1]", r"gives binary \[1\]; expected an object"),
        ("{", "gives binary {; expected an object"),
        ('{"mode": "none"}', "mode is 'none'; expected one of bwn, xnor"),
        ('{"mode": "bwn", "depth": 2}', "unexpected keyword argument 'depth'"),
        ('{"mode": "bwn", "skip": ["neck"]}', "no part called 'neck'"),
    ],
)
def test_a_file_whose_words_make_no_sense_is_refused(best: Path, tmp_path: Path, words: str, message: str) -> None:
    with safe_open(best, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, tmp_path / "odd.safetensors", metadata={**metadata, "binary": words})
    with pytest.raises(ValueError, match=message):
        create_classifier("shufflenet_v2_x0_5", weights=tmp_path / "odd.safetensors")
