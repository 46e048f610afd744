"""What a demo's source is, and where its results go: under names of their own, never over the source."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path

from pictures.folders import list_pictures

from .video import VIDEO_SUFFIXES, is_live

MOST_CAMERAS = 999
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DEFAULT_FOLDER = Path("demo_output")


class SourceKind(Enum):
    """What the word after --source turned out to be."""

    SAMPLE = "sample"
    LIVE = "camera"
    FOLDER = "folder"
    PICTURE = "picture"
    VIDEO = "video"


def source_kind(source: str) -> SourceKind:
    """FileNotFoundError where there is nothing of that name, ValueError for a file of no known suffix."""
    if not source.strip():
        raise ValueError("the source is empty; expected sample, a file, a folder or a camera number")
    if source.isdigit() and int(source) > MOST_CAMERAS:
        raise ValueError(f"the source {source} is no camera's number; expected 0..{MOST_CAMERAS}")
    path = Path(source)
    if source == SourceKind.SAMPLE.value:
        return SourceKind.SAMPLE
    if is_live(source):
        return SourceKind.LIVE
    if path.is_dir():
        return SourceKind.FOLDER
    if not path.exists():
        raise FileNotFoundError(f"no file or folder at {source}; expected sample, a file, a folder or a camera number")
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return SourceKind.PICTURE
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return SourceKind.VIDEO
    choices = ", ".join(PICTURE_SUFFIXES + VIDEO_SUFFIXES)
    raise ValueError(f"{source} has the suffix {path.suffix!r}; expected one of {choices}")


def pictures_in(folder: Path) -> list[Path]:
    """The pictures right in a folder, by name, without hidden files; ValueError if there is none."""
    found = list_pictures(folder, endings=PICTURE_SUFFIXES)
    if not found:
        raise ValueError(f"{folder} holds no picture; expected files that end in {', '.join(PICTURE_SUFFIXES)}")
    return found


def detected_name(source: str | os.PathLike[str], suffix: str) -> str:
    """The name of an annotated file that goes into a folder: one that no source has."""
    return f"{Path(source).stem}_detected{suffix}"


def label_picture_name(source: str | os.PathLike[str], frame: float | None = None) -> str:
    """The name of the label picture of a picture, or of a video's frame: NAME.png, NAME_000012.png."""
    stem = Path(source).stem
    return f"{stem}.png" if frame is None else f"{stem}_{frame:06.0f}.png"


def make_label_folder(folder: Path, output: Path | None, source: str, kind: SourceKind) -> None:
    """Makes the folder for label pictures where it is missing.

    Raises ValueError where they could replace a source, a result or each other; OSError if the folder cannot be made.
    """
    taken = {"results": output or DEFAULT_FOLDER}
    if output is not None and output.suffix and not output.is_dir():
        taken["results"] = output.parent
    if kind in (SourceKind.PICTURE, SourceKind.FOLDER):
        taken["source"] = Path(source) if kind is SourceKind.FOLDER else Path(source).parent
    for whose, other in taken.items():
        if folder.resolve() == other.resolve():
            raise ValueError(f"--labels {folder} is the folder of the {whose}; choose another, to keep the two apart")
    if kind is SourceKind.FOLDER:
        names = Counter(label_picture_name(path) for path in pictures_in(Path(source)))
        name, times = names.most_common(1)[0]
        if times > 1:
            raise ValueError(f"{times} pictures in {source} would have the labels {name}; rename all but one")
    result_folder(folder)


def result_file(output: Path | None, name: str, suffixes: Sequence[str]) -> Path:
    """Where one result goes: `output`, or `name` in it if it is a folder or has no suffix. Its folder is made.

    Raises ValueError if the suffix is none of `suffixes`, OSError if the folder cannot be made.
    """
    if output is None or output.is_dir() or not output.suffix:
        return result_folder(output) / name
    if output.suffix.lower() not in suffixes:
        raise ValueError(f"--output {output} cannot be written; expected a folder or a file in {', '.join(suffixes)}")
    result_folder(output.parent)
    return output


def result_folder(output: Path | None) -> Path:
    """The folder for results, made where it is missing; OSError if it cannot be made."""
    folder = output or DEFAULT_FOLDER
    try:
        refuse_file(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the folder {folder} for the results: {error.strerror or error}") from None
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"cannot write into the folder {folder}")
    return folder


def refuse_file(folder: Path) -> None:
    """NotADirectoryError where a file lies at `folder`, or where one of the folders above it would be."""
    for part in (folder, *folder.parents):
        if part.exists() and not part.is_dir():
            raise NotADirectoryError(f"{part} is a file; expected a folder")


def prepare_file(path: Path) -> Path:
    """`path`, its folder made where it is missing; ValueError or OSError, before any work, where it cannot be written.

    A file that lies there stays until there is another to replace it.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a file")
    result_folder(path.parent)
    return path


def new_file(path: Path) -> Path:
    """`path`, its folder made where it is missing; ValueError, before any work, where something lies there already."""
    if path.exists():
        raise ValueError(f"{path} exists already; name another file")
    result_folder(path.parent)
    return path


def refuse_overwriting(target: Path, sources: Iterable[Path]) -> None:
    """ValueError if `target` is one of the sources, by whatever name or link."""
    if target.exists() and any(target.samefile(source) for source in sources):
        raise ValueError(f"{target} is the source itself and would be overwritten; choose another name")
