"""A folder of pictures and a folder of label pictures under the same names: classes as values, or 0/255 masks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from backbones.registry import nearest
from pictures.folders import PICTURE_ENDINGS, list_pictures
from segment.formats.label_values import LabelValues, binary_values, index_values
from segment.formats.labelled_pictures import LabelFiles
from segment.losses import IGNORE
from segment.transforms import Transform


class MaskFolder(LabelFiles):
    """`images/NAME.*` with the labels `labels/NAME<label_suffix>.*`, folders within both included.

    kind "index": values are classes, also in palette pictures (their places, not their colours), and those in `ignore`
    are not learnt; kind "binary": 0 is the first class and 255 the second. file_names: the pictures to take, relative
    to `images` (all). Raises OSError for a missing folder or file, ValueError in one line for what does not fit: a
    picture without a label, a label without a picture (unless file_names chooses), a name that is there twice.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        labels: str | os.PathLike[str],
        class_names: Sequence[str],
        *,
        kind: Literal["index", "binary"] = "index",
        ignore: Sequence[int] = (IGNORE,),
        label_suffix: str = "",
        file_names: Iterable[str] | None = None,
        colours: Sequence[tuple[int, int, int]] | None = None,
        transform: Transform | None = None,
    ) -> None:
        values = _label_values(kind, class_names, ignore)
        folder, label_folder = Path(images), Path(labels)
        names, label_names = _by_stem(folder, ""), _by_stem(label_folder, label_suffix)
        if file_names is None:
            extra = sorted(label_names.keys() - names.keys())
            if extra and names.keys() <= label_names.keys():
                one = label_folder / label_names[extra[0]]
                raise ValueError(f"{len(extra)} labels have no picture in {folder}, first {one}; name the file_names")
            stems = sorted(names)
        else:
            stems = [_stem_of(name, names, folder) for name in dict.fromkeys(file_names)]
        missing = [stem for stem in stems if stem not in label_names]
        if missing:
            lacking = f"{len(missing)} of {len(stems)} pictures in {folder} have no label"
            expected = f"{label_folder / missing[0]}{label_suffix}.png"
            raise FileNotFoundError(f"{lacking}, first {names[missing[0]]}: expected {expected}")
        if not stems:
            raise ValueError(f"{folder} holds no picture, or none was asked for; expected {', '.join(PICTURE_ENDINGS)}")
        super().__init__(
            folder,
            [names[stem] for stem in stems],
            [label_folder / label_names[stem] for stem in stems],
            values,
            class_names,
            colours=colours,
            transform=transform,
        )


def _label_values(kind: str, class_names: Sequence[str], ignore: Sequence[int]) -> LabelValues:
    if len(set(class_names)) < len(class_names) or not class_names:
        raise ValueError(f"class_names is {list(class_names)}; expected one or more names, each once")
    if kind == "index":
        return index_values(len(class_names), ignore)
    if kind != "binary":
        raise ValueError(f"kind is {kind!r}{nearest(kind, ('index', 'binary'))}; expected index or binary")
    if len(class_names) != 2:
        raise ValueError(f"0/255 masks have two classes, but there are {len(class_names)} names: {list(class_names)}")
    return binary_values()


def _by_stem(folder: Path, suffix: str) -> dict[str, str]:
    """Name without `suffix` and ending -> name, both relative to the folder. Raises OSError or ValueError."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    files = [path.relative_to(folder) for path in list_pictures(folder, below=True)]
    found = [path for path in files if path.stem.endswith(suffix)]
    stems = {str(path): str(path.with_suffix("")).removesuffix(suffix) for path in found}
    twice = [stem for stem, count in Counter(stems.values()).items() if count > 1]
    if twice:
        both = ", ".join(sorted(name for name, stem in stems.items() if stem == twice[0]))
        raise ValueError(f"{folder} holds {both}; expected one file for each name")
    return {stem: name for name, stem in stems.items()}


def _stem_of(name: str, names: dict[str, str], folder: Path) -> str:
    stem = str(Path(name).with_suffix(""))
    if names.get(stem) != name:
        raise ValueError(f"{folder} has no picture {name!r}{nearest(name, names.values())}")
    return stem
