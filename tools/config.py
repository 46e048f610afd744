"""The config of a training: one YAML file, perhaps a base, perhaps `--set key=value`; every key and type is checked.

Nothing in a config is ever run: `yaml.safe_load`'s types only, a base that is YAML too, no Python file. Paths may hold
`${NAME}` for an environment variable; a relative path starts at the folder of the file that says it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from backbones.registry import nearest

from .errors import UsageError
from .schema import FileText, Limits, build

Count = Annotated[int, Limits(least=1)]
WholeNumber = Annotated[int, Limits(least=0)]
Positive = Annotated[float, Limits(above=0)]
NotNegative = Annotated[float, Limits(least=0)]
Part = Annotated[float, Limits(least=0, most=1)]
Side = Annotated[int, Limits(least=32)]
Size = tuple[Side, Side]  # (height, width)
Figure = Literal["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


@dataclass(frozen=True)
class PartConfig:
    """Pictures and what is known of them. file_names: a text file, a name a line, that chooses some of the pictures."""

    annotations: Path
    images: Path
    file_names: Path | None = None


@dataclass(frozen=True)
class DataConfig:
    """train: to learn from; val: to choose checkpoints by; test: scored once at the end, never in training.

    class_names: in the order of the net's classes; null takes all of the train file's categories.
    """

    train: PartConfig
    val: PartConfig
    test: PartConfig | None = None
    class_names: tuple[str, ...] | None = None
    cache: bool = False


@dataclass(frozen=True)
class OptimizerConfig:
    """Norms and biases get no weight decay. momentum: SGD only; AdamW keeps its usual betas."""

    lr: Positive
    kind: Literal["sgd", "adamw"] = "sgd"
    momentum: Part = 0.9
    weight_decay: NotNegative = 0.0
    backbone_lr_factor: NotNegative = 1.0


@dataclass(frozen=True)
class ScheduleConfig:
    """Linear warm-up, then steps (times `gamma` at each of `milestones`, in epochs) or a cosine to `final_factor`."""

    kind: Literal["cosine", "step"] = "cosine"
    warmup_iters: WholeNumber = 0
    warmup_factor: Part = 0.01
    final_factor: Part | None = None
    milestones: tuple[Positive, ...] | None = None
    gamma: Positive | None = None

    def __post_init__(self) -> None:
        unread = {"cosine": ("milestones", "gamma"), "step": ("final_factor",)}[self.kind]
        for name in unread:
            if getattr(self, name) is not None:
                raise ValueError(f"schedule.{name} is set, but a {self.kind} schedule does not read it")
        if self.kind == "step" and not self.milestones:
            raise ValueError("schedule.milestones is missing; expected the epochs at which the learning rate falls")


@dataclass(frozen=True)
class EmaConfig:
    """averaged = (1 - m) * averaged + m * weights, m = max(momentum, gamma / (gamma + step)).

    With gamma the average looks back over about step / gamma steps, until momentum is the larger one.
    """

    momentum: Annotated[float, Limits(above=0, most=0.5)] = 0.0005
    gamma: Count | None = 10


@dataclass(frozen=True)
class EarlyStopConfig:
    """Stop after `patience` validations in a row that did not gain `min_delta`."""

    patience: Count
    min_delta: NotNegative = 0.0


@dataclass(frozen=True)
class CheckpointConfig:
    """every_iters: also inside an epoch. The newest `keep_last` and the one with the best score are kept."""

    every_epochs: Count = 1
    every_iters: Count | None = None
    keep_last: Count = 3


@dataclass(frozen=True)
class LateSizesConfig:
    """Other sizes when `after` epochs are done: small pictures first save time, large ones last gain accuracy."""

    after: Count
    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that `swiftsight train` reads. model: `name` and options of that builder; sizes: (height, width),
    one is drawn per batch; late_sizes: others for the last epochs; augmentation: arguments of `SSDAugmentation`;
    threads: null leaves the choice to torch.
    """

    model: dict[str, Any]
    data: DataConfig
    epochs: Count
    optimizer: OptimizerConfig
    augmentation: dict[str, Any] = field(default_factory=dict)
    batch_size: Count = 16
    sizes: tuple[Size, ...] = ((320, 320),)
    late_sizes: LateSizesConfig | None = None
    eval_size: Size = (320, 320)
    eval_batch_size: Count = 16
    validate_every: Count = 1
    monitor: Figure = "AP"
    schedule: ScheduleConfig = ScheduleConfig()
    ema: EmaConfig | None = EmaConfig()
    clip_grad: Positive | None = None
    early_stop: EarlyStopConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    seed: WholeNumber = 0
    precision: Literal["float32", "mixed"] = "float32"
    channels_last: bool = False
    workers: WholeNumber = 1
    threads: Count | None = None
    log_every: Count = 20

    def __post_init__(self) -> None:
        if not isinstance(self.model.get("name"), str):
            raise ValueError("model.name is missing; expected the name of a detector (see swiftsight list detectors)")
        late = self.late_sizes.sizes if self.late_sizes else self.sizes
        if not self.sizes or not late:
            raise ValueError("sizes is empty; expected at least one [height, width]")
        for size in (*self.sizes, *late, self.eval_size):
            if any(side % 16 for side in size):
                raise ValueError(f"the size {list(size)} is no multiple of 16; expected [height, width] in steps of 16")


def load_config(name: str | Path, assignments: Sequence[str] = ()) -> TrainingConfig:
    """The config in the file `name` (a path, or the place of a shipped config such as detect/x.yaml), changed by
    `assignments` ("optimizer.lr=0.01").

    Raises FileNotFoundError, UsageError for an assignment that is none, and ValueError that names the key at fault.
    """
    path = find_config(name)
    values = _read_with_base(path)
    for assignment in assignments:
        _assign(values, assignment)
    try:
        return build(TrainingConfig, values)
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


def as_plain(config: Any) -> Any:
    """A config as mappings, lists, text and numbers: for YAML, for a checkpoint, to be compared."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {part.name: as_plain(getattr(config, part.name)) for part in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(name): as_plain(value) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [as_plain(value) for value in config]
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


def _assign(values: dict[str, Any], assignment: str) -> None:
    """Carry out "a.b=value", value in YAML's spelling."""
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
