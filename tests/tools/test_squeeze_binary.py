"""`swiftsight squeeze --method bwn` and `xnor`: from real weights to a file of bits that the other verbs load."""

import json
from pathlib import Path

import pytest
import torch
from swiftsight_tools.cli import main

from backbones import read_metadata, read_state_dict
from compress import is_binary
from detect import create_detector, save_detector
from segment import create_segmenter

NAME = "thundernet_snet49"
REAL = ("backbone.stages.0.0", "rpn.objectness", "rpn.deltas", "head.classify", "head.regress")


def squeeze(weights: Path, output: Path, *more: str) -> int:
    return main(["squeeze", NAME, "--weights", str(weights), "--output", str(output), *more])


def answers(net: torch.nn.Module) -> list[torch.Tensor]:
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.inference_mode():
        return list(net.eval()(images))


def assert_same_bits(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_binary_weights_become_an_ordinary_net_that_answers_alike(block_weights, tmp_path, tiny_coco, capsys) -> None:
    output, report = tmp_path / "blocks.packed", tmp_path / "report.json"
    assert squeeze(block_weights, output, "--method", "bwn", "--report", str(report)) == 0
    said = capsys.readouterr().out
    assert "not trained: without --config" in said
    assert "the same to the last bit" in said
    binary = create_detector(NAME, weights=block_weights)
    binary.binarize_("bwn")
    packed = create_detector(NAME, weights=output)
    assert not any(map(is_binary, packed.modules()))
    assert packed.class_names == ("red block", "blue block")
    assert_same_bits(answers(packed), answers(binary))
    layers = json.loads(report.read_text())["layers"]
    assert [layer["name"] for layer in layers if layer["kind"] == "real fc"] == ["head.classify", "head.regress"]
    (fc,) = (layer for layer in layers if layer["name"] == "head.fc.0")
    assert fc == {"name": "head.fc.0", "kind": "binary fc", "shape": [32, 245], "dense_bytes": 4 * 32 * 245,
                  "coded_bytes": 32 * 245 // 8 + 4 * 32}  # fmt: skip
    picture = tiny_coco / "images" / "blocks_01.jpg"
    assert main(["demo", "--weights", str(output), "--source", str(picture), "--output", str(tmp_path / "o")]) == 0


def test_a_trained_xnor_net_is_the_same_net_in_a_file_of_bits(block_weights, block_config, tmp_path, capsys) -> None:
    output = tmp_path / "blocks.packed"
    words = ["--method", "xnor", "--config", str(block_config), "--skip", "neck", "--device", "cpu"]
    assert squeeze(block_weights, output, *words, "--epochs", "1") == 0
    best = tmp_path / "blocks.packed.training" / "xnor" / "best.safetensors"
    trained, packed = (create_detector(NAME, weights=path) for path in (best, output))
    assert packed.binary == trained.binary == {"mode": "xnor", "skip": ["neck"], "keep_ends": True,
                                               "scale_inputs": False}  # fmt: skip
    assert_same_bits(answers(packed), answers(trained))
    moved = read_state_dict(best)["backbone.stages.2.1.branch.0.0.norm.running_mean"]
    assert moved.abs().max() > 0.001  # it was trained
    assert not any(is_binary(packed.get_submodule(name)) for name in (*REAL, "neck.coarse"))
    assert is_binary(packed.get_submodule("head.fc.0"))
    assert "not trained" not in capsys.readouterr().out
    assert main(["eval", str(block_config), str(output), "--device", "cpu"]) == 0
    assert "AP50" in capsys.readouterr().out
    again = tmp_path / "again.packed"  # a trained net needs no config
    assert squeeze(best, again, "--method", "xnor", "--skip", "neck") == 0
    states = [read_state_dict(path) for path in (again, output)]
    assert states[0].keys() == states[1].keys()
    assert_same_bits(list(states[0].values()), list(states[1].values()))
    assert squeeze(best, again, "--method", "bwn", "--skip", "neck") == 1
    assert "is of binarize {'mode': 'xnor'" in capsys.readouterr().err
    assert squeeze(best, again, "--bits", "6") == 1
    assert "is of binary layers; --method bwn or xnor stores them" in capsys.readouterr().err


def test_a_net_whose_ends_are_binary_too_is_packed_as_it_is(block_weights, tmp_path) -> None:
    net = create_detector(NAME, weights=block_weights)
    net.binarize_("xnor", keep_ends=False, skip=["neck"])
    save_detector(net, tmp_path / "all.safetensors")
    output = tmp_path / "all.packed"
    assert squeeze(tmp_path / "all.safetensors", output, "--method", "xnor") == 0
    packed = create_detector(NAME, weights=output)
    assert packed.binary == net.binary
    assert is_binary(packed.get_submodule("head.classify"))


def test_a_segmenter_s_ends_and_what_only_learns_stay_real() -> None:
    net = create_segmenter("bisenet_shufflenet_v2_x0_5", num_classes=3)
    net.binarize_("xnor")
    real = {name for name, part in net.named_modules() if isinstance(part, torch.nn.Conv2d) and not is_binary(part)}
    ends = {"backbone.stages.0.0", "detail_path.0.0", "classifier.1", "auxiliary.0.0.0", "auxiliary.1.1"}
    assert ends <= real
    assert not {"detail_path.1.0", "classifier.0.0", "decoder.refine_coarse.0"} & real


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--method", "bwn", "--density", "0.5"], 2, "--density is for deep-compression, not for --method bwn"),
        (["--method", "xnor", "--bits", "5"], 2, "--bits is for deep-compression, not for --method xnor"),
        (["--method", "bwn", "--plot", "a.png"], 2, "--plot is for deep-compression, not for --method bwn"),
        (["--method", "bwn", "--scale-inputs"], 2, "--scale-inputs is for xnor, not for --method bwn"),
        (["--method", "bwn", "--epochs", "3"], 2, "--epochs goes with --config"),
        (["--method", "bwn", "--skip", "hed"], 1, "this net has no part called 'hed' (nearest: 'head')"),
        (["--method", "xor"], 2, "invalid choice: 'xor'"),
    ],
)
def test_what_is_refused_in_one_line(block_weights, tmp_path, monkeypatch, capsys, more, code, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert squeeze(block_weights, Path("a.packed"), *more) == code
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_words_of_a_file_that_make_no_sense_are_refused(block_weights, tmp_path) -> None:
    from safetensors.torch import save_file

    state, words = read_state_dict(block_weights), read_metadata(block_weights)
    save_file(state, tmp_path / "odd.safetensors", metadata={**words, "binary": '{"mode": "none"}'})
    with pytest.raises(ValueError, match="mode is 'none'; expected one of bwn, xnor"):
        create_detector(NAME, weights=tmp_path / "odd.safetensors")
