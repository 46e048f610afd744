"""The ShuffleNetV2 x0.5 inside FastestDet's ONNX file, as weights to start a training from.

    python -m swiftsight_tools.fastestdet_trunk fastestdet_352.onnx --pictures train --output trunk.safetensors

FastestDet (github.com/dog-qiuqiu/FastestDet, BSD-3-Clause) has learnt COCO's 80 classes from all of train2017, so its
trunk knows more of objects than the one that it started from. In the file the batch norms are folded into the
convolutions, and a net without norms cannot be trained as ours are. So they are put in again: each gets the mean and
the deviation that its convolution's output has on the pictures, and a scale and shift that undo it. The features stay
the same; filters are brought to the length that PyTorch starts with, on which the pace of learning hangs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from backbones import Backbone, create_backbone, save_weights
from backbones.checkpoints import convert_shuffle_trunk
from backbones.weights import normalisation_words
from pictures.images import read_image, resize_image

from .destinations import pictures_in

NAME = "shufflenet_v2_x0_5"
UNITS = {"stage2": 4, "stage3": 8, "stage4": 4}
SIDE, BATCH = 352, 8  # FastestDet's own input
PICTURES = 240  # the norms' figures are averages over some ten million places
EPSILON = 1e-5
FILTER_LENGTH = 3**-0.5


def trunk_layers() -> list[tuple[str, str]]:
    """The trunk's (convolution, batch norm) in the order of the file."""
    layers = [("first_conv.0", "first_conv.1")]
    for stage, units in UNITS.items():
        for unit in range(units):
            branches = {"branch_proj": (0, 2)} if unit == 0 else {}
            for branch, convs in (branches | {"branch_main": (0, 3, 5)}).items():
                layers += [(f"{stage}.{unit}.{branch}.{at}", f"{stage}.{unit}.{branch}.{at + 1}") for at in convs]
    return layers


def read_trunk(path: Path) -> dict[str, Tensor]:
    """The trunk's state under FastestDet's names, with norms that change nothing. ValueError for another file."""
    import onnx  # here: an extra that nothing else of the training needs

    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:
        if type(error).__name__ != "DecodeError":  # protobuf's, which is not ours to import
            raise
        raise ValueError(f"{path} is no ONNX file") from None
    tensors = {entry.name: torch.from_numpy(onnx.numpy_helper.to_array(entry).copy()) for entry in graph.initializer}
    convs = [node for node in graph.node if node.op_type == "Conv" and len(node.input) == len(("x", "weight", "bias"))]
    if len(convs) < len(trunk_layers()):
        raise ValueError(
            f"{path} is not FastestDet's: it has {len(convs)} convolutions with a bias, "
            f"where the trunk alone has {len(trunk_layers())}"
        )
    state: dict[str, Tensor] = {}
    for (conv, norm), node in zip(trunk_layers(), convs, strict=False):
        weight, bias = tensors[node.input[1]], tensors[node.input[2]]
        state[f"{conv}.weight"] = weight
        state[f"{norm}.weight"] = torch.full_like(bias, (1 + EPSILON) ** 0.5)
        state[f"{norm}.bias"], state[f"{norm}.running_mean"] = bias, torch.zeros_like(bias)
        state[f"{norm}.running_var"] = torch.ones_like(bias)
    return state


def build_trunk(state: Mapping[str, Tensor], batches: Iterable[Tensor]) -> Backbone:
    """The backbone with the features of `read_trunk`'s state and norms that can learn.

    batches: images [N, 3, H, W] uint8 RGB to measure by. Raises ValueError for tensors of other shapes.
    """
    published = convert_shuffle_trunk(state)
    net = create_backbone(NAME)
    try:
        net.load_state_dict({name.removeprefix("backbone."): value for name, value in published.state.items()}, False)
    except RuntimeError as error:
        raise ValueError(f"this is no trunk of FastestDet: {str(error).splitlines()[-1].strip()}") from None
    net.input_mean, net.input_std = published.input_mean, published.input_std
    restore_norms_(net, batches)
    return net


@torch.no_grad()
def restore_norms_(net: Backbone, batches: Iterable[Tensor]) -> None:
    """Gives each batch norm the figures of what comes in, and each filter its length; no feature changes."""
    pairs = [
        (conv, norm) for conv, norm in pairwise(net.modules())
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    ]  # fmt: skip
    sums = {norm: _Moments() for _, norm in pairs}
    handles = [norm.register_forward_hook(lambda norm, came, _: sums[norm].add(came[0])) for _, norm in pairs]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (net.input_mean, net.input_std))
    net.eval()
    for images in batches:
        net((images.float() - mean) / std)
    for handle in handles:
        handle.remove()
    for conv, norm in pairs:
        old_mean, old_variance = norm.running_mean, norm.running_var
        assert old_mean is not None  # a norm keeps both unless it is told otherwise
        assert old_variance is not None
        mean, variance = sums[norm].figures()
        length = conv.weight.flatten(1).norm(dim=1)
        factor = torch.where(length > EPSILON, FILTER_LENGTH / length.clamp(min=EPSILON), 1.0)
        scale = norm.weight / (old_variance + norm.eps).sqrt()
        norm.bias.add_(scale * (mean - old_mean))
        conv.weight.mul_(factor[:, None, None, None])
        old_mean.copy_(mean * factor)
        old_variance.copy_(variance * factor**2)
        norm.weight.copy_(scale * (old_variance + norm.eps).sqrt() / factor)


class _Moments:
    """Mean and variance of the channels of maps that come one after the other."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, maps: Tensor) -> None:
        """maps [N, C, H, W]."""
        exact = maps.double()
        self.count += maps.numel() // maps.shape[1]
        self.total = self.total + exact.sum((0, 2, 3))
        self.squares = self.squares + exact.square().sum((0, 2, 3))

    def figures(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, [C] each."""
        mean = self.total / self.count
        return mean.float(), (self.squares / self.count - mean.square()).clamp(min=0).float()


def read_batches(folder: Path) -> Iterator[Tensor]:
    """Some of the pictures of a folder, evenly taken, at FastestDet's size. ValueError where there is none."""
    paths = pictures_in(folder)
    chosen = paths[:: max(1, len(paths) // PICTURES)][:PICTURES]
    for start in range(0, len(chosen), BATCH):
        pictures = [resize_image(read_image(path), (SIDE, SIDE)) for path in chosen[start : start + BATCH]]
        yield torch.stack([torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures])


def main(words: Sequence[str] | None = None) -> int:
    """Run the script with `words` (the process's own by default); 0, or 1 with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m swiftsight_tools.fastestdet_trunk",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("onnx", type=Path, help="FastestDet's file")
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of some hundred photographs")
    parser.add_argument("--output", type=Path, required=True, help="the safetensors file to write")
    args = parser.parse_args(words)
    try:
        net = build_trunk(read_trunk(args.onnx), read_batches(args.pictures))
        save_weights(net, args.output, metadata=normalisation_words(net), half=False)
    except (ValueError, OSError) as error:
        print(f"fastestdet_trunk: {error}", file=sys.stderr)
        return 1
    print(f"written to {args.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
