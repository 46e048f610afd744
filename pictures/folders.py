"""Whether the pictures that an annotation file names are there, and are what it says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


def list_pictures(folder: Path, *, below: bool = False, endings: Sequence[str] = PICTURE_ENDINGS) -> list[Path]:
    """The files in a folder, or also in those `below`, that are called as pictures are, sorted; none that is hidden."""
    paths = folder.rglob("*") if below else folder.iterdir()
    return sorted(
        path for path in paths if path.suffix.lower() in endings and not is_hidden(path, folder) and path.is_file()
    )


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a name on the way from `folder` to `path` begins with a dot, as those of macOS's `._` copies do."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def check_files(file_names: Sequence[str], folder: Path, annotations: Path) -> None:
    """FileNotFoundError where a picture that `annotations` names is not in `folder`.

    One listing per folder instead of one question per picture.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of pictures at {folder}")
    present = {parent: _names_in(folder / parent) for parent in {os.path.dirname(name) for name in file_names}}
    missing = [name for name in file_names if os.path.basename(name) not in present[os.path.dirname(name)]]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(file_names)} pictures of {annotations} are not in {folder}, first {missing[0]!r}"
        )


def find_pictures(stems: Iterable[str], folder: Path) -> dict[str, str]:
    """Stem -> file name, both relative to `folder`, of those that are there; of several endings the first in order.

    Raises FileNotFoundError where there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of pictures at {folder}")
    wanted = set(stems)
    found: dict[str, str] = {}
    for parent in {os.path.dirname(stem) for stem in wanted}:
        for name in sorted(_names_in(folder / parent)):
            stem, ending = os.path.splitext(os.path.join(parent, name))
            if stem in wanted and ending.lower() in PICTURE_ENDINGS:
                found.setdefault(stem, stem + ending)
    return found


def _names_in(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()


def size_error(path: Path, found: tuple[int, int], annotations: Path, said: tuple[int, int]) -> str:
    """What to say of a picture whose (height, width) is not what its annotations say."""
    turned = "; was it annotated without its EXIF rotation?" if found == said[::-1] else ""
    return f"{path} is {found[1]} x {found[0]} pixels, but {annotations} says {said[1]} x {said[0]}{turned}"
