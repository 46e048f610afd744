"""Lists of file names, which choose some pictures of a folder."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path


def read_split(path: str | os.PathLike[str]) -> list[str]:
    """The file names in a list, one a line; empty lines and lines that begin with # are skipped.

    Raises FileNotFoundError, or ValueError where it is no text, names nothing or names a file twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no list of file names at {path}")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file; expected one file name a line") from error
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise ValueError(f"{path} names no file; expected one file name a line")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{path} names {name!r} {count} times; expected each name once")
    return names
