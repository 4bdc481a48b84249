"""Counter-based random numbers: each is a pure function of a key.

A key has 64 bits, mixed from (seed, epoch, sample id). There is no state to save for a resumed training, and the number
of workers or ranks does not change a random number. The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood
2014, *Fast splittable pseudorandom number generators*).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import pi, prod

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def _signed(u: int) -> int:
    """The int64 with the same 64 bits as the unsigned integer `u`."""
    u &= _MASK
    return u - (1 << 64) if u >> 63 else u


def _shift(x: Tensor, k: int) -> Tensor:
    """Logical right shift of int64 (torch's own is arithmetic)."""
    return (x >> k) & ((1 << (64 - k)) - 1)


def mix(x: Tensor) -> Tensor:
    """Bijective 64-bit mixer of an int64 tensor of any shape."""
    x = (x ^ _shift(x, 30)) * _signed(_M1)
    x = (x ^ _shift(x, 27)) * _signed(_M2)
    return x ^ _shift(x, 31)


def seed_of(*parts: int) -> int:
    """One 63-bit seed from several integers, for `torch.Generator.manual_seed`.

    >>> seed_of(0, 1) != seed_of(1, 0)
    True
    """
    h = 0
    for part in parts:
        h = (h + _GOLDEN) & _MASK
        h ^= part & _MASK
        h = ((h ^ (h >> 30)) * _M1) & _MASK
        h = ((h ^ (h >> 27)) * _M2) & _MASK
        h ^= h >> 31
    return h >> 1


def keys(seed: int, epochs: Tensor, ids: Tensor) -> Tensor:
    """Keys (B,) int64 of samples `ids` (B,) in `epochs` (B,)."""
    h = mix(epochs + _signed(seed_of(seed) + _GOLDEN))
    return mix(h ^ mix(ids + _signed(_GOLDEN)))


def uniform(keys: Tensor, stream_id: int, n: int | None = None) -> Tensor:
    """Uniform float32 numbers in [0, 1) from keys (B,): shape (B,), or (B, n).

    Each use of a key has its own `stream_id`, so that the numbers of two augmentations are independent.
    """
    h = keys ^ _signed(seed_of(stream_id))
    if n is not None:
        h = h[:, None] + torch.arange(1, n + 1, device=keys.device) * _signed(_GOLDEN)
    return _shift(mix(h), 40).float() * (1.0 / (1 << 24))


def seed_from(generator: torch.Generator) -> int:
    """A new seed of 63 bits from a generator, which it advances."""
    return int(torch.empty((), dtype=torch.int64, device=generator.device).random_(generator=generator))


def normal(keys: Tensor, stream_id: int, n: int) -> Tensor:
    """Standard normal float32 numbers (B, n) from keys (B,), by the transform of Box and Muller 1958."""
    u = uniform(keys, stream_id, n + n % 2).unflatten(1, (2, -1))
    radius, angle = (-2 * torch.log(1 - u[:, 0])).sqrt(), 2 * pi * u[:, 1]
    return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :n]


def keys_of(x: Tensor) -> Tensor:
    """Keys (B,) int64 of the contents of float tensors x (B,…): equal tensors have equal keys in any batch."""
    bits = x.detach().float().contiguous().view(torch.int32).flatten(1).long()
    places = torch.arange(1, bits.shape[1] + 1, device=x.device) * _signed(_GOLDEN)
    return mix(mix(bits ^ places).sum(1))


class Noise:
    """Standard normal noise for drawing images: a function of (seed, image, step).

    Image i of a seed therefore gets the same noise at any number of images, in any batch and on any rank.

    Args:
        seed: seed of all images.
        n: number of images.
        first: index of the first image.
        device: device of the noise.
        columns: images of a row, which share their noise.
    """

    def __init__(self, seed: int, n: int, first: int = 0, device: torch.device | str = "cpu", columns: int = 1) -> None:
        ids = torch.arange(first, first + n, device=device) // columns
        self.n, self.keys = n, keys(seed, torch.zeros_like(ids), ids)

    def __call__(self, step: int, *shape: int) -> Tensor:
        """Noise (n, *shape) float32 of one step; every step has its own."""
        return normal(self.keys, step, prod(shape)).view(self.n, *shape)


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Seeds the default generators, which dropout uses, with the seed of `generator`, and restores them at the end."""
    kind, index = generator.device.type, generator.device.index or 0
    with torch.random.fork_rng([]) if kind == "cpu" else torch.random.fork_rng([index], device_type=kind):
        torch.default_generator.manual_seed(generator.initial_seed())
        if kind != "cpu":
            getattr(torch, kind).manual_seed(generator.initial_seed())
        yield
