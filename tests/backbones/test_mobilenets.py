"""MobileNetV1 and V2: widths worked out by hand, counts of the published resolutions, and what is refused."""

import math

import pytest
import torch

from backbones import create_backbone, create_classifier, measure_cost
from backbones.mobilenet_v2 import scaled_channels


def channels(backbone):
    return [info.channels for info in backbone.feature_info]


@pytest.mark.parametrize(
    ("name", "millions"),
    [  # at 224, 192, 160, 128: the grid of the paper's Tables 6 and 7
        ("mobilenet_v1", (568.74, 418.12, 290.68, 186.40)),
        ("mobilenet_v1_x0_75", (325.40, 239.27, 166.40, 106.77)),
        ("mobilenet_v1_x0_5", (149.50, 109.97, 76.52, 49.16)),
        ("mobilenet_v1_x0_25", (41.03, 30.21, 21.06, 13.57)),
    ],
)
def test_mobilenet_v1_at_the_published_resolutions(name, millions):
    with torch.device("meta"):
        net = create_classifier(name)
        costs = [measure_cost(net, (side, side)) for side in (224, 192, 160, 128)]
    assert [round(cost.multiply_adds / 1e6, 2) for cost in costs] == list(millions)


@pytest.mark.parametrize(
    ("width", "expected"),
    [  # 64, 128, 256, 512, 1024 times the width, rounded down
        (1.0, [64, 128, 256, 512, 1024]),
        (0.3, [19, 38, 76, 153, 307]),
        (1.1, [70, 140, 281, 563, 1126]),
        (1 / 32, [2, 4, 8, 16, 32]),
        (2, [128, 256, 512, 1024, 2048]),
    ],
)
def test_mobilenet_v1_takes_any_width(width, expected):
    with torch.device("meta"):
        backbone = create_backbone("mobilenet_v1", width=width)
    assert channels(backbone) == expected
    assert backbone.stages[0][0].out_channels == int(32 * width)


@pytest.mark.parametrize(
    ("full", "width", "expected"),
    [(16, 0.75, 16), (24, 0.75, 24), (32, 0.35, 16), (320, 0.35, 112), (1280, 1.4, 1792), (96, 1.4, 136), (16, 0.1, 8)],
)
def test_mobilenet_v2_rounds_to_multiples_of_8(full, width, expected):
    # 16 * 0.75 = 12 rounds up; 32 * 0.35 = 11.2 would round to 8, less than 90 % of it, and so gets 8 more
    assert scaled_channels(full, width) == expected


@pytest.mark.parametrize(
    ("width", "expected", "last"),
    [
        (1.0, [16, 24, 32, 96, 320], 1280),
        (0.5, [8, 16, 16, 48, 160], 1280),  # the last never gets thinner
        (1.4, [24, 32, 48, 136, 448], 1792),
    ],
)
def test_mobilenet_v2_maps_and_the_last_convolution(width, expected, last):
    with torch.device("meta"):
        net = create_classifier("mobilenet_v2", width=width)
    assert channels(net.backbone) == expected
    assert net.head[0][0].out_channels == last


def test_a_separable_unit_by_hand():
    """ReLU after the depthwise convolution and after the 1x1 (Figure 3 of the paper)."""
    unit = create_backbone("mobilenet_v1").stages[2][0].eval()
    depthwise, pointwise = (layer.weight for layer in unit.modules() if isinstance(layer, torch.nn.Conv2d))
    features = torch.randn(2, 64, 5, 7)
    with torch.inference_mode():
        filtered = torch.conv2d(features, depthwise, stride=2, padding=1, groups=64).relu()
        expected = torch.conv2d(filtered, pointwise).relu()
        torch.testing.assert_close(unit(features), expected, rtol=1e-4, atol=1e-4)  # norms divide by sqrt(1 + eps)


def test_a_residual_unit_of_zeros_is_the_identity():
    unit = create_backbone("mobilenet_v2").stages[4][1].eval()
    torch.nn.init.zeros_(unit.branch[-1][0].weight)
    features = torch.randn(1, 64, 5, 7)
    with torch.inference_mode():
        torch.testing.assert_close(unit(features), features)


@pytest.mark.parametrize("width", [0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_a_width_that_cannot_be_is_refused(name, width):
    with pytest.raises(ValueError, match=rf"width is {width}; MobileNetV\d takes any .* published are 1\.\d, "):
        create_backbone(name, width=width)


def test_a_width_that_leaves_no_channel_is_refused():
    with pytest.raises(ValueError, match=r"takes any from 1/32 up"):
        create_backbone("mobilenet_v1", width=0.03)


def test_a_name_that_stands_for_a_width_takes_no_other():
    with pytest.raises(ValueError, match="mobilenet_v2_x0_5 has no option 'width'"):
        create_backbone("mobilenet_v2_x0_5", width=1.0)
