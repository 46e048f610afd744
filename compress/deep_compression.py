"""Deep Compression in one go, without training: prune, share, round the rest, pack.

**Reference**: Han et al., Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and
Huffman Coding, ICLR 2016, arXiv:1510.00149.

**Deviations**: the paper trains the net again after each of the first two stages; here that is the caller's, by
`prune_` and `share_` with `hold`. Batch norms are brought down to two numbers a channel, and what is not of a layer to
half precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from . import relative_index, weight_sharing
from .halves import round_others_
from .norms import simplify_norms_
from .packed_file import Packed, pack
from .prune import Pruning, prune_, pruning_of
from .weight_sharing import Sharing, share_


@dataclass(frozen=True)
class Settings:
    """density, quality, scope: as in `prune_`, without either nothing is pruned; bits, start: as in `share_`;
    index_bits: as in `pack`; skip: layers or parts that are neither pruned nor shared.
    """

    density: float | Mapping[str, float] | None = None
    quality: float | Mapping[str, float] | None = None
    scope: str = "net"
    bits: int | Mapping[str, int] = field(default_factory=lambda: dict(weight_sharing.PAPER_BITS))
    start: str = "linear"
    index_bits: int | Mapping[str, int] = field(default_factory=lambda: dict(relative_index.PAPER_BITS))
    skip: Sequence[str] = ()

    def prune_(self, net: nn.Module) -> Pruning:
        """`prune_` as the settings say; where they say nothing of it, what is zero already counts as pruned."""
        if self.density is None and self.quality is None:
            return pruning_of(net, self.skip)
        return prune_(net, density=self.density, quality=self.quality, scope=self.scope, skip=self.skip)

    def share_(self, net: nn.Module) -> Sharing:
        """`share_` as the settings say."""
        return share_(net, bits=self.bits, start=self.start, skip=self.skip)


def deep_compress_(net: nn.Module, settings: Settings, metadata: Mapping[str, str] | None = None) -> Packed:
    """Prune and share the net's weights, then `finish_`. Raises as `prune_`, `share_` and `pack`."""
    settings.prune_(net)
    settings.share_(net)
    return finish_(net, settings, metadata)


def finish_(net: nn.Module, settings: Settings, metadata: Mapping[str, str] | None = None) -> Packed:
    """What comes when the shared weights are final: simplify the norms, round the rest, and pack what the net then is,
    with words beside it. `unpack` gives that net to the last bit.
    """
    simplify_norms_(net)
    round_others_(net)
    return pack(net, metadata, index_bits=settings.index_bits)
