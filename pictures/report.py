"""What a reader of annotations left out and why; one record for every format."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

_MAX_EXAMPLES = 3


def counted(number: int, nouns: str) -> str:
    """2 boxes dropped, but 1 box dropped: the number and what it counts, whose first plural is made a singular."""
    singular = re.sub(r"(?<=[xh])es\b|(?<!s)s\b", "", nouns, count=1)
    return f"{number} {singular if number == 1 else nouns}"


@dataclass
class AnnotationReport:
    """What was read of annotations and what was not, with the reasons; `str()` gives one readable line.

    `dropped` counts boxes per reason, `left_out` files (pictures, or what should belong to one), `repaired` what was
    read in spite of a defect; `examples` holds up to three places per reason. `other_classes` counts boxes of classes
    that were not asked for, `crowds` the objects that the losses leave out; `crowd_word` says what they are, "" if the
    layout has none.
    """

    pictures: int = 0
    empty_pictures: int = 0
    boxes: int = 0
    crowds: int = 0
    clipped: int = 0
    other_classes: int = 0
    crowd_word: str = "crowd regions"
    dropped: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, place: str, count: int = 1) -> None:
        """Count boxes that are left out."""
        self.dropped[reason] += count
        self._note(reason, place)

    def leave_out(self, reason: str, place: str) -> None:
        """Count one picture, or a file that should belong to one."""
        self.left_out[reason] += 1
        self._note(reason, place)

    def repair(self, reason: str, place: str, count: int = 1) -> None:
        """Count defects in spite of which everything was read."""
        self.repaired[reason] += count
        self._note(reason, place)

    def clip(self, place: str) -> None:
        """Count one box that was cut at the picture's edge."""
        self.clipped += 1
        self._note("clipped", place)

    def defects(self) -> list[str]:
        """What was wrong with the data, a reason each with count and examples; empty where nothing was."""
        parts = [f"{counted(count, reason)}{self._places(reason)}" for reason, count in sorted(self.left_out.items())]
        parts += [f"{counted(count, reason)}{self._places(reason)}" for reason, count in sorted(self.repaired.items())]
        if self.clipped:
            parts.append(f"{counted(self.clipped, 'boxes')} clipped at the picture's edge{self._places('clipped')}")
        for reason, count in sorted(self.dropped.items()):
            parts.append(f"{counted(count, 'boxes')} dropped: {reason}{self._places(reason)}")
        return parts

    def refuse_defects(self, what: str) -> None:
        """ValueError in one line, which begins with `what`, where something was wrong with the data."""
        defects = self.defects()
        if defects:
            raise ValueError(f"{what} has defects, and strict is on: {'; '.join(defects)}")

    def _note(self, reason: str, place: str) -> None:
        places = self.examples.setdefault(reason, [])
        if len(places) < _MAX_EXAMPLES:
            places.append(place)

    def __str__(self) -> str:
        pictures = f"{counted(self.pictures, 'pictures')} ({self.empty_pictures} without objects)"
        crowds = f" and {counted(self.crowds, self.crowd_word)}" if self.crowd_word else ""
        parts = [f"{pictures}, {counted(self.boxes, 'boxes')}{crowds}"]
        if self.other_classes:
            parts.append(f"{counted(self.other_classes, 'boxes')} of other classes not read")
        return "; ".join([*parts, *self.defects()])

    def _places(self, reason: str) -> str:
        return f" ({', '.join(self.examples[reason])}{', ...' if len(self.examples[reason]) == _MAX_EXAMPLES else ''})"
