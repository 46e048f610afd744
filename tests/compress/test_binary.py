"""Binary layers against numbers by hand, a plain convolution of windows and the written-out gradient; `binarize_`."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from backbones import create_classifier
from compress import BinaryWeightConv2d, BinaryWeightLinear, XNORConv2d, XNORLinear, binarize_, layers_of
from compress.binary import binary_weights, sign


def exactly(actual, expected):
    assert_close(actual, expected, rtol=0, atol=0)


def test_signs_and_their_straight_through_gradient():
    numbers = torch.tensor([-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0], requires_grad=True)
    signs = sign(numbers)
    signs.backward(torch.full((8,), 3.0))
    assert signs.tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]
    assert numbers.grad.tolist() == [0, 0, 3, 3, 3, 3, 0, 0]


def test_a_filter_becomes_its_signs_times_its_mean():
    layer = BinaryWeightConv2d(1, 2, 2, bias=True)
    layer.weight.data = torch.tensor([[[[1.0, -2.0], [0.0, 3.0]]], [[[0.5, 0.5], [-0.5, 0.5]]]])
    layer.bias.data = torch.tensor([10.0, 20.0])
    inputs = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    # scales 6 / 4 and 0.5; signed sums 1 - 2 + 3 + 4 and 1 + 2 - 3 + 4
    assert layer(inputs).flatten().tolist() == [10 + 1.5 * 6, 20 + 0.5 * 4]
    signs, scales = binary_weights(layer.weight)
    assert scales.flatten().tolist() == [1.5, 0.5]
    assert signs.flatten().tolist() == [1, -1, 1, 1, 1, 1, -1, 1]


@pytest.mark.parametrize("scale", [1e-3, 2.0])
def test_no_other_number_and_signs_are_nearer(scale):
    """Section 3.1: alpha sign(W) is the best of all alpha B."""
    weight = scale * torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    signs, alpha = binary_weights(weight)
    best = ((weight - alpha * signs) ** 2).sum()
    for other in itertools.product((-1.0, 1.0), repeat=6):
        for factor in (0.5, 0.9, 1.0, 1.1, 2.0):
            assert best <= ((weight - factor * alpha * torch.tensor([other])) ** 2).sum() * (1 + 1e-6)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (BinaryWeightConv2d(4, 6, 3, padding=1, stride=2, groups=2), torch.randn(3, 4, 7, 6)),
        (XNORConv2d(4, 6, 3, padding=1, stride=2, groups=2), torch.randn(3, 4, 7, 6)),
        (BinaryWeightLinear(5, 6), torch.randn(3, 5)),
        (XNORLinear(5, 6), torch.randn(3, 5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_weights_gradient_is_the_one_that_is_written_out(layer, inputs):
    """(1/n) sign(W_i) sum_j(g_j sign(W_j)) + alpha g_i 1[|W_i| < 1], g the gradient of the scaled weights."""
    layer.weight.data.mul_(10)  # some beyond 1
    outputs = layer(inputs)
    upstream = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    outputs.backward(upstream)
    weight = layer.weight.detach()
    alpha = weight.abs().flatten(1).mean(1).view(-1, *[1] * (weight.dim() - 1))
    scaled = (alpha * weight.sign()).requires_grad_()
    signs = inputs if isinstance(layer, BinaryWeightConv2d | BinaryWeightLinear) else layer.norm(inputs).detach().sign()
    if weight.dim() == 2:
        plain = F.linear(signs, scaled, layer.bias)
    else:
        plain = F.conv2d(signs, scaled, layer.bias, layer.stride, layer.padding, groups=layer.groups)
    assert_close(plain, outputs)
    plain.backward(upstream)
    g, s = scaled.grad, weight.sign()
    shared = (g * s).flatten(1).sum(1).view_as(alpha) / weight[0].numel()
    assert_close(layer.weight.grad, s * shared + alpha * g * (weight.abs() < 1))
    assert (weight.abs() < 1).float().mean() not in (0, 1)


def test_the_inputs_gradient_stops_where_they_are_large():
    layer = XNORLinear(3, 1, bias=False, input_norm=False)
    layer.weight.data = torch.tensor([[0.5, -0.5, 0.5]])
    inputs = torch.tensor([[0.2, -0.9, 1.5]], requires_grad=True)
    layer(inputs).sum().backward()
    assert inputs.grad.tolist() == [[0.5, -0.5, 0.0]]


def test_the_k_of_a_window_is_the_mean_of_what_it_covers():
    layer = XNORConv2d(2, 1, 2, bias=False, input_norm=False, scale_inputs=True)
    layer.weight.data.fill_(0.5)
    inputs = torch.tensor([[[[1.0, -3.0], [1.0, 1.0]], [[-1.0, 5.0], [2.0, -2.0]]]])
    # |inputs| add up to 16 over 8 places; signs to 5 - 3; alpha is 0.5
    assert layer(inputs).item() == pytest.approx(2 * 0.5 * 2)
    ones = XNORConv2d(2, 1, 3, padding=1, input_norm=False, scale_inputs=True).input_scales(torch.ones(1, 2, 3, 3))
    assert_close(ones[0, 0], torch.tensor([[4.0, 6, 4], [6, 9, 6], [4, 6, 4]]) / 9)


@pytest.mark.parametrize("scale_inputs", [False, True])
@pytest.mark.parametrize(("groups", "stride", "padding", "dilation"), [(1, 1, 0, 1), (2, 2, 1, 1), (1, (1, 2), 2, 2)])
def test_an_xnor_convolution_is_the_plain_one_over_windows(groups, stride, padding, dilation, scale_inputs):
    torch.manual_seed(0)
    layer = XNORConv2d(
        4, 6, 3, groups=groups, stride=stride, padding=padding, dilation=dilation, scale_inputs=scale_inputs
    ).eval()
    layer.norm.running_mean.normal_()
    inputs = torch.randn(2, 4, 8, 9)
    normed = layer.norm(inputs)
    places = {"kernel_size": 3, "stride": stride, "padding": padding, "dilation": dilation}
    signs = F.unfold(torch.where(normed >= 0, 1.0, -1.0), **places).view(2, groups, 4 // groups * 9, -1)
    alphas = layer.weight.abs().flatten(1).mean(1)
    filters = torch.where(layer.weight >= 0, 1.0, -1.0).flatten(1).view(groups, 6 // groups, -1)
    expected = torch.einsum("gok,ngkp->ngop", filters, signs).flatten(1, 2) * alphas.view(1, -1, 1)
    if scale_inputs:
        means = F.unfold(normed.abs(), **places).view(2, groups, -1, signs.shape[-1]).mean(2)
        expected = expected * means.repeat_interleave(6 // groups, 1)
    actual = layer(inputs)
    assert_close(actual.flatten(2), expected + layer.bias.view(1, -1, 1))


def small_net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(),
        nn.Conv2d(8, 8, 1, groups=2, bias=False),
        nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 16)), nn.Linear(16, 2),
    )  # fmt: skip


def test_the_ends_and_depthwise_layers_stay_real():
    net = small_net()
    assert binarize_(net, "xnor") == ("4", "5.2")
    kinds = [type(part) for part in net.modules() if hasattr(part, "weight") and not isinstance(part, nn.BatchNorm2d)]
    assert kinds == [nn.Conv2d, nn.Conv2d, XNORConv2d, XNORLinear, nn.BatchNorm1d, nn.Linear]
    assert net(torch.randn(4, 3, 6, 6)).shape == (4, 2)
    assert binarize_(small_net(), keep_ends=False) == ("0", "4", "5.2", "6")
    assert binarize_(small_net(), "bwn", ["5"]) == ("4",)
    assert binarize_(small_net(), "bwn", ["4"], keep_ends=False) == ("0", "5.2", "6")


def test_the_real_weights_are_kept_under_their_names():
    net = small_net()
    before = dict(net.named_parameters())
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    binarize_(net, "bwn")
    assert {name: id(value) for name, value in net.named_parameters()} == {n: id(value) for n, value in before.items()}
    for name, tensor in net.state_dict().items():
        exactly(tensor, state[name])
    xnor = small_net()
    binarize_(xnor, "xnor")
    assert set(xnor.state_dict()) - set(state) == {
        f"{layer}.norm.{name}"
        for layer in ("4", "5.2")
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    loaded = xnor.load_state_dict(state, strict=False)
    assert loaded.unexpected_keys == []
    exactly(xnor[4].weight, state["4.weight"])


def test_a_layer_that_stands_twice_and_weights_that_two_share():
    shared = nn.Linear(4, 4)
    tied = nn.Linear(4, 4)
    tied.weight = shared.weight
    net = nn.Sequential(nn.Linear(4, 4), shared, nn.Sequential(shared), tied, nn.Linear(4, 4))
    binarize_(net, "bwn")
    assert net[1] is net[2][0]
    assert isinstance(net[3], BinaryWeightLinear)
    assert net[3].weight is net[1].weight


def test_a_new_layer_stands_where_the_old_one_stood():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, (2, 1), "valid", 2, bias=False), nn.Conv2d(4, 4, 1))
    net.double().eval()
    binarize_(net, "xnor", scale_inputs=True)
    layer = net[1]
    assert (layer.stride, layer.padding, layer.dilation, layer.bias) == ((2, 1), "valid", (2, 2), None)
    assert layer.scale_inputs
    assert not layer.training
    assert layer.norm.weight.dtype == torch.float64
    assert net(torch.randn(1, 3, 9, 9, dtype=torch.float64)).shape == (1, 4, 3, 5)


@pytest.mark.parametrize(
    ("net", "arguments", "message"),
    [
        (nn.Sequential(nn.ReLU()), {}, "no convolution or linear layer"),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), {}, "no layer to make binary between the first and the last"),
        (nn.Linear(2, 2), {"keep_ends": False}, "no layer to make binary; expected"),
        (small_net(), {"mode": "xnr"}, "mode is 'xnr'; expected one of bwn, xnor"),
        (small_net(), {"skip": ["5.3"]}, "no part called '5.3'"),
        (small_net(), {"mode": "bwn", "scale_inputs": True}, "scale_inputs is for mode 'xnor'"),
        (
            nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), nn.Linear(2, 2)),
            {"mode": "xnor"},
            "padding_mode is 'reflect'",
        ),
    ],
)
def test_what_cannot_be_made_binary_is_refused_and_left_alone(net, arguments, message):
    before = [type(part) for part in net.modules()]
    with pytest.raises(ValueError, match=message):
        binarize_(net, **arguments)
    assert [type(part) for part in net.modules()] == before


def test_an_xnor_net_learns_what_one_layer_cannot():
    """Exclusive or of two signs, among channels that say nothing."""
    torch.manual_seed(0)
    inputs = torch.randn(256, 4)
    labels = (inputs[:, 0] * inputs[:, 1] > 0).long()
    net = nn.Sequential(nn.Linear(4, 64), XNORLinear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(150):
        loss = F.cross_entropy(net(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (net.eval()(inputs).argmax(1) == labels).float().mean() > 0.9


def test_any_backbone_can_be_made_binary():
    net = create_classifier("shufflenet_v2_x0_5", num_classes=3)
    names = binarize_(net, "xnor")
    assert len(names) > 10
    assert next(layer.name for layer in layers_of(net)) not in names
    assert all(net.get_submodule(name).groups == 1 for name in names)
    net.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
