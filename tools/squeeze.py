"""Make a net's file small: prune its weights, let them share values, code what is left; or make them binary. With a
config, train between.

The file that comes out is loaded wherever weights are named: by `demo`, `eval`, `export`, `bench`, and from Python.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .device import add_device_argument
from .errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


DEEP_COMPRESSION = "deep-compression"
METHODS = (DEEP_COMPRESSION, "bwn", "xnor")
SUFFIX = ".packed"
_INTERRUPTED = 130
_FOR_TRAINING = ("epochs", "sharing_epochs", "set", "work_dir", "device")
_OF_DEEP_COMPRESSION = ("density", "quality", "scope", "bits", "index_bits", "start", "sharing_epochs", "plot")


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
    gaps = "bits for the gap between two kept weights, in convolutions and linear layers"
    how.add_argument("--index-bits", metavar="N", type=int, nargs="+", help=f"{gaps} (8 5)")
    starts = "where k-means begins: equal steps, equal shares, or random (linear)"
    how.add_argument("--start", choices=("linear", "density", "random"), help=starts)
    signs = parser.add_argument_group("signs, by xnor")
    scale = "multiply each output by the mean |input| under its filter"
    signs.add_argument("--scale-inputs", action="store_true", help=scale)
    training = parser.add_argument_group("with training in between")
    training.add_argument("--config", metavar="CONFIG", help="the config that the net was trained with")
    epochs = "epochs after pruning; with bwn or xnor, of the binary net"
    training.add_argument("--epochs", metavar="N", type=int, help=epochs)
    training.add_argument("--sharing-epochs", metavar="N", type=int, help="epochs of the shared values (a quarter)")
    training.add_argument("--set", metavar="KEY=VALUE", action="append", help="change one key of the config")
    training.add_argument("--work-dir", metavar="DIR", type=Path, help="where the trainings lie (beside the output)")
    add_device_argument(parser)


def run(args: argparse.Namespace) -> int:
    """0 when the file is written and read back, 130 when a training was stopped."""
    _check_words(args)
    from .destinations import prepare_file  # here: it brings OpenCV

    for path in (args.output, args.report, args.plot):
        if path is not None:
            prepare_file(path)
    from backbones.files import write_atomically
    from compress import unpack

    try:
        if args.method == DEEP_COMPRESSION:
            from .squeezing.deep import deeply_compressed

            made = deeply_compressed(args)
        else:
            from .squeezing.binary import made_binary

            made = made_binary(args)
    except InterruptedError as stop:
        print(stop)
        return _INTERRUPTED
    packed = made.packed
    check_same(made.net.state_dict(), unpack(packed.content).state)
    write_atomically(args.output, packed.content)
    print(made.tables)
    print(f"\n{args.output}: {len(packed.content):,} bytes, unpacked and compared: the same to the last bit")
    if args.report:
        write_atomically(args.report, (json.dumps(made.figures, indent=1) + "\n").encode())
    if args.plot:
        from .squeezing.plot import draw_report  # matplotlib takes a second to load

        draw_report(packed, args.plot, args.output.stem)
    return 0


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
