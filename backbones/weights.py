"""Weights on disk: safetensors out, safetensors or plain torch files in, and a word on what did not fit.

Nothing is unpickled: a torch file is read with `weights_only=True`, which refuses anything but tensors and numbers.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .base import Backbone
from .checkpoints import convert_published
from .files import write_atomically


class LoadReport(NamedTuple):
    """loaded: how many tensors went in; unused: names in the file that the module has no place for."""

    loaded: int
    unused: tuple[str, ...]


def save_weights(
    module: nn.Module, path: str | PathLike[str], *, metadata: Mapping[str, str] | None = None, half: bool = True
) -> None:
    """Write the module's parameters and buffers as safetensors; `half` stores float32 as float16.

    The file is written beside `path` and moved there when whole, so an older file survives a failure.
    Raises ValueError if a number does not fit float16, OSError if the file cannot be written.
    """
    tensors = {}
    for name, tensor in module.state_dict().items():
        stored = tensor.half() if half and tensor.dtype == torch.float32 else tensor
        if stored.is_floating_point() and not torch.isfinite(stored).all():
            raise ValueError(f"{name} holds numbers that are not finite as {stored.dtype}; nothing was written")
        tensors[name] = stored.contiguous().cpu()
    words = dict(metadata or {})
    if isinstance(module, Backbone):
        words |= {"input_mean": _in_words(module.input_mean), "input_std": _in_words(module.input_std)}
    content = save(tensors, metadata=words)
    write_atomically(Path(path), content)


def _in_words(numbers: Sequence[float]) -> str:
    return " ".join(map(repr, numbers))


def _is_safetensors(path: Path) -> bool:
    """Whether it is called safetensors, or begins like it: eight bytes of header length, then a JSON object."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def read_metadata(path: str | PathLike[str]) -> dict[str, str]:
    """What `save_weights` wrote beside the tensors; {} for a torch file. Raises ValueError for a damaged file."""
    path = Path(path)
    if not _is_safetensors(path):
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is a damaged safetensors file: {error}") from None


def read_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a torch file of bare tensors, on the CPU.

    Raises FileNotFoundError, or ValueError for a damaged file, one that is neither, or one that would run code.
    """
    path = Path(path)
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
    except pickle.UnpicklingError:
        raise ValueError(f"{path} holds more than tensors and numbers, or is no weights file; it was not run") from None
    except (RuntimeError, EOFError, LookupError, ValueError, TypeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path} is no readable weights file: {reason}") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} is a torch file, but not a dictionary of tensors")
    return content


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: str) -> LoadReport:
    """Copy `state` into the module; every tensor of the module must be there with its shape.

    Raises ValueError that names `source` and the first name that is missing or differs; the module is then unchanged.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        lacking = f"it lacks {len(missing)} of {len(own)} tensors, first {missing[0]}"
        raise ValueError(f"{source} does not fit {type(module).__name__}: {lacking}")
    for name, tensor in own.items():
        if name in state and state[name].shape != tensor.shape:
            came, expected = tuple(state[name].shape), tuple(tensor.shape)
            raise ValueError(
                f"{source} does not fit {type(module).__name__}: {name} has shape {came}, expected {expected}"
            )
        if name in state and tensor.is_floating_point():
            kind = state[name].dtype
            if not kind.is_floating_point or not torch.isfinite(state[name]).all():
                raise ValueError(f"{source}: {name} ({kind}) does not hold finite numbers with a fraction")
    fitting = {name: state[name] for name in own if name in state}
    module.load_state_dict(fitting, strict=False)
    return LoadReport(len(fitting), tuple(name for name in state if name not in own))


def load_weights(module: nn.Module, path: str | PathLike[str]) -> LoadReport:
    """Load a file into the module; a published checkpoint is converted on the way (`backbones.checkpoints`).

    A backbone takes over the input normalisation that the published weights expect. Raises ValueError where the file
    does not fit, with the first name that differs.
    """
    state = read_state_dict(path)
    if isinstance(module, Backbone):
        return _load_backbone(module, state, path)
    return load_state(module, state, str(path))


def _load_backbone(backbone: Backbone, state: Mapping[str, Tensor], path: str | PathLike[str]) -> LoadReport:
    """A backbone's own file, a published one, or the backbone in a detector's or classifier's file."""
    try:
        published = convert_published(state)
    except (KeyError, IndexError, RuntimeError) as error:
        raise ValueError(f"{path} looks like a published checkpoint, but is not whole: {error}") from None
    if published is not None:
        report = load_state(backbone, published.state, str(path))
        backbone.input_mean, backbone.input_std = published.input_mean, published.input_std
        return report
    inner = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    report = load_state(backbone, inner or state, str(path))
    metadata = read_metadata(path)
    for name in ("mean", "std"):
        if name in state:  # a detector's buffers
            setattr(backbone, f"input_{name}", tuple(state[name].float().flatten().tolist()))
        elif f"input_{name}" in metadata:
            setattr(backbone, f"input_{name}", tuple(float(part) for part in metadata[f"input_{name}"].split()))
    return report
