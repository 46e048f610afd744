"""The config of a training: one YAML file, perhaps a base, perhaps `--set key=value`; every key and type is checked.

Nothing in a config is ever run: `yaml.safe_load`'s types only, a base that is YAML too, no Python file. Paths may hold
`${NAME}` for an environment variable; a relative path starts at the folder of the file that says it. The key `task`
says what kind of net it is for, and with that which keys there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from backbones.registry import nearest

from ..errors import UsageError
from .classification_config import ClassificationConfig
from .detection_config import DetectionConfig
from .joint_config import JointConfig
from .schema import FileText, build
from .segmentation_config import SegmentationConfig
from .training_config import TrainingConfig

CONFIGS: dict[str, type[TrainingConfig]] = {
    "detect": DetectionConfig,
    "classify": ClassificationConfig,
    "segment": SegmentationConfig,
    "joint": JointConfig,
}
DEFAULT_TASK = "detect"


def load_config(name: str | Path, assignments: Sequence[str] = ()) -> TrainingConfig:
    """The config in the file `name` (a path, or the place of a shipped config such as detect/x.yaml), changed by
    `assignments` ("optimizer.lr=0.01").

    Raises FileNotFoundError, UsageError for an assignment that is none, and ValueError that names the key at fault.
    """
    path = find_config(name)
    values = _read_with_base(path)
    for assignment in assignments:
        assign(values, assignment)
    task = values.get("task", DEFAULT_TASK)
    if task not in CONFIGS:
        near = nearest(str(task), CONFIGS)
        raise ValueError(f"{path}: task is {task!r}; expected one of {', '.join(CONFIGS)}{near}")
    try:
        return build(CONFIGS[task], values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def find_config(name: str | Path) -> Path:
    """The file itself, or one of that name among the shipped configs."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = Path(str(resources.files("swiftsight_configs")))
    inside = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
    if not path.is_absolute() and (shipped / inside).is_file():
        return shipped / inside
    names = [str(found.relative_to(shipped)) for found in shipped.rglob("*.yaml")]
    raise FileNotFoundError(f"there is no config {str(name)!r}, neither here nor shipped{nearest(str(inside), names)}")


def as_plain(config: Any, *, whole_paths: bool = False) -> Any:
    """A config as mappings, lists, text and numbers: for YAML, for a checkpoint, to be compared.

    whole_paths: text that names a file is written with the folder that it starts at, so that it means the same
    wherever the YAML lies.
    """
    plain = partial(as_plain, whole_paths=whole_paths)
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {part.name: plain(getattr(config, part.name)) for part in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(name): plain(value) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(value) for value in config]
    if whole_paths and isinstance(config, str) and Path(config).suffix:
        path = getattr(config, "folder", Path()) / config
        return str(path.absolute()) if path.is_file() else str(config)
    return str(config) if isinstance(config, (str, Path)) else config


def differences(before: Any, after: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Keys at which two plain configs differ -> (before, after); None where one of them has no such key."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for name in [*before, *(name for name in after if name not in before)]:
            found |= differences(before.get(name), after.get(name), f"{key}.{name}" if key else name)
        return found
    return {} if before == after else {key: (before, after)}


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice and lets text remember its file's folder."""

    folder: Path

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; a ConstructorError where a key comes twice, which YAML itself takes in silence."""
        keys = [self.construct_object(key) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} comes twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _file_text(loader: _Loader, node: yaml.ScalarNode) -> FileText:
    text = FileText(loader.construct_scalar(node))
    text.folder = loader.folder
    return text


_Loader.add_constructor("tag:yaml.org,2002:str", _file_text)


def _read_yaml(path: Path) -> dict[str, Any]:
    if path.suffix not in (".yaml", ".yml"):
        raise ValueError(f"{path} is no YAML file: a config ends in .yaml, and nothing else is read")
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        loader.folder = path.resolve().parent
        values = loader.get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {_yaml_complaint(error)}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text file; expected YAML") from None
    if not isinstance(values, dict):
        held = "nothing" if values is None else "a list" if isinstance(values, list) else "text or a number"
        raise ValueError(f"{path} holds {held}; expected a mapping of keys to values")
    return values


def _yaml_complaint(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "no YAML"
    mark = getattr(error, "problem_mark", None)
    return f"{problem}, line {mark.line + 1}" if mark else str(problem)


def _read_with_base(path: Path) -> dict[str, Any]:
    """The file's values over those of its base; a base has no base of its own."""
    values = _read_yaml(path)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ValueError(f"{path}: base is {base!r}; expected the path of one YAML file")
    below = _read_yaml(path.resolve().parent / base)
    if "base" in below:
        raise ValueError(f"{path}: its base {base} has a base of its own; expected one base at most")
    return _merged(below, values)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key; anything else above replaces what lies below."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def assign(values: dict[str, Any], assignment: str) -> None:
    """Carry out "a.b=value", value in YAML's spelling. UsageError for what is no such assignment."""
    key, equals, text = assignment.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise UsageError(f"--set {assignment!r} is no assignment; expected key=value, as in optimizer.lr=0.01")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {assignment!r}: {_yaml_complaint(error)}") from None
    for name in names[:-1]:
        below = values.get(name)
        values[name] = dict(below) if isinstance(below, Mapping) else {}
        values = values[name]
    values[names[-1]] = value
