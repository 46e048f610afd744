"""Make a net's file small: prune its weights, let them share values, code what is left; or make them binary. With a
config, train between.

The file that comes out is loaded wherever weights are named: by `demo`, `eval`, `export`, `bench`, and from Python.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .device import add_device_argument
from .errors import UsageError
from .table import format_table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress import Packed, Settings

DEEP_COMPRESSION = "deep-compression"
METHODS = (DEEP_COMPRESSION, "bwn", "xnor")
SUFFIX = ".packed"
_INTERRUPTED = 130
_FOR_TRAINING = ("epochs", "sharing_epochs", "set", "work_dir", "device")
_OF_DEEP_COMPRESSION = ("density", "quality", "scope", "bits", "index_bits", "start", "sharing_epochs", "plot")
_AUXILIARY = "auxiliary"  # parts of such names help to learn, and nothing else runs them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """[MODEL] [--weights W] --method M --output FILE, how to squeeze, and what to train with in between."""
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a detector, segmenter, joint net, or backbone with its classifier")
    add("--weights", metavar="W", help="a weights file, or the data set's name of shipped weights, such as person")
    add("--method", choices=METHODS, default=METHODS[0], help=f"{', '.join(METHODS)} ({METHODS[0]})")
    add("--output", metavar="FILE", type=Path, required=True, help=f"the file to write; it ends in {SUFFIX}")
    add("--report", metavar="FILE", type=Path, help="write the figures here as well, as json")
    add("--plot", metavar="FILE", type=Path, help="draw them (.png)")
    add("--skip", metavar="PART", nargs="+", default=[], help="parts of the net to leave as they are")
    add("--keep-all", action="store_true", help="keep the weights of heads that only training uses")
    how = parser.add_argument_group(f"how much, by {DEEP_COMPRESSION}")
    how.add_argument("--density", metavar="D", type=float, help="the part of the weights to keep, 0..1 (all)")
    how.add_argument("--quality", metavar="Q", type=float, help="or: keep what is over Q deviations of its layer")
    how.add_argument("--scope", choices=("net", "layer"), help="whose density it is (net)")
    bits = "bits of a shared weight, 1..8: of convolutions, and of linear layers where they differ"
    how.add_argument("--bits", metavar="N", type=int, nargs="+", help=f"{bits} (6)")
    how.add_argument("--index-bits", metavar="N", type=int, nargs="+", help="of a distance (8 5)")
    how.add_argument("--start", choices=("linear", "density", "random"), help="of k-means (linear)")
    signs = parser.add_argument_group("signs, by xnor")
    signs.add_argument("--scale-inputs", action="store_true", help="times K, the mean |input| under each filter")
    training = parser.add_argument_group("with training in between")
    training.add_argument("--config", metavar="CONFIG", help="the config that the net was trained with")
    training.add_argument("--epochs", metavar="N", type=int, help="epochs of what was kept, or of the binary net")
    training.add_argument("--sharing-epochs", metavar="N", type=int, help="epochs of the shared values (a quarter)")
    training.add_argument("--set", metavar="KEY=VALUE", action="append", help="change one key of the config")
    training.add_argument("--work-dir", metavar="DIR", type=Path, help="where the trainings lie (beside the output)")
    add_device_argument(parser)


def run(args: argparse.Namespace) -> int:
    """0 when the file is written and read back, 130 when a training was stopped."""
    _check_words(args)
    from backbones.files import write_atomically
    from compress import unpack

    try:
        if args.method == DEEP_COMPRESSION:
            made = _deeply_compressed(args)
        else:
            from .squeeze_binary import made_binary

            made = made_binary(args)
    except InterruptedError as stop:
        print(stop)
        return _INTERRUPTED
    packed = made.packed
    check_same(made.net.state_dict(), unpack(packed.content).state)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.output, packed.content)
    print(made.tables)
    print(f"\n{args.output}: {len(packed.content):,} bytes, unpacked and compared: the same to the last bit")
    if args.report:
        write_atomically(args.report, (json.dumps(made.figures, indent=1) + "\n").encode())
    if args.plot:
        from .squeeze_plot import draw_report  # matplotlib takes a second to load

        draw_report(packed, args.plot, args.output.stem)
    return 0


class Squeezed(NamedTuple):
    """A net as it is in its file; tables and figures: what was made of it, to print and in plain values."""

    net: nn.Module
    packed: Packed
    tables: str
    figures: dict[str, Any]


def _check_words(args: argparse.Namespace) -> None:
    """UsageError for a suffix or numbers that cannot be, and for words that do not go together."""
    if args.output.suffix != SUFFIX:
        raise UsageError(f"--output {args.output}: expected a file that ends in {SUFFIX}")
    if args.plot and args.plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {args.plot}: expected a file that ends in .png")
    if args.density is not None and args.quality is not None:
        raise UsageError("--density and --quality both say how much to prune; leave one out")
    _check_method_words(args)
    for name in ("bits", "index_bits"):
        values = getattr(args, name) or ()
        if len(values) > 2 or not all(1 <= value <= 8 for value in values):
            said = " ".join(map(str, values))
            raise UsageError(f"--{name.replace('_', '-')} {said}: expected one number or two, 1 to 8")
    if args.config is None:
        odd = [name for name in _FOR_TRAINING if getattr(args, name) is not None]
        if odd:
            raise UsageError(f"--{odd[0].replace('_', '-')} goes with --config")
    elif args.epochs is None and args.method == DEEP_COMPRESSION:
        raise UsageError("--config: --epochs is missing, the number of epochs after pruning")
    for name in ("epochs", "sharing_epochs"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: expected at least 1")


def _check_method_words(args: argparse.Namespace) -> None:
    """UsageError for a word that is for another method."""
    odd = [name for name in _OF_DEEP_COMPRESSION if getattr(args, name) is not None]
    if odd and args.method != DEEP_COMPRESSION:
        raise UsageError(f"--{odd[0].replace('_', '-')} is for {DEEP_COMPRESSION}, not for --method {args.method}")
    if args.scale_inputs and args.method != "xnor":
        raise UsageError(f"--scale-inputs is for xnor, not for --method {args.method}")


def _deeply_compressed(args: argparse.Namespace) -> Squeezed:
    from backbones.weights import read_metadata
    from compress import finish_

    name, file, create = choose_net(args.model, args.weights)
    words = {**read_metadata(file), "name": name}
    if "binary" in words:
        raise ValueError(f"{file} is of binary layers; --method bwn or xnor stores them")
    net, settings = _pruned_and_shared(args, name, file, create)
    if not args.keep_all:
        empty_auxiliary(net)
    packed = finish_(net, settings, words)
    return Squeezed(net, packed, describe(packed), as_json(packed, settings))


def _pruned_and_shared(
    args: argparse.Namespace, name: str, file: Path, create: Callable[..., Any]
) -> tuple[nn.Module, Settings]:
    net = create(name, weights=file)
    settings = _settings(args, net)
    if args.config is None:
        print(f"{name}: {file}", flush=True)
        pruning = settings.prune_(net)
        print(f"pruned: {100 * pruning.density:.1f} % of the weights are left", flush=True)
        settings.share_(net)
        bits = dict(settings.bits) if isinstance(settings.bits, Mapping) else {}
        print(f"shared: by {bits['conv']} bits in convolutions, {bits['fc']} in linear layers", flush=True)
        return net, settings
    from .squeeze_training import retrain  # here: it brings mmengine

    return retrain(args, name, file, settings), settings


def choose_net(model: str | None, weights: str | None) -> tuple[str, Path, Callable[..., Any]]:
    """A net's name, its weights file and what creates it: of a detector, segmenter, joint net, or a classifier on a
    backbone. ValueError where no choice is left.
    """
    import detect
    import joint
    import segment
    from backbones import create_classifier, find_weights, list_backbones

    from .model_choice import choose_weights

    if model in list_backbones():
        if weights is None:
            raise ValueError(f"no weights come with swiftsight for {model}; name --weights")
        return str(model), find_weights(str(model), weights), create_classifier
    name, file = choose_weights(model, weights)
    if name in list_backbones():
        return name, file, create_classifier
    if name in segment.list_segmenters():
        return name, file, segment.create_segmenter
    return name, file, joint.create_joint if name in joint.list_joints() else detect.create_detector


def _settings(args: argparse.Namespace, net: nn.Module) -> Settings:
    from compress import Settings

    skip = [*args.skip, *(() if args.keep_all else auxiliary_parts(net))]
    widths = (args.bits or (6,), args.index_bits or (8, 5))
    bits, index_bits = ({"conv": values[0], "fc": values[-1]} for values in widths)
    return Settings(args.density, args.quality, args.scope or "net", bits, args.start or "linear", index_bits, skip)


def auxiliary_parts(net: nn.Module) -> list[str]:
    """The heads that only training uses, by name."""
    names = [name for name, _ in net.named_modules()]
    found = [name for name in names if name.rpartition(".")[2].startswith(_AUXILIARY)]
    return [name for name in found if not any(name.startswith(f"{other}.") for other in found)]


def empty_auxiliary(net: nn.Module) -> None:
    """Make all numbers of the heads that only training uses zero: they then take no room."""
    parts, count = auxiliary_parts(net), 0
    for part in parts:
        for parameter in net.get_submodule(part).parameters():
            parameter.detach().zero_()
            count += parameter.numel()
    if count:
        print(f"left out: {count:,} parameters of {', '.join(parts)}, which only training uses")


def check_same(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """RuntimeError where what is unpacked is not what was packed, to the last bit: a defect of ours."""
    import torch

    def bits(tensor: Tensor) -> Tensor:
        return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)

    same = found.keys() == expected.keys() and all(
        torch.equal(bits(found[name]), bits(tensor)) for name, tensor in expected.items()
    )
    if not same:
        raise RuntimeError("what is unpacked differs from what was packed; nothing was written")


def describe(packed: Packed) -> str:
    """The tables of the paper: layer by layer, then stage by stage."""
    from compress.report import LAYER_HEADS, STAGE_HEADS, layer_rows, stage_rows

    layers = format_table(LAYER_HEADS, layer_rows(packed))
    return f"\n{layers}\n\n{format_table(STAGE_HEADS, stage_rows(packed))}"


def as_json(packed: Packed, settings: Settings) -> dict[str, Any]:
    """The report in plain values."""
    from compress import stages

    return {
        "settings": dataclasses.asdict(settings),
        "stages": {stage.name: stage.size for stage in stages(packed)},
        "layers": [account._asdict() for account in packed.accounts],
    }
