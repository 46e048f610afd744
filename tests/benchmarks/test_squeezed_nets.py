"""The picture of the squeezed nets: what is compared, what shares a graph, the table and the plot."""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones import read_state_dict
from detect import create_detector, save_detector
from pictures.images import read_image

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ROWS = [
    {"name": "float32", "kind": "dense", "bytes": 4096, "figure": 0.25},
    {"name": "small", "kind": "given", "bytes": 512, "figure": 0.24},
]
RESULT = {"net": "a_net", "what": "AP", "pictures": None, "threads": 2, "rows": ROWS,
          "times": {"float32": {"torch": 30.04, "openvino": 15.0}, "small": {"torch": 50.0, "bits": 35.0}}}  # fmt: skip


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import squeezed_nets

    return squeezed_nets


def test_the_table_and_the_plot(script, tmp_path) -> None:
    title, _, _, dense, small = script.table(RESULT).splitlines()
    assert title == "a_net, all pictures of val, 2 threads"
    assert dense.split() == ["float32", "4,096", "1.0", "0.2500", "+0.00", "30.0", "15.0"]
    assert small.split() == ["small", "512", "8.0", "0.2400", "-1.00", "50.0", "35.0"]
    script.draw(RESULT, tmp_path / "a_net")
    assert read_image(tmp_path / "a_net.png").std() > 10
    assert "small" in (tmp_path / "a_net.svg").read_text()  # in a comment beside its outlines


def test_only_nets_of_the_same_layers_share_a_graph(script) -> None:
    nets = [create_detector("thundernet_snet49", num_classes=1, fc_channels=width) for width in (32, 32, 16)]
    words = [script.architecture(net) for net in nets]
    assert words[0] == words[1] != words[2]
    nets[1].binarize_("bwn")
    assert script.architecture(nets[1]) == words[0]  # in use they are ordinary layers
    nets[0].binarize_("xnor")
    assert script.architecture(nets[0]) != words[0]


def test_medians_of_answers_in_turns(script, monkeypatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock) / 1000)
    seen = []
    ways = {"a": {"torch": lambda _: seen.append("a")}, "b": {"torch": lambda _: seen.append("b")}}
    assert script.race(ways, np.zeros((2, 2, 3), np.uint8), 3) == {
        "a": {"torch": pytest.approx(1)}, "b": {"torch": pytest.approx(1)}}  # fmt: skip
    assert seen == ["a", "b"] * 5


def test_files_go_with_the_nets_of_their_task(script, tmp_path) -> None:
    file = tmp_path / "other.safetensors"
    net = create_detector("thundernet_snet49", num_classes=1, fc_channels=32)
    save_detector(net, file)
    assert script.task_of(file) == script.DETECTOR
    found = {net: [one.name for one in script.variants(net, tmp_path, [("mine", file)])] for net in script.SCORED}
    assert found[script.DETECTOR][-1] == "mine"
    assert found[script.SEGMENTER][-1] == "int8"
    assert type(script.create(script.DETECTOR, file)) is type(net)
    with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=FILE"):
        script.parse_file("mine=no.safetensors")


def test_a_pruned_file_keeps_its_part_and_what_is_done_is_not_done_again(script, tmp_path, monkeypatch) -> None:
    file = script._pruned(script.DETECTOR, tmp_path, 0.5)
    weights = [value for name, value in read_state_dict(file).items() if name.endswith("weight") and value.dim() > 1]
    zeros = sum(int((value == 0).sum()) for value in weights)
    assert zeros / sum(map(torch.numel, weights)) == pytest.approx(0.5, abs=0.01)
    monkeypatch.setattr(script, "data_folder", lambda: tmp_path)
    calls = []
    scored = script.SCORED[script.DETECTOR]._replace(score=lambda *given: calls.append(given) or 0.5)
    monkeypatch.setitem(script.SCORED, script.DETECTOR, scored)
    variant = script.Variant("pruned", "pruned", lambda: file)
    rows = [script.score(script.DETECTOR, variant, tmp_path, None) for _ in range(2)]
    assert rows[0] == rows[1]
    assert len(calls) == 1
    assert rows[0]["bytes"] == file.stat().st_size
    assert json.loads((tmp_path / "scores.jsonl").read_text())["figure"] == 0.5
