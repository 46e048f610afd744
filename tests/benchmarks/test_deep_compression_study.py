"""The study of Deep Compression on digits: its nets, its stages on a handful of pictures, and the damages it makes."""

from pathlib import Path

import pytest
import torch

from compress import unpack

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def lenets(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import lenets

    return lenets


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import deep_compression

    return deep_compression


@pytest.fixture
def digits(lenets):
    """Black pictures with a bright column for each class."""
    labels = torch.arange(256) % 10
    images = torch.zeros(256, 28, 28, dtype=torch.uint8)
    images[torch.arange(256), :, 4 + 2 * labels] = 255
    return lenets.Digits(images, labels, images[:100], labels[:100])


@pytest.mark.parametrize(("name", "parameters"), [("lenet_300_100", 266_610), ("lenet_5", 431_080)])
def test_the_nets_have_the_paper_s_parameters(lenets, name, parameters) -> None:
    assert sum(parameter.numel() for parameter in lenets.NETS[name]().parameters()) == parameters


def test_digits_held_out_of_training_take_the_place_of_the_test(lenets, digits) -> None:
    inner = digits.without_test(56)
    assert (len(inner.train_labels), len(inner.test_labels)) == (200, 56)
    assert torch.equal(inner.test_images, digits.train_images[200:])


def test_digits_are_moved_by_up_to_two_pixels(lenets) -> None:
    picture = torch.zeros(200, 28, 28, dtype=torch.uint8)
    picture[:, 10, 20] = 9
    moved = lenets.moved(picture, torch.Generator().manual_seed(0))
    places = moved.nonzero()[:, 1:] - torch.tensor([10, 20])
    assert places.min(0).values.tolist() == [-2, -2]
    assert places.max(0).values.tolist() == [2, 2]
    assert len(places.unique(dim=0)) == 25


def test_a_net_is_trained_compressed_written_and_scored(lenets, digits, tmp_path) -> None:
    recipe = lenets.Recipe(0.1, {"fc": 4}, {"fc": 5}, epochs=(6, 6, 2), rates=(0.05, 0.05, 1e-4))
    file = tmp_path / "net.packed"
    row = lenets.compress_one("lenet_300_100", digits, recipe, 0, file)
    assert row["bytes"] == file.stat().st_size
    assert row["ratio"] == pytest.approx(4 * 266_610 / row["bytes"])
    assert row["ratio"] > 30
    state = unpack(file.read_bytes()).state
    kept = sum(int((tensor != 0).sum()) for name, tensor in state.items() if name.endswith("weight"))
    assert kept == pytest.approx(0.1 * 266_200, abs=1)
    assert all(len(tensor.unique()) <= 16 for name, tensor in state.items() if name.endswith("weight"))
    assert set(row["errors"]) == {"dense", "pruned", "packed"}
    assert row["errors"]["packed"] <= row["errors"]["dense"] + 20


def test_what_is_done_is_not_done_again(study, tmp_path) -> None:
    calls = []

    def run(key):
        calls.append(key)
        return {"error": 1.5}

    file = tmp_path / "work" / "rows.jsonl"
    assert study.fill(file, [{"seed": 0}], run) == [{"key": {"seed": 0}, "error": 1.5}]
    study.fill(file, [{"seed": 0}, {"seed": 1}], run)
    assert calls == [{"seed": 0}, {"seed": 1}]


def test_damages_are_damages(study) -> None:
    content = bytes(range(256)) * 20
    damaged = list(study.damaged(content, 200, seed=0))
    assert {kind for kind, _ in damaged} == {
        "bytes", "cut out", "cut off", "put in", "doubled", "zeroed", "turned round"
    }  # fmt: skip
    assert sum(changed != content for _, changed in damaged) > 190
