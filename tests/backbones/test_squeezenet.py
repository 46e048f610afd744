"""SqueezeNet: padding, bypass, and a signal that survives without batch norm."""

import pytest
import torch
from torch import nn

from backbones import create_backbone, create_classifier, measure_cost
from backbones.squeezenet import Fire

NAMES = ["squeezenet1_0", "squeezenet1_1"]


def map_sizes(name, size, **options):
    backbone = create_backbone(name, **options).eval()
    with torch.inference_mode():
        return [tuple(feature.shape[-2:]) for feature in backbone(torch.rand(1, 3, *size))]


@pytest.mark.parametrize("name", NAMES)
def test_padded_maps_have_the_size_that_heads_expect(name):
    assert map_sizes(name, (227, 100)) == [(114, 50), (57, 25), (29, 13), (15, 7)]


def test_without_padding_the_maps_are_the_papers():
    # 7x7 without padding on 224: 109; then 3x3 pools of stride 2 that round up: 54, 27, 13 (paper's Table 1: 55, 27, 13
    # from a picture of 227)
    assert map_sizes("squeezenet1_0", (224, 227), padded=False) == [(109, 111), (54, 55), (27, 27), (13, 13)]
    assert map_sizes("squeezenet1_1", (224, 227), padded=False) == [(111, 113), (55, 56), (27, 28), (13, 14)]


@pytest.mark.parametrize("name", NAMES)
def test_simple_bypass_costs_nothing_and_complex_bypass_four_convolutions(name):
    with torch.device("meta"):
        plain, simple, complex_ = (
            measure_cost(create_classifier(name, bypass=bypass), (224, 224)) for bypass in ("none", "simple", "complex")
        )
    assert simple == plain
    assert complex_.parameters > plain.parameters
    kinds = [
        [type(unit.bypass) for stage in create_backbone(name, bypass=bypass).stages[1:] for unit in stage[1:]]
        for bypass in ("none", "simple", "complex")
    ]
    nothing = type(None)
    assert kinds == [[nothing] * 8, [nothing, nn.Identity] * 4, [nn.Conv2d, nn.Identity] * 4]  # fire2 to fire9


@pytest.mark.parametrize(("bypass", "kept"), [("none", 0.0), ("simple", 1.0), ("complex", 1.0)])
def test_a_fire_module_of_zeros_hands_on_what_its_bypass_does(bypass, kept):
    fire = Fire(16, 4, 8, bypass=bypass)
    for values in fire.parameters():
        nn.init.zeros_(values)
    features = torch.randn(1, 16, 5, 6)
    torch.testing.assert_close(fire(features), kept * features)


def test_the_complex_bypass_goes_through_its_convolution():
    fire = Fire(8, 4, 8, bypass="complex")
    for values in fire.parameters():
        nn.init.zeros_(values)
    nn.init.ones_(fire.bypass.weight)
    features = torch.randn(1, 8, 5, 6)
    torch.testing.assert_close(fire(features), features.sum(1, keepdim=True).expand(1, 16, 5, 6))


@pytest.mark.parametrize("name", NAMES)
def test_pictures_still_differ_at_the_end_of_an_untrained_net(name):
    torch.manual_seed(0)
    with torch.inference_mode():
        features = create_backbone(name)(torch.randn(4, 3, 96, 96))
    for feature in features:
        assert 0.1 < feature.std(dim=0).mean() < 5


def test_logits_are_averages_of_rectified_maps():
    net = create_classifier("squeezenet1_1", num_classes=5).eval()
    with torch.inference_mode():
        logits = net(torch.randn(3, 3, 64, 80))
    assert logits.shape == (3, 5)
    assert (logits >= 0).all()
    assert logits.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bypass": "simpel"}, "bypass is 'simpel' (nearest: 'simple'); expected none, simple or complex"),
        ({"bypass": None}, "bypass is None"),
        ({"out_strides": (16, 32)}, "out_strides [16, 32]: this net has [2, 4, 8, 16]"),
        ({"version": "1.0"}, "squeezenet1_1 has no option 'version'"),
    ],
)
def test_what_is_not_there_is_refused(options, words):
    with pytest.raises(ValueError, match=r".+") as caught:
        create_backbone("squeezenet1_1", **options)
    assert str(caught.value).startswith(words)
