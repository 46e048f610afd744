"""Layers of bits against the binary layers that they come from: the same numbers for any shape and threads."""

import copy
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

import compress
from compress import (
    BinaryWeightConv2d,
    BinaryWeightLinear,
    XNORConv2d,
    XNORLinear,
    binarize_,
    deploy_bits,
    holds_bits,
    xnor_kernel,
)
from compress.xnor_filters import pack_bits, unpack_bits

# channels, filters, (height, width), kernel, what else the layer is told
SHAPES = [
    (64, 16, (8, 8), 3, {"padding": 1}),
    (256, 24, (5, 7), 1, {"bias": False}),
    (37, 21, (13, 17), 3, {"stride": 2, "padding": 1}),
    (1100, 9, (7, 5), 3, {"padding": 2, "dilation": 2}),  # 35 words a tap: two pieces
    (70, 16, (9, 9), 5, {"stride": 3, "padding": 2}),
    (64, 32, (6, 6), 3, {"groups": 4, "padding": (1, 0), "stride": (1, 2)}),
    (33, 8, (2, 3), (2, 3), {"padding": "same"}),
    (64, 8, (4, 4), 3, {"padding": "valid"}),
    (3, 5, (1, 1), 1, {}),
    (40, 8, (3, 3), 3, {"padding": 4}),  # windows that lie in the padding as a whole
]


@pytest.fixture
def threads():
    """Sets torch's number of threads, and sets it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=["words", "bytes"])
def counting(request, monkeypatch):
    """Both ways to count bits, whatever this processor does best."""
    monkeypatch.setattr(xnor_kernel, "counts_words", lambda: request.param == "words")


def exactly(actual, expected):
    assert_close(actual, expected, rtol=0, atol=0)


def layer_of(channels, filters, kernel, options, **more):
    layer = XNORConv2d(channels, filters, kernel, **options, **more).eval()
    layer.norm.running_mean.normal_()
    layer.norm.weight.data.normal_()
    return layer


def test_bits_are_packed_from_the_lowest_up():
    signs = torch.tensor([[1.0, -1, 1, 1, -1, -1, -1, -1, 1, -1], [-1.0] * 9 + [1]])
    assert pack_bits(signs).tolist() == [[0b00001101, 0b01], [0, 0b10]]
    exactly(unpack_bits(pack_bits(signs), 10), signs)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(("channels", "filters", "size", "kernel", "options"), SHAPES)
@torch.no_grad()
def test_bits_give_what_the_simulation_gives(counting, channels, filters, size, kernel, options):
    torch.manual_seed(0)
    layer = layer_of(channels, filters, kernel, options)
    inputs = torch.randn(3, channels, *size)
    exactly(deploy_bits(layer)(inputs), layer(inputs))


@pytest.mark.parametrize(("channels", "filters", "size", "kernel", "options"), SHAPES[::2])
@torch.no_grad()
def test_so_they_do_with_the_inputs_scales(channels, filters, size, kernel, options):
    torch.manual_seed(0)
    layer = layer_of(channels, filters, kernel, options, scale_inputs=True)
    inputs = torch.randn(3, channels, *size)
    assert_close(deploy_bits(layer)(inputs), layer(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("team", ["torch's", "none"])
@torch.no_grad()
def test_threads_change_nothing(team, threads, monkeypatch):
    """96 million products: enough for three threads, which take turns where there are fewer cores."""
    if team == "none":
        monkeypatch.setattr(xnor_kernel, "_torch_team", lambda: None)
    torch.manual_seed(0)
    layer = layer_of(64, 64, 3, {"padding": 1})
    inputs = torch.randn(3, 64, 29, 31)
    threads(1)
    one = deploy_bits(layer)(inputs)
    threads(3)
    exactly(deploy_bits(layer)(inputs), one)
    exactly(one, layer(inputs))


@torch.no_grad()
def test_numbers_at_the_edge_have_the_same_signs():
    layer = XNORConv2d(40, 4, 1, bias=False, input_norm=False)
    inputs = torch.randn(1, 40, 4, 5)
    inputs[0, :7, 0, 0] = torch.tensor([0.0, -0.0, float("nan"), float("inf"), float("-inf"), 1e-45, -1e-45])
    exactly(deploy_bits(layer)(inputs), layer(inputs))


@torch.no_grad()
def test_inputs_may_lie_in_memory_as_they_like():
    layer = layer_of(48, 8, 3, {"padding": 1})
    bits = deploy_bits(layer)
    inputs = torch.randn(2, 48, 6, 20)
    expected = layer(inputs)
    layer.norm = bits.norm = nn.Identity()  # which hands on what comes as it lies
    expected = layer(inputs)
    exactly(bits(inputs.contiguous(memory_format=torch.channels_last)), expected)
    exactly(bits(inputs.transpose(2, 3).contiguous().transpose(2, 3)), expected)
    exactly(bits(torch.cat((inputs, inputs), 1)[:, 48:]), expected)
    exactly(bits(inputs[:0]), expected[:0])
    exactly(bits(inputs[:, :, :, :1]), layer(inputs[:, :, :, :1]))  # another size by the same filters


def test_linear_layers_and_layers_with_real_inputs():
    torch.manual_seed(0)
    inputs = torch.randn(11, 70)
    xnor, scaled = XNORLinear(70, 21).eval(), XNORLinear(70, 21, scale_inputs=True).eval()
    exactly(deploy_bits(xnor)(inputs), xnor(inputs))
    assert deploy_bits(xnor)(inputs[:0]).shape == xnor(inputs[:0]).shape
    assert_close(deploy_bits(scaled)(inputs), scaled(inputs))
    linear = BinaryWeightLinear(70, 21)
    exactly(deploy_bits(linear)(inputs), linear(inputs))
    conv = BinaryWeightConv2d(6, 4, 3, stride=2, padding=1, groups=2, bias=False)
    pictures = torch.randn(2, 6, 9, 8)
    exactly(deploy_bits(conv)(pictures), conv(pictures))


def small_net(mode):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 16, 96), nn.ReLU(), nn.Linear(96, 10),
    )  # fmt: skip
    binarize_(net, mode)
    net(torch.randn(8, 3, 16, 16))  # the norms see something
    return net.eval()


@pytest.mark.parametrize("mode", ["bwn", "xnor"])
def test_a_whole_net_of_bits(mode, tmp_path):
    """The same logits, alone and in a batch; a file with one bit a weight, from which another net is made."""
    net = small_net(mode)
    bits = deploy_bits(net)
    assert holds_bits(bits)
    assert not holds_bits(net)
    pictures = torch.randn(5, 3, 16, 16)
    expected = net(pictures)
    assert expected.std() > 0.05
    assert_close(bits(pictures), expected)
    assert_close(bits(pictures[2:3]), expected[2:3])

    stored = bits.state_dict()
    for layer in ("3", "5", "9"):
        weights = net.get_submodule(layer).weight
        assert stored[f"{layer}.bits"].numel() * 32 == weights.numel() * weights.element_size()
        assert f"{layer}.weight" not in stored
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, tmp_path / "bits.safetensors")
    other = small_net(mode)
    for parameter in other.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    other = deploy_bits(other)
    assert (other(pictures) - expected).abs().max() > 0.01
    other.load_state_dict(load_file(tmp_path / "bits.safetensors"))
    exactly(other(pictures), bits(pictures))
    exactly(copy.deepcopy(other)(pictures), bits(pictures))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(1, 8, 4, 4, dtype=torch.float64), "inputs are torch.float64 on cpu; expected torch.float32"),
        (torch.zeros(1, 8, 4, 4, device="meta"), "inputs are torch.float32 on meta"),
        (torch.zeros(1, 7, 4, 4), r"inputs have shape \[1, 7, 4, 4\]; expected 8 channels"),
        (torch.zeros(8, 4, 4), r"inputs have shape \[8, 4, 4\]"),
        (torch.zeros(1, 8, 2, 4), r"inputs of 2 x 4 pixels are too small for a kernel of \[3, 3\]"),
    ],
)
def test_wrong_inputs_are_refused(inputs, message):
    bits = deploy_bits(XNORConv2d(8, 4, 3, input_norm=False))
    with pytest.raises(ValueError, match=message):
        bits(inputs)


def test_what_has_no_bits_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="Linear has no binary layer"):
        deploy_bits(nn.Linear(2, 2))
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), nn.Conv2d(2, 2, 1))
    binarize_(net, "bwn")
    with pytest.raises(ValueError, match="padding_mode is 'reflect'"):
        deploy_bits(net)


def test_without_numba_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "compress.xnor_kernel", None)
    monkeypatch.delattr(compress, "xnor_kernel")
    bits = deploy_bits(XNORConv2d(8, 4, 1))
    with pytest.raises(ValueError, match=r'counting bits needs numba .*: pip install "\.\[fast\]" in the checkout'):
        bits(torch.zeros(1, 8, 2, 2))


def test_many_sizes_are_not_kept_for_ever():
    bits = deploy_bits(XNORConv2d(8, 4, 1, input_norm=False))
    for side in range(1, 50):
        bits(torch.zeros(1, 8, side, side))
    assert len(bits.filters()[0]._tasks) < 40
