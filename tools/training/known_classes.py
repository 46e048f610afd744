"""What weights know, against what they are to learn from: the classes, and the size of the pictures."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LOGGER = logging.getLogger("training")


def refuse_other_classes(who_knows: str, known: Sequence[str], wanted: Sequence[str]) -> None:
    """ValueError where they are others, or stand in another order; a bare file knows none.

    who_knows: the sentence's beginning, "best.safetensors knows".
    """
    if known and tuple(known) != tuple(wanted):
        said = f"{who_knows} the classes {', '.join(known[:5])}"
        raise ValueError(f"{said}; the data has {', '.join(wanted[:5])}, and their order counts")


def say_other_size(path: Path, options: Mapping[str, Any], eval_size: Sequence[int]) -> None:
    """One line in the log "training" where the file at `path`, made with these options, is of another input size."""
    size = options.get("input_size")
    if size is not None and list(size) != list(eval_size):
        now = f"the net that starts from it gets eval_size, {list(eval_size)}"
        _LOGGER.warning("%s has input_size %s; %s", path, list(size), now)
