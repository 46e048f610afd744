"""The learning rate as a pure function of the step: a resumed run needs no state to go on with the right one."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..configuration.training_config import ScheduleConfig

Factor = Callable[[int], float]


def learning_rate_factor(config: ScheduleConfig, iters_per_epoch: int, epochs: int) -> Factor:
    """step (0 for the first) -> what the optimizer's learning rate is multiplied with.

    During the warm-up it rises in a straight line from `warmup_factor` to 1. From there to the end it falls to
    `final_factor`: as a cosine, or with the power `power` of what is left (poly; with the power 1 linear). Steps
    multiply with `gamma` when a milestone's epoch begins.
    """
    total = iters_per_epoch * epochs
    warmup = min(config.warmup_iters, total)
    final = config.final_factor or 0.0
    milestones = [round(epoch * iters_per_epoch) for epoch in config.milestones or ()]
    gamma = 0.1 if config.gamma is None else config.gamma
    power = 1.0 if config.kind == "linear" else 0.9 if config.power is None else config.power

    def factor(step: int) -> float:
        if step < warmup:
            return config.warmup_factor + (1 - config.warmup_factor) * step / warmup
        if config.kind == "step":
            return float(gamma ** sum(step >= milestone for milestone in milestones))
        done = min((step - warmup) / max(total - warmup, 1), 1.0)
        left = 0.5 * (1 + math.cos(math.pi * done)) if config.kind == "cosine" else float((1 - done) ** power)
        return final + (1 - final) * left

    return factor


def long_warmup(config: ScheduleConfig, steps: int) -> str | None:
    """What to say of a warm-up that takes half of a training's steps or more, else None."""
    if not config.warmup_iters or 2 * config.warmup_iters < steps:
        return None
    part = f"all {steps}" if config.warmup_iters >= steps else f"{config.warmup_iters} of the {steps}"
    taken = f"the warm-up of {config.warmup_iters} steps takes {part} steps of this training"
    return f"{taken}; schedule.warmup_iters should be far smaller"
