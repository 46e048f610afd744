"""What of a config says how a validation scores: figures before and after a change of it are no more of the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KEYS = ("monitor", "eval_size", "eval_crop")
# Everything about the data says what is scored, and by which labels, except this: what is learnt from, scored once at
# the end, or looked at before the training.
_OTHER_DATA = ("train", "test", "class_balance", "check_pictures")


def scores_otherwise(changes: Mapping[str, tuple[Any, Any]]) -> bool:
    """Whether one of the changed keys -> (before, now) makes the figures another kind.

    A data set that was moved is the same: of a path the last two parts count, of a `root` the last one.
    """
    return any(_says_how(key) and _unplaced(key, before) != _unplaced(key, now)
               for key, (before, now) in changes.items())  # fmt: skip


def _says_how(key: str) -> bool:
    names = key.split(".")
    if names[0] != "data":
        return names[0] in _KEYS
    if len(names) > 1 and names[1] in ("boxes", "masks"):  # a joint net's two data sets
        names = names[1:]
    return len(names) == 1 or names[1] not in _OTHER_DATA


def _unplaced(key: str, value: Any) -> Any:
    """A plain value whose absolute paths have lost the folders that a data set may be moved out of."""
    if isinstance(value, Mapping):
        return {name: _unplaced(name, part) for name, part in value.items()}
    if isinstance(value, list):
        return [_unplaced(key, part) for part in value]
    if isinstance(value, str) and Path(value).is_absolute():
        kept = 1 if key.rpartition(".")[2] == "root" else 2
        return Path(value).parts[-kept:]
    return value
