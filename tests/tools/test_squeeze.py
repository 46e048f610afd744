"""`swiftsight squeeze`: from the words to a file that the other verbs load, with a training in between or without."""

import json
from pathlib import Path

import pytest
import torch
from swiftsight_tools.cli import main

from backbones import read_metadata, read_state_dict
from compress import pruning_of
from detect import create_detector, shipped_weights
from pictures.images import read_image
from segment import create_segmenter, save_segmenter

NAME = "thundernet_snet49"


def squeeze(weights: Path, output: Path, *more: str) -> int:
    return main(["squeeze", NAME, "--weights", str(weights), "--output", str(output), *more])


def test_a_file_several_times_smaller_with_its_report(block_weights, tmp_path, capsys) -> None:
    output, report, plot = (tmp_path / name for name in ("blocks.packed", "report.json", "plot.png"))
    more = ["--density", "0.3", "--bits", "5", "--report", str(report), "--plot", str(plot)]
    assert squeeze(block_weights, output, *more) == 0
    said = capsys.readouterr().out
    assert "pruned: 30.0 % of the weights are left" in said
    assert "the same to the last bit" in said
    assert block_weights.stat().st_size / output.stat().st_size > 5
    (last,) = (line.split() for line in said.splitlines() if line.startswith("file (P+Q+H)"))
    assert last[2] == f"{output.stat().st_size:,}"
    assert json.loads(report.read_text())["stages"]["file (P+Q+H)"] == output.stat().st_size
    assert read_image(plot).std() > 10
    net = create_detector(NAME, weights=output)
    assert net.class_names == ("red block", "blue block")
    assert pruning_of(net).density == pytest.approx(0.3, abs=0.001)
    assert read_metadata(output) == read_metadata(block_weights)


def test_the_other_verbs_load_it(block_weights, tmp_path, tiny_coco, block_config, capsys) -> None:
    output = tmp_path / "blocks.packed"
    assert squeeze(block_weights, output, "--method", "deep-compression") == 0
    picture = tiny_coco / "images" / "blocks_01.jpg"
    assert main(["demo", "--weights", str(output), "--source", str(picture), "--output", str(tmp_path / "o")]) == 0
    assert (tmp_path / "o" / "blocks_01_detected.jpg").is_file()
    assert main(["eval", str(block_config), str(output), "--device", "cpu"]) == 0
    assert "AP50" in capsys.readouterr().out


def test_heads_that_only_training_uses_are_left_out_unless_asked_for(tmp_path) -> None:
    torch.manual_seed(0)
    source, output = tmp_path / "net.safetensors", tmp_path / "net.packed"
    save_segmenter(create_segmenter("bisenet_shufflenet_v2_x0_5", num_classes=2), source)
    words = ["squeeze", "bisenet_shufflenet_v2_x0_5", "--weights", str(source), "--output", str(output)]
    assert main(words) == 0
    small, state = output.stat().st_size, read_state_dict(output)
    parts = [name for name in state if name.startswith("auxiliary") and not name.endswith("running_var")]
    assert parts
    assert not any(state[name].any() for name in parts)
    assert main([*words, "--keep-all"]) == 0
    assert output.stat().st_size > 1.2 * small
    assert read_state_dict(output)[parts[0]].any()


def test_with_a_training_the_zeros_stay_and_the_values_stay_few(block_weights, block_config, tmp_path, capsys) -> None:
    output = tmp_path / "blocks.packed"
    more = ["--config", str(block_config), "--epochs", "2", "--density", "0.4", "--bits", "4", "--device", "cpu"]
    assert squeeze(block_weights, output, *more) == 0
    trained = read_state_dict(tmp_path / "blocks.packed.training" / "pruned" / "best.safetensors")
    state, before = read_state_dict(output), read_state_dict(block_weights)
    for name in ("head.fc.0.weight", "neck.coarse.weight"):
        assert torch.equal(state[name] == 0, trained[name] == 0)
        assert len(state[name].unique()) <= 16
        kept = trained[name] != 0
        assert (trained[name][kept] != before[name][kept]).float().mean() > 0.5
    assert "pruned: 2 epochs" in capsys.readouterr().out
    assert squeeze(block_weights, output, *more) == 0  # finished trainings are not done again
    assert capsys.readouterr().out.count("nothing is left to train") == 2
    assert all(torch.equal(tensor, state[name]) for name, tensor in read_state_dict(output).items())
    before_it = output.read_bytes()
    for other, said in (
        (("--bits", "3"), "shared was begun with bits {'conv': 4, 'fc': 4}, not {'conv': 3, 'fc': 3}"),
        (("--density", "0.3"), "pruned was begun with density 0.4, not 0.3"),
        (("--weights", str(output)), "pruned was begun with other weights"),
    ):
        assert squeeze(block_weights, output, *more, *other) == 1
        assert f"{said}; choose another --work-dir" in capsys.readouterr().err
    assert output.read_bytes() == before_it
    assert squeeze(block_weights, output, *more, "--set", "binarize={mode: bwn}") == 1
    assert "makes the net binary; that is for --method bwn or xnor" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--output", "a.safetensors"], 2, "--output a.safetensors: expected a file that ends in .packed"),
        (["--density", "0.5", "--quality", "1"], 2, "--density and --quality both say how much to prune"),
        (["--bits", "9"], 2, "--bits 9: expected one number or two, 1 to 8"),
        (["--epochs", "3"], 2, "--epochs goes with --config"),
        (["--config", "a.yaml"], 2, "--epochs is missing"),
        (["--plot", "a.jpg"], 2, "--plot a.jpg: expected a file that ends in .png"),
        (["--density", "1.5"], 1, "density 1.5: expected more than 0, at most 1"),
        (["--skip", "hed"], 1, "this net has no part called 'hed' (nearest: 'head')"),
        (["--config", "detect/thundernet_snet146_bccd.yaml", "--epochs", "1"], 1, "SWIFTSIGHT_DATA"),
        (["--weights", "no.packed"], 1, "no weights file 'no.packed'"),
    ],
)
def test_what_is_refused_in_one_line(block_weights, tmp_path, monkeypatch, capsys, more, code, message) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWIFTSIGHT_DATA", raising=False)
    assert squeeze(block_weights, Path("a.packed"), *more) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_folders_of_report_and_plot_are_made(block_weights, tmp_path) -> None:
    report, plot = tmp_path / "a" / "b" / "report.json", tmp_path / "c" / "plot.png"
    assert squeeze(block_weights, tmp_path / "a.packed", "--report", str(report), "--plot", str(plot)) == 0
    assert report.is_file()
    assert plot.is_file()


@pytest.mark.parametrize("word", ["--output", "--report", "--plot"])
def test_where_nothing_can_be_written_nothing_is_begun(block_weights, tmp_path, monkeypatch, capsys, word) -> None:
    monkeypatch.setattr("compress.Settings.prune_", lambda *_: pytest.fail("the work began"))
    (tmp_path / "notes").write_text("words")
    target = tmp_path / "notes" / ("a.packed" if word == "--output" else "a.png")
    assert squeeze(block_weights, tmp_path / "b.packed", word, str(target)) == 1
    assert capsys.readouterr().err.endswith(f": {tmp_path / 'notes'} is a file; expected a folder\n")


def test_the_help_can_be_read_without_the_paper(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["squeeze", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "bits for the gap between two kept weights, in convolutions and linear layers (8 5)",
        "where k-means begins: equal steps, equal shares, or random (linear)",
        "multiply each output by the mean |input| under its filter",
        "epochs after pruning; with bwn or xnor, of the binary net",
        "--weights person --density 0.6 --bits 8 5 --output person.packed",
    ):
        assert words in said


def test_the_weights_of_another_net_are_refused(block_weights, block_config, tmp_path, capsys) -> None:
    words = ["squeeze", "thundernet_snet146", "--weights", str(block_weights), "--output", str(tmp_path / "a.packed")]
    assert main(words) == 1
    assert "holds weights of thundernet_snet49, not of thundernet_snet146" in capsys.readouterr().err


@pytest.mark.parametrize("stem", [stem for stem in shipped_weights() if stem.endswith("_person")])
def test_the_shipped_detector_finds_nearly_the_same(stem, tmp_path) -> None:
    output = tmp_path / "person.packed"
    assert main(["squeeze", stem, "--output", str(output), "--bits", "8"]) == 0
    name = read_metadata(output)["name"]
    dense, packed = (create_detector(name, weights=path) for path in (shipped_weights()[stem], output))
    images = torch.randint(0, 256, (1, 3, 320, 320), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.inference_mode():
        scores = [net.eval()(images).scores.max() for net in (dense, packed)]
    torch.testing.assert_close(scores[1], scores[0], rtol=0.2, atol=0.02)
    assert output.stat().st_size < 0.25 * 4 * sum(tensor.numel() for tensor in dense.state_dict().values())
