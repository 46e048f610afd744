"""Weights on disk: safetensors out; safetensors, packed or plain torch files in, and a word on what did not fit.

Nothing is unpickled: a torch file is read with `weights_only=True`, which refuses anything but tensors and numbers.
"""

from __future__ import annotations

import logging
import pickle
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from compress import packed_file

from .base import Backbone
from .checkpoints import convert_published
from .files import write_atomically
from .recognition import recognize

_LOGGER = logging.getLogger("backbones")
_NAMES_SHOWN = 4
Content = TypeVar("Content")


class LoadReport(NamedTuple):
    """loaded: how many tensors went in; unused: the file's names of those that the module has no place for."""

    loaded: int
    unused: tuple[str, ...]


def save_weights(
    module: nn.Module, path: str | PathLike[str], *, metadata: Mapping[str, str] | None = None, half: bool = True
) -> None:
    """Write the module's parameters and buffers as safetensors; `half` stores float32 as float16, but for tensors with
    numbers beyond its range (65,504), such as the variances of a large map's sums.

    The file is written beside `path` and moved there when whole, so an older file survives a failure.
    Raises ValueError if a number is not finite, OSError if the file cannot be written.
    """
    tensors = {}
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds numbers that are not finite; nothing was written")
        halved = tensor.half() if half and tensor.dtype == torch.float32 else tensor
        stored = halved if not halved.is_floating_point() or torch.isfinite(halved).all() else tensor
        tensors[name] = stored.contiguous().cpu()
    words = dict(metadata or {})
    if isinstance(module, Backbone):
        words |= normalisation_words(module)
    content = save(tensors, metadata=words)
    write_atomically(Path(path), content)


def normalisation_words(backbone: Backbone) -> dict[str, str]:
    """The input normalisation that a backbone's weights expect, as metadata of a file."""
    return {f"input_{part}": " ".join(map(repr, getattr(backbone, f"input_{part}"))) for part in ("mean", "std")}


def read_normalisation(metadata: Mapping[str, str]) -> dict[str, tuple[float, ...]]:
    """The inverse: the numbers by attribute; {} where the file says nothing."""
    names = [name for name in ("input_mean", "input_std") if name in metadata]
    return {name: tuple(float(part) for part in metadata[name].split()) for name in names}


def _is_safetensors(path: Path) -> bool:
    """Whether it is called safetensors, or begins like it: eight bytes of header length, then a JSON object."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _is_packed(path: Path) -> bool:
    """Whether it is called packed, or begins like it."""
    with path.open("rb") as file:
        return path.suffix == packed_file.SUFFIX or packed_file.is_packed(file.read(len(packed_file.MAGIC)))


def _from_packed(path: Path, read: Callable[[bytes], Content]) -> Content:
    try:
        return read(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_metadata(path: str | PathLike[str]) -> dict[str, str]:
    """What `save_weights` or `pack` wrote beside the tensors; {} for a torch file. ValueError for a damaged file."""
    path = Path(path)
    if _is_packed(path):
        return _from_packed(path, packed_file.read_packed_metadata)
    if not _is_safetensors(path):
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is a damaged safetensors file: {error}") from None


def read_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, of a packed one or of a torch file of bare tensors, on the CPU.

    The "module." that `nn.DataParallel` puts before all names is taken off. Raises FileNotFoundError, or ValueError for
    a damaged file, one that is neither, or one that would run code.
    """
    path = Path(path)
    if _is_packed(path):
        return _from_packed(path, packed_file.unpack).state
    if _is_safetensors(path):
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
        except SafetensorError as error:
            raise ValueError(f"{path} is a damaged safetensors file: {error}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on pickles that it then refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, LookupError):  # a text file is taken for a pickle, and asks for what is not there
        raise ValueError(f"{path} holds more than tensors and numbers, or is no weights file; it was not run") from None
    except (RuntimeError, EOFError, ValueError, TypeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path} is no readable weights file: {reason}") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} is a torch file, but not a dictionary of tensors")
    if content and all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): value for name, value in content.items()}
    return content


def load_weights(
    module: nn.Module, path: str | PathLike[str], *, name: str | None = None, keep: Collection[str] = ()
) -> LoadReport:
    """Load a file into the module; a published checkpoint is converted on the way (`backbones.checkpoints`).

    A backbone takes its part out of the file of a detector or classifier, and the input normalisation that the weights
    expect. name: under which the user asked for the module; messages then say it, and what was not used goes to the log
    "backbones" as a warning. keep: tensors of the module that stay as they are, whatever the file has under their
    names. Raises ValueError where the file does not fit, with the first name that differs or the net whose weights it
    holds; the module is then unchanged.
    """
    state = read_state_dict(path)
    content = _content_for(module, state, path)
    for kept in keep:
        content.tensors.pop(kept, None)
    own = {own_name: value for own_name, value in module.state_dict().items() if own_name not in keep}
    misfit = _misfit(own, content)
    if misfit is not None:
        told = read_metadata(path).get("options", "{}")
        hint = "" if told == "{}" else f"; what is in the file was made with {told}"
        raise ValueError(_explain(f"{path}", misfit, content, name, type(module).__name__) + hint)
    _check_numbers(module, content, f"{path}")
    fitting = {own_name: value for own_name, value in content.tensors.items() if own_name in own}
    module.load_state_dict(fitting, strict=False)
    used = {content.names[own_name] for own_name in fitting if own_name in content.names}
    loaded = len(used)
    if isinstance(module, Backbone):
        for attribute, numbers in content.normalisation.items():
            setattr(module, attribute, numbers)
        used.update(("mean", "std"))  # a detector's buffers
    used.update(content.names[kept] for kept in keep if kept in content.names)
    report = LoadReport(loaded, tuple(stored for stored in state if stored not in used))
    if name is not None:
        _say_unused(path, report)
    return report


class _Content(NamedTuple):
    """What a file holds for one module: tensors under the module's names; its names -> the file's, for those that are
    in the file as they are; the publisher, "" for our own files; a backbone's `input_mean` and `input_std` where the
    file says them.
    """

    tensors: dict[str, Tensor]
    names: dict[str, str]
    publisher: str
    normalisation: dict[str, tuple[float, ...]]


def _content_for(module: nn.Module, state: Mapping[str, Tensor], path: str | PathLike[str]) -> _Content:
    try:
        published = convert_published(state)
    except (KeyError, IndexError, RuntimeError) as error:
        raise ValueError(f"{path} looks like a published checkpoint, but is not whole: {error}") from None
    if published is None:
        tensors, names, publisher = dict(state), {name: name for name in state}, ""
        normalisation = read_normalisation(read_metadata(path))
        buffers = {f"input_{part}": state[part] for part in ("mean", "std") if part in state}  # a detector's
        normalisation |= {name: tuple(value.float().flatten().tolist()) for name, value in buffers.items()}
    else:
        tensors, names, publisher = published.state, published.names, published.publisher
        normalisation = {"input_mean": published.input_mean, "input_std": published.input_std}
    inner = [name for name in tensors if name.startswith("backbone.")]
    if isinstance(module, Backbone) and inner:
        head = {name.removeprefix("head."): value for name, value in tensors.items() if name.startswith("head.")}
        tensors = {name.removeprefix("backbone."): tensors[name] for name in inner}
        names = {name.removeprefix("backbone."): names[name] for name in inner}
        tensors |= module.tensors_beside_classifier(head)
    return _Content(tensors, names, publisher, normalisation)


def _misfit(own: Mapping[str, Tensor], content: _Content) -> str | None:
    """The first thing that speaks against the file, for a module with the tensors `own`: one that is missing, has
    another shape or has no place in a stage or head that the module does have. None if it fits.
    """
    tensors = content.tensors
    missing = [name for name in own if name not in tensors and not _is_counter(name)]
    if missing:
        return f"it lacks {len(missing)} of {len(own)} tensors, first {missing[0]}"
    for name, tensor in own.items():
        if name in tensors and tensors[name].shape != tensor.shape:
            came, expected = tuple(tensors[name].shape), tuple(tensor.shape)
            return f"{content.names[name]} has shape {came}, expected {expected}"
    places = {_place(name) for name in own} - {None}
    strange = [name for name in tensors if name not in own and _place(name) in places and not _is_counter(name)]
    return f"it holds {content.names[strange[0]]}, which has no place in the net" if strange else None


def _is_counter(name: str) -> bool:
    """Batches that a norm has seen: older files lack it, and no net needs it."""
    return name.endswith("num_batches_tracked")


def _place(name: str) -> str | None:
    """The stage or classifier's head that a tensor is in."""
    match = re.match(r"(backbone\.)?stages\.\d+\.|head\.", name)
    return match and match[0]


def _explain(source: str, misfit: str, content: _Content, name: str | None, kind: str) -> str:
    """One line for a file that does not fit, with the net that it is of where that can be seen."""
    holder = recognize(content.tensors)
    by = f" ({content.publisher})" if content.publisher else ""
    if name is not None and holder not in (None, name):
        return f"{source} holds {holder}'s weights{by}, not {name}'s"
    looks = f"; it holds {holder}'s weights" if holder is not None and name is None else ""
    return f"{source}{by} does not fit {name or kind}: {misfit}{looks}"


def _check_numbers(module: nn.Module, content: _Content, source: str) -> None:
    for name, tensor in module.state_dict().items():
        value = content.tensors.get(name)
        if value is None or not tensor.is_floating_point():
            continue
        if not value.is_floating_point() or not torch.isfinite(value).all():
            stored = content.names[name]
            raise ValueError(f"{source}: {stored} ({value.dtype}) does not hold finite numbers with a fraction")


def _say_unused(path: str | PathLike[str], report: LoadReport) -> None:
    count, shown = len(report.unused), report.unused[:_NAMES_SHOWN]
    if count:
        rest = f" and {count - len(shown)} more" if count > len(shown) else ""
        total, names = report.loaded + count, ", ".join(shown)
        _LOGGER.warning("%s: %d of %d tensors were not used: %s%s", path, count, total, names, rest)
