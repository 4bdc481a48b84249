"""A trainer state that does not fit its model, its optimisers or its position is refused before the first step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import limner
from limner import api
from limner.bench.shrink import shrunk
from limner.config import recipe as recipes
from limner.core import checkpoint
from limner.core.checkpoint import Checkpoint
from limner.core.errors import LimnerError
from limner.core.trainer_state import check
from limner.core.update import Updates

Change = Callable[[dict[str, Any], dict[str, Any]], object]


class Trained:
    """A checkpoint, and what it is for."""

    def __init__(self, name: str, out: Path, optim: dict[str, Any] | None = None, **train: object) -> None:
        tree = shrunk(name, **train).to_dict()
        run = limner.train(tree | {"optim": optim or tree["optim"]}, out=out)
        self.start = checkpoint.newest(run.checkpoints)[0]
        prepared = api.prepare(recipes.of_run(run.recipe))
        self.model, self.update = prepared.model, Updates(prepared.model.groups(), prepared.optimisers)

    def check(self, change: Change = lambda state, trainer: None) -> None:
        start = self.start
        state, trainer = copy.deepcopy(start.state), copy.deepcopy(start.trainer)
        change(state, trainer)
        check(Checkpoint(start.path, start.model, start.description, trainer, state), self.model, self.update)


@pytest.fixture(scope="module")
def adam(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained("gan-mnist", tmp_path_factory.mktemp("adam") / "run", images=24, log_images=16)


def moments(trainer: dict[str, Any], group: str = "D", index: str = "0") -> Any:
    return trainer["update"]["moments"][group][index]


def weight(trainer: dict[str, Any]) -> str:
    return sorted(k for k, t in trainer["model"].items() if t.is_floating_point())[0]


REFUSED: dict[str, Change] = {
    "no steps": lambda s, t: s.pop("steps"),
    "more steps than images": lambda s, t: s.update(steps=25),
    "a log beyond the end": lambda s, t: s.update(logged_images=1000),
    "a log after the end": lambda s, t: s.update(logged_seconds=s["seconds"] + 1),
    "no model": lambda s, t: t.pop("model"),
    "a list of weights": lambda s, t: t.update(model=[]),
    "a missing weight": lambda s, t: t["model"].pop(weight(t)),
    "another weight": lambda s, t: t["model"].update(x=torch.zeros(1)),
    "a flat weight": lambda s, t: t["model"].update({weight(t): t["model"][weight(t)][None]}),
    "a float64 weight": lambda s, t: t["model"].update({weight(t): t["model"][weight(t)].double()}),
    "a weight that is NaN": lambda s, t: t["model"][weight(t)].fill_(float("nan")),
    "a number for a weight": lambda s, t: t["model"].update({weight(t): 3}),
    "means without sums": lambda s, t: t["meters"].update(sums=None),
    "means of fewer names": lambda s, t: t["meters"]["names"].pop(),
    "means of no steps": lambda s, t: t["meters"].update(steps=0),
    "means of -1 steps": lambda s, t: t["meters"].update(steps=-1),
    "means of numbers": lambda s, t: t["meters"].update(names=[1] * len(t["meters"]["names"])),
    "no moments": lambda s, t: t["update"].pop("moments"),
    "moments of another group": lambda s, t: t["update"]["moments"].update(E={}),
    "a list of moments": lambda s, t: t["update"]["moments"].update(D=[]),
    "moments of a hundredth parameter": lambda s, t: t["update"]["moments"]["D"].update({"100": {}}),
    "moments of no number": lambda s, t: t["update"]["moments"]["D"].update({"²": {}}),
    "moments of SGD": lambda s, t: t["update"]["moments"]["D"].update({"0": {"momentum_buffer": torch.zeros(1)}}),
    "a moment of another shape": lambda s, t: moments(t).update(exp_avg=moments(t)["exp_avg"][:1]),
    "a moment of another type": lambda s, t: moments(t).update(exp_avg=moments(t)["exp_avg"].half()),
    "a moment that is infinite": lambda s, t: moments(t)["exp_avg"].fill_(float("inf")),
    "a negative variance": lambda s, t: moments(t)["exp_avg_sq"].fill_(-1),
    "a negative step": lambda s, t: moments(t)["step"].fill_(-1),
    "a step that is NaN": lambda s, t: moments(t)["step"].fill_(float("nan")),
    "a step of integers": lambda s, t: moments(t).update(step=torch.tensor(3)),
    "a missing moment": lambda s, t: moments(t).pop("exp_avg"),
    "streaks of another group": lambda s, t: t["update"]["streaks"].update(E=torch.zeros(())),
    "a streak that is a number": lambda s, t: t["update"]["streaks"].update(D=0),
    "skipped steps of a wrong shape": lambda s, t: t["update"].update(skipped=torch.zeros(2)),
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(adam: Trained, change: Change) -> None:
    with pytest.raises(LimnerError, match=r"checkpoint 00000024 does not fit this run: .*; restore it, or delete"):
        adam.check(change)


def test_what_fits_is_not_refused(adam: Trained) -> None:
    adam.check()
    adam.check(lambda state, trainer: trainer["meters"]["sums"].fill_(float("nan")))  # a step was skipped
    adam.check(lambda state, trainer: trainer.update(meters={"names": [], "sums": None, "steps": 0}))


def test_the_moments_of_sgd_are_known(tmp_path: Path) -> None:
    trained = Trained("ae-mnist", tmp_path / "run", {"AE": {"name": "sgd", "momentum": 0.9}}, images=16)
    trained.check()
    with pytest.raises(LimnerError, match="the moments of AE do not fit its optimiser"):
        trained.check(lambda state, trainer: moments(trainer, "AE")["momentum_buffer"].fill_(float("nan")))


def test_the_memory_of_lbfgs_is_known(tmp_path: Path) -> None:
    trained = Trained("stylise", tmp_path / "run", images=3)
    trained.check()
    changes: list[Change] = [
        lambda s, t: moments(t, "picture").update(d=torch.zeros(3)),
        lambda s, t: moments(t, "picture").update(n_iter=-1),
        lambda s, t: moments(t, "picture")["old_dirs"].append(torch.zeros(3)),
        lambda s, t: moments(t, "picture")["ro"].clear(),
        lambda s, t: moments(t, "picture").update(t="fast"),
        lambda s, t: moments(t, "picture").pop("prev_loss"),
        lambda s, t: moments(t, "picture").update(al=[]),
    ]
    for change in changes:
        with pytest.raises(LimnerError, match="the moments of picture do not fit its optimiser"):
            trained.check(change)
