"""Weight sharing: k-means on a line, weights that share a value and learn together."""

import numpy as np
import pytest
import torch
from torch import nn

from compress import cluster, layers_of, prune_, share_, sharing_of


def plain_lloyd(values: np.ndarray, centroids: np.ndarray, rounds: int) -> np.ndarray:
    """All distances to all centroids, round after round."""
    for _ in range(rounds):
        middles = (centroids[1:] + centroids[:-1]) / 2
        nearest = np.abs(values[:, None] - centroids[None]).argmin(axis=1)
        assert np.array_equal(nearest, np.searchsorted(middles, values))
        means = [values[nearest == index].mean() if (nearest == index).any() else centroid
                 for index, centroid in enumerate(centroids)]  # fmt: skip
        centroids = np.array(means)
    return centroids[np.bincount(nearest, minlength=len(centroids)) > 0]


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(64, 30))


def test_two_clusters_by_hand() -> None:
    assert cluster(np.array([10.0, 1.0, 12.0, 2.0, 11.0]), 2).tolist() == [1.5, 11.0]


def test_centroids_without_values_are_left_out() -> None:
    assert cluster(np.array([0.0, 0.0, 1.0]), 8).tolist() == [0.0, 1.0]
    assert cluster(np.full(5, 3.0), 4).tolist() == [3.0]


@pytest.mark.parametrize("start", ["linear", "density", "random"])
def test_it_is_plain_k_means_whatever_it_starts_from(start) -> None:
    values = np.random.default_rng(1).normal(size=3000)
    ordered = np.sort(values)
    first = {
        "linear": np.linspace(values.min(), values.max(), 16),
        "density": ordered[[int((index + 0.5) / 16 * 3000) for index in range(16)]],
        "random": np.sort(np.random.default_rng(5).choice(ordered, 16, replace=False)),
    }[start]
    expected = plain_lloyd(values, first, rounds=40)
    torch.testing.assert_close(cluster(values, 16, start=start, seed=5, rounds=40), expected, rtol=1e-9, atol=1e-12)


def test_the_start_decides_where_it_ends_and_the_linear_one_reaches_the_large_weights() -> None:
    values = np.random.default_rng(0).standard_t(4, size=20000)
    ends = {start: cluster(values, 8, start=start).max() for start in ("linear", "density")}
    assert ends["linear"] > ends["density"] + 1  # section 3.2


def test_few_values_zeros_stay_and_each_weight_takes_the_nearest(net) -> None:
    prune_(net, density=0.5)
    before = {layer.key: layer.weight.detach().clone() for layer in layers_of(net)}
    share_(net, bits={"conv": 4, "fc": 3}, half=False)
    for layer, most in zip(layers_of(net), (16, 8), strict=True):
        values = layer.weight.unique()
        assert len(values) <= most
        assert torch.equal(layer.weight == 0, before[layer.key] == 0)
        kept = before[layer.key][layer.weight != 0]
        nearest = (kept[:, None] - values[values != 0]).abs().min(dim=1).values
        torch.testing.assert_close((kept - layer.weight[layer.weight != 0]).abs(), nearest)


def test_all_values_are_for_weights_where_none_is_zero(net) -> None:
    share_(net, bits=2)
    assert [len(layer.weight.unique()) for layer in layers_of(net)] == [4, 4]


def test_halves_are_exact_halves_and_tiny_weights_stay_as_they_are(net) -> None:
    with torch.no_grad():
        net[2].weight.mul_(1e-9)
    share_(net, bits=5)
    assert torch.equal(net[0].weight.half().float(), net[0].weight)
    assert len(net[2].weight.unique()) == 32  # half precision would have made them zero


def test_a_step_moves_a_cluster_by_the_sum_of_its_gradients() -> None:
    net = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.5, 2.0, 0.5, 0.0]]))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    sharing = sharing_of(net)
    sharing.hold(optimizer)
    net(torch.tensor([[1.0, 10.0, 3.0, 7.0]])).sum().backward()
    optimizer.step()
    # 0.5 - 0.1 * (1 + 3), 2 - 0.1 * 10, and the pruned weight stays.
    torch.testing.assert_close(net.weight, torch.tensor([[0.1, 1.0, 0.1, 0.0]]))


def test_a_pruned_weight_has_no_gradient() -> None:
    """Else it would count where gradients are clipped. 1 + 3 for the pair; 7 and 5 would be those of the zeros."""
    net = nn.Linear(5, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.5, 2.0, 0.5, 0.0, 0.0]]))
    sharing_of(net).hold(torch.optim.SGD(net.parameters(), lr=0.1))
    net(torch.tensor([[1.0, 10.0, 3.0, 7.0, 5.0]])).sum().backward()
    assert net.weight.grad is not None
    assert net.weight.grad.tolist() == [[4.0, 10.0, 4.0, 0.0, 0.0]]


def test_momenta_of_each_weight_for_itself_are_forgotten(net) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.randn(3, 3, 4, 4)).square().sum().backward()
    optimizer.step()
    sharing = share_(net, bits=2)
    sharing.hold(optimizer)
    before = sharing.codebook(sharing.layers[0]).clone()
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()
    assert torch.equal(sharing.codebook(sharing.layers[0]), before)


def test_what_is_shared_stays_shared_in_a_long_training(net) -> None:
    prune_(net, density=0.6)
    sharing = share_(net, bits=4)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.1)
    sharing.hold(optimizer)
    before = sharing.codebook(sharing.layers[0]).clone()
    for _ in range(20):
        optimizer.zero_grad()
        net(torch.randn(3, 3, 4, 4)).square().sum().backward()
        optimizer.step()
    for layer in sharing.layers:
        assert torch.equal(sharing.codebook(layer)[sharing.indices[layer.key]], layer.weight)
        assert (layer.weight[sharing.indices[layer.key] == 0] == 0).all()
    assert (sharing.codebook(sharing.layers[0])[1:] != before[1:]).all()
    sharing.release()
    net(torch.randn(3, 3, 4, 4)).sum().backward()
    optimizer.step()
    assert len(net[2].weight.unique()) > 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 9}, "9 bits for 0: expected a whole number from 1 to 8"),
        ({"bits": {"conv": 8}}, "bits says nothing for 2"),
        ({"start": "middle"}, "start 'middle': expected one of linear, density, random"),
    ],
)
def test_what_is_refused(net, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        share_(net, **options)


def test_weights_that_are_no_numbers_are_refused(net) -> None:
    with torch.no_grad():
        net[2].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="the weights of 2 are not all finite"):
        share_(net)
