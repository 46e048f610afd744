"""Packed files: exact to the last bit, as small as the arithmetic says, and never wrong when damaged."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress import is_packed, pack, packed_file, prune_, read_packed_metadata, share_, unpack
from compress.relative_index import to_gaps, to_places

WORDS = {"name": "blocks", "class_names": '["rød", "blue"]'}


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 30), nn.Linear(30, 3))
    prune_(net, density={"conv": 0.9, "fc": 0.2})
    share_(net, bits=3)
    return net


@pytest.fixture(scope="module")
def content() -> bytes:
    return pack(small_net(), WORDS).content


def bits(tensor: torch.Tensor) -> list[int]:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert bits(found[name]) == bits(tensor), name


def test_the_paper_s_distances_with_a_filler_zero() -> None:
    # Figure 2: weights at 1, 4 and 15, counted from 1, and 3 bits: distances 1, 3, 8 to a filler zero, 3.
    gaps = to_gaps(np.array([0, 3, 14]), bits=3)
    assert gaps.steps.tolist() == [0, 2, 7, 2]
    assert gaps.is_kept.tolist() == [True, True, False, True]
    assert to_places(gaps.steps).tolist() == [0, 3, 11 - 1 + 1, 14]


@pytest.mark.parametrize("bits_of_a_distance", [1, 4, 8])
def test_distances_there_and_back(bits_of_a_distance) -> None:
    random = np.random.default_rng(0)
    for density in (0.001, 0.05, 0.5, 1.0):
        places = np.flatnonzero(random.random(5000) < density)
        gaps = to_gaps(places, bits_of_a_distance)
        assert to_places(gaps.steps)[gaps.is_kept].tolist() == places.tolist()
        assert int(gaps.steps.max(initial=0)) < 1 << bits_of_a_distance


@pytest.mark.parametrize("density", [None, 0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shared_by", [None, 1, 5, 8])
def test_there_and_back_to_the_last_bit(density, shared_by) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.Linear(40, 60), nn.ConvTranspose2d(4, 6, 3))
    if density is not None:
        prune_(net, density=density)
    if shared_by is not None:
        share_(net, bits=shared_by, half=shared_by != 5)
    unpacked = unpack(pack(net, WORDS).content)
    assert_same(unpacked.state, net.state_dict())
    assert unpacked.metadata == WORDS


class OddNet(nn.Module):
    """Everything that a state dict may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.empty = nn.Linear(0, 3)
        self.zeros = nn.Linear(10, 10)
        nn.init.zeros_(self.zeros.weight)
        self.half = nn.Linear(8, 8).half()
        self.brain = nn.Conv2d(1, 4, 3).bfloat16()
        self.double = nn.Linear(4, 4).double()
        self.odd = nn.Linear(6, 10)
        with torch.no_grad():
            self.odd.weight.fill_(0.0)
            self.odd.weight[0, :4] = torch.tensor([-0.0, float("nan"), float("inf"), 1e-42])
            self.odd.weight[1:3] = 0.25
        self.tied = nn.Linear(6, 10)
        self.tied.weight = self.odd.weight
        for name, value in (("count", torch.tensor(2**40)), ("flags", torch.tensor([True, False])),
                            ("bytes", torch.arange(5, dtype=torch.uint8)), ("none", torch.zeros(0, 4)),
                            ("numbers", torch.tensor([-5, 7], dtype=torch.int32))):  # fmt: skip
            self.register_buffer(name, value)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_odd_tensors_there_and_back() -> None:
    torch.manual_seed(0)
    net = OddNet()
    assert_same(unpack(pack(net).content).state, net.state_dict())


def test_complex_numbers_are_refused() -> None:
    net = nn.Linear(2, 2)
    net.register_buffer("turns", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="turns is of type complex64; a packed file holds float32"):
        pack(net)


def test_metadata_alone(content) -> None:
    assert is_packed(content)
    assert read_packed_metadata(content) == WORDS


def test_the_order_of_the_words_makes_no_other_file(content) -> None:
    assert pack(small_net(), dict(reversed(WORDS.items()))).content == content


def test_each_byte_changed_in_turn_is_noticed(content) -> None:
    assert len(content) < 2000
    for place in range(len(content)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[place] ^= change
            with pytest.raises(ValueError, match=r"damaged|cut off|no packed file") as raised:
                unpack(bytes(damaged))
            assert "\n" not in str(raised.value)


def test_each_way_to_cut_it_off_is_noticed(content) -> None:
    for length in range(len(content)):
        with pytest.raises(ValueError, match=r"cut off|no packed file"):
            unpack(content[:length])
    with pytest.raises(ValueError, match="damaged"):
        unpack(content + b"\0")


def test_random_damages_are_noticed() -> None:
    net = nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 50))
    prune_(net, density=0.1)
    share_(net)
    content = pack(net).content
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        start, length = int(random.integers(len(content))), int(random.integers(1, 500))
        kind = random.integers(3)
        if kind == 0:
            damaged[start : start + length] = random.bytes(length)
        elif kind == 1:
            del damaged[start : start + length]
        else:
            damaged[start:start] = damaged[start : start + length]
        if bytes(damaged) == content:
            continue
        with pytest.raises(ValueError, match=r"damaged|cut off|no packed file"):
            unpack(bytes(damaged))


def rebuilt(content: bytes, *, version: int | None = None, **changes: Any) -> bytes:
    """A file with other parts (header, tables, plain, code: bytes -> bytes) and a checksum that is right."""
    front = list(packed_file._FRONT.unpack_from(content))
    parts = dict(zip(("header", "tables", "plain", "code"), packed_file._check(content), strict=True))
    parts |= {name: change(parts[name]) for name, change in changes.items()}
    code = parts.pop("code")
    deflated = [zlib.compress(part) for part in parts.values()]
    front[2] = packed_file._FRONT.size + sum(map(len, deflated)) + len(code)
    front[3], front[4:] = version or front[3], map(len, deflated)
    hashed = packed_file._FRONT.pack(*front)[16:] + b"".join(deflated) + code
    return packed_file.MAGIC + packed_file._hash(hashed) + hashed


def test_a_newer_version_is_named(content) -> None:
    assert_same(unpack(rebuilt(content)).state, small_net().state_dict())
    with pytest.raises(ValueError, match="has format 3, this program knows up to 2: update swiftsight"):
        unpack(rebuilt(content, version=3))


@pytest.mark.parametrize(
    "changes",
    [
        {"header": lambda header: header.replace(b"[30,16]", b"[30,99999999]")},
        {"header": lambda header: header.replace(b"[30,16]", b"[30,15]")},
        {"header": lambda header: header.replace(b"[30,16]", b'["30",16]')},
        {"header": lambda header: header.replace(b"float32", b"float31", 1)},
        {"header": lambda header: header.replace(b'"0.bias"', b'"0.weight"')},
        {"header": lambda header: b"[" * 100000},
        {"header": lambda header: b"{}"},
        {"tables": lambda tables: tables[:-1]},
        {"tables": lambda tables: struct.pack("<H", 65535) + tables[2:]},
        {"plain": lambda plain: plain + b"\0"},
        {"plain": lambda plain: plain[:-2]},
        {"code": lambda code: code[:-1]},
        {"code": lambda code: bytes(len(code))},
    ],
)
def test_parts_that_do_not_go_together_are_refused_though_the_checksum_is_right(content, changes) -> None:
    with pytest.raises(ValueError, match="the packed file makes no sense") as raised:
        unpack(rebuilt(content, **changes))
    assert "\n" not in str(raised.value)


def test_made_up_parts_lead_to_a_refusal_or_to_tensors(content) -> None:
    random = np.random.default_rng(0)

    def changed(part: bytes) -> bytes:
        new = bytearray(part)
        for place in random.integers(len(part), size=3):
            new[place] = int(random.integers(256))
        return bytes(new)

    refused = 0
    for _ in range(200):
        try:
            unpack(rebuilt(content, **{str(random.choice(["header", "tables", "plain", "code"])): changed}))
        except ValueError:
            refused += 1
    assert 50 < refused < 200  # changed numbers that are not in the code are numbers as well
