"""Batches are functions of seed and position only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

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


def test_position_is_the_only_state() -> None:
    a = Stream(digits(flip=True, shift=2), 40, seed=3)
    for _ in range(60):
        expected = next(a)
    b = Stream(digits(flip=True, shift=2), 40, seed=3, position=59 * 40)
    assert torch.equal(next(b).x, expected.x)
    c = Stream(digits(flip=True, shift=2), 40, seed=4, position=59 * 40)
    assert not torch.equal(next(c).x, expected.x)


def test_two_ranks_draw_the_same_as_one() -> None:
    one = Stream(digits(shift=1), 32, seed=1, position=1760)  # crosses the end of an epoch
    ranks = [Stream(digits(shift=1), 32, seed=1, position=1760, rank=r, world=2) for r in (0, 1)]
    x, y = next(one)
    parts = [next(s) for s in ranks]
    assert torch.equal(x, torch.cat([p.x for p in parts]))
    assert torch.equal(y, torch.cat([p.y for p in parts]))
    noise, shares = one.randn(32, 5), one.rand(32, 5)
    assert torch.equal(noise, torch.cat([s.randn(16, 5) for s in ranks]))
    assert torch.equal(shares, torch.cat([s.rand(16, 5) for s in ranks]))


def observed(world: int = 1, **options: object) -> tuple[list[Stream], list[torch.Tensor]]:
    """A stream for each rank over fifty digits, and the keys that their augmentation is given."""
    augment_keys: list[torch.Tensor] = []
    dataset = digits(limit=50)
    dataset.augment = (lambda x, sample_keys: (x, augment_keys.append(sample_keys))[0],)
    return [Stream(dataset, 32, seed=7, rank=r, world=world, **options) for r in range(world)], augment_keys


def test_augmentation_depends_on_seed_epoch_and_image() -> None:
    """Over five batches of 32 from 50 images: the second and the fourth cross the end of an epoch."""
    (stream,), augment_keys = observed()
    ids = torch.cat([stream.readers[0].sampler.indices(p)[1] for p in range(0, 160, 32)])
    for _ in range(5):
        next(stream)
    epoch_keys = torch.cat(augment_keys)
    assert torch.equal(epoch_keys, keys(7, torch.arange(160) // 50, ids))
    assert len(epoch_keys.unique()) == 160, "no image is augmented alike in two epochs"


def test_two_ranks_augment_as_one_does() -> None:
    for position in (0, 32, 64, 96):  # at 32 and 96 the end of an epoch lies inside the share of a rank
        (one,), whole = observed(position=position)
        next(one)
        ranks, parts = observed(2, position=position)
        for stream in ranks:
            next(stream)
        assert torch.equal(torch.cat(parts), whole[0])


def test_an_image_is_moved_anew_in_each_epoch() -> None:
    dataset = digits(limit=200, shift=2)
    epochs = []
    for position in (0, 200):
        stream = Stream(dataset, 200, position=position)
        ids = stream.readers[0].sampler.indices(position)[1]
        epochs.append(next(stream).x[ids.argsort()])
    same = (epochs[0] == epochs[1]).flatten(1).all(1).float().mean()
    assert same < 0.15  # one in 25 draws the same shift twice


def test_a_salt_gives_another_stream_of_the_same_images_and_none_the_first_one() -> None:
    def drawn(stream: Stream) -> tuple[torch.Tensor, ...]:
        stream.begin()
        return next(stream).x, stream.randn(32, 3), torch.rand(4)

    stream = Stream(digits(shift=2, limit=96), 32, seed=5)
    first = [drawn(stream) for _ in range(3)]
    for salt in (1, 2, 1, 0):
        stream.move(0, salt)
        assert (stream.position, stream.salt) == (0, salt)
        again = [drawn(stream) for _ in range(3)]
        ids = torch.cat([stream.readers[0].sampler.indices(p)[1] for p in (0, 32, 64)])
        assert sorted(ids.tolist()) == list(range(96))
        same = [torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True)]
        assert same == [salt == 0] * 9
        if salt == 1:
            salted = again
    other = Stream(digits(shift=2, limit=96), 32, seed=5)
    other.move(32, 1)
    assert all(torch.equal(a, b) for a, b in zip(drawn(other), salted[1], strict=True))


def test_noise_depends_on_the_position() -> None:
    stream = Stream(digits(), 32, seed=5, position=320)
    first = stream.randn(32, 3)
    stream.begin()
    assert torch.equal(first, stream.randn(32, 3))
    stream.position += 32
    stream.begin()
    assert not torch.equal(first, stream.randn(32, 3))
    assert not torch.equal(first, Stream(digits(), 32, seed=6, position=320).randn(32, 3))


@pytest.mark.parametrize("world", [1, 2])
def test_images_from_files_equal_those_in_memory(tmp_path: Path, world: int) -> None:
    """From any position and for every rank, prefetched images have their labels."""
    levels = torch.randint(0, 256, (20, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for i, image in enumerate(levels):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(image.numpy()).save(tmp_path / "ab"[i % 2] / f"{i:02d}.png")
    in_memory, from_files = (data.load(f"{tmp_path}/", shift=1, cache=cache) for cache in (True, False))
    assert in_memory.pixels is not None
    assert from_files.pixels is None
    for rank in range(world):
        a, b = (Stream(s, 8, seed=2, rank=rank, world=world, position=16) for s in (in_memory, from_files))
        for _ in range(4):  # over the end of an epoch
            (x, y), (x_read, y_read) = next(a), next(b)
            assert torch.equal(x, x_read)
            assert torch.equal(y, y_read)
        for stream in (a, b):
            stream.move(8, 1)
        assert torch.equal(next(a).x, next(b).x), "what was read ahead is forgotten"


def test_what_is_drawn_ahead_is_drawn_again(tmp_path: Path) -> None:
    for i, level in enumerate(range(0, 240, 12)):
        Image.new("L", (8, 8), level).save(tmp_path / f"{i:02d}.png")
    for images in (digits(), data.load(f"{tmp_path}/", cache=False)):
        stream, fresh = (Stream(images, 4, seed=5) for _ in range(2))
        with stream.ahead():
            first, noise = next(stream).x, stream.randn(3)
            next(stream)
        assert stream.position == 0
        stream.begin()
        fresh.begin()
        for _ in range(3):
            assert torch.equal(next(stream).x, next(fresh).x)
        stream.begin(0)
        assert torch.equal(stream.randn(3), noise), "the noise of the first step"
        assert torch.equal(first, next(Stream(images, 4, seed=5)).x)


def test_dropout_depends_on_seed_rank_and_position() -> None:
    """`begin` seeds the default generator, which dropout uses, differently for each rank."""

    def draw(**options: int) -> tuple[float, ...]:
        Stream(digits(), 32, world=2, **options).begin()
        return tuple(torch.rand(4).tolist())

    here = {"seed": 5, "rank": 0, "position": 320}
    assert draw(**here) == draw(**here)
    variants = [here, here | {"seed": 6}, here | {"rank": 1}, here | {"position": 352}]
    assert len({draw(**options) for options in variants}) == 4


def test_an_epoch_is_as_many_images_as_there_are() -> None:
    assert Stream(digits(limit=50), 32, position=75).epoch == 1.5


def test_uniform_is_uniform_and_stream_ids_are_independent() -> None:
    k = keys(0, torch.zeros(20_000, dtype=torch.int64), torch.arange(20_000))
    assert len(k.unique()) == 20_000
    assert not set(k.tolist()) & set(keys(1, torch.zeros(20_000, dtype=torch.int64), torch.arange(20_000)).tolist())
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
