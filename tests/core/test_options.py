"""Every number of a training has a least value, which is taken; one below it is one clear line."""

from __future__ import annotations

import pytest

from limner.config.spec import Spec
from limner.core.errors import LimnerError

LEAST = {
    "images": 1,
    "batch": 1,
    "ema_images": 0,
    "log_images": 1,
    "sample_images": 1,
    "checkpoint_images": 1,
    "milestone_images": 0,
    "score_images": 0,
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


def test_graph_is_auto_on_or_off():
    assert [
        Spec.parse("train", {"images": 10, "graph": v}, name="trainer").build().graph for v in ("auto", True, False)
    ] == ["auto", True, False]
    with pytest.raises(LimnerError, match="graph: input should be 'auto', True or False, got 'maybe'"):
        Spec.parse("train", {"images": 10, "graph": "maybe"}, name="trainer")
