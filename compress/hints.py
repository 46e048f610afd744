"""Maps of one net that are to resemble those of another: finding them, comparing them.

References: Romero et al., FitNets, ICLR 2015, arXiv:1412.6550, section 2.2 (hints, the regressor); Cao et al., PKD,
NeurIPS 2022, arXiv:2207.02039 (maps of different kinds of nets are compared by their correlation).
Deviations: hints are learnt along with everything else, not in a stage before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PROBE = (2, 3, 64, 64)  # pictures to find the channels of a net's parts by


class Hint(NamedTuple):
    """A map of the student that is to resemble one of the teacher.

    student, teacher: a part's name in the net ("neck"), with a place where the part gives several ("backbone[1]");
    channels: of the teacher's map, None where the teacher is a net that can be asked.
    """

    student: str
    teacher: str
    channels: int | None = None


@contextmanager
def recorded(net: nn.Module, parts: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """What the parts of `net` give while it runs inside, by the words of `Hint`. ValueError for an unknown part."""
    seen: dict[str, Tensor] = {}
    handles = []
    try:
        for part in parts:
            name, place = _parsed(part)
            handles.append(_find(net, name).register_forward_hook(_keeper(seen, part, place)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _keeper(seen: dict[str, Tensor], part: str, place: int | None) -> Any:
    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        many = not isinstance(output, Tensor)
        if many == (place is None) or (place is not None and place >= len(output)):
            gives = f"{len(output)} maps; expected a place, as in {part.partition('[')[0]}[0]" if many else "one map"
            raise ValueError(f"a hint names {part}, which gives {gives}")
        seen[part] = output if place is None else output[place]

    return keep


def _parsed(part: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"([^\[\]]+)(?:\[(\d+)\])?", part)
    if match is None:
        raise ValueError(f"a hint names {part!r}; expected a part of the net, as in neck or backbone[1]")
    return match[1], None if match[2] is None else int(match[2])


def _find(net: nn.Module, name: str) -> nn.Module:
    try:
        return net.get_submodule(name)
    except AttributeError:
        parts = ", ".join(child for child, _ in net.named_children())
        raise ValueError(f"a hint names {name!r}, which this net does not have; its parts are {parts}") from None


def create_regressors(student: nn.Module, teacher: nn.Module | None, hints: Sequence[Hint]) -> nn.ModuleList:
    """One for each hint: the student's map -> a map of the teacher's channels. ValueError for a hint that cannot be."""
    inside = _channels(student, [hint.student for hint in hints])
    outside = {hint.teacher: hint.channels for hint in hints}
    if teacher is not None:
        outside = dict(_channels(teacher, [hint.teacher for hint in hints]))
    made = []
    for hint in hints:
        channels = outside[hint.teacher]
        if channels is None:
            raise ValueError(f"the hint {hint.teacher} has no channels; expected their number, as no net can be asked")
        made.append(_Regressor(inside[hint.student], channels))
    return nn.ModuleList(made)


class _Regressor(nn.Module):
    """A 1x1 convolution without offset, which the correlation would not see."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        mixed: Tensor = self.mix(as_map(features))
        return mixed


@torch.no_grad()
def _channels(net: nn.Module, parts: Sequence[str]) -> dict[str, int]:
    """Of the maps that the parts give, found by running the net once; nothing in it changes."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    tensor = next(net.parameters())
    try:
        with recorded(net, parts) as seen:
            net(torch.zeros(_PROBE, device=tensor.device, dtype=tensor.dtype))
    finally:
        for module, mode in modes:
            module.training = mode
    for part in parts:
        if part not in seen:
            raise ValueError(f"the part {part} gives nothing when the net is used, so it can give or take no hint")
        if seen[part].ndim not in (2, 4):
            shape = list(seen[part].shape)
            raise ValueError(f"the part {part} gives {shape}; expected a map [N, C, h, w] or features [N, C]")
    return {part: seen[part].shape[1] for part in parts}


def as_map(features: Tensor) -> Tensor:
    """[N, C, h, w] as it is; [N, C] is a map of one place."""
    return features if features.ndim == 4 else features[..., None, None]


def correlation_loss(features: Tensor, wanted: Tensor) -> Tensor:
    """features [N, C, h, w], wanted [N, C, h', w'] -> 1 - Pearson's correlation over N, h, w, averaged over channels.

    0 where each channel is the other's but for size and offset, 1 where they have nothing to do with each other, or
    where one is the same everywhere. The teacher's map is resized to the student's.
    """
    features, wanted = as_map(features).float(), as_map(wanted).float()
    if wanted.shape[-2:] != features.shape[-2:]:
        wanted = F.interpolate(wanted, size=features.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
    standard = [_standardized(each.transpose(0, 1).flatten(1)) for each in (features, wanted)]
    return 1 - (standard[0] * standard[1]).mean(dim=1).mean()


def _standardized(rows: Tensor) -> Tensor:
    """[C, P] -> mean 0 and deviation 1 in each row; one that hardly differs, to a thousandth of its size, goes to 0."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    least = 1e-6 * rows.square().mean(dim=1, keepdim=True) + 1e-20
    return centred * (centred.square().mean(dim=1, keepdim=True) + least).rsqrt()
