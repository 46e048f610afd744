"""What a reader of annotations left out and why; one record for every format."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_MAX_EXAMPLES = 3


@dataclass
class AnnotationReport:
    """What was read from an annotation file and what was not, with the reasons; `str()` gives one readable line.

    `dropped` counts boxes per reason, `examples` holds up to three places per reason; `other_classes` counts boxes of
    classes that were not asked for.
    """

    pictures: int = 0
    empty_pictures: int = 0
    boxes: int = 0
    crowds: int = 0
    clipped: int = 0
    other_classes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, place: str) -> None:
        """Count one box that is left out."""
        self.dropped[reason] += 1
        self._note(reason, place)

    def clip(self, place: str) -> None:
        """Count one box that was cut at the picture's edge."""
        self.clipped += 1
        self._note("clipped", place)

    def _note(self, reason: str, place: str) -> None:
        places = self.examples.setdefault(reason, [])
        if len(places) < _MAX_EXAMPLES:
            places.append(place)

    def __str__(self) -> str:
        pictures = f"{self.pictures} pictures ({self.empty_pictures} without objects)"
        parts = [f"{pictures}, {self.boxes} boxes and {self.crowds} crowd regions"]
        if self.other_classes:
            parts.append(f"{self.other_classes} boxes of other classes not read")
        if self.clipped:
            parts.append(f"{self.clipped} boxes clipped at the picture's edge{self._places('clipped')}")
        for reason, count in sorted(self.dropped.items()):
            parts.append(f"{count} boxes dropped: {reason}{self._places(reason)}")
        return "; ".join(parts)

    def _places(self, reason: str) -> str:
        return f" ({', '.join(self.examples[reason])}{', ...' if len(self.examples[reason]) == _MAX_EXAMPLES else ''})"
