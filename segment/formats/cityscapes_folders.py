"""Cityscapes on disk: leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelIds.png."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from backbones.registry import nearest
from pictures.folders import is_hidden
from segment.formats.cityscapes import CLASS_COLOURS, CLASS_NAMES, LABELS
from segment.formats.label_values import Hint, LabelValues
from segment.formats.labelled_pictures import LabelFiles
from segment.losses import IGNORE
from segment.transforms import Transform

_IMAGE_END = "_leftImg8bit.png"
_KINDS = ("labelIds", "labelTrainIds")


class Cityscapes(LabelFiles):
    """One split ("train", "val", "train_extra" with annotation="gtCoarse") of the folder `root`, 19 classes.

    labels: "labelIds" as published, or "labelTrainIds" as the data set's scripts make them; cities: some of them (all);
    file_names: the pictures to take, relative to leftImg8bit/<split> (all of those cities). `instance_path` leads to
    the instances that the weighted iIoU needs. Raises FileNotFoundError or ValueError in one line.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        labels: Literal["labelIds", "labelTrainIds"] = "labelIds",
        annotation: Literal["gtFine", "gtCoarse"] = "gtFine",
        cities: Sequence[str] | None = None,
        file_names: Iterable[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        if labels not in _KINDS:
            raise ValueError(f"labels is {labels!r}{nearest(labels, _KINDS)}; expected {' or '.join(_KINDS)}")
        folder, label_folder = Path(root) / "leftImg8bit" / split, Path(root) / annotation / split
        for place in (folder, label_folder):
            if not place.is_dir():
                raise FileNotFoundError(f"no folder at {place}; expected leftImg8bit and {annotation} in {root}")
        names = _chosen_names(folder, cities, file_names)
        self._label_starts = [label_folder / f"{name.removesuffix(_IMAGE_END)}_{annotation}" for name in names]
        paths = [Path(f"{start}_{labels}.png") for start in self._label_starts]
        _refuse_missing(paths, folder, labels)
        super().__init__(folder, names, paths, _values(labels), CLASS_NAMES, colours=CLASS_COLOURS, transform=transform)

    def instance_path(self, index: int) -> Path:
        """The picture of instances of picture `index`; whether it is there is not checked."""
        return Path(f"{self._label_starts[index]}_instanceIds.png")


def _values(labels: str) -> LabelValues:
    if labels == "labelIds":
        hint = Hint([255], "are these train ids? labels: labelTrainIds reads *_labelTrainIds.png")
        return LabelValues({label.id: label.train_id for label in LABELS}, f"label ids 0..{LABELS[-1].id}", [hint])
    ids = range(len(CLASS_NAMES), len(LABELS))
    hint = Hint(ids, "are these label ids? labels: labelIds reads *_labelIds.png")
    classes = {value: value for value in range(len(CLASS_NAMES))} | {IGNORE: IGNORE}
    return LabelValues(classes, f"train ids 0..{len(CLASS_NAMES) - 1}, and {IGNORE} for what is ignored", [hint])


def _chosen_names(folder: Path, cities: Sequence[str] | None, file_names: Iterable[str] | None) -> list[str]:
    """Pictures relative to the folder, sorted. Raises ValueError for a city or picture that is not there."""
    there = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    unknown = [city for city in cities or () if city not in there]
    if unknown:
        raise ValueError(f"{folder} has no city {unknown[0]!r}{nearest(unknown[0], there)}: it has {', '.join(there)}")
    chosen = there if cities is None else cities
    found = (path for city in chosen for path in (folder / city).glob(f"*{_IMAGE_END}"))
    names = sorted(str(path.relative_to(folder)) for path in found if not is_hidden(path, folder))
    if file_names is not None:
        known, names = set(names), list(dict.fromkeys(file_names))
        absent = [name for name in names if name not in known]
        if absent:
            raise ValueError(f"{folder} has no picture {absent[0]!r}{nearest(absent[0], known)}")
    if not names:
        raise ValueError(f"{folder} holds no picture <city>/*{_IMAGE_END}, or none was asked for")
    return names


def _refuse_missing(paths: Sequence[Path], folder: Path, labels: str) -> None:
    parents = {path.parent for path in paths}
    there = {parent: set(os.listdir(parent)) if parent.is_dir() else set() for parent in parents}
    missing = [path for path in paths if path.name not in there[path.parent]]
    if not missing:
        return
    fix = ""
    if labels == "labelTrainIds" and missing[0].with_name(missing[0].name.replace(labels, "labelIds")).exists():
        fix = "; labels: labelIds reads the published ones, which are there"
    lacking = f"{len(missing)} of {len(paths)} pictures in {folder} have no label"
    raise FileNotFoundError(f"{lacking}, first {missing[0]}{fix}")
