"""ShuffleNetV1 by hand: the shuffle, the unit's two forms, and the pairs that were published."""

import pytest
import torch
from torch import nn

from backbones import CATALOGUE, create_backbone
from backbones.layers import channel_shuffle, interleave
from backbones.shufflenet_v1 import PUBLISHED, GroupedShuffleUnit, ShuffleNetV1


def test_the_shuffle_by_hand():
    features = torch.arange(6.0).view(1, 6, 1, 1)
    assert channel_shuffle(features, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(features, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]
    torch.testing.assert_close(channel_shuffle(features, 1), features)
    torch.testing.assert_close(channel_shuffle(features, 2), interleave(*features.chunk(2, dim=1)))


def test_a_unit_of_stride_1_adds_and_one_of_stride_2_appends():
    features = torch.randn(2, 24, 7, 9)
    same = GroupedShuffleUnit(24, 24, stride=1, groups=2, first_groups=2).eval()
    half = GroupedShuffleUnit(24, 48, stride=2, groups=2, first_groups=1).eval()
    for unit in (same, half):
        nn.init.zeros_(unit.spread[1][1].weight)  # nothing is worked out: the shortcut alone is left
    with torch.inference_mode():
        torch.testing.assert_close(same(features), features.relu())
        halved = half(features)
    average = nn.functional.avg_pool2d(features, 3, 2, padding=1)
    torch.testing.assert_close(halved, torch.cat((average.relu(), torch.zeros(2, 24, 4, 5)), dim=1))


def test_a_unit_by_hand():
    """Two groups of two channels in the bottleneck: ReLU, the shuffle, no ReLU inside `spread`, ReLU after the sum."""
    unit = GroupedShuffleUnit(16, 16, stride=1, groups=2, first_groups=2).eval()
    squeeze, depthwise, expand = (layer.weight for layer in unit.modules() if isinstance(layer, nn.Conv2d))
    features = torch.randn(2, 16, 5, 7)
    with torch.inference_mode():
        mixed = nn.functional.conv2d(features, squeeze, groups=2).relu()[:, [0, 2, 1, 3]]
        filtered = nn.functional.conv2d(mixed, depthwise, padding=1, groups=4)
        expected = (features + nn.functional.conv2d(filtered, expand, groups=2)).relu()
        torch.testing.assert_close(unit(features), expected, rtol=1e-4, atol=1e-4)  # the norms divide by sqrt(1 + eps)


def test_only_the_stems_channels_stay_in_one_group():
    convolutions = [m for m in ShuffleNetV1(3).modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert [convolution.groups for convolution in convolutions] == [1] + [3] * 31


def test_every_published_pair_has_a_name():
    rows = [row for row in CATALOGUE.values() if row.name.startswith("shufflenet_v1")]
    assert {(row.options["groups"], row.options["width"]) for row in rows} == set(PUBLISHED)


@pytest.mark.parametrize(("groups", "width"), [(2, 0.5), (4, 2.0), (5, 1.0), (3, 0.25)])
def test_another_pair_is_refused(groups, width):
    with pytest.raises(ValueError, match=rf"{groups} groups at {width}x was not published.* 3 at 0\.5x") as caught:
        ShuffleNetV1(groups, width)
    assert "\n" not in str(caught.value)


def test_another_pairs_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="nearest: 'shufflenet_v1_g"):
        create_backbone("shufflenet_v1_g2_x0_5")
