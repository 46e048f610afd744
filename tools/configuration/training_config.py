"""What the trainings of all nets read from a config: sections and keys, each with its type and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from .schema import Limits

Count = Annotated[int, Limits(least=1)]
WholeNumber = Annotated[int, Limits(least=0)]
Positive = Annotated[float, Limits(above=0)]
NotNegative = Annotated[float, Limits(least=0)]
Part = Annotated[float, Limits(least=0, most=1)]
Balance = Annotated[float, Limits(above=0, most=1)]
Side = Annotated[int, Limits(least=32)]
Size = tuple[Side, Side]  # (height, width)


@dataclass(frozen=True)
class OptimizerConfig:
    """Norms and biases get no weight decay. momentum: SGD only; AdamW keeps its usual betas.

    backbone_lr_factor: for the part of the net called backbone; lr_factors: pattern of parameter names (with * and ?)
    -> what their learning rate is multiplied with, besides; of several that match the last counts.
    """

    lr: Positive
    kind: Literal["sgd", "adamw"] = "sgd"
    momentum: Part = 0.9
    weight_decay: NotNegative = 0.0
    backbone_lr_factor: NotNegative = 1.0
    lr_factors: dict[str, NotNegative] | None = None


_READ_BY_SCHEDULE = {
    "cosine": ("final_factor",),
    "linear": ("final_factor",),
    "poly": ("final_factor", "power"),
    "step": ("milestones", "gamma"),
}


@dataclass(frozen=True)
class ScheduleConfig:
    """Linear warm-up, then a cosine, a straight line or a power of what is left (default 0.9) down to `final_factor`
    (default 0), or steps: times `gamma` (default 0.1) at each of `milestones`, in epochs.
    """

    kind: Literal["cosine", "linear", "poly", "step"] = "cosine"
    warmup_iters: WholeNumber = 0
    warmup_factor: Part = 0.01
    final_factor: Part | None = None
    power: Positive | None = None
    milestones: tuple[Positive, ...] | None = None
    gamma: Positive | None = None

    def __post_init__(self) -> None:
        for name in ("final_factor", "power", "milestones", "gamma"):
            if getattr(self, name) is not None and name not in _READ_BY_SCHEDULE[self.kind]:
                raise ValueError(f"{name} is set, but a {self.kind} schedule does not read it")
        if self.kind == "step" and not self.milestones:
            raise ValueError("milestones is missing; expected the epochs at which the learning rate falls")


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
class BinarizeConfig:
    """Binary weights ("bwn"), or binary weights and inputs ("xnor"): the arguments of the net's `binarize_`, which
    comes when it has the weights that it starts from.
    """

    mode: Literal["bwn", "xnor"]
    skip: tuple[str, ...] = ()
    keep_ends: bool = True
    scale_inputs: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What `swiftsight train` reads whatever the task is; each task adds its own keys.

    model: `name` and options of that builder; freeze: parts of the net, by name, that do not learn, and whose batch
    norms stay in evaluation mode; batch_size: of all processes together; eval_batch_size, workers, threads: of each;
    sizes: (height, width), one is drawn per batch; late_sizes: others for the last epochs; monitor: the figure by which
    the best weights are chosen; threads: null leaves the choice to torch.
    """

    nets: ClassVar[str]  # the list of `swiftsight list` that has the model's name
    side_step: ClassVar[int] = 1  # sides of a size are multiples of it

    task: str
    data: Any  # parts called train, val and, perhaps, test
    model: dict[str, Any]
    freeze: tuple[str, ...] | None = None
    epochs: Count
    optimizer: OptimizerConfig
    batch_size: Count = 16
    sizes: tuple[Size, ...]
    late_sizes: LateSizesConfig | None = None
    eval_size: Size
    eval_batch_size: Count = 16
    validate_every: Count = 1
    monitor: str
    schedule: ScheduleConfig = ScheduleConfig()
    ema: EmaConfig | None = EmaConfig()
    clip_grad: Positive | None = None
    early_stop: EarlyStopConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    seed: Annotated[int, Limits(least=0, most=2**31)] = 0
    precision: Literal["float32", "mixed"] = "float32"
    channels_last: bool = False
    workers: WholeNumber = 1
    threads: Count | None = None
    log_every: Count = 20

    def __post_init__(self) -> None:
        if not isinstance(self.model.get("name"), str):
            raise ValueError(f"model.name is missing; expected a name from swiftsight list {self.nets}")
        late = self.late_sizes.sizes if self.late_sizes else self.sizes
        for key, sizes in (("sizes", self.sizes), ("late_sizes.sizes", late), ("eval_size", (self.eval_size,))):
            if not sizes:
                raise ValueError(f"{key} is empty; expected at least one [height, width]")
            for size in sizes:
                if any(side % self.side_step for side in size):
                    said = f"{key} holds {list(size)}, no multiple of {self.side_step}"
                    raise ValueError(f"{said}; expected [height, width] in steps of {self.side_step}")
