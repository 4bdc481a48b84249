"""Schedules have their closed forms, and the learning rates of a training follow them."""

from __future__ import annotations

import math

import pytest
from torch import nn

from limner.core.errors import LimnerError
from limner.core.optimisers import SGD, Adam, rate_schedule
from limner.core.schedule import Constant, Cosine, Linear, Schedule, Step, WarmUp
from limner.core.update import Updates

POSITIONS = [0, 1, 99, 100, 150, 199, 200, 1000]


@pytest.mark.parametrize(
    ("schedule", "closed_form"),
    [
        (Constant(3.0), lambda i: 3.0),
        (Linear(2.0, 0.5, 100, 100), lambda i: 2.0 - 1.5 * min(max(i - 100, 0), 100) / 100),
        (Cosine(2.0, 0.5, 100, 100), lambda i: 0.5 + 0.75 * (1 + math.cos(math.pi * min(max(i - 100, 0), 100) / 100))),
        (Step(8.0, at=(100, 200), factor=0.5), lambda i: 8.0 * (1 if i < 100 else 0.5 if i < 200 else 0.25)),
        (WarmUp(Constant(4.0), 200), lambda i: 4.0 * min(i / 200, 1)),
        (Linear(0.0, 1.0, 150, 0), lambda i: float(i >= 150)),  # no length: at once
        (Cosine(1.0, 0.1), lambda i: 0.1 if i >= 1 else 1.0),
    ],
)
def test_a_schedule_is_its_closed_form(schedule: Schedule, closed_form) -> None:
    for i in POSITIONS:
        assert schedule(i) == pytest.approx(closed_form(i), abs=1e-12), i


@pytest.mark.parametrize("shape", ["linear", "cosine", "step"])
def test_rates_rise_over_the_warm_up_and_fall_over_the_decay(shape: str) -> None:
    optimiser = Adam(lr=0.2, decay=0.5, schedule=shape, warm_up=100)
    factor = rate_schedule(optimiser, total=1000)
    assert [factor(i / 1000) for i in (0, 50, 100, 499)] == pytest.approx([0, 0.5, 1, 1])
    end = {"linear": (0.5, 0.002), "cosine": (0.5, 1e-5), "step": (0.01, 0.01)}[shape]
    assert (factor(0.75), factor(0.999)) == pytest.approx(end, abs=1e-5)
    net = nn.Linear(2, 1)
    update = Updates({"G": net}, {"G": optimiser})
    for i in (0, 50, 500, 999):
        update.begin(i, 1000)
        assert update.optimisers["G"].param_groups[0]["lr"] == pytest.approx(0.2 * factor(i / 1000))


def test_the_linear_fall_beside_that_of_the_reference_code() -> None:
    """pix2pix and CycleGAN: a factor for each epoch, set where it begins, 1 - max(0, epoch + 1 - 100) / 101."""
    factor = rate_schedule(Adam(decay=0.5), 200)
    theirs = [1 - max(0, epoch + 1 - 100) / 101 for epoch in range(1, 201)]
    ours = [factor((epoch - 0.5) / 200) for epoch in range(1, 201)]  # in the middle of each epoch
    apart = [a - b for a, b in zip(ours, theirs, strict=True)]
    assert apart[:99] == [0] * 99
    assert max(apart) == pytest.approx(0.0148, abs=5e-5)
    assert min(apart) >= 0
    assert apart.index(max(apart)) == 100, "where the fall begins"
    assert theirs[-1] == pytest.approx(0)
    assert ours[-1] == pytest.approx(0.005)


def test_one_optimiser_for_all_groups_that_are_not_named() -> None:
    nets = {name: nn.Linear(2, 1) for name in ("G0", "G1", "D")}
    update = Updates(nets, {"*": Adam(lr=0.5), "D": SGD(lr=0.1)})
    rates = {g: o.param_groups[0]["lr"] for g, o in update.optimisers.items()}
    assert rates == {"G0": 0.5, "G1": 0.5, "D": 0.1}
    with pytest.raises(LimnerError, match="there is no group 'E'"):
        Updates(nets, {"*": Adam(), "E": Adam()})
    with pytest.raises(LimnerError, match="group 'G0' has no optimiser"):
        Updates(nets, {"D": SGD()})
