"""Signals of models whose every answer is known: the right one, and each with a fault."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limner.core.batch import Paired, Styled, Unpaired, to_float
from limner.core.condition import Classes
from limner.core.model import GenerativeModel
from limner.data import Pixels
from limner.data.datasets import StyledSet
from limner.data.pairs import DomainSet, PairSet, StackedPairs
from limner.doctor import signals
from limner.doctor.abilities import abilities
from limner.doctor.ground import Ground

N, SHAPE = 256, (1, 8, 8)


def pixels(seed: int = 0, n: int = N, name: str = "blobs", shape: tuple[int, int, int] = SHAPE) -> Pixels:
    """Images of two smooth patterns of random strength, with a little noise."""
    g = torch.Generator().manual_seed(seed)
    c, h, w = shape
    rows, columns = torch.linspace(-1, 1, h)[:, None], torch.linspace(-1, 1, w)
    patterns = torch.stack([rows.expand(h, w), columns.expand(h, w)]).flatten(1)
    x = torch.randn(n, 2, generator=g) @ patterns * 40 + 128 + 4 * torch.randn(n, h * w, generator=g)
    return Pixels(name, x.clamp(0, 255).round().to(torch.uint8).view(n, 1, h, w).expand(n, c, h, w).contiguous())


@pytest.fixture(scope="module")
def ground() -> Ground:
    return Ground(pixels(0), pixels(1))


def of(model: GenerativeModel, ground: Ground, ability: str) -> dict[str, float]:
    found = [s for s in signals.signals_of(model) if s.ability == ability]
    assert found, f"no such signals: {[s.ability for s in signals.signals_of(model)]}"
    return signals.measure(model, ground, found).signals


class Known(GenerativeModel):
    """A model that nothing is learnt of; `how` names its fault."""

    def __init__(self, how: str = "right") -> None:
        super().__init__()
        self.weight, self.how = nn.Parameter(torch.zeros(1)), how

    def groups(self) -> dict[str, nn.Module]:
        return {"D": self}


class KnownPosterior(Known):
    def posterior(self, x: Tensor, *y: Tensor | None) -> tuple[Tensor, Tensor]:
        used = {"right": 3, "ignores": 0}[self.how]
        mean = torch.zeros(len(x), 8)
        mean[:, :used] = x.flatten(1)[:, :used]
        return mean, torch.zeros(len(x), 8)


def test_units_of_a_posterior_that_say_something(ground: Ground) -> None:
    """With unit variance, KL is half of the squared mean."""
    x = to_float(ground.real.images)
    right = of(KnownPosterior(), ground, "HasPosterior")
    assert (right["posterior/units"], right["posterior/active"], right["posterior/told"]) == (8, 3, 3)
    assert right["posterior/kl"] == pytest.approx(float(x.flatten(1)[:, :3].square().sum(1).mean()) / 2, rel=1e-5)
    ignoring = of(KnownPosterior("ignores"), ground, "HasPosterior")
    assert (ignoring["posterior/active"], ignoring["posterior/told"], ignoring["posterior/kl"]) == (0, 0, 0)


class KnownCode(Known):
    """An autoencoder: the two main axes of the images, the image itself, or nothing."""

    def __init__(self, how: str, images: Tensor) -> None:
        super().__init__(how)
        x = to_float(images).flatten(1)
        self.mean = x.mean(0)
        self.axes = torch.linalg.svd(x - self.mean, full_matrices=False).Vh[:2]

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        flat = x.flatten(1)
        if self.how == "copies":
            return flat
        code = (flat - self.mean) @ self.axes.T
        return torch.cat([code * (self.how == "right"), torch.ones(len(x), 6)], 1)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        flat = z if self.how == "copies" else z[:, :2] @ self.axes + self.mean
        return flat.view(-1, *SHAPE)


def test_what_becomes_of_an_image_and_of_noise(ground: Ground) -> None:
    right, copies, blind = (
        of(KnownCode(how, ground.real.images), ground, "Autoencodes") for how in ("right", "copies", "blind")
    )
    assert right["code/error"] < 0.05
    assert right["code/held"] == pytest.approx(right["code/error"], rel=0.2)
    assert right["code/noise"] > 0.8
    assert right["code/dead"] == 0.75
    assert copies["code/error"] == copies["code/noise"] == copies["code/dead"] == 0
    assert copies["code/sharpness"] == pytest.approx(1, rel=0.1)
    assert blind["code/error"] == pytest.approx(1, rel=0.2)
    assert blind["code/dead"] == 1


class KnownFlow(Known):
    """The affine flow of each pixel to N(0, 1)."""

    def __init__(self, how: str, images: Tensor) -> None:
        super().__init__(how)
        x = to_float(images).flatten(1)
        self.mean, self.std = x.mean(0), x.std(0) * {"explodes": 1e-6}.get(how, 1.0)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return (x.flatten(1) - self.mean) / self.std

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        z = z.round() if self.how == "rounds" else z
        return (z * self.std + self.mean).view(-1, *SHAPE).clamp(-1, 1)

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if self.how == "infinite":
            return torch.where(torch.arange(len(x)) % 4 == 0, torch.inf, 0.0)
        normal = torch.distributions.Normal(self.mean, self.std)
        return normal.log_prob(x.flatten(1)).sum(1)


def test_codes_and_likelihoods_of_a_flow(ground: Ground) -> None:
    right, explodes, rounds, infinite = (
        of(KnownFlow(how, ground.real.images), ground, "Inverts") for how in ("right", "explodes", "rounds", "infinite")
    )
    assert right["flow/scale"] == pytest.approx(1, rel=0.1)
    assert right["flow/finite"] == 1
    assert right["flow/round_trip"] < 0.01
    assert right["flow/held"] == pytest.approx(right["flow/train"], abs=0.3)
    assert explodes["flow/scale"] == pytest.approx(1e6, rel=0.1)
    assert rounds["flow/round_trip"] > 3
    assert infinite["flow/finite"] == 0.75


class KnownDenoiser(Known):
    """The best linear denoiser, that of single pixels, the noisy image itself, the mean image, or a wrong scale."""

    shape = SHAPE
    sigma_data, sigma_min, sigma_max = 0.5, 0.002, 80.0

    def __init__(self, how: str, images: Tensor) -> None:
        super().__init__(how)
        x = to_float(images).flatten(1)
        self.mean, self.covariance = x.mean(0), torch.cov(x.T)

    def denoise(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        flat, s = x.flatten(1), float(sigma[0]) ** 2
        variance = self.covariance.diagonal()
        if self.how in ("right", "triples"):
            gain = self.covariance @ torch.linalg.inv(self.covariance + s * torch.eye(len(variance)))
            clean = self.mean + (flat - self.mean) @ gain.T
            clean = clean * (3 if self.how == "triples" else 1)
        else:
            alone = self.mean + (flat - self.mean) * variance / (variance + s)
            clean = {"alone": alone, "returns": flat, "blind": self.mean.expand_as(flat)}[self.how]
        return clean.view_as(x)


def test_a_denoiser_against_the_best_for_single_pixels(ground: Ground) -> None:
    right, alone, returns, blind, triples = (
        of(KnownDenoiser(how, ground.real.images), ground, "Denoises")
        for how in ("right", "alone", "returns", "blind", "triples")
    )
    for level in ("low", "mid", "high"):
        assert alone[f"denoise/{level}"] == pytest.approx(1, rel=0.15)
        assert right[f"denoise/{level}"] < 0.6
        assert returns[f"denoise/{level}"] > 1
        assert blind[f"denoise/{level}"] > 1
    assert right["denoise/std"] == pytest.approx(1, rel=0.05)
    assert right["denoise/mean"] == pytest.approx(0, abs=0.05)
    assert triples["denoise/std"] == pytest.approx(3, rel=0.05)
    std = float(to_float(ground.real.images).std())
    assert right["denoise/assumed"] == pytest.approx(0.5 / std)
    assert right["denoise/reach"] == pytest.approx(80 / std)


class KnownTranslator(Known):
    """Targets are sources with their rows in reverse."""

    domains: tuple[str, ...] = ("b",)
    source = shape = SHAPE
    pairing: dict[str, Any] | None = None
    batch_type = Paired

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        right = x.flip(2)
        return {"right": right, "copies": x, "inverts": -right, "one": right[:1].expand_as(x)}[self.how]


@pytest.mark.parametrize(
    ("how", "change", "spread", "likeness", "error"),
    [("right", 1, 1, 1, 0), ("copies", 0, 1, None, 1), ("inverts", None, 1, -1, None), ("one", None, 0, None, None)],
)
def test_translations_of_pairs(how: str, change: float, spread: float, likeness: float, error: float) -> None:
    a = pixels()
    ground = Ground(PairSet(StackedPairs(a, Pixels("flipped", a.pixels.flip(2)))), None)
    found = of(KnownTranslator(how), ground, "Translates")
    for name, value in {"change": change, "spread": spread, "likeness": likeness, "error": error}.items():
        assert value is None or found[f"translation/{name}"] == pytest.approx(value, abs=0.02), name


class WithoutPairs(KnownTranslator):
    batch_type = Unpaired
    domains = ("b", "a")

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        if self.how == "inverts":
            return -x if to == "a" else x.flip(2)
        return x.flip(2) if self.how == "right" else x


def test_translations_without_pairs() -> None:
    """The worse of both directions counts; a domain that is dark where the other is bright asks for an inversion."""
    bright = Pixels("bright", (pixels().pixels // 4 + 20 * torch.arange(8, dtype=torch.uint8)))
    dark = Pixels("dark", 255 - bright.pixels)
    alike, opposite = Ground(DomainSet(bright, bright), None), Ground(DomainSet(bright, dark), None)
    copies = of(WithoutPairs("copies"), alike, "Translates")
    assert copies["translation/change"] == 0
    assert copies["translation/likeness"] == pytest.approx(1)
    assert of(WithoutPairs("right"), alike, "Translates")["translation/change"] > 0.5
    assert of(WithoutPairs("inverts"), alike, "Translates")["translation/likeness"] == pytest.approx(-1)
    assert of(WithoutPairs("copies"), opposite, "Translates")["translation/likeness"] == pytest.approx(-1)


class Painter(Known):
    batch_type = Styled

    def draw(self, n: int, y: Tensor | None, noise: Any, **options: Any) -> Tensor:
        x = torch.zeros(n, 3, 8, 8)
        x[..., :2] = 1.0 if self.how == "saturates" else 0.5
        return x


def test_values_at_the_ends_of_the_range() -> None:
    """Beyond those that content or style have."""
    style = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    ground = Ground(StyledSet(pixels(n=1, shape=(3, 8, 8)), (style,), (None,)), None)
    assert of(Painter(), ground, "Paints")["style/saturated"] == 0
    assert of(Painter("saturates"), ground, "Paints")["style/saturated"] == 0.25
    style[..., 0] = 255
    style[..., 1] = 0
    ground = Ground(StyledSet(pixels(n=1, shape=(3, 8, 8)), (style,), (None,)), None)
    assert of(Painter("saturates"), ground, "Paints")["style/saturated"] == 0
    assert "Draws" not in abilities(Painter())


def test_facts_of_the_data() -> None:
    x = torch.randint(0, 256, (100, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x[90:] = x[:10]  # repeated
    x[80:85] = x[10:15]
    x[80:85, 0, 0, 0] ^= 1  # nearly the same
    held = torch.cat([x[20:25], 255 - x[30:45]])
    labels = torch.tensor([0] * 95 + [1] * 5)
    train = Pixels("mine", x, labels=labels, condition=Classes(["a", "b"]))
    model = Known()
    model.norm = nn.BatchNorm2d(1)
    found = of(model, Ground(train, Pixels("held", held)), "Learns")
    assert found["data/items"] == 100
    assert found["data/repeated"] == pytest.approx(0.1)
    assert found["data/near"] == pytest.approx(0.1)
    assert found["data/leaked"] == pytest.approx(0.25)
    assert (found["data/least"], found["data/most"]) == (5, 95)
    assert found["net/batch_norm"] == found["net/batch_norm_D"] == 1
    clean = of(Known(), Ground(Pixels("clean", x[:80]), None), "Learns")
    assert clean["data/repeated"] == clean["data/near"] == clean["net/batch_norm"] == 0
    assert "data/leaked" not in clean
