"""YOLO's data.yaml: where the pictures lie and what the classes are called. What it says to download or run is not."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from backbones.registry import nearest

from .annotated_pictures import check_class_names

_PARTS = ("train", "val", "test")


class DataYaml(NamedTuple):
    """root: the folder that relative names start at; parts: the yaml's own words for train, val and test;
    keypoint_numbers: how many numbers stand behind each box for the object's keypoints, 0 where it has none.
    """

    path: Path
    root: Path
    class_names: tuple[str, ...]
    parts: dict[str, list[str]]
    keypoint_numbers: int = 0

    def sources(self, split: str) -> list[Path]:
        """Folders of pictures and lists of them. ValueError where the yaml has no such part, OSError for a lost one."""
        if split not in self.parts:
            near = nearest(split, self.parts) or f"; it has {', '.join(self.parts) or 'none'}"
            raise ValueError(f"{self.path} has no pictures for {split!r}{near}")
        return [_source(self.path, self.root, word) for word in self.parts[split]]


def _source(path: Path, root: Path, word: str) -> Path:
    """The folder or list that the yaml at `path` calls `word`. FileNotFoundError where there is none."""
    # Some exporters write ../train/images in a yaml that lies beside train.
    places = [root / word, *([root / word[3:]] if word.startswith("../") else [])]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise FileNotFoundError(f"{path} names {word!r}, but there is neither folder nor list at {places[0]}")
    return found


def read_data_yaml(path: Path) -> DataYaml:
    """The yaml's `path` (its own folder, if it says none), `train`, `val`, `test`, `names`, `nc` and `kpt_shape`.

    A part is a folder, a text file with a picture a line, or a list of these, relative to `path`; `path` is relative to
    the yaml's folder or else to the working directory. `names` is a list, or a mapping from numbers, or left out where
    `nc` says how many there are. `kpt_shape`, where it is there, is [keypoints, numbers of each]. Raises ValueError or
    OSError in one line.
    """
    values = _load(path)
    root = _root(path, values.get("path"))
    parts = {name: _words(values[name], f"{path}: {name}") for name in _PARTS if values.get(name)}
    return DataYaml(path, root, _class_names(path, values), parts, _keypoint_numbers(path, values.get("kpt_shape")))


class _Loader(yaml.BaseLoader):
    """Mappings, lists and text only: a class called no stays one. Refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [str(key.value) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} comes twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no data.yaml at {path}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)  # noqa: S506 - it makes text of everything
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}: {getattr(error, 'problem', None) or 'no YAML'}{line}") from None
    except (UnicodeDecodeError, RecursionError):
        raise ValueError(f"{path} is no text file with YAML") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} has no keys; expected train, val and names")
    return values


def _root(path: Path, word: Any) -> Path:
    folder = path.resolve().parent
    if not word:
        return folder
    if not isinstance(word, str):
        raise ValueError(f"{path}: path is {_shown(word)}; expected one folder")
    places = [folder / Path(word).expanduser(), Path.cwd() / word]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise FileNotFoundError(f"{path}: path is {word!r}, but there is no folder at {places[0]}")
    return found.resolve()


def _words(value: Any, key: str) -> list[str]:
    words = value if isinstance(value, list) else [value]
    if not all(isinstance(word, str) and word for word in words):
        raise ValueError(f"{key} is {_shown(value)}; expected a folder, a list file, or a list of these")
    return words


def _class_names(path: Path, values: Mapping[str, Any]) -> tuple[str, ...]:
    names, count = values.get("names"), values.get("nc")
    if count is not None and not (isinstance(count, str) and count.isdecimal() and 0 < int(count) < 100_000):
        raise ValueError(f"{path}: nc is {_shown(count)}; expected the number of classes")
    if not names:
        if count is None:
            raise ValueError(f"{path} has neither names nor nc; expected the names of the classes")
        return tuple(f"class_{number}" for number in range(int(count)))
    if isinstance(names, Mapping):
        wanted = [str(number) for number in range(len(names))]
        if set(names) != set(wanted):
            raise ValueError(f"{path}: names has the numbers {', '.join(names)[:60]}; expected 0 to {len(names) - 1}")
        names = [names[number] for number in wanted]
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"{path}: names is {_shown(names)}; expected a list of names, or a mapping 0: name, 1: ...")
    if count is not None and int(count) != len(names):
        raise ValueError(f"{path}: nc is {count}, but there are {len(names)} names")
    try:
        return check_class_names([name.strip() for name in names])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _keypoint_numbers(path: Path, shape: Any) -> int:
    """How many numbers [keypoints, numbers of each] are: x and y, or x, y and whether it can be seen."""
    if not shape:
        return 0
    are_numbers = isinstance(shape, list) and all(isinstance(word, str) and word.isdecimal() for word in shape)
    if not are_numbers or len(shape) != 2 or not 0 < int(shape[0]) < 100_000 or int(shape[1]) not in (2, 3):
        raise ValueError(f"{path}: kpt_shape is {_shown(shape)}; expected [keypoints, 2 or 3]")
    return int(shape[0]) * int(shape[1])


def _shown(value: Any) -> str:
    """Short, and quickly made of a list whose parts are repeated without end."""
    return reprlib.repr(value)[:60]
