"""The learning rate at steps that somebody worked out by hand."""

import math

import pytest
from swiftsight_tools.configuration.training_config import ScheduleConfig
from swiftsight_tools.training.schedule import learning_rate_factor, long_warmup


def test_warm_up_and_steps() -> None:
    config = ScheduleConfig(kind="step", warmup_iters=4, warmup_factor=0.2, milestones=(2.0, 3.5), gamma=0.1)
    factor = learning_rate_factor(config, iters_per_epoch=10, epochs=5)
    assert [factor(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factor(19) == 1
    assert factor(20) == pytest.approx(0.1)
    assert factor(34) == pytest.approx(0.1)
    assert factor(35) == pytest.approx(0.01)


def test_cosine() -> None:
    config = ScheduleConfig(kind="cosine", warmup_iters=10, final_factor=0.2)
    factor = learning_rate_factor(config, iters_per_epoch=10, epochs=5)
    assert factor(10) == 1
    assert factor(30) == pytest.approx(0.2 + 0.8 * 0.5)
    assert factor(20) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.sqrt(0.5)))
    assert factor(50) == pytest.approx(0.2)
    assert factor(60) == pytest.approx(0.2)  # beyond the end it stays


def test_a_warm_up_longer_than_the_training() -> None:
    factor = learning_rate_factor(ScheduleConfig(warmup_iters=100, warmup_factor=0.0), iters_per_epoch=4, epochs=2)
    assert [factor(step) for step in (0, 4, 7)] == pytest.approx([0, 0.5, 0.875])


def test_a_warm_up_of_half_the_training_or_more_is_told() -> None:
    config = ScheduleConfig(warmup_iters=300)
    said = long_warmup(config, 180)
    assert said is not None
    assert said.startswith("the warm-up of 300 steps takes all 180 steps of this training; schedule.warmup_iters")
    assert "takes 300 of the 600 steps" in (long_warmup(config, 600) or "")
    assert long_warmup(config, 601) is None
    assert long_warmup(ScheduleConfig(), 1) is None


def test_a_straight_line_and_a_power() -> None:
    """At a quarter of the way after the warm-up 0.75 is left; to the power 2 that is 0.5625."""
    line = ScheduleConfig(kind="linear", warmup_iters=10, final_factor=0.2)
    factor = learning_rate_factor(line, iters_per_epoch=10, epochs=5)
    assert [factor(step) for step in (10, 20, 50, 60)] == pytest.approx([1, 0.2 + 0.8 * 0.75, 0.2, 0.2])
    power = learning_rate_factor(ScheduleConfig(kind="poly", power=2.0), iters_per_epoch=10, epochs=4)
    assert [power(step) for step in (0, 10, 20, 40)] == pytest.approx([1, 0.5625, 0.25, 0])
    usual = learning_rate_factor(ScheduleConfig(kind="poly"), iters_per_epoch=10, epochs=4)
    assert usual(20) == pytest.approx(0.5**0.9)
