"""Plain values read from a file -> typed ones: every key and every type is checked against an annotation.

A schema is a dataclass or the signature of the function that the values are for. Errors are one line: the key, what
came, what was expected, the nearest key.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from backbones.registry import nearest

Record = TypeVar("Record")

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


@dataclass(frozen=True)
class Limits:
    """What a number may be, beside its type: `Annotated[float, Limits(above=0)]`."""

    least: float | None = None
    above: float | None = None
    most: float | None = None

    def check(self, value: float, key: str) -> None:
        """ValueError where `value` lies outside."""
        if self.least is not None and value < self.least:
            raise ValueError(f"{key} is {value}; expected at least {self.least:g}")
        if self.above is not None and value <= self.above:
            raise ValueError(f"{key} is {value}; expected more than {self.above:g}")
        if self.most is not None and value > self.most:
            raise ValueError(f"{key} is {value}; expected at most {self.most:g}")


@dataclass(frozen=True)
class ChosenBy:
    """Which dataclass of a union it is says the key `name`, a Literal in each: `Annotated[A | B, ChosenBy("kind")]`.

    Without the key it is the one whose word is `default`, if there is a default.
    """

    name: str
    default: str | None = None

    def choose(self, value: Any, kinds: Sequence[Any], key: str) -> Any:
        """The one of `kinds` that `value` names. ValueError where it names none."""
        by_word = {get_args(typing.get_type_hints(kind)[self.name])[0]: kind for kind in kinds}
        if not isinstance(value, Mapping):
            raise ValueError(f"{key} is {_shown(value)}; expected a mapping of keys to values")
        said = value.get(self.name, self.default)
        if said is None:
            raise ValueError(f"{_join(key, self.name)} is missing; expected one of {', '.join(by_word)}")
        word = convert(said, Literal[tuple(by_word)], _join(key, self.name))
        return by_word[word]


@dataclass(frozen=True)
class OneOrMore:
    """A list with something in it, or its only entry without the list: `Annotated[tuple[A, ...], OneOrMore()]`."""


class SectionError(ValueError):
    """What a section of a config asks for cannot be; the message names the section."""


@contextmanager
def section(key: str) -> Iterator[None]:
    """Whatever is refused inside becomes a SectionError that names `key`, once."""
    try:
        yield
    except (ValueError, OSError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.strerror and error.filename is not None:
            text = f"{error.filename}: {error.strerror}"
        names_it = re.match(rf"(unknown key ')?{re.escape(key)}\b", text)
        raise SectionError(text if names_it else f"{key}: {text}") from error


class FileText(str):
    """Text that was read from a file: a relative path in it starts at that file's folder."""

    folder: Path


def build(record: type[Record], values: Any, key: str = "") -> Record:
    """An instance of the dataclass `record` from a mapping; `key` is where the mapping stands in the file."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{key or 'the config'} is {_shown(values)}; expected a mapping of keys to values")
    hints = typing.get_type_hints(record, include_extras=True)
    known = {field.name: field for field in dataclasses.fields(record)}  # type: ignore[arg-type]
    _refuse_unknown(values, known, key)
    for name, field in known.items():
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{_join(key, name)} is missing; expected {_expected(hints[name])}")
    converted = {name: convert(value, hints[name], _join(key, name)) for name, value in values.items()}
    try:
        return record(**converted)
    except ValueError as error:  # a record's own check begins with the name of a key in it
        raise ValueError(_join(key, str(error))) from None


def arguments(function: Callable[..., Any], values: Any, key: str) -> dict[str, Any]:
    """Keyword arguments for `function` from a mapping, checked against its signature."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{key} is {_shown(values)}; expected a mapping of keys to values")
    parameters = inspect.signature(function, eval_str=True).parameters
    _refuse_unknown(values, parameters, key)
    return {name: convert(value, parameters[name].annotation, _join(key, name)) for name, value in values.items()}


def convert(value: Any, annotation: Any, key: str) -> Any:
    """`value` as `annotation` says; ValueError that names `key` where it is something else."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return _plain(value)
    if origin is Annotated:
        return _annotated(value, parts[0], parts[1:], key)
    if origin in (Union, types.UnionType):
        return _first_fitting(value, parts, key, annotation)
    if origin is Literal:
        if value not in parts:
            near = nearest(str(value), map(str, parts))
            raise ValueError(f"{key} is {_shown(value)}; expected one of {', '.join(map(str, parts))}{near}")
        return str(value) if isinstance(value, str) else value
    if dataclasses.is_dataclass(annotation):
        return build(annotation, value, key)  # type: ignore[arg-type]
    if _is_path(annotation):
        return _scalar(value, Path, key)
    if origin is not None:
        return _collection(value, origin, parts, key, annotation)
    return _scalar(value, annotation, key)


def _scalar(value: Any, kind: Any, key: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and isinstance(value, str):
        # YAML 1.1 reads 1e-3 as text, for want of a point.
        value = float(value) if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value) else value
        is_number = isinstance(value, float)
    if kind is float and is_number and math.isfinite(value):
        return float(value)
    if kind is int and is_number and isinstance(value, int):
        return int(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind in (Path, str) and isinstance(value, str):
        return _path(value, key) if kind is Path else str(value)
    if kind is type(None) and value is None:
        return None
    raise ValueError(f"{key} is {_shown(value)}; expected {_expected(kind)}")


def _collection(value: Any, origin: Any, parts: tuple[Any, ...], key: str, annotation: Any) -> Any:
    """Lists for tuples and sequences, mappings for dicts."""
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{key} is {_shown(value)}; expected a mapping of keys to values")
        if parts[1] is Any:  # the values stay as they were read: who knows their types checks them
            return {str(name): part for name, part in value.items()}
        return {str(name): convert(part, parts[1], _join(key, str(name))) for name, part in value.items()}
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{key} is {_shown(value)}; expected {_expected(annotation)}")
    if origin is tuple and parts[-1] is not Ellipsis:
        if len(value) != len(parts):
            raise ValueError(f"{key} is {_shown(value)}; expected {_expected(annotation)}")
        kinds: Sequence[Any] = parts
    else:
        kinds = [parts[0]] * len(value)
    made = (convert(part, kind, f"{key}[{place}]") for place, (part, kind) in enumerate(zip(value, kinds, strict=True)))
    return list(made) if origin is list else tuple(made)


def _first_fitting(value: Any, kinds: Sequence[Any], key: str, annotation: Any) -> Any:
    """The value as one of several kinds. With one real choice beside None, that one's own complaint is the clearest."""
    if value is None and type(None) in kinds:
        return None
    choices = [kind for kind in kinds if kind is not type(None)]
    if str in choices and isinstance(value, str) and re.fullmatch(r"\w+", value):
        return str(value)  # a word, such as "imagenet" for weights: files are told by a suffix or a folder
    # Where a path may be given as text too, it is still a path: its variables are filled in.
    for kind in sorted(choices, key=_is_path, reverse=True):
        try:
            return convert(value, kind, key)
        except ValueError:
            if len(choices) == 1:
                raise
    raise ValueError(f"{key} is {_shown(value)}; expected {_expected(annotation)}")


def _is_path(kind: Any) -> bool:
    made_from: Any = get_origin(kind) or kind
    return isinstance(made_from, type) and issubclass(made_from, os.PathLike)


def _annotated(value: Any, kind: Any, extras: Sequence[Any], key: str) -> Any:
    for extra in extras:
        if isinstance(extra, ChosenBy):
            kind = extra.choose(value, get_args(kind), key)
        if isinstance(extra, OneOrMore) and not isinstance(value, (list, tuple)):
            return (convert(value, get_args(kind)[0], key),)  # its place in a list is not named
        if isinstance(extra, OneOrMore) and not value:
            raise ValueError(f"{key} is empty; expected at least one")
    converted = convert(value, kind, key)
    for extra in extras:
        if isinstance(extra, Limits) and converted is not None:
            extra.check(converted, key)
    return converted


def _path(text: str, key: str) -> Path:
    """`${NAME}` filled in from the environment, `~` from the home; relative to the file where it was read, if any."""

    def fill(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if not value:
            raise ValueError(f"{key} is {text!r}, but the environment variable {match[1]} is not set")
        return value

    path = Path(re.sub(r"\$\{(\w+)\}", fill, text)).expanduser()
    return Path(os.path.abspath(getattr(text, "folder", Path.cwd()) / path))


def _refuse_unknown(values: Mapping[Any, Any], known: Mapping[str, Any], key: str) -> None:
    for name in values:
        if name not in known:
            near = nearest(str(name), known)
            raise ValueError(f"unknown key {_join(key, str(name))!r}{near or ': expected ' + ', '.join(known)}")


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _plain(value: Any) -> Any:
    """Without the folder that text remembers."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    text = repr(_plain(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _expected(annotation: Any) -> str:
    """An annotation in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _expected(parts[0])
    if origin in (Union, types.UnionType):
        words = ("null" if part is type(None) else _expected(part) for part in parts)
        return " or ".join(dict.fromkeys(words))
    if origin is Literal:
        return "one of " + ", ".join(map(str, parts))
    if origin is tuple and parts[-1] is not Ellipsis:
        return f"a list of {len(parts)}, each {_expected(parts[0])}"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each {_expected(parts[0])}"
    if dataclasses.is_dataclass(annotation) or origin is dict:
        return "a mapping of keys to values"
    return _WORDS.get(annotation, str(annotation))
