"""Batches are functions of (seed, position) and of nothing else."""

from __future__ import annotations

import torch

from limner import data
from limner.core.rng import keys, uniform
from limner.core.stream import Stream


def digits(**options: object):
    return data.load("digits", **options)


def test_an_epoch_holds_every_image_once() -> None:
    stream = Stream(digits(limit=96), 32)
    ids = torch.cat([stream.readers[0].sampler.indices(p)[1] for p in (0, 32, 64)])
    assert sorted(ids.tolist()) == list(range(96))
    again = torch.cat([stream.readers[0].sampler.indices(p)[1] for p in (96, 128, 160)])
    assert sorted(again.tolist()) == list(range(96))
    assert not torch.equal(ids, again), "another order in another epoch"


def test_batches_run_over_the_end_of_an_epoch() -> None:
    stream = Stream(digits(limit=50), 32)
    ids = torch.cat([stream.readers[0].sampler.indices(p)[1] for p in range(0, 32 * 25, 32)])
    assert torch.equal(ids[:50].sort().values, torch.arange(50))
    assert torch.equal(ids.bincount(), torch.full((50,), 16))


def test_position_is_all_there_is_to_remember() -> None:
    a = Stream(digits(flip=True, shift=2), 40, seed=3)
    for _ in range(60):
        expected = next(a)
    b = Stream(digits(flip=True, shift=2), 40, seed=3, position=59 * 40)
    assert torch.equal(next(b).x, expected.x)
    c = Stream(digits(flip=True, shift=2), 40, seed=4, position=59 * 40)
    assert not torch.equal(next(c).x, expected.x)


def test_two_ranks_draw_what_one_would() -> None:
    one = Stream(digits(shift=1), 32, seed=1, position=1760)  # crosses the end of an epoch
    ranks = [Stream(digits(shift=1), 32, seed=1, position=1760, rank=r, world=2) for r in (0, 1)]
    x, y = next(one)
    parts = [next(s) for s in ranks]
    assert torch.equal(x, torch.cat([p.x for p in parts]))
    assert torch.equal(y, torch.cat([p.y for p in parts]))
    noise = one.randn(32, 5)
    assert torch.equal(noise, torch.cat([s.randn(16, 5) for s in ranks]))


def test_noise_belongs_to_the_position() -> None:
    stream = Stream(digits(), 32, seed=5, position=320)
    first = stream.randn(32, 3)
    stream.begin()
    assert torch.equal(first, stream.randn(32, 3))
    stream.position += 32
    stream.begin()
    assert not torch.equal(first, stream.randn(32, 3))


def test_uniform_is_uniform_and_lanes_are_independent() -> None:
    k = keys(0, torch.zeros(20_000, dtype=torch.int64), torch.arange(20_000))
    assert len(k.unique()) == 20_000
    u, v = uniform(k, 1), uniform(k, 2)
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    histogram = torch.histc(u, 20, 0, 1)
    chi2 = float(((histogram - 1000) ** 2 / 1000).sum())
    assert chi2 < 43.8  # 0.1 % point of chi-square with 19 degrees of freedom
    assert abs(float(torch.corrcoef(torch.stack([u, v]))[0, 1])) < 0.03
    field = uniform(k[:200], 3, 500)
    assert abs(float(field.mean()) - 0.5) < 0.005
    assert abs(float(torch.corrcoef(field)[0, 1])) < 0.2
