"""What every backbone promises, held over all registered names; and the published counts, to the digit."""

import math

import pytest
import torch
from torch import nn

from backbones import CATALOGUE, create_backbone, create_classifier, list_backbones, measure_cost, reach_strides
from backbones.layers import conv_norm_act, hold_stride_

NAMES = list_backbones()
SMALL = ["snet49", "shufflenet_v2_x0_5"]
STRIDES = [2, 4, 8, 16, 32]

# Without a classifier: ThunderNet's Table 1 as measured with halves in the stride-2 unit.
FEATURE_PARAMETERS = {"snet49": 362_548, "snet146": 1_043_748, "snet535": 3_542_144}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 96), (75, 51)])
def test_maps_are_as_advertised(name, size):
    backbone = create_backbone(name).eval()
    strides = [info.stride for info in backbone.feature_info]
    assert len(strides) >= 4
    assert strides == STRIDES[: len(strides)]
    with torch.inference_mode():
        features = backbone(torch.rand(2, 3, *size))
    for feature, (stride, channels) in zip(features, backbone.feature_info, strict=True):
        assert feature.shape == (2, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    backbone = create_backbone(name)
    sum(feature.square().sum() for feature in backbone(torch.rand(2, 3, 64, 64))).backward()
    assert [key for key, value in backbone.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_does_not_depend_on_its_batch_mates(name):
    backbone = create_backbone(name).eval()
    pictures = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        together, alone = backbone(pictures), backbone(pictures[1:2])
    for many, one in zip(together, alone, strict=True):
        torch.testing.assert_close(many[1:2], one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FEATURE_PARAMETERS)
def test_feature_parameters_to_the_digit(name):
    assert measure_cost(create_backbone(name), (64, 64)).parameters == FEATURE_PARAMETERS[name]


@pytest.mark.parametrize("row", CATALOGUE.values(), ids=CATALOGUE)
def test_the_catalogues_counts_are_the_nets(row):
    with torch.device("meta"):
        cost = measure_cost(create_classifier(row.name), (224, 224))
    assert cost.parameters == row.parameters
    assert cost.multiply_adds == pytest.approx(row.multiply_adds * 1e6, rel=0.0005)
    assert cost.bytes == 4 * row.parameters


def test_deeper_stages_are_dropped_and_strides_chosen():
    backbone = create_backbone("snet49", out_strides=(16, 8))
    assert [tuple(info) for info in backbone.feature_info] == [(8, 60), (16, 120)]
    assert len(backbone.stages) == 4
    assert [tuple(info) for info in create_backbone("snet49", out_strides=[32]).feature_info] == [(32, 512)]


@pytest.mark.parametrize("name", NAMES)
def test_any_backbone_reaches_strides_16_and_32(name):
    backbone = reach_strides(name, (16, 32)).eval()
    with torch.inference_mode():
        features = backbone(torch.rand(1, 3, 80, 112))
    assert [info.stride for info in backbone.feature_info] == [16, 32]
    for feature, (stride, channels) in zip(features, backbone.feature_info, strict=True):
        assert feature.shape == (1, channels, math.ceil(80 / stride), math.ceil(112 / stride))
    assert (backbone.extra_stage is None) == (create_backbone(name).feature_info[-1].stride == 32)


def test_a_built_backbone_that_ends_at_16_gets_one_named_stage():
    backbone = reach_strides(create_backbone("snet49", out_strides=(16,)), (16, 32))
    assert [tuple(info) for info in backbone.feature_info] == [(16, 120), (32, 120)]
    names = {name.split(".")[0] for name in backbone.state_dict()}
    assert names == {"stages", "extra_stage"}


@pytest.mark.parametrize("name", NAMES)
def test_any_backbones_last_map_can_be_as_large_as_the_one_before(name):
    with torch.device("meta"):
        backbone = reach_strides(name, (16, 32)).eval()
        weights = {key: value.shape for key, value in backbone.state_dict().items()}
        channels = [info.channels for info in backbone.feature_info]
        backbone.hold_last_stride(dilation=2)
        features = backbone(torch.zeros(1, 3, 80, 112))
    assert [tuple(info) for info in backbone.feature_info] == [(16, channels[0]), (16, channels[1])]
    assert [feature.shape for feature in features] == [(1, count, 5, 7) for count in channels]
    assert {key: value.shape for key, value in backbone.state_dict().items()} == weights


@pytest.mark.parametrize("name", ["xception_a", "xception_b"])
def test_a_shortcut_that_picks_its_pixels_is_held_too(name):
    backbone = create_backbone(name, out_strides=(8, 16)).eval()
    backbone.hold_last_stride(dilation=2)
    first, second = backbone(torch.zeros(1, 3, 48, 64))
    assert first.shape[-2:] == second.shape[-2:] == (6, 8)


def test_a_stage_that_cannot_be_held_stays_as_it_was():
    stage = nn.Sequential(nn.Conv2d(2, 2, 3, 2), nn.ConvTranspose2d(2, 2, 2, 2))
    with pytest.raises(ValueError, match="ConvTranspose2d"):
        hold_stride_(stage)
    assert stage[0].stride == (2, 2)


def test_a_held_convolution_gives_what_it_gave_and_the_places_between():
    stage = conv_norm_act(3, 4, 3, stride=2).eval()
    features = torch.randn(1, 3, 9, 11)
    before = stage(features)
    hold_stride_(stage)
    torch.testing.assert_close(stage(features)[..., ::2, ::2], before)
    hold_stride_(stage, dilation=2)
    assert (stage[0].dilation, stage[0].padding) == ((2, 2), (2, 2))
    assert stage(features).shape == (1, 4, 9, 11)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: create_backbone("snet49", out_strides=(16,)).hold_last_stride(), ["SNet gives one map"]),
        (lambda: hold_stride_(nn.Sequential(nn.ConvTranspose2d(2, 2, 2, 2))), ["ConvTranspose2d", "cannot keep"]),
        (lambda: create_backbone("snet94"), ["snet94", "nearest: 'snet49'"]),
        (lambda: create_backbone("snet49", out_strides=(16, 64)), ["64", "[2, 4, 8, 16, 32]"]),
        (lambda: create_backbone("snet49", out_stride=(16,)), ["out_stride", "out_strides"]),
        (lambda: create_backbone("snet49", size=146), ["snet49 has no option 'size'"]),
        (lambda: reach_strides(create_backbone("snet49", out_strides=(8,)), (16, 32)), ["[16, 32]", "SNet", "[8]"]),
        (lambda: reach_strides("snet49", (16, 64)), ["[16, 64]", "snet49", "[16]"]),
    ],
)
def test_a_wrong_word_is_refused_with_the_nearest(call, words):
    with pytest.raises(ValueError, match=r".+") as caught:
        call()
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SMALL)
def test_classifier_gives_logits_of_any_size(name):
    classifier = create_classifier(name, num_classes=7).eval()
    with torch.inference_mode():
        assert classifier(torch.rand(2, 3, 50, 70)).shape == (2, 7)
