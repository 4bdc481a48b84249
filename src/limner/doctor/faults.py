"""Known faults: samplers that draw real images, which are healthy, and make one mistake each.

What a check finds in them, and what it finds in healthy ones, needs no training and no opinion. They are the ground
truth of the thresholds; `benchmarks/doctor.py level1` makes the table, and tests a small part of it. A sampler is a
function of the number of the examination and a generator of random numbers, since some faults change with time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.batch import to_float, to_uint8
from limner.doctor.checks import CHECKS
from limner.doctor.finding import Finding
from limner.doctor.ground import Ground
from limner.doctor.history import FINISHED, History
from limner.doctor.signals import conditional, deep, samples

WINDOWS, SAMPLES = 8, 128
"""Examinations, and samples of each."""
HEALTHY = "healthy"


@dataclass(frozen=True)
class Drawn:
    """Images of an examination.

    Attributes:
        images: (N,C,H,W) uint8.
        asked: (N,) classes that were asked for; None of a model without labels.
        rows: (N,) their places in the pool where they are images of it as they are, else None.
    """

    images: Tensor
    asked: Tensor | None = None
    rows: Tensor | None = None


Sampler = Callable[[int, torch.Generator], Drawn]


class Pool:
    """Images to draw from, which nobody was trained on, and training images to copy.

    Args:
        images: (N,C,H,W) uint8, such as held-out images.
        labels: (N,) their classes.
        ground: the real images that samples are compared with, with classes.
    """

    def __init__(self, images: Tensor, labels: Tensor, ground: Ground) -> None:
        assert ground.train.condition is not None
        self.images, self.labels, self.ground, self.condition = images, labels, ground, ground.train.condition
        self.train = ground.train.fetch(range(len(ground.train))).cpu()

    @cached_property
    def looked(self) -> tuple[Tensor, Tensor | None]:
        """Features (N,d) and logits (N,K) of the images."""
        return self.ground.look(self.images)

    def take(self, rows: Tensor, asked: bool = False) -> Drawn:
        """Some of the images, as of a model that was asked for their classes."""
        return Drawn(self.images[rows], self.labels[rows] if asked else None, rows)


def _some(n: int, of: Tensor, g: torch.Generator) -> Tensor:
    return of[torch.randint(len(of), (n,), generator=g)]


def healthy(pool: Pool, asked: bool = False) -> Sampler:
    """No fault: new images of the same distribution."""
    return lambda window, g: pool.take(_some(SAMPLES, torch.arange(len(pool.images)), g), asked)


def without_class(pool: Pool, which: int) -> Sampler:
    """One class is never drawn."""
    rest = (pool.labels != which).nonzero().flatten()
    return lambda window, g: pool.take(_some(SAMPLES, rest, g))


def exemplars(pool: Pool, k: int, sigma: float = 0.02) -> Sampler:
    """The same k images, with a little noise."""

    def draw(window: int, g: torch.Generator) -> Drawn:
        chosen = torch.randperm(len(pool.images), generator=torch.Generator().manual_seed(k))[:k]
        return Drawn(_noisy(pool.images[_some(SAMPLES, chosen, g)], sigma, g))

    return draw


def copies(pool: Pool, sigma: float) -> Sampler:
    """Training images, with noise of a standard deviation on [-1,1]."""
    return lambda window, g: Drawn(_noisy(pool.train[_some(SAMPLES, torch.arange(len(pool.train)), g)], sigma, g))


def shifted(pool: Pool, pixels: int = 1) -> Sampler:
    """Training images, moved by some pixels."""

    def draw(window: int, g: torch.Generator) -> Drawn:
        x = pool.train[_some(SAMPLES, torch.arange(len(pool.train)), g)]
        return Drawn(x.roll(pixels, 3) if window % 2 else x.roll(pixels, 2))

    return draw


def blurred(pool: Pool, sigma: float) -> Sampler:
    """New images through a Gaussian of a standard deviation in pixels."""

    def draw(window: int, g: torch.Generator) -> Drawn:
        x = to_float(healthy(pool)(window, g).images)
        at = torch.arange(-4, 5).float()
        kernel = torch.exp(-(at**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, 9)
        padded = F.pad(x, (4, 4, 4, 4), "replicate")
        rows = F.conv2d(padded, kernel, groups=x.shape[1])
        return Drawn(to_uint8(F.conv2d(rows, kernel.transpose(2, 3), groups=x.shape[1])))

    return draw


def checkered(pool: Pool, amplitude: float) -> Sampler:
    """New images with a pattern of two pixels over what is no background, as of uneven transposed convolutions."""

    def draw(window: int, g: torch.Generator) -> Drawn:
        x = to_float(healthy(pool)(window, g).images)
        h, w = (torch.arange(n) % 2 * 2.0 - 1 for n in x.shape[2:])
        return Drawn(to_uint8((x + amplitude * (x + 1) / 2 * (h[:, None] + w) / 2).clamp(-1, 1)))

    return draw


def rotating(pool: Pool, classes: int) -> Sampler:
    """So many classes at a time, others at each examination."""

    def draw(window: int, g: torch.Generator) -> Drawn:
        k = int(pool.labels.max()) + 1
        now = (window * classes + torch.arange(classes)) % k
        return pool.take(_some(SAMPLES, torch.isin(pool.labels, now).nonzero().flatten(), g))

    return draw


def mislabelled(pool: Pool, share: float) -> Sampler:
    """A share of the images is of another class than was asked for."""

    def draw(window: int, g: torch.Generator) -> Drawn:
        drawn = healthy(pool, asked=True)(window, g)
        assert drawn.asked is not None
        wrong = torch.rand(SAMPLES, generator=g) < share
        other = torch.randint(int(pool.labels.max()) + 1, (SAMPLES,), generator=g)
        return Drawn(drawn.images, torch.where(wrong, other, drawn.asked), drawn.rows)

    return draw


def truncated(pool: Pool, share: float) -> Sampler:
    """Only the share of each class that lies nearest to the mean of the class."""
    features, _ = pool.looked
    rows = []
    for k in pool.labels.unique():
        of = (pool.labels == k).nonzero().flatten()
        far = (features[of] - features[of].mean(0)).norm(dim=1)
        rows.append(of[far.argsort()[: max(2, round(share * len(of)))]])
    inner = torch.cat(rows)
    return lambda window, g: pool.take(_some(SAMPLES, inner, g))


def noise(pool: Pool, smooth: float) -> Sampler:
    """Independent pixels with mean and variance of those of real images, over a share of the mean image."""

    def draw(window: int, g: torch.Generator) -> Drawn:
        x = to_float(pool.train)
        flat = torch.full_like(x[0], float(x.mean()))
        mean = smooth * x.mean(0) + (1 - smooth) * flat
        std = smooth * x.std(0) + (1 - smooth) * x.std()
        return Drawn(to_uint8((mean + std * torch.randn(SAMPLES, *x.shape[1:], generator=g)).clamp(-1, 1)))

    return draw


def one_for_each_label(pool: Pool, sigma: float = 0.02) -> Sampler:
    """The label alone decides the image."""

    def draw(window: int, g: torch.Generator) -> Drawn:
        asked = pool.labels[_some(SAMPLES, torch.arange(len(pool.images)), g)]
        first = torch.stack([(pool.labels == k).nonzero()[0, 0] for k in range(int(pool.labels.max()) + 1)])
        return Drawn(_noisy(pool.images[first[asked]], sigma, g), asked)

    return draw


def _noisy(x: Tensor, sigma: float, g: torch.Generator) -> Tensor:
    return to_uint8((to_float(x) + sigma * torch.randn(x.shape, generator=g)).clamp(-1, 1))


FAULTS: Mapping[str, tuple[str, Callable[[Pool], Iterator[Sampler]]]] = {
    HEALTHY: (HEALTHY, lambda pool: iter([healthy(pool), healthy(pool, asked=True)])),
    "a class is missing": ("dropped_classes", lambda pool: (without_class(pool, k) for k in range(10))),
    "k images": ("collapse", lambda pool: (exemplars(pool, k) for k in (1, 2, 5, 10, 30))),
    "copies and noise": ("copying", lambda pool: (copies(pool, sigma) for sigma in (0.0, 0.02, 0.05, 0.1))),
    "shifted copies": ("copying", lambda pool: (shifted(pool, 1) for _ in range(2))),
    "blur": ("blur", lambda pool: (blurred(pool, sigma) for sigma in (0.8, 1.0, 1.5, 2.0))),
    "checkerboard": ("checkerboard", lambda pool: (checkered(pool, a) for a in (0.4, 0.6, 0.8))),
    "rotation": ("oscillation", lambda pool: (rotating(pool, k) for k in (1, 2, 3, 5))),
    "wrong labels": ("condition_ignored", lambda pool: (mislabelled(pool, q) for q in (0.5, 0.7, 1.0))),
    "truncation": ("low_variety", lambda pool: (truncated(pool, share) for share in (0.05, 0.1, 0.2))),
    "noise": ("noise", lambda pool: (noise(pool, smooth) for smooth in (0.0, 0.5, 1.0))),
    "one image a label": ("noise_ignored", lambda pool: (one_for_each_label(pool) for _ in range(2))),
}
"""Each fault: the check that should find it, and samplers of several degrees."""


def examined(pool: Pool, sampler: Sampler, seed: int, *, windows: int = WINDOWS, copies_too: bool = True) -> History:
    """The history of a finished model that draws so, over some examinations.

    Args:
        pool: what the sampler draws from.
        sampler: the model.
        seed: of the random numbers.
        windows: number of the examinations.
        copies_too: whether to look for copies, which takes most of the time.
    """
    ground, g = pool.ground, torch.Generator().manual_seed(seed)
    lines, features, asked = list[dict[str, object]](), list[Tensor](), False
    for window in range(windows):
        drawn = sampler(window, g)
        if drawn.rows is None:
            looked = ground.look(drawn.images)
        else:
            logits = pool.looked[1]
            looked = pool.looked[0][drawn.rows], None if logits is None else logits[drawn.rows]
        found = samples.of_images(drawn.images, ground, looked)
        if drawn.asked is not None:
            asked = True
            found.signals |= conditional.of_labels(looked[0], drawn.asked, pool.condition, ground)
        features.append(looked[0])
        lines.append({"images": window, "step": FINISHED, "signals": found.signals, "counts": found.counts})
    lines[0]["kinds"] = {"names": list(ground.kinds.names), "shares": list(ground.kinds.shares)}
    if copies_too:
        lines[-1]["signals"] |= deep.of_features(torch.cat(features), ground).signals  # type: ignore[operator]
    return History({}, checks=lines, abilities=frozenset({"Draws", "Conditional"} if asked else {"Draws"}))


def findings(history: History) -> dict[str, Finding]:
    """The findings of all checks by name."""
    return {name: check(history) for name, check in CHECKS.items()}


def diagnosed(found: Mapping[str, Finding]) -> str:
    """The first check that fails, in the order in which they are told; `HEALTHY` if none does."""
    return next((name for name, finding in found.items() if finding.state == "fail"), HEALTHY)
