"""Binary weights in a packed file: a bit each, exact, and refused when damaged."""

import zlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from compress import binarize_, make_plain_, pack, packed_file, settle_binary_, unpack
from compress.sign_coding import code_signs, decode_signs, is_signs


def binary_net(mode: str, **options: bool) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3, groups=2, bias=False), nn.Conv2d(24, 30, 1),
        nn.ReLU(), nn.Conv2d(30, 2, 1),
    )  # fmt: skip
    binarize_(net, mode, **options)
    return net.eval()


def same_bits(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.equal(found.reshape(-1).view(torch.uint8), expected.detach().reshape(-1).view(torch.uint8))


def test_a_filter_by_hand() -> None:
    weights = np.array([[0.5, -0.5, 0.5, 0.5], [-2.0, -2.0, 2.0, -2.0], [0.0, -0.0, 0.0, 0.0]], np.float32)
    patterns = weights.reshape(-1).view(np.uint32)
    assert is_signs(patterns, (3, 4))
    scales, signs = code_signs(patterns, (3, 4))
    assert scales.view(np.float32).tolist() == [0.5, 2.0, 0.0]
    assert signs == bytes([0b10110010, 0b00000010])  # the first weight is the lowest bit
    assert decode_signs(scales, signs, 12).tolist() == patterns.tolist()


@pytest.mark.parametrize(
    "weights", [[[0.5, -0.25], [1.0, 1.0]], [[0.0, -0.0], [0.0, 0.0]], [[0.5], [0.25]]], ids=["two", "zeros", "single"]
)
def test_what_is_no_number_times_signs(weights) -> None:
    patterns = np.array(weights, np.float32)
    assert not is_signs(patterns.reshape(-1).view(np.uint32), patterns.shape)


@pytest.mark.parametrize("mode", ["bwn", "xnor"])
def test_settled_weights_give_the_same_net_and_a_bit_a_weight(mode) -> None:
    net = binary_net(mode)
    images = torch.randn(2, 3, 9, 9)
    before = net(images)
    settle_binary_(net)
    assert same_bits(net(images), before)
    packed = pack(net)
    binary = packed.accounts[1:3]
    assert [account.coded_bytes for account in binary] == [24 * 8 * 9 // 8 + 4 * 24, 30 * 24 // 8 + 4 * 30]
    state = unpack(packed.content).state
    assert all(same_bits(state[name], tensor) for name, tensor in net.state_dict().items())
    other = binary_net(mode)
    other.load_state_dict(state)
    assert same_bits(other(images), before)


def test_without_signs_a_file_is_what_older_programs_read() -> None:
    version = slice(24, 26)
    assert pack(nn.Linear(4, 4)).content[version] == b"\1\0"
    settled = binary_net("bwn")
    settle_binary_(settled)
    assert pack(settled).content[version] == b"\2\0"


def test_each_byte_of_a_file_of_signs_changed_or_cut_is_noticed() -> None:
    net = nn.Sequential(nn.Linear(20, 8))
    binarize_(net, "bwn", keep_ends=False)
    settle_binary_(net)
    content = pack(net).content
    for place in range(len(content)):
        with pytest.raises(ValueError, match="packed file"):
            unpack(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ValueError, match="packed file"):
            unpack(content[:place])


def test_binary_weights_as_ordinary_layers() -> None:
    net = binary_net("bwn")
    images = torch.randn(2, 3, 9, 9)
    before = net(images)
    make_plain_(net)
    assert {type(part) for part in net} == {nn.Conv2d, nn.ReLU}
    assert same_bits(net(images), before)
    xnor = binary_net("xnor")
    kinds = [type(part) for part in xnor.modules()]
    make_plain_(xnor)
    assert [type(part) for part in xnor.modules()] == kinds


def test_scales_of_settled_filters_are_what_they_were() -> None:
    torch.manual_seed(0)
    weight = torch.randn(60, 1, 1, 999)
    net = nn.Conv2d(999, 60, 1)
    scales = weight.abs().mean((1, 2, 3), dtype=torch.float64).float()
    row = nn.Sequential(net)
    with torch.no_grad():
        net.weight.copy_(weight.transpose(1, 3))
    binarize_(row, "bwn", keep_ends=False)
    for _ in range(3):
        settle_binary_(row)
    assert_close(row[0].weight.abs().amax((1, 2, 3)), scales, rtol=0, atol=0)


@pytest.mark.parametrize(
    "after",
    [
        b'"float32",[160],false,null,0,true',
        b'"float32",[8,999],false,null,0,true',
        b'"int32",[8,20],false,null,0,true',
        b'"float32",[8,20],false,160,2,true',
        b'"float32",[8,20],false,null,0,3',
        b'"float32",[0,20],false,null,0,true',
    ],
)
def test_headers_that_do_not_go_with_signs(after) -> None:
    net = nn.Sequential(nn.Linear(20, 8))
    binarize_(net, "bwn", keep_ends=False)
    settle_binary_(net)
    content = pack(net).content
    front = list(packed_file._FRONT.unpack_from(content))
    *parts, rest = packed_file._check(content)
    before = b'"float32",[8,20],false,null,0,true'
    assert before in parts[0]
    parts[0] = parts[0].replace(before, after)
    deflated = [zlib.compress(part) for part in parts]
    front[2], front[4:] = packed_file._FRONT.size + sum(map(len, deflated)) + len(rest), map(len, deflated)
    hashed = packed_file._FRONT.pack(*front)[16:] + b"".join(deflated) + rest
    with pytest.raises(ValueError, match="makes no sense"):
        unpack(packed_file.MAGIC + packed_file._hash(hashed) + hashed)
