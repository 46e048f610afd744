"""Which ImageNet files are published for our backbones, and where they lie once somebody has fetched them.

Nothing here touches the network: `swiftsight weights fetch NAME` does, when it is asked to. The files are torchvision's
(BSD-3-Clause); where there are two, the one that follows the paper's recipe.
"""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from .registry import nearest

ADDRESS = "https://download.pytorch.org/models"
LICENCE = "BSD-3-Clause (torchvision); trained on ImageNet-1k, whose pictures are for non-commercial research"
IMAGENET = "imagenet"


class PublishedFile(NamedTuple):
    """One file below ADDRESS; mebibytes and top1 (ImageNet accuracy in percent) as torchvision states them."""

    file_name: str
    mebibytes: float
    top1: float

    @property
    def sha256_prefix(self) -> str:
        """The first hexadecimal digits of the SHA-256 of the whole file, which its publisher put into its name."""
        return Path(self.file_name).stem.rpartition("-")[2]


PUBLISHED = {
    "mobilenet_v2": PublishedFile("mobilenet_v2-b0353104.pth", 13.555, 71.878),
    "resnet18": PublishedFile("resnet18-f37072fd.pth", 44.661, 69.758),
    "resnet50": PublishedFile("resnet50-0676ba61.pth", 97.781, 76.130),
    "resnet101": PublishedFile("resnet101-63fe2227.pth", 170.511, 77.374),
    "shufflenet_v2_x0_5": PublishedFile("shufflenetv2_x0.5-f707e7126e.pth", 5.282, 60.552),
    "shufflenet_v2_x1_0": PublishedFile("shufflenetv2_x1-5666bf0f80.pth", 8.791, 69.362),
    "shufflenet_v2_x1_5": PublishedFile("shufflenetv2_x1_5-3c479a10.pth", 13.557, 72.996),
    "shufflenet_v2_x2_0": PublishedFile("shufflenetv2_x2_0-8be3c8ee.pth", 28.433, 76.230),
    "squeezenet1_0": PublishedFile("squeezenet1_0-b66bff10.pth", 4.778, 58.092),
    "squeezenet1_1": PublishedFile("squeezenet1_1-b8a52dc0.pth", 4.729, 58.178),
}


def cache_folder() -> Path:
    """Where fetched files lie: $SWIFTSIGHT_CACHE, else `swiftsight` in $XDG_CACHE_HOME, else in ~/.cache."""
    own = os.environ.get("SWIFTSIGHT_CACHE")
    if own:
        return Path(own).absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "swiftsight"


def fetched_path(name: str) -> Path:
    """The place of the ImageNet weights of backbone `name`, whether they are there or not."""
    return cache_folder() / f"{name}_{IMAGENET}.safetensors"


def find_weights(name: str, weights: str | PathLike[str]) -> Path:
    """The file that `weights` means for backbone `name`: "imagenet" is the fetched one, anything else a path.

    Raises ValueError where none is published, FileNotFoundError that says how to fetch it where it was not fetched, or
    for a word that is no file and nearly "imagenet".
    """
    if weights != IMAGENET:
        near = nearest(weights, [IMAGENET])
        if near and not Path(weights).exists():
            raise FileNotFoundError(f"no weights file {str(weights)!r}{near}")
        return Path(weights)
    path = fetched_path(name)
    if path.is_file():
        return path
    if name not in PUBLISHED:
        near = nearest(name, PUBLISHED)
        raise ValueError(f"no ImageNet weights are published for {name}{near}: there are {', '.join(PUBLISHED)}")
    raise FileNotFoundError(f"no ImageNet weights of {name} in {path.parent}; run: swiftsight weights fetch {name}")
