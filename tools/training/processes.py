"""A training in several processes: which of them this one is, and how they find each other, agree and part.

`torchrun` starts them and tells each who it is by environment variables. mmengine's own start of the group asks for a
GPU whatever the backend, so that the group is made here, and its Runner finds it made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from ..errors import UsageError

LAUNCHERS = ("pytorch", "none")
DEFAULT_TIMEOUT, MOST_TIMEOUT = 1800, 1_000_000  # seconds; the first is torch's own for gloo
_NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_TOLD = (*_NUMBERS, "MASTER_ADDR", "MASTER_PORT")
_EXAMPLE = "torchrun --nproc-per-node 2 --no-python swiftsight train CONFIG"


@dataclass(frozen=True)
class Processes:
    """rank: of this process among all `count`; local_rank: among those of its machine."""

    rank: int = 0
    local_rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    @property
    def launcher(self) -> str:
        """mmengine's word for how the processes were started."""
        return "pytorch" if self.count > 1 else "none"

    def __str__(self) -> str:
        return f"process {self.rank} of {self.count}"


def find_processes(launcher: str | None, environment: Mapping[str, str] = os.environ) -> Processes:
    """Who this process is: as torchrun says, where it started this process, else the only one.

    launcher: "pytorch" insists on torchrun, "none" looks away from its variables. Raises UsageError where they are
    missing or make no sense.
    """
    missing = [name for name in _TOLD if not environment.get(name)]
    if launcher == "none" or (launcher is None and missing):
        return Processes()
    if missing:
        raise UsageError(f"--launcher pytorch: {missing[0]} is not set; expected a start by torchrun: {_EXAMPLE}")
    try:
        rank, local_rank, count = (int(environment[name]) for name in _NUMBERS)
    except ValueError:
        rank, local_rank, count = -1, -1, 0
    if not 0 <= local_rank <= rank < count:
        told = ", ".join(f"{name}={environment[name]}" for name in _NUMBERS)
        raise UsageError(
            f"the environment says {told}; expected 0 <= LOCAL_RANK <= RANK < WORLD_SIZE, as torchrun sets"
        )
    return Processes(rank, local_rank, count)


def own_device(device: torch.device, processes: Processes) -> torch.device:
    """The device of this process: a GPU each. ValueError where the machine has too few."""
    if device.type != "cuda" or processes.count == 1:
        return device
    if processes.local_rank >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA devices for process {processes.local_rank} of this machine"
        raise ValueError(f"there are {found}; expected a device each: fewer processes, or --device cpu")
    return torch.device("cuda", processes.local_rank)


@contextmanager
def joined(processes: Processes, device: torch.device, timeout: float) -> Iterator[None]:
    """The group of all processes, while the block runs; nothing for a single one.

    timeout: seconds that a process waits for another. Raises OSError where the group is not complete by then, and
    where a process is lost later.
    """
    if processes.count == 1:
        yield
        return
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # or mmengine warns that it does so itself
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        torch.distributed.init_process_group(backend, timeout=timedelta(seconds=timeout))
    except RuntimeError as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        # The store that torchrun keeps over restarts still holds the addresses of the processes before.
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        hint = "; restarts need TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment" if again else ""
        raise OSError(f"not all of {processes.count} processes met at {address}: {_first_line(error)}{hint}") from error
    try:
        yield
    except RuntimeError as error:
        if not _is_loss(error):
            raise
        raise OSError(f"another process was lost or did not answer: {_first_line(error)}") from error
    finally:
        torch.distributed.destroy_process_group()


def _is_loss(error: RuntimeError) -> bool:
    """Whether a collective call failed; gloo raises plain RuntimeErrors that name its sources."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


def _first_line(error: RuntimeError) -> str:
    """Without the place in gloo's sources before it and the advice behind it."""
    line = re.sub(r"^\[[^]]*\] *", "", str(error).strip()).partition("\n")[0]
    return line.partition(". This is typically")[0]


def largest(number: int) -> int:
    """The largest of what the processes give; all must call."""
    from mmengine.dist import all_reduce  # here: it takes a second, which a misspelt word need not wait for

    value = torch.tensor(number)
    all_reduce(value, op="max")
    return int(value)


def gather(value: Any) -> list[Any]:
    """What each process gives, by rank; all must call."""
    from mmengine.dist import all_gather_object

    values: list[Any] = all_gather_object(value)
    return values


def from_first(value: Any) -> Any:
    """What process 0 gives; all must call."""
    from mmengine.dist import broadcast_object_list

    values = [value]
    broadcast_object_list(values)
    return values[0]
