"""The classes that weights know, against those of the data that they are to learn from."""

from collections.abc import Sequence


def refuse_other_classes(who_knows: str, known: Sequence[str], wanted: Sequence[str]) -> None:
    """ValueError where they are others, or stand in another order; a bare file knows none.

    who_knows: the sentence's beginning, "best.safetensors knows".
    """
    if known and tuple(known) != tuple(wanted):
        said = f"{who_knows} the classes {', '.join(known[:5])}"
        raise ValueError(f"{said}; the data has {', '.join(wanted[:5])}, and their order counts")
