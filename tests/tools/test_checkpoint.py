"""Checkpoint files: whole or not at all, known by their checksum, never run."""

import os
import pickle
import random
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from swiftsight_tools.training.checkpoint import (
    CheckpointFolder,
    checksum,
    load_checkpoint,
    random_states,
    restore_random_states,
    save_checkpoint,
)

STATE: dict[str, Any] = {
    "step": 3,
    "rate": 0.1,
    "name": "net",
    "done": False,
    "nothing": None,
    "infinite": float("-inf"),
    "net": {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(7), "none": torch.zeros(0, 4)},
    "list": [1, [2.5, "x"]],
}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """The operating system refuses to let a file grow beyond `size` bytes: a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_is_saved_is_read_back_also_by_torch_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", STATE)
    assert checksum(load_checkpoint(tmp_path / "a.pt")) == checksum(STATE)
    plain = torch.load(tmp_path / "a.pt", weights_only=True)
    assert plain["net"]["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert plain["list"] == [1, [2.5, "x"]]


def test_the_checksum_sees_every_difference() -> None:
    reference = checksum(STATE)
    changed = [
        {**STATE, "step": 4},
        {**STATE, "step": 3.0},
        {**STATE, "done": 0},
        {**STATE, "net": {**STATE["net"], "weight": STATE["net"]["weight"] + 1e-6}},
        {**STATE, "net": {**STATE["net"], "weight": STATE["net"]["weight"].reshape(3, 2)}},
        {**STATE, "list": [1, 2.5, "x"]},
    ]
    assert len({reference, *map(checksum, changed)}) == len(changed) + 1
    strided = STATE["net"]["weight"].repeat(1, 2)[:, :3]
    assert checksum({**STATE, "net": {**STATE["net"], "weight": strided}}) == reference


def test_only_plain_data_is_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not ndarray"):
        save_checkpoint(tmp_path / "a.pt", {"values": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_is_noticed(tmp_path: Path, part: float) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_changed_byte_anywhere_is_noticed_or_does_no_harm(tmp_path: Path) -> None:
    """Some bytes of a zip file are padding; a change there alters nothing that is read."""
    path = tmp_path / "a.pt"
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    outcomes = []
    for position in range(0, len(content), 23):
        changed = bytearray(content)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        outcomes.append(_checksum_or_complaint(path))
    complaints = [outcome for outcome in outcomes if outcome != checksum(STATE)]
    assert all(complaint.startswith(str(path)) for complaint in complaints)
    assert len(complaints) > 20


def _checksum_or_complaint(path: Path) -> str:
    try:
        return checksum(load_checkpoint(path))
    except ValueError as error:
        return str(error)


def test_a_flipped_bit_of_a_weight_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    weights = STATE["net"]["weight"].numpy().tobytes()
    assert content.count(weights) == 1
    path.write_bytes(content.replace(weights, weights[:-1] + b"\x41"))
    with pytest.raises(ValueError, match="does not match its checksum"):
        load_checkpoint(path)


class Hostile:
    """A pickle that would make a folder when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, writer: str) -> None:
    path, marker = tmp_path / "a.pt", tmp_path / "was_run"
    if writer == "torch":
        torch.save({"net": Hostile(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(Hostile(marker)))
    with pytest.raises(ValueError, match="was not run"):
        load_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04"])
def test_other_files_are_no_checkpoints(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_checkpoint(path)


def test_a_torch_file_of_somebody_else_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="no checkpoint of swiftsight"):
        load_checkpoint(tmp_path / "a.pt")


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_last=2)
    for step in (1, 2, 3, 4, 10):
        folder.save({"step": step}, step, best_step=2 if step >= 2 else None)
    assert [path.name for path in folder.files()] == [f"checkpoint_{step:08d}.pt" for step in (2, 4, 10)]


def test_a_full_disk_leaves_the_older_one(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_last=1)
    folder.save(STATE, 1, None)
    big = {**STATE, "net": {"weight": torch.zeros(100_000)}}
    with file_size_limit(100_000), pytest.raises(OSError, match=r"checkpoint_00000001\.pt, is whole") as caught:
        folder.save(big, 2, None)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_00000001.pt"]
    assert checksum(load_checkpoint(folder.files()[0])) == checksum(STATE)


def test_a_damaged_one_is_put_aside_for_the_one_before(tmp_path: Path) -> None:
    folder, said = CheckpointFolder(tmp_path, keep_last=3), []
    for step in (1, 2, 3):
        folder.save({"step": step}, step, None)
    (tmp_path / "checkpoint_00000003.pt").write_bytes(b"")
    found = folder.load_newest(said.append)
    assert found is not None
    assert found[1] == {"step": 2}
    assert len(said) == 1
    assert "checkpoint_00000003.pt" in said[0]
    assert (tmp_path / "checkpoint_00000003.damaged").exists()
    assert CheckpointFolder(tmp_path / "nothing", 1).load_newest(said.append) is None


def test_random_states_come_back_through_a_file(tmp_path: Path) -> None:
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002 (the old generator is the one that has a global state)
    torch.manual_seed(3)
    random.gauss(0, 1)  # leaves half a pair behind, which is part of the state
    np.random.normal()  # noqa: NPY002
    save_checkpoint(tmp_path / "a.pt", random_states())

    def draw() -> list[float]:
        return [random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand(), torch.rand(1).item()]  # noqa: NPY002

    expected = draw()
    draw()
    restore_random_states(load_checkpoint(tmp_path / "a.pt"))
    assert draw() == expected
