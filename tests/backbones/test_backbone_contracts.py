"""What every backbone promises, held over all registered names; and the published counts, to the digit."""

import math

import pytest
import torch

from backbones import create_backbone, create_classifier, list_backbones, measure_cost

SMALL = ["snet49", "shufflenet_v2_x0_5"]

# ThunderNet's Table 1 as measured with halves in the stride-2 unit; torchvision's published ShuffleNetV2 counts.
FEATURE_PARAMETERS = {"snet49": 362_548, "snet146": 1_043_748, "snet535": 3_542_144}
CLASSIFIER_COUNTS = {  # name: (parameters with 1000 classes, million multiply-adds at 224)
    "snet49": (875_548, 51.21),
    "snet146": (1_572_748, 161.14),
    "snet535": (4_535_144, 535.35),
    "shufflenet_v2_x0_5": (1_366_792, 40.48),
    "shufflenet_v2_x1_0": (2_278_604, 144.91),
    "shufflenet_v2_x1_5": (3_503_624, 295.76),
    "shufflenet_v2_x2_0": (7_393_996, 583.25),
}


def test_every_registered_backbone_is_in_the_table():
    assert set(list_backbones()) == set(CLASSIFIER_COUNTS)


@pytest.mark.parametrize("name", list_backbones())
@pytest.mark.parametrize("size", [(64, 96), (75, 51)])
def test_maps_are_as_advertised(name, size):
    backbone = create_backbone(name).eval()
    assert [info.stride for info in backbone.feature_info] == [2, 4, 8, 16, 32]
    with torch.inference_mode():
        features = backbone(torch.rand(2, 3, *size))
    for feature, (stride, channels) in zip(features, backbone.feature_info, strict=True):
        assert feature.shape == (2, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))


@pytest.mark.parametrize("name", list_backbones())
def test_every_parameter_gets_a_gradient(name):
    backbone = create_backbone(name)
    sum(feature.square().sum() for feature in backbone(torch.rand(2, 3, 64, 64))).backward()
    assert [key for key, value in backbone.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("name", list_backbones())
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


@pytest.mark.parametrize(("name", "counts"), CLASSIFIER_COUNTS.items())
def test_classifier_parameters_and_multiply_adds(name, counts):
    cost = measure_cost(create_classifier(name), (224, 224))
    assert cost.parameters == counts[0]
    assert cost.multiply_adds == pytest.approx(counts[1] * 1e6, rel=0.005)
    assert cost.bytes == 4 * counts[0]


def test_deeper_stages_are_dropped_and_strides_chosen():
    backbone = create_backbone("snet49", out_strides=(16, 8))
    assert [tuple(info) for info in backbone.feature_info] == [(8, 60), (16, 120)]
    assert len(backbone.stages) == 4
    assert [tuple(info) for info in create_backbone("snet49", out_strides=[32]).feature_info] == [(32, 512)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: create_backbone("snet94"), ["snet94", "nearest: 'snet49'"]),
        (lambda: create_backbone("snet49", out_strides=(16, 64)), ["64", "[2, 4, 8, 16, 32]"]),
        (lambda: create_backbone("snet49", out_stride=(16,)), ["out_stride", "out_strides"]),
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
