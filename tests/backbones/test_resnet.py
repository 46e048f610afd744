"""ResNet: the backbone's own counts, its dilated last stage against torchvision's, other convolutions in its units."""

import itertools
import math

import pytest
import torch
from torch import nn
from torchvision import models

from backbones import create_backbone, measure_cost
from backbones.layers.factorized import CONVOLUTIONS
from backbones.resnet import ResNet


def strides(backbone):
    return [info.stride for info in backbone.feature_info]


def test_resnet18_as_bisenet_counts_it():
    cost = measure_cost(create_backbone("resnet18"), (360, 640))
    assert (cost.parameters, cost.multiply_adds) == (11_176_512, 8_495_349_760)


def test_dilated_last_stage_gives_torchvisions_numbers(tmp_path):
    name = "resnet50"
    torch.manual_seed(0)
    theirs = models.get_model(name, replace_stride_with_dilation=[False, False, True]).eval()
    theirs.layer4[0].conv2.dilation = theirs.layer4[0].conv2.padding = (2, 2)  # theirs starts to dilate one unit later
    torch.save(theirs.state_dict(), tmp_path / "published.pth")
    ours = create_backbone(name, weights=tmp_path / "published.pth", dilate_last=True).eval()
    (tmp_path / "published.pth").unlink()
    assert strides(ours) == [2, 4, 8, 16]
    assert [unit.branch[1][0].dilation for unit in ours.stages[-1]] == [(2, 2)] * 3
    maps = {}
    for layer in (theirs.layer1, theirs.layer2, theirs.layer4):
        layer.register_forward_hook(lambda layer, _inputs, output: maps.__setitem__(layer, output))
    pictures = torch.randn(1, 3, 72, 100)
    with torch.inference_mode():
        theirs(pictures)
        features = ours(pictures)
    assert features[-1].shape == (1, 2048, 5, 7)
    for feature, expected in zip(features[1:], maps.values(), strict=True):
        torch.testing.assert_close(feature, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_dilated_resnet18_has_the_parameters_of_the_plain_one():
    plain, dilated = create_backbone("resnet18"), create_backbone("resnet18", dilate_last=True)
    assert strides(dilated) == [2, 4, 8, 16]
    assert {name: value.shape for name, value in dilated.state_dict().items()} == {
        name: value.shape for name, value in plain.state_dict().items()
    }
    kernels = [layer.dilation for layer in dilated.stages[-1].modules() if isinstance(layer, nn.Conv2d)]
    assert kernels.count((2, 2)) == 4


@pytest.mark.parametrize("conv", CONVOLUTIONS)
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_any_convolution_drops_in(name, conv):
    backbone = create_backbone(name, conv=conv).eval()
    with torch.inference_mode():
        features = backbone(torch.randn(1, 3, 75, 101))
    for feature, (stride, channels) in zip(features, backbone.feature_info, strict=True):
        assert feature.shape == (1, channels, math.ceil(75 / stride), math.ceil(101 / stride))
    left = {
        tuple(layer.kernel_size) for layer in backbone.modules() if isinstance(layer, nn.Conv2d) and layer.groups == 1
    }
    assert ((3, 3) in left) == (conv == "standard")  # none of the full 3x3s is left


def test_a_factory_of_ones_own_drops_in():
    made = []

    def pointwise(in_channels, out_channels, stride):
        made.append((in_channels, out_channels, stride))
        return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    backbone = create_backbone("resnet18", conv=pointwise)
    widths = [64, 64, 128, 256, 512]
    expected = []
    for before, width in itertools.pairwise(widths):
        expected += [(before, width, 1 if width == 64 else 2)] + [(width, width, 1)] * 3
    assert made == expected
    assert backbone(torch.randn(2, 3, 64, 64))[-1].shape == (2, 512, 2, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"conv": None}, "conv is None; expected one of standard, "),
        ({"conv": "depthwise"}, "conv is 'depthwise' (nearest: 'depthwise_separable'); expected one of standard, "),
        (
            {"conv": "sic", "dilate_last": True},
            "dilate_last needs conv 'standard', which can be dilated; conv is 'sic'",
        ),
        ({"dilate_last": True, "out_strides": (16, 32)}, "out_strides [16, 32]: this net has [2, 4, 8, 16]"),
        ({"dilated": True}, "resnet18 has no option 'dilated' (nearest: 'dilate_last')"),
    ],
)
def test_what_is_not_there_is_refused(options, words):
    with pytest.raises(ValueError, match=r".+") as caught:
        create_backbone("resnet18", **options)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [34, "18"])
def test_a_depth_that_is_not_published_is_refused(depth):
    with pytest.raises(ValueError, match=rf"^depth is {depth!r}; ResNet comes with 18, 50, 101$"):
        ResNet(depth)
    with pytest.raises(ValueError, match="no backbone is called 'resnet34'"):
        create_backbone("resnet34")
