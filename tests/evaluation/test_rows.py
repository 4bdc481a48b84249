"""Lists of sampling options make rows of scores, each named by its options; a wrong word is one clear line."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.rng import Noise
from limner.core.yaml_text import Text
from limner.evaluation.cost import count_evaluations
from limner.evaluation.rows import combinations
from limner.evaluation.scoring import table
from limner.metrics.scorecard import named, unnamed, words


class Sampler(GenerativeModel):
    """Takes one evaluation of its net in each step, or two with guidance."""

    class spec:
        name = "sampler"

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv2d(1, 1, 3, padding=1)

    def groups(self) -> dict[str, nn.Module]:
        return {"net": self.net}

    def draw(
        self, n: int, y: Tensor | None, noise: Noise, *, steps: int = 20, sampler: Literal["euler", "heun"] = "euler",
        guidance: float = 1.0, interval: tuple[float, float] | None = None, **options: Any,
    ) -> Tensor:  # fmt: skip
        x = noise(0, 1, 4, 4)
        for _ in range(steps):
            both = self.net(x if guidance == 1 else torch.cat([x, x]))
            x = both[:n].tanh()
        return x


@pytest.mark.parametrize(
    ("written", "rows"),
    [
        ({}, [{}]),
        ({"steps": Text("5")}, [{"steps": 5}]),
        ({"steps": Text("1,5,20")}, [{"steps": 1}, {"steps": 5}, {"steps": 20}]),
        ({"steps": [1, 5, 1]}, [{"steps": 1}, {"steps": 5}]),
        ({"steps": Text("[1, 5]"), "guidance": 2}, [{"steps": 1, "guidance": 2.0}, {"steps": 5, "guidance": 2.0}]),
        (
            {"steps": (1, 2), "sampler": Text("euler,heun")},
            [{"steps": s, "sampler": w} for s in (1, 2) for w in ("euler", "heun")],
        ),
        ({"interval": Text("0.3,5")}, [{"interval": (0.3, 5.0)}]),
        ({"interval": (0.3, 5)}, [{"interval": (0.3, 5.0)}]),
        ({"interval": [(0.3, 5), (1, 2)]}, [{"interval": (0.3, 5.0)}, {"interval": (1.0, 2.0)}]),
        ({"interval": Text("[[0.3,5],[1,2]]")}, [{"interval": (0.3, 5.0)}, {"interval": (1.0, 2.0)}]),
        ({"interval": Text("none")}, [{}]),
    ],
)
def test_lists_make_rows(written: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    assert combinations(Sampler(), written) == rows


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ({"stesp": "5"}, "no sampling option 'stesp'; did you mean 'steps'"),
        ({"seed": 5}, "did you mean 'seeds'"),
        ({"temperature": 0.5}, "no sampling option 'temperature' .it has steps, sampler"),
        ({"steps": Text("1,many")}, "steps must be a whole number, got many"),
        ({"steps": []}, "steps: there is no value in the list"),
        ({"sampler": Text("heun,eulr")}, "unknown sampler 'eulr'; did you mean 'euler'"),
    ],
)
def test_wrong_words_are_named(written: dict[str, Any], why: str) -> None:
    with pytest.raises(LimnerError, match=why):
        combinations(Sampler(), written, ["n", "seeds", "only"])


def test_a_row_counts_the_evaluations_of_its_options() -> None:
    model = Sampler()
    counts = [count_evaluations(model.at(**row)) for row in combinations(model, {"steps": [1, 7], "guidance": [1, 2]})]
    assert counts == [1, 2, 7, 14]


@pytest.mark.parametrize("name", ["fd@lenet64-v1[n=500]", "fd@lenet64-v1", "latency_ms", "cas[n=5]"])
def test_names_carry_options_and_give_them_back(name: str) -> None:
    options = {"steps": 5, "guidance": 2.0, "interval": (0.3, 5.0), "sampler": "heun"}
    assert words(options) == "steps=5 guidance=2 interval=0.3,5 sampler=heun"
    assert named(name, options).endswith("steps=5,guidance=2,interval=0.3,5,sampler=heun]")
    assert unnamed(named(name, options), options) == name
    assert named(name, {}) == unnamed(name, {}) == name


def card(steps: int) -> dict[str, Any]:
    options = {"steps": steps}
    return {
        f"evaluations[steps={steps}]": {
            "value": steps, "unit": "per image", "property": "sampling", "options": options,
        },
        f"fd@lenet64-v1[n=500,steps={steps}]": {"value": 10 / steps, "property": "quality", "options": options},
    }  # fmt: skip


def test_rows_of_one_run_are_lines_and_runs_are_columns() -> None:
    text = table({f"runs/a steps={n}": card(n) for n in (1, 5)})
    lines = text.splitlines()
    assert lines[0].split() == ["evaluations", "fd"]
    assert lines[1].split() == ["a", "steps=1", "1", "per", "image", "10"]
    assert lines[2].split() == ["a", "steps=5", "5", "per", "image", "2"]
    assert "fd: lenet64-v1[n=500]" in lines
    side_by_side = table({f"runs/{name} steps=5": card(5) for name in "ab"})
    assert side_by_side.splitlines()[0].split() == ["a", "steps=5", "b", "steps=5"]
    assert "  fd@lenet64-v1[n=500]" in side_by_side
