"""The figures of a packed net in the form of the paper's tables.

**Reference**: Han et al., Deep Compression, ICLR 2016, arXiv:1510.00149, Tables 2 to 5 and 7.

**Deviations**: the last row counts the file as it lies on the disk, with norms, biases, names and tables of the codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .coding import Account
from .packed_file import Packed

LAYER_HEADS = (
    "layer", "weights", "kept %", "weight bits", "with H", "index bits", "with H", "P+Q %", "P+Q+H %",
)  # fmt: skip
STAGE_HEADS = ("stage", "bytes", "ratio")


class Stage(NamedTuple):
    """name: what was done; size: the bytes of the whole net after it."""

    name: str
    size: int


def stages(packed: Packed) -> tuple[Stage, ...]:
    """The whole net dense in float32, after each stage, and as a file. Whatever is not of a layer counts four bytes a
    number until it is in the file.
    """
    others = 4 * packed.other

    def whole(size: Callable[[Account], int]) -> int:
        return others + sum(size(account) for account in packed.accounts)

    return (
        Stage("float32", whole(lambda account: account.dense_bytes)),
        Stage("pruned (P)", whole(lambda account: account.pruned_bytes)),
        Stage("shared (P+Q)", whole(lambda account: account.shared_bytes)),
        Stage("file (P+Q+H)", len(packed.content)),
    )


def stage_rows(packed: Packed) -> list[list[str]]:
    """A row under `STAGE_HEADS` for each stage."""
    found = stages(packed)
    return [[stage.name, f"{stage.size:,}", f"{found[0].size / max(stage.size, 1):.1f}x"] for stage in found]


def layer_rows(packed: Packed) -> list[list[str]]:
    """A row under `LAYER_HEADS` for each layer, and one for all of them: weights kept, bits of a weight and of a
    distance without Huffman and with it, bytes in per cent of float32. Bits are means over the entries that are stored.
    """
    rows = [_row(account.name, [account]) for account in packed.accounts]
    return [*rows, _row("all layers", packed.accounts)]


def _row(name: str, accounts: Sequence[Account]) -> list[str]:
    entries = max(sum(account.entries for account in accounts), 1)
    weights = sum(account.weights for account in accounts)

    def mean(bits: Callable[[Account], float]) -> str:
        return f"{sum(bits(account) for account in accounts) / entries:.1f}"

    def part(size: Callable[[Account], int]) -> str:
        return f"{100 * sum(size(account) for account in accounts) / (4 * weights):.2f}"

    return [
        name,
        f"{weights:,}",
        f"{100 * sum(account.kept for account in accounts) / weights:.1f}",
        mean(lambda account: account.entries * account.weight_bits),
        mean(_coded_weight_bits),
        mean(lambda account: account.entries * account.index_bits),
        mean(lambda account: account.index_code_bits),
        part(lambda account: account.shared_bytes),
        part(lambda account: account.coded_bytes),
    ]


def _coded_weight_bits(account: Account) -> int:
    """Without a codebook the values themselves."""
    return account.weight_code_bits if account.clusters else 8 * account.value_bytes
