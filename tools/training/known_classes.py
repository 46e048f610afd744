"""The classes that weights know, against those of the data that they are to learn from."""

from collections.abc import Sequence
from pathlib import Path


def refuse_other_classes(path: Path, known: Sequence[str], wanted: Sequence[str]) -> None:
    """ValueError where the file at `path` knows others, or the same in another order; a bare file knows none."""
    if known and tuple(known) != tuple(wanted):
        said = f"{path} knows the classes {', '.join(known[:5])}"
        raise ValueError(f"{said}; the data has {', '.join(wanted[:5])}, and their order counts")
