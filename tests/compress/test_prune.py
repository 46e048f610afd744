"""Magnitude pruning: what is kept, that it is held while the rest learns, and what is refused."""

import pytest
import torch
from torch import nn

from compress import gradual_density, layers_of, prune_, pruning_of


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 20), nn.Linear(20, 5)
    )


def two_layers(first: list[float], second: list[float]) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(len(first), 1), nn.Linear(len(second), 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([first]))
        net[1].weight.copy_(torch.tensor([second]))
    return net


def weights(net: nn.Sequential, index: int) -> list[float]:
    return net[index].weight.flatten().tolist()


def test_a_density_for_each_layer_by_name_or_kind(net) -> None:
    before = {layer.key: layer.weight.detach().clone() for layer in layers_of(net)}
    pruning = prune_(net, density={"conv": 0.25, "fc": 0.1, "5": 0.5})
    kept = {key: int(mask.sum()) for key, mask in pruning.masks.items()}
    assert kept == {"0.weight": 54, "4.weight": 64, "5.weight": 50}
    assert pruning.density == pytest.approx((54 + 64 + 50) / (216 + 640 + 100))
    for layer in layers_of(net):
        is_kept, original = layer.weight != 0, before[layer.key]
        assert int(is_kept.sum()) == kept[layer.key]
        assert torch.equal(layer.weight[is_kept], original[is_kept])
        assert original[is_kept].abs().min() > original[~is_kept].abs().max()


def test_the_largest_are_kept_and_zero_has_no_sign() -> None:
    net = two_layers([-3.0, 0.5, 2.0, -0.1], [1.0, -1.5])
    prune_(net, density=0.5)
    assert weights(net, 0) == [-3.0, 0.0, 2.0, 0.0]
    assert weights(net, 1) == [0.0, -1.5]
    assert not torch.signbit(net[0].weight[0, 3])


def test_the_threshold_is_a_multiple_of_the_deviation() -> None:
    net = two_layers([1.0, -1.0, 3.0, -3.0], [4.0, 4.0])  # deviations: sqrt(5) = 2.236 and 0
    prune_(net, quality=1.0)
    assert weights(net, 0) == [0.0, 0.0, 3.0, -3.0]
    assert weights(net, 1) == [4.0, 4.0]
    prune_(net, quality=1.0)  # of what is left it is 3: what is zero does not count
    assert weights(net, 0) == [0.0, 0.0, 0.0, 0.0]


def test_a_density_for_the_whole_net_compares_layers_by_what_their_small_weights_add() -> None:
    # Squares over the sums of those not smaller: 1 and 1/5 in the first layer, 1 and 0.01/9.01 in the second.
    net = two_layers([2.0, -1.0], [3.0, 0.1])
    prune_(net, density=0.75, scope="net")
    assert (weights(net, 0), weights(net, 1)) == ([2.0, -1.0], [3.0, 0.0])
    prune_(net, density=0.5, scope="net")
    assert (weights(net, 0), weights(net, 1)) == ([2.0, 0.0], [3.0, 0.0])
    scaled = two_layers([2e-6, -1e-6], [3.0, 0.1])
    prune_(scaled, density=0.75, scope="net")
    assert weights(scaled, 0) == pytest.approx([2e-6, -1e-6])


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_pruned_weights_stay_zero_while_the_others_learn(net, kind) -> None:
    options = {"lr": 0.05, "weight_decay": 0.1}
    optimizer = torch.optim.AdamW(net.parameters(), **options) if kind == "adamw" else torch.optim.SGD(
        net.parameters(), momentum=0.9, **options
    )  # fmt: skip

    def step() -> None:
        optimizer.zero_grad()
        net(torch.randn(4, 3, 4, 4)).square().sum().backward()
        optimizer.step()

    net[0].requires_grad_(False)
    step()  # momenta of weights that are pruned only now
    pruning = prune_(net, density=0.3)
    pruning.hold(optimizer)
    before = net[4].weight.detach().clone()
    step()
    step()
    mask = pruning.masks["4.weight"]
    assert (net[4].weight[~mask] == 0).all()
    assert (net[4].weight.grad[~mask] == 0).all()
    assert (net[4].weight[mask] != before[mask]).all()
    pruning.release()
    step()
    assert (net[4].weight[~mask] != 0).any()


def test_the_gradual_schedule() -> None:
    densities = [gradual_density(step, begin=10, end=20, final=0.2) for step in (0, 10, 15, 20, 99)]
    assert densities == pytest.approx([1.0, 1.0, 0.2 + 0.8 / 8, 0.2, 0.2])
    with pytest.raises(ValueError, match="begins at step 5 and ends at 5"):
        gradual_density(0, begin=5, end=5, final=0.2)


def test_pruning_goes_on_from_what_is_pruned(net) -> None:
    first = prune_(net, density=0.5).masks["4.weight"]
    second = prune_(net, density=0.2).masks["4.weight"]
    assert not (second & ~first).any()
    assert torch.equal(pruning_of(net).masks["4.weight"], second)


def test_what_is_skipped_and_what_is_shared_between_layers(net) -> None:
    before = net[0].weight.clone()
    assert "0.weight" not in prune_(net, density=0.1, skip=["0"]).masks
    torch.testing.assert_close(net[0].weight, before, rtol=0, atol=0)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert [layer.name for layer in layers_of(tied)] == ["0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected either density or quality"),
        ({"density": 0.5, "quality": 1.0}, "expected either density or quality"),
        ({"density": 0.0}, "density 0.0: expected more than 0, at most 1"),
        ({"density": float("nan")}, "density nan: expected more than 0, at most 1"),
        ({"density": {"conv": 0.5}}, "density says nothing for 4; expected its name or 'fc' among the keys"),
        ({"density": {"convs": 0.5}}, "density names 'convs', which is no layer .nearest: 'conv'."),
        ({"density": {"conv": 0.5}, "scope": "net"}, "density for the whole net is one number"),
        ({"density": 0.5, "scope": "world"}, "scope 'world': expected one of layer, net"),
        ({"quality": -1.0}, "quality -1.0: expected 0 or more"),
        ({"density": 0.5, "skip": ["00"]}, "no part called '00' .nearest: '0'."),
        ({"density": 0.5, "skip": ["0", "4", "5"]}, "no convolution or linear layer to compress"),
    ],
)
def test_what_is_refused(net, options, message) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        prune_(net, **options)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
