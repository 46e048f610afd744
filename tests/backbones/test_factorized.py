"""Factorised convolutions against plain loops that follow the paper's Algorithms 3 and 4, and against its formulas."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from backbones import measure_cost
from backbones.layers.factorized import (
    CONVOLUTIONS,
    SingleIntraChannelConv2d,
    SpatialBottleneck,
    TopologicalConv2d,
    channel_tensor,
    topological,
)

SHAPES = [(8, 8, 1), (8, 16, 1), (8, 16, 2), (16, 16, 2), (16, 8, 1)]  # in, out, stride
TOPOLOGIES = [((6,), (2,)), ((2, 3), (1, 2)), ((4, 4), (2, 3)), ((2, 3, 2), (2, 2, 1)), ((2, 2, 3), (1, 2, 3))]


def plain_topological(features, layer, shape, window):
    """Algorithm 4, place by place: the window of output (j_1 .. j_s) begins at its own place and wraps around."""
    made = torch.zeros_like(features)
    places = list(itertools.product(*map(range, shape)))
    for out, place in enumerate(places):
        for link, step in enumerate(itertools.product(*map(range, window))):
            source = tuple((j + i) % d for j, i, d in zip(place, step, shape, strict=True))
            channel = places.index(source)
            kernel = layer.weight[out, link][None, None]
            made[:, out] += F.conv2d(features[:, channel : channel + 1], kernel, padding=kernel.shape[-1] // 2)[:, 0]
    return made


def plain_sic(features, layer):
    """Algorithm 3, channel by channel, for steps that keep channels and size: O = ReLU(O + G P), b times."""
    for step in layer:
        kernels, weights = step.spatial.weight, step.project.weight[:, :, 0, 0]
        columns = [
            F.conv2d(features[:, j : j + 1], kernels[j][None], padding=1)[:, 0] for j in range(features.shape[1])
        ]
        made = [sum(weight * column for weight, column in zip(row, columns, strict=True)) for row in weights]
        features = torch.clamp(features + torch.stack(made, dim=1), min=0)
    return features


def plain_bottleneck(features, layer, reduction):
    """Each cell of the map summed to one number a channel, mixed, and dealt back to the cell; kernels as the cells."""
    made = torch.zeros_like(features)
    height, width = features.shape[-2:]
    for y, x in itertools.product(range(0, height, reduction), range(0, width, reduction)):
        cell = features[..., y : y + reduction, x : x + reduction]
        kernel = layer.reduce.weight[:, 0, : cell.shape[-2], : cell.shape[-1]]
        mixed = (cell * kernel).sum((2, 3)) @ layer.project.weight[:, :, 0, 0].T
        dealt = mixed[..., None, None] * layer.restore.weight[:, 0]
        made[..., y : y + reduction, x : x + reduction] = dealt[..., : cell.shape[-2], : cell.shape[-1]]
    return features + made


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize(("shape", "window"), TOPOLOGIES)
def test_topology_sums_over_the_window_of_algorithm_4(shape, window, kernel_size):
    layer = TopologicalConv2d(shape, window, kernel_size)
    features = torch.randn(2, math.prod(shape), 5, 4)
    torch.testing.assert_close(layer(features), plain_topological(features, layer, shape, window), rtol=1e-4, atol=1e-5)


def test_the_window_begins_at_its_own_place_and_wraps_around():
    layer = TopologicalConv2d((2, 3), (2, 2), 1)
    assert layer.sources.tolist() == [  # channels 0 1 2 over 3 4 5
        [0, 1, 3, 4],
        [1, 2, 4, 5],
        [2, 0, 5, 3],
        [3, 4, 0, 1],
        [4, 5, 1, 2],
        [5, 3, 2, 0],
    ]


def test_a_window_as_large_as_its_tensor_is_the_standard_convolution():
    layer = TopologicalConv2d((2, 3), (2, 3), 3)
    dense = torch.empty(6, 6, 3, 3)
    for out, sources in enumerate(layer.sources.tolist()):
        dense[out, sources] = layer.weight[out]
    features = torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(layer(features), F.conv2d(features, dense, padding=1))


@pytest.mark.parametrize("bases", [1, 3])
def test_sic_is_algorithm_3(bases):
    layer = SingleIntraChannelConv2d(6, 6, bases=bases)
    features = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(layer(features), plain_sic(features, layer), rtol=1e-4, atol=1e-5)


def test_a_sic_step_that_changes_the_shape_adds_nothing_and_the_next_does():
    layer = SingleIntraChannelConv2d(4, 6, 2, bases=2)
    features = torch.randn(2, 4, 7, 6)
    first, second = layer
    made = F.relu(F.conv2d(F.conv2d(features, first.spatial.weight, None, 2, 1, groups=4), first.project.weight))
    added = F.conv2d(F.conv2d(made, second.spatial.weight, padding=1, groups=6), second.project.weight)
    torch.testing.assert_close(layer(features), F.relu(made + added))


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (1, 3)])
@pytest.mark.parametrize("reduction", [2, 3])
def test_the_spatial_bottleneck_works_cell_by_cell_at_any_size(size, reduction):
    layer = SpatialBottleneck(4, 4, reduction=reduction)
    features = torch.randn(2, 4, *size)
    torch.testing.assert_close(layer(features), plain_bottleneck(features, layer, reduction), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "dimensions", "sides"), [(128, 2, (8, 16)), (128, 3, (4, 4, 8)), (12, 2, (3, 4)), (7, 2, (1, 7))]
)
def test_the_channel_tensor_is_the_most_even_one(channels, dimensions, sides):
    assert channel_tensor(channels, dimensions) == sides
    assert topological(channels, 1, dimensions=dimensions).weight.shape[1] == math.prod(-(-side // 2) for side in sides)


def multiply_adds(layer, channels, size):
    """Of the layer on a map of `channels`; the first convolution only gives it that map."""
    stem = nn.Conv2d(3, channels, 1, bias=False)
    return measure_cost(nn.Sequential(stem, layer), size).multiply_adds - size[0] * size[1] * 3 * channels


@pytest.mark.parametrize("size", [(12, 12), (24, 6)])
@pytest.mark.parametrize("m", [8, 48])
@pytest.mark.parametrize("k", [3, 5])
def test_multiply_adds_equal_the_formulas(size, m, k):
    h, w = size
    for b in (1, 2, 4):
        sic = SingleIntraChannelConv2d(m, m, kernel_size=k, bases=b)
        assert multiply_adds(sic, m, size) == b * h * w * (m * k**2 + m**2)
        both = SingleIntraChannelConv2d(m, m, kernel_size=k, bases=b, project=partial(topological, kernel_size=1))
        assert multiply_adds(both, m, size) == b * h * w * m * (k**2 + math.prod(_window(m, 2)))
    for dimensions in (2, 3):
        layer = topological(m, k, dimensions=dimensions)
        assert multiply_adds(layer, m, size) == h * w * k**2 * m * math.prod(_window(m, dimensions))
    for n, reduction in ((m, 2), (2 * m, 3)):
        layer = SpatialBottleneck(m, n, reduction=reduction)
        assert multiply_adds(layer, m, size) == h * w * m + h * w * m * n // reduction**2 + h * w * n
        wide = SpatialBottleneck(m, n, reduction=reduction, kernel_size=k)
        extra = h * w * m * k**2 // reduction**2 - h * w * m
        assert multiply_adds(wide, m, size) == multiply_adds(layer, m, size) + extra


def _window(channels, dimensions):
    return [math.ceil(side / 2) for side in channel_tensor(channels, dimensions)]


@pytest.mark.parametrize(("m", "n", "stride"), SHAPES)
def test_multiply_adds_of_what_stands_for_a_convolution(m, n, stride):
    h, w = (12 // stride, 8 // stride)
    formulas = {
        "standard": 9 * m * n,
        "depthwise_separable": m * (9 + n),
        "sic": m * (9 + n),
        "sic_b2": m * (9 + n) + n * (9 + n),
        "sic_b4": m * (9 + n) + 3 * n * (9 + n),
        "sic_topology": m * (9 + (math.prod(_window(m, 2)) if m == n else n)),
        "grouped_shuffle": 9 * m * n // 4,
        # At stride 2 the reduced map is the answer; at stride 1 it has a quarter of the places.
        "spatial_bottleneck": m * (9 + n) if stride == 2 else (9 * m + m * n) / 4 + n,
    }
    found = {name: multiply_adds(factory(m, n, stride), m, (12, 8)) for name, factory in CONVOLUTIONS.items()}
    assert found == {name: h * w * each for name, each in formulas.items()}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize(("m", "n", "stride"), SHAPES)
def test_each_stands_where_a_3x3_convolution_would(name, m, n, stride):
    layer = CONVOLUTIONS[name](m, n, stride)
    features = torch.randn(2, m, 7, 9, requires_grad=True)
    made = layer(features)
    assert made.shape == nn.Conv2d(m, n, 3, stride, 1)(features).shape
    made.square().sum().backward()
    assert features.grad.any()
    assert [key for key, value in layer.named_parameters() if value.grad is None or not value.grad.any()] == []


GRADIENT_LAYERS = {
    "sic": partial(SingleIntraChannelConv2d, 4, 4, bases=2),
    "sic, other shape": partial(SingleIntraChannelConv2d, 4, 3, 2, bases=2),
    "topology 2-D": partial(TopologicalConv2d, (2, 2), (1, 2), 3),
    "topology 3-D": partial(TopologicalConv2d, (2, 1, 2), (2, 1, 1), 1),
    "spatial bottleneck": partial(SpatialBottleneck, 4, 4),
    "spatial bottleneck, other shape": partial(SpatialBottleneck, 4, 3, 2, reduction=4, kernel_size=5),
}


@pytest.mark.parametrize("name", GRADIENT_LAYERS)
def test_gradients_in_double_precision(name):
    torch.manual_seed(0)
    layer = GRADIENT_LAYERS[name]().double()
    features = torch.randn(2, 4, 5, 4, dtype=torch.double, requires_grad=True)
    names, weights = zip(*layer.named_parameters(), strict=True)

    def call(features, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (features,))

    assert torch.autograd.gradcheck(call, (features, *weights))


@pytest.mark.compile
def test_all_of_them_compile_whole():
    pairs = [nn.Sequential(factory(8, 8, 1), factory(8, 8, 2)) for factory in CONVOLUTIONS.values()]
    layers = nn.ModuleList(pairs).eval()

    def forward(features):
        return [layer(features) for layer in layers]

    features = torch.randn(2, 8, 7, 5)
    compiled = torch.compile(forward, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(features), forward(features))


@pytest.mark.export
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_each_exports(name):
    layer = nn.Sequential(CONVOLUTIONS[name](8, 8, 1), CONVOLUTIONS[name](8, 16, 2)).eval()
    features = torch.randn(2, 8, 7, 5)
    torch.testing.assert_close(torch.export.export(layer, (features,)).module()(features), layer(features))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: TopologicalConv2d((4, 4), (2, 5)), "a window of (2, 5) does not lie in a channel tensor of (4, 4)"),
        (lambda: TopologicalConv2d((4, 4), (2,)), "a window of (2,) does not lie in a channel tensor of (4, 4)"),
        (lambda: TopologicalConv2d((4, 4), (2, 2), 2), "an odd kernel_size is needed, not 2"),
        (lambda: SingleIntraChannelConv2d(4, 4, bases=0), "at least one basis are needed, not 3 and 0"),
        (lambda: SpatialBottleneck(4, 4, 2, reduction=3), "a reduction by 3 fits neither stride 2"),
        (lambda: CONVOLUTIONS["grouped_shuffle"](6, 8, 1), "4 groups do not divide 6 channels in and 8 out"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_line(build, words):
    with pytest.raises(ValueError, match=r".+") as caught:
        build()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_depthwise_separable_by_hand():
    """ReLU between the two convolutions, none after them."""
    layer, features = CONVOLUTIONS["depthwise_separable"](8, 12, 1).eval(), torch.randn(2, 8, 5, 7)
    depthwise, pointwise = (part.weight for part in layer.modules() if isinstance(part, torch.nn.Conv2d))
    with torch.inference_mode():
        expected = torch.conv2d(torch.conv2d(features, depthwise, padding=1, groups=8).relu(), pointwise)
        torch.testing.assert_close(layer(features), expected, rtol=1e-4, atol=1e-4)  # the norm divides by sqrt(1 + eps)


def test_grouped_shuffle_deals_its_outputs_to_all_groups():
    layer, features = CONVOLUTIONS["grouped_shuffle"](8, 8, 1), torch.randn(2, 8, 5, 7)
    with torch.inference_mode():
        grouped = torch.conv2d(features, layer[0].weight, padding=1, groups=4)
        torch.testing.assert_close(layer(features), grouped[:, [0, 2, 4, 6, 1, 3, 5, 7]])
