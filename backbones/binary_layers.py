"""Nets whose layers can be made binary, and what their weights files say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from compress import binarize_, deploy_bits, holds_bits

_WORD = "binary"


class BinaryChoice(nn.Module):
    """A net that remembers how its layers were made binary.

    binary: {} for real layers, else what `binarize_` was told; it goes along in a weights file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.binary: dict[str, Any] = {}

    def ends(self) -> tuple[str, ...]:
        """Layers that see the picture or give the answer, besides the first and the last one."""
        return ()

    def binarize_(
        self, mode: str, skip: Sequence[str] = (), *, keep_ends: bool = True, scale_inputs: bool = False
    ) -> None:
        """As `compress.binarize_`, and a weights file will say so. keep_ends: also those of `ends` stay real."""
        real = [*skip, *(self.ends() if keep_ends else ())]
        binarize_(self, mode, real, keep_ends=keep_ends, scale_inputs=scale_inputs)
        self.binary = {"mode": mode, "skip": list(skip), "keep_ends": keep_ends, "scale_inputs": scale_inputs}


Net = TypeVar("Net", bound=BinaryChoice)


def binary_words(net: Any) -> dict[str, str]:
    """What a weights file says of the layers of a `BinaryChoice`, or of what stands for one; nothing of real ones."""
    return {_WORD: json.dumps({**net.binary, "bits": holds_bits(net)})} if net.binary else {}


def read_binary(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What `binarize_` was told, with "bits" where the file holds those; {} for real layers; or ValueError."""
    try:
        return dict(json.loads(metadata.get(_WORD, "{}")))
    except (ValueError, TypeError):
        raise ValueError(f"{path}: its metadata gives binary {metadata[_WORD]}; expected an object") from None


def with_binary_layers(net: Net, binary: Mapping[str, Any], path: Path | None) -> Net:
    """The net made as the words of `read_binary` say; ValueError where they make no sense."""
    if not binary:
        return net
    told = {key: value for key, value in binary.items() if key != "bits"}
    try:
        net.binarize_(**told)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: its metadata gives binary {dict(binary)!r}: {error}") from None
    if not binary.get("bits"):
        return net
    used = deploy_bits(net)
    assert isinstance(used, type(net))
    return used
