"""Nets without channel shuffles and norms compute what the nets do that they are copies of."""

import pytest
import torch
from torch import nn

from backbones import create_backbone, create_classifier, list_backbones
from backbones.layers import ShuffleUnit, shuffle_stage
from backbones.lean import ShuffleFreeGroupedUnit, ShuffleFreeStage, lean_copy, plan_stage
from backbones.shufflenet_v1 import GroupedShuffleUnit

SHUFFLED = [name for name in list_backbones() if name.startswith(("snet", "shufflenet"))]


def used(net: nn.Module) -> nn.Module:
    """With statistics and scales as after training, so that every channel differs from its neighbours."""
    torch.manual_seed(0)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(std=0.3)
            part.running_var.uniform_(0.5, 2.0)
            part.weight.data.normal_(1, 0.3)
            part.bias.data.normal_(std=0.3)
    return net.eval()


def stages_of(net: nn.Module) -> list[ShuffleFreeStage]:
    return [part for part in net.modules() if isinstance(part, ShuffleFreeStage)]


def assert_same(net: nn.Module, lean: nn.Module, images: torch.Tensor) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(lean(images), net(images), rtol=1e-4, atol=1e-4)


def test_the_plan_of_a_small_stage_by_hand():
    """Two channels a branch, a stride-2 unit s, b and two more, c and d. Shuffled: s0 b0 s1 b1, of which the second
    unit works on s1 b1 and passes s0 b0: s0 c0 b0 c1. The third works on b0 c1 and passes s0 c0: s0 d0 c0 d1.
    """
    plan = plan_stage(2, 3)
    assert plan.orders == [[1, 0], [1, 0], [1, 0], [0, 1]]  # s1 is due before s0, b1 before b0, c1 before c0
    assert plan.sizes == [[1, 0, 1], [1, 1, 0], [0, 1, 1], [0, 0, 2]]
    assert plan.reads == [[0, 1], [0, 1]]  # s1 b1, then b0 c1
    assert plan.leaves == [0, 2, 1, 3]  # as they lie: s0 c0 d0 d1, numbers 0 2 1 3 of s0 d0 c0 d1


@pytest.mark.parametrize("name", SHUFFLED)
def test_every_shuffle_backbone_and_its_classifier(name):
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    net = used(create_classifier(name, num_classes=10))
    lean = lean_copy(net)
    assert_same(net, lean, images)
    assert not any(isinstance(part, ShuffleUnit | GroupedShuffleUnit | nn.BatchNorm2d) for part in lean.modules())
    assert stages_of(lean) or any(isinstance(part, ShuffleFreeGroupedUnit) for part in lean.modules())
    assert not any(stage.restore for stage in stages_of(lean))


@pytest.mark.parametrize("name", ["snet49", "shufflenet_v2_x1_0"])
def test_maps_that_are_handed_out_keep_their_order(name):
    net = used(create_backbone(name, out_strides=(8, 32)))
    lean = lean_copy(net)
    assert_same(net, lean, torch.randn(1, 3, 64, 32))
    # At stride 8 somebody may read the map; stride 16 is read inside; SNet49 ends in a convolution.
    assert [stage.restore for stage in stages_of(lean)] == [True, False, name != "snet49"]


class Reader(nn.Module):
    """A stage, and something that reads it."""

    def __init__(self, read: nn.Module) -> None:
        super().__init__()
        self.stage, self.read = shuffle_stage(3, 8, 3), read

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.read(self.stage(images))


class Averages(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean((2, 3), keepdim=True) if features.ndim == 4 else features


FOLLOWED = {
    "pools, activations and a depthwise convolution": nn.Sequential(
        nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6(), nn.AvgPool2d(2), nn.ZeroPad2d(1), nn.Conv2d(8, 4, 3)
    ),
    "an average and a linear layer": nn.Sequential(Averages(), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3)),
    "an enlargement": nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(8, 2, 1)),
}
RESTORED = {
    "a channel shuffle": nn.Sequential(nn.ChannelShuffle(2), nn.Conv2d(8, 4, 1)),
    "a convolution in groups": nn.Conv2d(8, 4, 1, groups=2),
    "a depthwise convolution to more channels": nn.Conv2d(8, 16, 1, groups=8),
    "a softmax over the channels": nn.Softmax(dim=1),
    "an average over the channels": nn.Flatten(2),
    "a linear layer on places": nn.Sequential(nn.Flatten(), nn.Linear(8 * 16 * 16, 2)),
}


@pytest.mark.parametrize("reader", [*FOLLOWED, *RESTORED])
def test_whoever_reads_the_channels_reads_the_right_ones(reader):
    torch.manual_seed(0)
    net = used(Reader((FOLLOWED | RESTORED)[reader]))
    images = torch.randn(2, 3, 32, 32)
    lean = lean_copy(net, images)
    assert_same(net, lean, images)
    assert [stage.restore for stage in stages_of(lean)] == [reader in RESTORED]


class TwoReaders(nn.Module):
    """One convolution that reads two stages: it cannot follow both orders."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(shuffle_stage(3, 8, repeats) for repeats in (2, 3))
        self.read = nn.Conv2d(8, 4, 1)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.read(stage(images)) for stage in self.stages]


def test_one_weight_for_two_maps():
    net = used(TwoReaders())
    lean = lean_copy(net)
    assert_same(net, lean, torch.randn(1, 3, 32, 32))
    assert [stage.restore for stage in stages_of(lean)] == [True, True]


def test_the_original_is_left_alone_and_nets_without_shuffles_are_taken():
    net = used(create_backbone("snet49")).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    lean_copy(net)
    assert net.training
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    other = used(create_backbone("mobilenet_v2"))
    assert_same(other, lean_copy(other), torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize("mode", ["bwn", "xnor"])
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "shufflenet_v1_g3_x0_5"])
def test_channels_of_binary_layers(name, mode):
    net = create_classifier(name, num_classes=5)
    net.binarize_(mode)
    used(net).double()  # single precision may turn a sign round
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert_same(net, lean_copy(net, images), images)
