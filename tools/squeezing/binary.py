"""A net with binary layers (BWN, XNOR-Net) as a packed file: trained by its config, its weights a bit each."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, TypeAlias

from torch import nn

from backbones.binary_layers import BinaryChoice, binary_words
from backbones.weights import read_metadata
from compress import Packed, holds_bits, is_binary, pack, settle_binary_

from ..configuration.training_config import BinarizeConfig
from ..table import format_table
from .squeezed_net import Squeezed, choose_net, empty_auxiliary

_WORD = "binary"
LayerRow: TypeAlias = tuple[str, str, list[int], int, int]
_HEADS = ("layer", "kind", "shape", "float32 bytes", "file bytes")


def made_binary(args: argparse.Namespace) -> Squeezed:
    """The net that the words mean with layers of `args.method`, packed. ValueError where it cannot be.

    A file of binary weights with real inputs is one of ordinary layers, whose weights are scales times signs; one of
    XNOR layers says so, and gives a net with those.
    """
    name, file, create = choose_net(args.model, args.weights)
    net = create(name, weights=file)
    if not isinstance(net, BinaryChoice):
        raise ValueError(f"{name} is a net for two tasks; --method {args.method} is for a net for one")
    if holds_bits(net):
        raise ValueError(f"{file} holds bits already; expected real weights, or a training's best.safetensors")
    binarize = BinarizeConfig(args.method, tuple(args.skip), scale_inputs=args.scale_inputs)
    is_trained = bool(args.config or net.binary)
    if args.config:
        from .retraining import retrain_binary  # here: it brings mmengine

        file = retrain_binary(args, name, file, binarize)
        net = create(name, weights=file)
    _choose_layers(net, binarize, str(file))
    print(_in_words(net, file.name, is_trained), flush=True)
    settle_binary_(net)
    if not args.keep_all:
        empty_auxiliary(net)
    packed = pack(net, _file_words(net, {**read_metadata(file), "name": name}))
    rows = _layer_rows(net, packed)
    figures = {
        "settings": {**net.binary, "trained": is_trained},
        "stages": {"float32": _float_bytes(packed), "file": len(packed.content)},
        "layers": [
            dict(zip(("name", "kind", "shape", "dense_bytes", "coded_bytes"), row, strict=True)) for row in rows
        ],
    }
    return Squeezed(net, packed, _tables(rows, packed), figures)


def _choose_layers(net: BinaryChoice, binarize: BinarizeConfig, source: str) -> None:
    """Make layers binary as the words say; those of a file that is of binary layers stay, and must be what was said."""
    wanted = {**dataclasses.asdict(binarize), "skip": list(binarize.skip)}
    if not net.binary:
        net.binarize_(**wanted)
    unsaid = {"keep_ends", *(() if binarize.skip else ("skip",)), *(() if binarize.scale_inputs else ("scale_inputs",))}
    if any(net.binary[key] != value for key, value in wanted.items() if key not in unsaid):
        raise ValueError(f"{source} is of binarize {net.binary}; --method, --skip and --scale-inputs say {wanted}")


def _file_words(net: BinaryChoice, words: dict[str, str]) -> dict[str, str]:
    """What the packed file says: that its layers are binary only where their inputs are, too."""
    others = {word: meaning for word, meaning in words.items() if word != _WORD}
    return {**others, **(binary_words(net) if net.binary["mode"] == "xnor" else {})}


def _in_words(net: nn.Module, file: str, is_trained: bool) -> str:
    layers = [part for part in net.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    counts = [sum(layer.weight.numel() for layer in layers if is_binary(layer) is kind) for kind in (True, False)]
    chosen = sum(map(is_binary, layers))
    part = f"{100 * counts[0] / sum(counts):.1f} % of the weights"
    said = f"{file}: binary are {chosen} of {len(layers)} layers with {part}; the ends and depthwise layers stay real"
    warning = "not trained: without --config a binary net finds next to nothing"
    return said if is_trained else f"{said}\n{warning}"


def _layer_rows(net: nn.Module, packed: Packed) -> list[LayerRow]:
    """Of each layer: name, kind, the weights' shape, bytes as float32 and in the file, before zlib."""
    rows = []
    for account in packed.accounts:
        layer: Any = net.get_submodule(account.name)
        kind = f"{'binary' if is_binary(layer) else 'real'} {account.kind}"
        rows.append((account.name, kind, list(layer.weight.shape), account.dense_bytes, account.coded_bytes))
    return rows


def _float_bytes(packed: Packed) -> int:
    return 4 * packed.other + sum(account.dense_bytes for account in packed.accounts)


def _tables(rows: list[LayerRow], packed: Packed) -> str:
    """Layer by layer, then all that are binary, all that are real, both before zlib, and the file."""
    layers = [
        [name, kind, " x ".join(map(str, shape)), f"{before:,}", f"{after:,}"]
        for name, kind, shape, before, after in rows
    ]
    parts = []
    for what in ("binary", "real"):
        own = [row for row in rows if row[1].startswith(what)]
        parts.append((f"{what} layers", sum(row[3] for row in own), sum(row[4] for row in own)))
    parts.append(("file, norms and all", _float_bytes(packed), len(packed.content)))
    lines = [[name, f"{before:,}", f"{after:,}", f"{before / max(after, 1):.1f}x"] for name, before, after in parts]
    heads = ("part", "float32 bytes", "file bytes", "ratio")
    return f"\n{format_table(_HEADS, layers)}\n\n{format_table(heads, lines)}"
