"""What the readers of VOC's and YOLO's files share: which pictures, which classes, how large, and what is left out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from backbones.registry import nearest
from pictures.folders import PICTURE_ENDINGS
from pictures.images import read_size
from pictures.report import AnnotationReport


def choose_names(names: Sequence[str], wanted: Iterable[str] | None, place: Path) -> list[str]:
    """The names that are wanted (all), in their own order; endings matter only where a name stands there with several.

    ValueError for an unknown one, and for one that stands for several pictures.
    """
    if wanted is None:
        return list(names)
    known: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        known.setdefault(without_ending(name), []).append(name)
    asked = set(wanted)
    unknown = sorted({without_ending(name) for name in asked} - set(known))
    if unknown:
        raise ValueError(f"{place} has no picture {unknown[0]!r}{nearest(unknown[0], known)}")
    if not asked:
        raise ValueError(f"no picture of {place} was asked for; expected at least one")
    chosen: set[str] = set()
    for name in sorted(asked):
        alike = known[without_ending(name)]
        if name not in alike and len(alike) > 1:
            raise ValueError(f"{name!r} stands for several pictures of {place}: expected one of {', '.join(alike)}")
        chosen.update([name] if name in alike else alike)
    return [name for name in dict.fromkeys(names) if name in chosen]


def without_ending(name: str) -> str:
    """The name of a picture or label file without .jpg and the like; folders and other dots stay."""
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in (*PICTURE_ENDINGS, ".xml", ".txt") else name


def check_class_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """ValueError where there is no name, or one twice."""
    if not class_names or len(set(class_names)) < len(class_names):
        raise ValueError(f"the class names are {', '.join(class_names) or 'none'}; expected one or more, each once")
    return tuple(class_names)


def choose_classes(known: Sequence[str], wanted: Sequence[str] | None, place: Path) -> tuple[str, ...]:
    """The names that are wanted (all), in that order. ValueError for one that is not among the known ones."""
    if wanted is None:
        return tuple(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        near = nearest(unknown[0], known) or f": it has {', '.join(known)}"
        raise ValueError(f"{place} has no class {unknown[0]!r}{near}")
    return check_class_names(wanted)


def measure_picture(folder: Path, name: str, report: AnnotationReport) -> tuple[int, int] | None:
    """(height, width) of the upright picture; None, and noted in the report, where the file is no picture."""
    try:
        return read_size(folder / name)
    except (ValueError, OSError) as error:
        report.leave_out("pictures left out: not readable", str(error))
        return None


def refuse_nothing(pictures: Sequence[object], report: AnnotationReport, place: Path) -> None:
    """ValueError, with the reasons, where no picture is left."""
    if not pictures:
        reasons = "; ".join(report.defects()) or "it names none"
        raise ValueError(f"{place} leads to no usable picture: {reasons}")


def refuse_no_boxes(report: AnnotationReport, place: Path) -> None:
    """ValueError, with the reasons, where there were boxes and every one was dropped."""
    if report.dropped and not report.boxes + report.crowds:
        raise ValueError(f"{place} leads to no usable box: {'; '.join(report.defects())}")
