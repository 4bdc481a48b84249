"""Every number of a training has a least value, which is taken; one below it is one clear line."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import limner
from limner.config.spec import Spec, schema
from limner.core.ema import EMA
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel

LEAST = {
    "images": 1,
    "batch": 1,
    "ema_images": 0,
    "log_images": 1,
    "sample_images": 1,
    "checkpoint_images": 1,
    "milestone_images": 0,
    "score_images": 0,
    "doctor_images": 1,
    "keep": 1,
    "samples": 1,
    "threads": 1,
    "workers": 0,
}


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_the_least_value_is_taken_and_one_below_it_is_refused(name: str, least: int) -> None:
    taken = Spec.parse("train", {"images": 10} | {name: least}, name="trainer").build()
    assert getattr(taken, name) == least
    with pytest.raises(LimnerError, match=f"{name} must be at least {least}, got {least - 1}"):
        Spec.parse("train", {"images": 10} | {name: least - 1}, name="trainer").build()


def test_the_ramp_of_the_average_is_a_share_and_is_explained() -> None:
    built = {v: Spec.parse("train", {"images": 10, "ema_ramp": v}, name="trainer").build() for v in (0, 0.05, 1)}
    assert [options.ema_ramp for options in built.values()] == [0, 0.05, 1]
    assert Spec.parse("train", {"images": 10}, name="trainer").build().ema_ramp == 0, "runs of before have no ramp"
    for wrong in (-0.1, 1.5):
        with pytest.raises(LimnerError, match=f"ema_ramp must be a share from 0 to 1, got {wrong}; write 0.05, or 0"):
            Spec.parse("train", {"images": 10, "ema_ramp": wrong}, name="trainer").build()
    (row,) = limner.explain("train.ema_ramp").options
    assert "half-life" in row["text"]
    assert "Raise it" in row["text"]
    entry = schema("train", "trainer")["properties"]["ema_ramp"]
    assert (entry["type"], entry["default"]) == ("number", 0.0)


@pytest.mark.parametrize(
    ("ramp", "seen", "half_life"), [(0.0, 1280, 10_000), (0.05, 1280, 64), (0.05, 10**6, 10_000), (1.0, 64, 64)]
)
def test_the_half_life_of_the_average_is_at_most_its_share_of_the_images_seen(
    ramp: float, seen: int, half_life: int
) -> None:
    class One(GenerativeModel):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.ParameterList([torch.zeros(1, dtype=torch.float64)])

        def groups(self) -> dict[str, nn.Module]:
            return {"one": self.weight}

    model = One()
    average = EMA(model, 10_000, ramp)
    nn.init.ones_(model.weight[0])
    average.update(64, seen)
    assert float(average.averaged_model().weight[0]) == pytest.approx(1 - 0.5 ** (64 / half_life), rel=1e-12)


def test_graph_is_auto_on_or_off():
    assert [
        Spec.parse("train", {"images": 10, "graph": v}, name="trainer").build().graph for v in ("auto", True, False)
    ] == ["auto", True, False]
    with pytest.raises(LimnerError, match="graph: input should be 'auto', True or False, got 'maybe'"):
        Spec.parse("train", {"images": 10, "graph": "maybe"}, name="trainer")
