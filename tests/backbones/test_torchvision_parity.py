"""The same numbers as torchvision's nets, by their own state dict files; what is said of tensors without a place."""

import logging
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from backbones import create_backbone, create_classifier

THEIRS = {
    "mobilenet_v2_x0_35": partial(models.mobilenet_v2, width_mult=0.35),
    "mobilenet_v2_x0_5": partial(models.mobilenet_v2, width_mult=0.5),
    "mobilenet_v2_x0_75": partial(models.mobilenet_v2, width_mult=0.75),
    "mobilenet_v2": models.mobilenet_v2,
    "mobilenet_v2_x1_4": partial(models.mobilenet_v2, width_mult=1.4),
    "shufflenet_v2_x0_5": models.shufflenet_v2_x0_5,
    "shufflenet_v2_x1_0": models.shufflenet_v2_x1_0,
    "shufflenet_v2_x1_5": models.shufflenet_v2_x1_5,
    "shufflenet_v2_x2_0": models.shufflenet_v2_x2_0,
    "squeezenet1_0": models.squeezenet1_0,
    "squeezenet1_1": models.squeezenet1_1,
    "resnet18": models.resnet18,
    "resnet50": models.resnet50,
    "resnet101": models.resnet101,
}


LAST_OF_MOBILENET = [f"features.18.{name}" for name in ("0.weight", "1.weight", "1.bias", "1.running_mean")]


def random_net(name: str) -> nn.Module:
    """torchvision's, with scales, shifts and statistics as after training: a swap of any two tensors shows.

    The statistics are those of a random batch; with made-up ones the signal dies long before the last layer.
    """
    torch.manual_seed(0)
    net = THEIRS[name](weights=None)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.6, 1.2)
            module.bias.data.normal_(std=0.2)
            module.momentum = 1.0
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:  # SqueezeNet's
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.1)
    with torch.inference_mode():
        net.train()(torch.randn(8, 3, 64, 64))
    return net.eval()


def dropouts(net: nn.Module) -> list[float]:
    return [module.p for module in net.modules() if isinstance(module, nn.Dropout)]


def state_of_zeros(name: str) -> dict[str, torch.Tensor]:
    """A state dict in torchvision's names and shapes that is no longer on the disk than its names."""
    with torch.device("meta"):
        state = (THEIRS.get(name) or models.get_model_builder(name))().state_dict()
    return {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}


@pytest.fixture
def published(tmp_path):
    """By our name: torchvision's net and the file of its state dict."""
    files = []

    def make(name: str):
        net = random_net(name)
        files.append(tmp_path / f"{name}-0123abcd.pth")
        torch.save(net.state_dict(), files[-1])
        return net, files[-1]

    yield make
    for file in files:  # up to 170 MB
        file.unlink()


@pytest.mark.parametrize("name", THEIRS)
def test_same_logits_and_features_from_their_file(name, published, caplog):
    theirs, file = published(name)
    pictures = torch.randn(2, 3, 75, 101)  # odd, so that paddings and rounding show
    classifier = create_classifier(name, weights=file).eval()
    assert caplog.records == []  # all of it was used
    with torch.inference_mode():
        expected = theirs(pictures)
        assert expected.std(dim=0).mean() > 0.02  # the pictures show through
        torch.testing.assert_close(classifier(pictures), expected, rtol=1e-5, atol=1e-5)
    assert dropouts(classifier) == dropouts(theirs)
    backbone = create_backbone(name, weights=file)
    assert len(caplog.records) == 1
    torch.testing.assert_close(backbone.state_dict(), classifier.backbone.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18", "2 of 122 tensors were not used: fc.weight, fc.bias"),
        ("squeezenet1_1", "2 of 52 tensors were not used: classifier.1.weight, classifier.1.bias"),
        (
            "mobilenet_v2_x0_35",  # a convolution, a norm of five tensors and a linear layer
            f"8 of 314 tensors were not used: {', '.join(LAST_OF_MOBILENET)} and 4 more",
        ),
    ],
)
def test_a_backbone_says_in_one_line_what_it_did_not_use(name, words, published, caplog):
    _, file = published(name)
    create_backbone(name, weights=file)
    assert caplog.record_tuples == [("backbones", logging.WARNING, f"{file}: {words}")]


def test_a_safetensors_copy_and_old_files_of_data_parallel_are_the_same(published, tmp_path):
    theirs, file = published("mobilenet_v2_x0_35")
    state = theirs.state_dict()
    save_file(state, tmp_path / "copy.safetensors")  # which keeps the names in another order
    old = {f"module.{name}": value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save({"state_dict": old, "epoch": 90}, tmp_path / "old.pth")
    expected = dict(create_classifier("mobilenet_v2_x0_35", weights=file).named_parameters())
    for copy in ("copy.safetensors", "old.pth"):
        net = create_classifier("mobilenet_v2_x0_35", weights=tmp_path / copy)
        torch.testing.assert_close(dict(net.named_parameters()), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("mobilenet_v2_x0_35", "resnet18"),
        ("squeezenet1_0", "squeezenet1_1"),
        ("resnet101", "resnet50"),  # which is a part of it
        ("shufflenet_v2_x1_0", "snet146"),
    ],
)
@pytest.mark.parametrize("create", [create_backbone, create_classifier])
def test_a_file_of_another_net_is_refused_by_its_name(theirs, ours, create, tmp_path):
    torch.save(state_of_zeros(theirs), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r".+") as caught:
        create(ours, weights=tmp_path / "other.pth")
    assert str(caught.value) == f"{tmp_path / 'other.pth'} holds {theirs}'s weights (torchvision), not {ours}'s"


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [  # a part of resnet34 is resnet18
        ("resnet34", "resnet18", " (torchvision) does not fit resnet18: it holds layer1.2.conv1.weight, which has no"),
        (
            "mobilenet_v3_small",
            "mobilenet_v2",
            " does not fit mobilenet_v2: it lacks 255 of 306 tensors, first stages.",
        ),
    ],
)
def test_a_net_that_we_do_not_have_is_refused(theirs, ours, words, tmp_path):
    torch.save(state_of_zeros(theirs), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r".+") as caught:
        create_backbone(ours, weights=tmp_path / "other.pth")
    assert str(caught.value).startswith(f"{tmp_path / 'other.pth'}{words}")


def test_another_number_of_classes_is_refused_and_the_backbone_alone_is_taken(published):
    theirs, file = published("squeezenet1_1")
    words = (
        r"does not fit squeezenet1_1: classifier\.1\.weight has shape \(1000, 512, 1, 1\), expected \(7, 512, 1, 1\)"
    )
    with pytest.raises(ValueError, match=words):
        create_classifier("squeezenet1_1", num_classes=7, weights=file)
    net = create_classifier("squeezenet1_1", num_classes=7, backbone_weights=file)
    torch.testing.assert_close(net.backbone.stages[0][0].weight, theirs.features[0].weight)
