"""The learning rate as a pure function of the step: a resumed run needs no state to go on with the right one."""

from __future__ import annotations

import math
from collections.abc import Callable

from .config import ScheduleConfig

Factor = Callable[[int], float]


def learning_rate_factor(config: ScheduleConfig, iters_per_epoch: int, epochs: int) -> Factor:
    """step (0 for the first) -> what the optimizer's learning rate is multiplied with.

    During the warm-up it rises in a straight line from `warmup_factor` to 1; a cosine falls from there to
    `final_factor` (default 0) at the end; steps multiply with `gamma` (default 0.1) when a milestone's epoch begins.
    """
    total = iters_per_epoch * epochs
    warmup = min(config.warmup_iters, total)
    final = config.final_factor or 0.0
    milestones = [round(epoch * iters_per_epoch) for epoch in config.milestones or ()]
    gamma = 0.1 if config.gamma is None else config.gamma

    def factor(step: int) -> float:
        if step < warmup:
            return config.warmup_factor + (1 - config.warmup_factor) * step / warmup
        if config.kind == "step":
            return float(gamma ** sum(step >= milestone for milestone in milestones))
        done = (step - warmup) / max(total - warmup, 1)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return factor
