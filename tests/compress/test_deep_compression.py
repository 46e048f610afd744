"""The three stages in a row, their figures in the form of the paper's tables, and norms in two numbers."""

import pytest
import torch
from torch import nn

from compress import Account, Settings, deep_compress_, round_others_, simplify_norms_, stages, unpack
from compress.report import LAYER_HEADS, layer_rows, stage_rows

# The authors' released SqueezeNet: weights kept and filler zeros of each layer, read from its file.
SQUEEZENET = [
    (14112, 13902, 0),
    (1536, 1528, 0), (1024, 1020, 0), (9216, 3039, 34),
    (2048, 2038, 0), (1024, 1023, 0), (9216, 3039, 42),
    (4096, 4085, 0), (4096, 4071, 0), (36864, 12156, 132),
    (8192, 8160, 0), (4096, 4067, 0), (36864, 12147, 196),
    (12288, 12161, 0), (9216, 4602, 0), (82944, 27325, 233),
    (18432, 9205, 0), (9216, 9129, 3), (82944, 27336, 228),
    (24576, 24388, 0), (16384, 8187, 3), (147456, 44144, 775),
    (32768, 16370, 1), (16384, 16303, 0), (147456, 44173, 865),
    (512000, 102323, 3650),
]  # fmt: skip
SQUEEZENET_BIASES = 3976
SQUEEZENET_FILE = 675_763


def account(weights: int, kept: int, fillers: int, *, clusters: int = 255, index_bits: int = 4) -> Account:
    return Account("layer", "conv", weights, kept, kept + fillers, clusters, index_bits, 0, 0, 0)


def test_the_size_of_the_released_squeezenet() -> None:
    accounts = [account(*layer) for layer in SQUEEZENET]
    assert sum(layer.kept for layer in accounts) == 415_921
    assert sum(layer.entries for layer in accounts) == 422_083
    assert {layer.weight_bits for layer in accounts} == {8}
    assert sum(layer.shared_bytes for layer in accounts) + 4 * SQUEEZENET_BIASES == SQUEEZENET_FILE


def test_the_paper_s_ratio_of_sixteen_weights_and_four_clusters() -> None:
    # Section 3: 16 weights of 32 bits with 4 shared values: 512 / (16 * 2 + 4 * 32) = 3.2. Four bytes are the count's.
    shared = account(16, 16, 0, clusters=4, index_bits=0)
    assert shared.weight_bits == 2
    assert 4 * 16 / (shared.shared_bytes - 4) == pytest.approx(3.2)


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(8), nn.Flatten(),
        nn.Linear(2048, 64), nn.Linear(64, 10),
    )  # fmt: skip


def test_stages_get_smaller_and_the_file_is_the_last() -> None:
    net = small_net()
    packed = deep_compress_(net, Settings(density=0.1, bits={"conv": 6, "fc": 5}), {"name": "small"})
    sizes = [stage.size for stage in stages(packed)]
    numbers = sum(tensor.numel() for tensor in net.state_dict().values())
    assert sizes[0] == 4 * numbers
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == len(packed.content)
    assert sizes[0] / sizes[-1] > 20
    state = unpack(packed.content).state
    for name, tensor in net.state_dict().items():
        assert torch.equal(state[name], tensor)


def test_the_table_by_hand() -> None:
    net = nn.Sequential(nn.Linear(8, 4, bias=False), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].weight.view(-1)[[3, 30]] = 0.5  # distances 4 and 27: with 4 bits a filler zero at 19
        net[1].weight.view(-1).copy_(torch.tensor([1.0, 2.0]).repeat_interleave(8))
    packed = deep_compress_(net, Settings(bits=1, index_bits=4))
    assert stage_rows(packed)[0] == ["float32", "192", "1.0x"]
    rows = layer_rows(packed)
    # Three entries: indices 1, 0, 1 and distances less one 3, 15, 10. Two bits a distance on average, 5 in all.
    assert rows[0][:7] == ["0", "32", "6.2", "1.0", "1.0", "4.0", "1.7"]
    assert packed.accounts[0].index_code_bits == 5
    # All are kept: an index of one bit each, and no distances.
    assert rows[1][:7] == ["1", "16", "100.0", "1.0", "1.0", "0.0", "0.0"]
    assert rows[2][:3] == ["all layers", "48", "37.5"]
    assert {len(row) for row in rows} == {len(LAYER_HEADS)}


def test_norms_in_two_numbers_a_channel_give_the_same() -> None:
    net = small_net()
    for _ in range(20):
        net(3 * torch.randn(8, 3, 12, 12) + 1)
    with torch.no_grad():
        net[1].weight.uniform_(0.5, 2)
        net[1].bias.uniform_(-1, 1)
    net.eval()
    images = torch.randn(2, 3, 12, 12)
    expected = net(images)
    simplify_norms_(net)
    assert torch.equal(net[1].running_mean, torch.zeros(32))
    assert torch.equal(net[1].running_var, torch.ones(32))
    torch.testing.assert_close(net(images), expected, rtol=1e-5, atol=1e-5)
    without = nn.BatchNorm2d(3, affine=False)
    simplify_norms_(without)
    assert without.running_mean is not None


def test_the_rest_is_rounded_unless_that_would_lose_something() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.BatchNorm1d(4))
    weights = net[0].weight.detach().clone()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([1.0, 2.0, 70000.0, 3.0]))  # over what half precision can hold
        net[1].bias.copy_(torch.tensor([1.0, 1e-9, 2.0, 0.0]))  # and what would become zero
        net[2].weight.fill_(1 / 3)
    round_others_(net)
    assert torch.equal(net[0].weight, weights)
    assert torch.equal(net[0].bias.half().float(), net[0].bias)
    assert net[1].weight.tolist()[2] == 70000.0
    assert net[1].bias.tolist()[1] == pytest.approx(1e-9)
    assert net[2].weight.tolist() == [0.333251953125] * 4
