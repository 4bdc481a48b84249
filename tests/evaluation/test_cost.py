"""Costs of models whose cost is put in by hand."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import limner
from limner.config import recipe as recipes
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.prior import Prior
from limner.core.run import Run
from limner.evaluation.cost import cost, count_evaluations, training_cost, weight_bytes


class Steps(GenerativeModel):
    """Calls its net so many times an image, and takes so many seconds a draw and an image."""

    def __init__(self, steps: int = 1, seconds: float = 0.0, each: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.critic = nn.Linear(4, 1)
        self.prior, self.steps, self.seconds, self.each = Prior("normal", 4), steps, seconds, each
        self.drawn: list[int] = []

    def groups(self) -> dict[str, nn.Module]:
        return {"G": self.net, "D": self.critic}

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        self.drawn.append(len(z))
        time.sleep(self.seconds + self.each * len(z))
        assert not self.training
        assert torch.is_inference_mode_enabled()
        for _ in range(self.steps):
            z = self.net(z)
        return z.view(-1, 1, 2, 2).tanh()


def test_a_fixed_time_a_draw_is_best_shared_by_a_large_batch():
    model = Steps(seconds=0.01).train()
    result = cost(model, batches=(1, 8, 64), limit=10)
    assert 10 <= result.latency_p50_ms <= result.latency_p95_ms
    assert result.latency_p50_ms < 100
    assert result.best_batch == 64
    assert set(result.throughputs) == {1, 8, 64}
    assert result.throughput == result.throughputs[64] <= 64 / 0.01
    assert result.repeats == 50
    assert result.warm_ups == 20
    assert model.training  # left as it was
    assert result.where["threads"] == torch.get_num_threads()


def test_a_slow_sampler_is_timed_less_often_and_says_so():
    result = cost(Steps(each=0.05), limit=1.0)
    assert 1 <= result.repeats < 20
    assert max(result.throughputs) <= 8
    assert 5 < result.throughput <= 20
    once = cost(Steps(seconds=0.3), batches=(1,), limit=0.1)
    assert (once.repeats, once.warm_ups, once.best_batch) == (1, 1, 1)


@pytest.mark.parametrize("steps", [1, 7])
def test_evaluations_are_counted(steps):
    assert count_evaluations(Steps(steps)) == steps
    assert cost(Steps(steps), batches=(1,), limit=0.2).evaluations == steps
    model = Steps(steps)
    model.evaluations = 50
    assert count_evaluations(model) == 50
    model = Steps(steps)
    count_evaluations(model)
    assert not model.net._forward_hooks
    assert not model.net._forward_pre_hooks


def test_a_call_counts_as_many_times_as_it_holds_the_image():
    """Guided steps put the image through the net with and without its class: at once, or in two calls."""

    class Guided(Steps):
        at_once = True

        def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            for _ in range(self.steps):
                both = self.net(torch.cat([z, z])).chunk(2) if self.at_once else (self.net(z), self.net(z))
                z = 2 * both[0] - both[1]
            return z.view(-1, 1, 2, 2).tanh()

    model = Guided(steps=5)
    assert count_evaluations(model) == 10
    model.at_once = False
    assert count_evaluations(model) == 10


def test_nets_in_a_list_count_one_by_one_and_nets_inside_nets_not_at_all():
    class Pyramid(Steps):
        def __init__(self) -> None:
            super().__init__()
            self.levels = nn.ModuleList([nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))])

        def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            for level in self.levels:
                z = level(z)
            return z.view(-1, 1, 2, 2).tanh()

    class Bare(Steps):
        def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return z.view(-1, 1, 2, 2).tanh()

    assert count_evaluations(Pyramid()) == 2
    assert count_evaluations(Bare()) == 1


def test_parameters_and_bytes():
    model = Steps()
    result = cost(model, batches=(1,), limit=0.2)
    assert result.groups == {"G": 4 * 4 + 4 + 8, "D": 5}
    assert result.parameters == 33
    assert result.weight_bytes == 33 * 4 + (4 + 4) * 4 + 8  # running mean and variance, and a step counter of 8 bytes
    assert weight_bytes(model.half()) == 33 * 2 + (4 + 4) * 2 + 8
    tied = nn.ModuleList([a := nn.Linear(3, 3), nn.Linear(3, 3)])
    tied[1].weight = a.weight
    assert weight_bytes(tied) == (9 + 3 + 3) * 4
    assert result.peak_of == "process"
    assert result.peak_bytes > 20_000_000


def test_threads_are_fixed_and_given_back():
    before = torch.get_num_threads()
    result = cost(Steps(), batches=(1,), threads=before + 1, limit=0.2)
    assert result.where["threads"] == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(LimnerError, match="from 1 and a positive limit"):
        cost(Steps(), limit=0)
    with pytest.raises(LimnerError, match="batches and threads from 1"):
        cost(Steps(), batches=(0,))


def test_a_model_of_the_repository():
    torch.manual_seed(0)
    model = recipes.load("cvae-mnist", {}).model.build(shape=(1, 8, 8), classes=10)
    model.spec = recipes.load("cvae-mnist", {}).model
    result = cost(model, batches=(1, 8), limit=1)
    assert result.evaluations == 1
    assert result.parameters == sum(p.numel() for p in model.parameters())


def test_what_a_training_cost(tmp_path: Path):
    run = limner.train("vae-mnist", data="digits", images=640, batch=64, out=tmp_path / "run", device="cpu", threads=1)
    result = training_cost(run)
    assert result.images == 640
    assert result.steps == 10
    assert result.seconds > 0
    assert result.images_per_second == pytest.approx(640 / result.seconds)
    assert result.threads == 1
    assert result.device.startswith("cpu")
    assert result.energy_joules is None
    assert result.energy.startswith("n/a, it was not measured")
    run.event("energy", 640, result.seconds, energy_joules=7200.0)
    assert training_cost(run).energy == "2 Wh, measured"


def test_a_run_without_a_log(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text("name: none\n")
    with pytest.raises(LimnerError, match="has logged nothing yet"):
        training_cost(Run(tmp_path))
