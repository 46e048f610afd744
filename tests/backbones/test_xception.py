"""The Xception-like nets: counts of the published builds, and the fc attention."""

import pytest
import torch
from torch import nn

from backbones import create_backbone, create_classifier, measure_cost, save_classifier
from backbones.shufflenet_v1 import ShuffleNetV1
from backbones.xception import FullyConnectedAttention, XceptionAB, XceptionBlock, pointwise


def test_xception39_without_a_classifier():
    backbone = create_backbone("xception39")
    assert measure_cost(backbone, (360, 640))[:2] == (299_448, 185_928_960)
    assert measure_cost(backbone, (224, 224)).multiply_adds == 39_475_968


# DFANet's Table 3, x1: backbone with fc attention and a 1x1 convolution to 19 classes, which these counts include.
@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"), [("xception_a", 550_059, 1.673e9), ("xception_b", 336_939, 0.855e9)]
)
def test_xception_a_and_b_with_attention(name, parameters, multiply_adds):
    with torch.device("meta"):
        backbone = create_backbone(name, out_strides=(16,))
        net = nn.Sequential(*backbone.stages, nn.Conv2d(backbone.feature_info[-1].channels, 19, 1))
        cost = measure_cost(net, (1024, 1024))
    assert cost.parameters == parameters
    assert cost.multiply_adds == pytest.approx(multiply_adds, rel=0.005)


def test_xception145_is_shufflenet_v1_with_one_group():
    theirs, ours = ShuffleNetV1(groups=1).eval(), create_backbone("xception145").eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(1, 3, 40, 56)
    with torch.inference_mode():
        for one, other in zip(theirs(images), ours(images), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_block_by_hand():
    """Three pairs of depthwise and 1x1 with nothing between; ReLU after all but the last, and after the sum."""
    block = XceptionBlock(8, 8).eval()
    features = torch.randn(2, 8, 5, 7)
    with torch.inference_mode():
        made = features
        weights = [layer.weight for layer in block.modules() if isinstance(layer, torch.nn.Conv2d)]
        for number, (depthwise, pointwise) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
            made = torch.conv2d(torch.conv2d(made, depthwise, padding=1, groups=len(depthwise)), pointwise)
            made = made.relu() if number < 2 else made
        # The norms divide by sqrt(1 + eps).
        torch.testing.assert_close(block(features), (features + made).relu(), rtol=1e-4, atol=1e-4)


def test_a_block_is_its_shortcut_where_nothing_is_worked_out():
    block = XceptionBlock(8, 16, 2, projection=pointwise).eval()
    nn.init.zeros_(block.residual[2][2].weight)
    features = torch.rand(1, 8, 7, 9)
    with torch.inference_mode():
        torch.testing.assert_close(block(features), block.shortcut(features).relu())


@pytest.mark.parametrize("bounded", [True, False])
def test_the_attention_by_hand(bounded):
    """The average goes through both layers and is multiplied on; the norm only adds 1 as it starts."""
    attention = FullyConnectedAttention(4, bounded=bounded).eval()
    features = torch.rand(2, 4, 3, 5)
    with torch.inference_mode():
        weigh = attention.weigh[0].weight[:, :, 0, 0] / (1 + attention.weigh[1].eps) ** 0.5
        classes = features.flatten(2).mean(2) @ attention.fc.weight.T + attention.fc.bias
        factors = classes @ weigh.T + 1
        expected = features * (factors.sigmoid() if bounded else factors)[:, :, None, None]
        torch.testing.assert_close(attention(features), expected)


def test_the_attention_is_the_last_stage_and_no_part_of_the_classifier():
    with_it, without = create_backbone("xception_b"), create_backbone("xception_b", attention=False)
    assert with_it.feature_info == without.feature_info
    added = {name.split(".")[1] for name in set(with_it.state_dict()) - set(without.state_dict())}
    assert added == {str(len(without.stages))}
    classifier = create_classifier("xception_b")
    assert set(classifier.backbone.state_dict()) == set(without.state_dict())
    linear = next(layer for layer in classifier.head.modules() if isinstance(layer, nn.Linear))
    assert linear.weight.shape == with_it.stages[-1].fc.weight.shape


def test_another_variant_is_refused():
    with pytest.raises(ValueError, match="variant is 'c'; it is one of a, b"):
        XceptionAB("c")
    with pytest.raises(ValueError, match="nearest: 'xception39'"):
        create_backbone("xception93")


@pytest.mark.parametrize("num_classes", [1000, 7])
def test_what_was_pre_trained_without_attention_starts_the_net_with_it(tmp_path, num_classes):
    classifier = create_classifier("xception_b", num_classes=num_classes)
    save_classifier(classifier, tmp_path / "classes.safetensors", half=False)
    backbone = create_backbone("xception_b", weights=tmp_path / "classes.safetensors")
    for name, value in classifier.backbone.state_dict().items():
        torch.testing.assert_close(backbone.state_dict()[name], value)
    weight = backbone.stages[-1].fc.weight
    assert torch.equal(weight, classifier.head[-1].weight) == (num_classes == 1000)
    assert create_backbone("xception_b", weights=tmp_path / "classes.safetensors", out_strides=(8,)).feature_info
