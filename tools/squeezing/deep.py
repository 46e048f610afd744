"""A net by Deep Compression: pruned, its weights shared, trained between where a config says how."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from backbones.weights import read_metadata
from compress import Packed, Settings, finish_, stages
from compress.report import LAYER_HEADS, STAGE_HEADS, layer_rows, stage_rows

from ..table import format_table
from .squeezed_net import Squeezed, auxiliary_parts, choose_net, empty_auxiliary


def deeply_compressed(args: argparse.Namespace) -> Squeezed:
    """The net that the words mean, squeezed as they say, and packed. ValueError where it cannot be."""
    name, file, create = choose_net(args.model, args.weights)
    words = {**read_metadata(file), "name": name}
    if "binary" in words:
        raise ValueError(f"{file} is of binary layers; --method bwn or xnor stores them")
    net, settings, trained = _pruned_and_shared(args, name, file, create)
    words |= read_metadata(trained)  # the config may have changed an option
    if not args.keep_all:
        empty_auxiliary(net)
    packed = finish_(net, settings, words)
    return Squeezed(net, packed, describe(packed), as_json(packed, settings))


def _pruned_and_shared(
    args: argparse.Namespace, name: str, file: Path, create: Callable[..., Any]
) -> tuple[nn.Module, Settings, Path]:
    """The net, how it was squeezed, and the file that says what it is."""
    net = create(name, weights=file)
    settings = _settings(args, net)
    if args.config is None:
        print(f"{name}: {file}", flush=True)
        pruning = settings.prune_(net)
        print(f"pruned: {100 * pruning.density:.1f} % of the weights are left", flush=True)
        settings.share_(net)
        bits = dict(settings.bits) if isinstance(settings.bits, Mapping) else {}
        print(f"shared: by {bits['conv']} bits in convolutions, {bits['fc']} in linear layers", flush=True)
        return net, settings, file
    from .retraining import retrain  # here: it brings mmengine

    net, trained = retrain(args, name, file, settings)
    return net, settings, trained


def _settings(args: argparse.Namespace, net: nn.Module) -> Settings:
    skip = [*args.skip, *(() if args.keep_all else auxiliary_parts(net))]
    widths = (args.bits or (6,), args.index_bits or (8, 5))
    bits, index_bits = ({"conv": values[0], "fc": values[-1]} for values in widths)
    return Settings(args.density, args.quality, args.scope or "net", bits, args.start or "linear", index_bits, skip)


def describe(packed: Packed) -> str:
    """The tables of the paper: layer by layer, then stage by stage."""
    layers = format_table(LAYER_HEADS, layer_rows(packed))
    return f"\n{layers}\n\n{format_table(STAGE_HEADS, stage_rows(packed))}"


def as_json(packed: Packed, settings: Settings) -> dict[str, Any]:
    """The report in plain values."""
    return {
        "settings": dataclasses.asdict(settings),
        "stages": {stage.name: stage.size for stage in stages(packed)},
        "layers": [account._asdict() for account in packed.accounts],
    }
