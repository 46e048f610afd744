"""Weights on disk: there and back, and what is refused."""

import pickle
from pathlib import Path

import pytest
import torch

from backbones import (
    create_backbone,
    create_classifier,
    load_weights,
    read_metadata,
    read_state_dict,
    save_classifier,
    save_weights,
)


@pytest.fixture
def saved(tmp_path):
    backbone = create_backbone("snet49")
    save_weights(backbone, tmp_path / "snet49.safetensors", metadata={"name": "snet49"}, half=False)
    return backbone, tmp_path / "snet49.safetensors"


def test_there_and_back_bit_for_bit(saved):
    backbone, path = saved
    other = create_backbone("snet49", weights=path)
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)
    assert read_metadata(path)["name"] == "snet49"


def test_half_precision_halves_the_file_and_comes_back_as_float32(saved, tmp_path):
    backbone, path = saved
    half = tmp_path / "half.safetensors"
    save_weights(backbone, half)
    assert half.stat().st_size < 0.6 * path.stat().st_size
    other = create_backbone("snet49", weights=half)
    for name, value in backbone.state_dict().items():
        assert other.state_dict()[name].dtype == value.dtype
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-3, atol=1e-6)


def test_what_half_precision_cannot_hold_is_stored_whole(saved, tmp_path):
    """A norm's variance is seldom beyond 65,504, and then a training must not end."""
    backbone, _ = saved
    variance = next(name for name in backbone.state_dict() if name.endswith("running_var"))
    backbone.state_dict()[variance][0] = 1e6
    save_weights(backbone, tmp_path / "half.safetensors")
    loaded = create_backbone("snet49", weights=tmp_path / "half.safetensors").state_dict()
    torch.testing.assert_close(loaded[variance], backbone.state_dict()[variance], rtol=0, atol=0)
    assert loaded[variance].dtype == torch.float32


@pytest.mark.parametrize("half", [True, False])
def test_numbers_that_are_not_finite_are_refused_and_the_old_file_survives(saved, half):
    backbone, path = saved
    before = path.read_bytes()
    with torch.no_grad():
        next(backbone.parameters())[0] = torch.nan
    with pytest.raises(ValueError, match=r"stages\.0\.0\.weight .*not finite"):
        save_weights(backbone, path, half=half)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    backbone, path = saved
    before = path.read_bytes()

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(backbone, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_backbone_of_a_classifiers_file(tmp_path):
    classifier = create_classifier("shufflenet_v2_x0_5", num_classes=3)
    save_weights(classifier, tmp_path / "classifier.safetensors", half=False)
    backbone = create_backbone("shufflenet_v2_x0_5", weights=tmp_path / "classifier.safetensors")
    weight = "stages.2.0.branch.0.0.weight"
    torch.testing.assert_close(backbone.state_dict()[weight], classifier.backbone.state_dict()[weight])


def test_a_file_of_other_options_says_them(tmp_path):
    path = tmp_path / "small.safetensors"
    classifier = create_classifier("snet49", num_classes=3, kernel_size=3)
    save_classifier(classifier, path, half=False)
    with pytest.raises(
        ValueError, match=r'does not fit snet49: .*; what is in the file was made with {"kernel_size": 3}'
    ):
        create_backbone("snet49", weights=path)
    again, expected = create_backbone("snet49", weights=path, kernel_size=3), classifier.backbone
    torch.testing.assert_close(dict(again.state_dict()), dict(expected.state_dict()), rtol=0, atol=0)


def test_a_plain_torch_file_and_what_was_not_used(tmp_path):
    backbone = create_backbone("snet49")
    torch.save({**backbone.state_dict(), "extra": torch.zeros(1)}, tmp_path / "plain.pth")
    report = load_weights(create_backbone("snet49"), tmp_path / "plain.pth")
    assert report.unused == ("extra",)
    assert report.loaded == len(backbone.state_dict())


class Dangerous:
    """Unpickling this would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path, protocol):
    trap = tmp_path / "was_run"
    bad = tmp_path / "bad.pth"
    if protocol == "torch":
        torch.save({"weight": Dangerous(trap)}, bad)
    else:
        bad.write_bytes(pickle.dumps(Dangerous(trap)))
    with pytest.raises(ValueError, match="not run") as caught:
        read_state_dict(bad)
    assert "\n" not in str(caught.value)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"abc", b"no weights at all", b"PK\x03\x04 half a zip", pickle.dumps({})])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_no_weights_file(tmp_path, content, suffix):
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"odd\{suffix}") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


def test_a_text_file(tmp_path):
    (tmp_path / "odd.pth").write_text("hello\nworld")  # as a pickle it fetches what was never stored
    with pytest.raises(ValueError, match=r"odd\.pth holds more than tensors and numbers, or is no weights file"):
        read_state_dict(tmp_path / "odd.pth")


@pytest.mark.parametrize("content", [{1: torch.zeros(2)}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(2)])
def test_a_torch_file_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "else.pth")
    with pytest.raises(ValueError, match=r"else\.pth is a torch file, but not a dictionary of tensors"):
        create_backbone("snet49", weights=tmp_path / "else.pth")


def test_a_file_of_no_tensors_at_all(tmp_path):
    torch.save({}, tmp_path / "nothing.pth")
    with pytest.raises(ValueError, match=r"nothing\.pth does not fit snet49: it lacks \d+ of \d+ tensors"):
        create_backbone("snet49", weights=tmp_path / "nothing.pth")


def test_a_truncated_file(saved):
    _, path = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged safetensors"):
        create_backbone("snet49", weights=path)


def test_weights_of_another_net_change_nothing(saved):
    _, path = saved
    other = create_backbone("snet146")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"does not fit SNet: .* has shape"):
        load_weights(other, path)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        create_backbone("snet49", weights=tmp_path / "none.safetensors")


def test_the_normalisation_goes_along_with_a_backbone(tmp_path):
    backbone = create_backbone("snet49")
    backbone.input_mean, backbone.input_std = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
    save_weights(backbone, tmp_path / "bytes.safetensors")
    other = create_backbone("snet49", weights=tmp_path / "bytes.safetensors")
    assert (other.input_mean, other.input_std) == (backbone.input_mean, backbone.input_std)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, None])
def test_numbers_that_are_none_are_refused(tmp_path, value):
    state = create_backbone("snet49").state_dict()
    name = "stages.0.0.weight"
    state[name] = torch.zeros_like(state[name], dtype=torch.int8) if value is None else state[name] * value
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth: stages\.0\.0\.weight .* finite numbers"):
        create_backbone("snet49", weights=tmp_path / "odd.pth")
