"""What a training will take, forecast from small steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from limner import api
from limner.bench.shrink import shrunk
from limner.core import forecast as module
from limner.core.forecast import _Sample, _seconds, forecast
from limner.core.model import Data, Logs, Update
from limner.models.autoencoder import Autoencoder
from limner.models.wgan_gp import WGANGP


def test_time_and_memory_grow_along_a_line() -> None:
    small, large = _Sample(4, 4, 1.0, 3000, 400), _Sample(8, 8, 1.5, 4000, 800)
    assert large.bytes(64) == 4000 + 100 * 56
    assert _seconds([small, large], 64) == 1.5 + 0.125 * 56
    assert _seconds([small], 64) == 16.0
    assert _seconds([large, replace(small, batch=16)], 64) == 1.0, "more images, not less time"


def test_the_memory_of_a_large_batch_is_known_from_a_small_one() -> None:
    """A convolution keeps its input for its backward pass, 4 bytes a number."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 3, 3, padding=1))
    for batch in (1, 16):
        watch = module._Watch(float("inf"), net)
        with watch:
            loss = net(torch.randn(batch, 3, 32, 32)).sum()
        loss.backward()
        assert watch.saved == batch * (3 + 8) * 32 * 32 * 4


def test_a_light_training_is_measured_at_its_own_batch() -> None:
    prepared = api.prepare(shrunk("wgan-gp-mnist", images=4000, batch=16))
    found = forecast(prepared.options, prepared.model, prepared.dataset, prepared.optimisers, prepared.device)
    assert (found.batch, found.images) == (16, 16 * prepared.model.n_critic)
    assert found.steps >= 2
    assert found.bytes > 4 * 4 * sum(p.numel() for p in prepared.model.parameters())


class Clock:
    """A clock that only the model's steps advance."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def slow(monkeypatch: pytest.MonkeyPatch, model: type, seconds_per_image: float) -> list[int]:
    """Makes the steps of a model slow, and returns the batches that it is given."""
    step, batches, clock = model.step, [], Clock()  # type: ignore[attr-defined]

    class Noticed:
        def __init__(self, data: Data) -> None:
            self.data = data

        def __next__(self) -> object:
            batch = next(self.data)
            batches.append(len(batch.x))
            clock.now += seconds_per_image * len(batch.x)
            return batch

        def __getattr__(self, name: str) -> object:
            return getattr(self.data, name)

    def slow_step(self: object, data: Data, update: Update) -> Logs:
        return step(self, Noticed(data), update)  # type: ignore[no-any-return]

    monkeypatch.setattr(model, "step", slow_step)
    monkeypatch.setattr(module, "time", clock)
    return batches


def test_a_heavy_training_is_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = api.prepare(shrunk("ae-mnist", images=3200, batch=32))
    batches = slow(monkeypatch, Autoencoder, 0.8)
    found = forecast(prepared.options, prepared.model, prepared.dataset, prepared.optimisers, prepared.device, 20.0)
    assert (max(batches), found.batch, found.images) == (8, 8, 32)
    assert found.seconds == pytest.approx(100 * 32 * 0.8)


def test_a_step_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(self: WGANGP, data: Data, update: Update) -> Logs:
        x = next(data).x
        while True:
            self.D(x)

    monkeypatch.setattr(WGANGP, "step", endless)
    prepared = api.prepare(shrunk("wgan-gp-mnist", images=4000, batch=16))
    found = forecast(prepared.options, prepared.model, prepared.dataset, prepared.optimisers, prepared.device, 0.2)
    assert (found.steps, found.images) == (0, 16)
    assert found.seconds >= 0.2 * 250
    with torch.no_grad():
        prepared.model.D(torch.zeros(2, *prepared.dataset.shape))  # type: ignore[operator]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of a process is read from /proc")
def test_the_peak_is_that_of_this_step() -> None:
    device = torch.device("cpu")
    module._reset_peak(device)
    before = module._peak(device)
    torch.ones(64 << 20)  # 256 MiB, given back at once
    assert module._peak(device) - before > 200 << 20
    module._reset_peak(device)
    assert module._peak(device) - before < 100 << 20
