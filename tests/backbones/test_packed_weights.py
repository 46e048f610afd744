"""Packed files are weights files: loaded by name and path like any other, and refused in one line."""

from pathlib import Path

import pytest
import torch

from backbones import create_backbone, create_classifier, load_weights, read_metadata, read_state_dict
from compress import Settings, deep_compress_

NAME = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    torch.manual_seed(0)
    net = create_classifier(NAME, num_classes=3)
    words = {"name": NAME, "class_names": '["a", "b", "c"]', "input_size": "[96, 64]"}
    path = tmp_path_factory.mktemp("packed") / "net.packed"
    path.write_bytes(deep_compress_(net, Settings(density=0.5), words).content)
    return net, path


def test_a_net_is_created_from_a_packed_file_to_the_last_bit(packed) -> None:
    net, path = packed
    read = create_classifier(NAME, weights=path)
    assert (read.class_names, read.input_size) == (("a", "b", "c"), (96, 64))
    for name, tensor in net.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor)
    assert read_metadata(path)["name"] == NAME
    assert read_state_dict(path).keys() == net.state_dict().keys()


def test_the_name_of_the_file_does_not_matter_and_a_backbone_takes_its_part(packed, tmp_path) -> None:
    net, path = packed
    other = tmp_path / "net.weights"
    other.write_bytes(path.read_bytes())
    backbone = create_backbone(NAME, weights=other)
    first = next(iter(backbone.state_dict()))
    assert torch.equal(backbone.state_dict()[first], net.backbone.state_dict()[first])


def test_a_file_of_another_net_is_refused_and_nothing_is_loaded(packed) -> None:
    _, path = packed
    with pytest.raises(ValueError, match=f"holds weights of {NAME}, not of snet49"):
        create_classifier("snet49", weights=path)
    other = create_backbone("snet49")
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"net.packed (holds .* weights, not snet49's|does not fit snet49)"):
        load_weights(other, path, name="snet49")
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:100], "is damaged or cut off: 100 of"),
        (lambda content: content[:50] + b"?" + content[51:], "is damaged: its checksum differs"),
        (lambda content: b"?" + content[1:], "this is no packed file"),
        (lambda content: b"", "this is no packed file"),
    ],
)
def test_a_damaged_file_is_refused_by_its_name(packed, tmp_path, damage, message) -> None:
    path = tmp_path / "broken.packed"
    path.write_bytes(damage(packed[1].read_bytes()))
    for read in (read_metadata, read_state_dict, lambda path: create_classifier(NAME, weights=path)):
        with pytest.raises(ValueError, match=f"broken.packed: .*{message}") as raised:
            read(path)
        assert "\n" not in str(raised.value)
