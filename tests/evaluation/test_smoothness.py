"""Paths through latent spaces whose images are known functions of the code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limner.core.condition import Attributes, Classes
from limner.core.errors import LimnerError
from limner.core.interpolation import interpolation_for, lerp, slerp
from limner.core.prior import EmpiricalPrior, Prior
from limner.data.datasets import Pixels
from limner.evaluation.smoothness import (
    evenness,
    interpolation_fd,
    path_length,
    path_lengths,
    posterior_prior_gap,
    round_trip,
    step_evenness,
)
from limner.latent import walk
from limner.metrics.frechet import Moments, frechet_distance

Z = 4


class PixelFeatures:
    """An extractor that sees the pixels themselves."""

    key, dims = "pixels", 9

    def features(self, x: Tensor, *, batch: int = 256) -> Tensor:
        x = x.double() / 127.5 - 1 if x.dtype == torch.uint8 else x
        assert x.abs().max() <= 1
        return x.flatten(1)


class Linear(nn.Module):
    """Images 3×3 that are linear in the code."""

    def __init__(self, kind: str = "uniform", scale: float = 0.05, classes: int | None = None) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.W = scale * torch.randn(Z, 9, generator=g, dtype=torch.float64)
        self.prior = Prior(kind, Z)
        self.labels: list[Tensor] = []
        if classes:
            self.condition = Classes(classes)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if y is not None:
            self.labels.append(y)
        return (z.double() @ self.W).view(-1, 1, 3, 3)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return (x.double().flatten(1) @ torch.linalg.pinv(self.W)).to(x.dtype)


class Constant(Linear):
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return torch.zeros(len(z), 1, 3, 3)


class Jump(Linear):
    """Black on one side of the code space, white on the other."""

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return z[:, 0].sign().view(-1, 1, 1, 1).expand(-1, 1, 3, 3)


def codes(n: int, seed: int, d: int = Z) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- arcs ----------------------------------------------------------------------------------------------------------


def test_an_arc_as_walk_has_it_one_pair_at_a_time():
    a, b, t = codes(6, 0, 12).view(6, 3, 4), codes(6, 1, 12).view(6, 3, 4), torch.linspace(0, 1, 6)
    result = slerp(a, b, t.double())
    for i in range(6):
        torch.testing.assert_close(result[i], walk.slerp(a[i], b[i], 6)[i], atol=1e-6, rtol=0)


def test_an_arc_keeps_the_norm_and_turns_evenly():
    a, b = codes(50, 2, 30), codes(50, 3, 30)
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    whole = torch.arccos((a * b).sum(1))
    t = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = slerp(a, b, t)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(50).double())
    torch.testing.assert_close(torch.arccos((a * z).sum(1)), t * whole, atol=1e-7, rtol=0)


def test_where_there_is_no_arc_it_is_straight():
    a = codes(3, 4)
    half = torch.full((3,), 0.5).double()
    torch.testing.assert_close(slerp(a, 3 * a, half), 2 * a)
    torch.testing.assert_close(slerp(a, -a, half), 0 * a)
    torch.testing.assert_close(slerp(0 * a, a, half), a / 2)
    assert interpolation_for(Prior("normal", 3)) is slerp
    assert interpolation_for(Prior("uniform", 3)) is lerp
    assert interpolation_for(EmpiricalPrior((3,))) is lerp  # normal, but not about 0


# ---- path length ---------------------------------------------------------------------------------------------------


def test_a_straight_path_of_a_linear_decoder():
    """|W (b - a)|², whatever t and e are."""
    W, a, b = codes(Z, 5, 7), codes(40, 6), codes(40, 7)
    expected = ((b - a) @ W).square().sum(1)
    for e in (1e-4, 0.1):
        t = torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        result = path_lengths(lambda z: z @ W, lambda x: x, a, b, t, e=e, between=lerp)
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)


def test_a_turning_path_of_an_isometry():
    """On the unit sphere the speed of the arc is the angle, so the length is its square."""
    Q = torch.linalg.qr(codes(8, 8, 8))[0]
    a, b = codes(30, 9, 8), codes(30, 10, 8)
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    t = torch.rand(30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result = path_lengths(lambda z: z @ Q, lambda x: x, a, b, t)
    torch.testing.assert_close(result, torch.arccos((a * b).sum(1)) ** 2, rtol=1e-5, atol=0)


def test_float32_is_exact_enough_at_the_usual_step():
    """A tanh net of ordinary slope: within a thousandth of float64, on average."""
    g = torch.Generator().manual_seed(0)
    W1, W2 = 0.3 * torch.randn(16, 64, generator=g), 0.1 * torch.randn(64, 100, generator=g)
    a, b, t = torch.randn(300, 16, generator=g), torch.randn(300, 16, generator=g), torch.rand(300, generator=g)

    def net(z: Tensor) -> Tensor:
        return torch.tanh(torch.tanh(z @ W1.to(z.dtype)) @ W2.to(z.dtype))

    single = path_lengths(net, lambda x: x, a, b, t).mean()
    double = path_lengths(net, lambda x: x, a.double(), b.double(), t.double()).mean()
    assert float(single) == pytest.approx(float(double), rel=1e-3)
    rounded = path_lengths(lambda z: (net(z) * 127.5).round() / 127.5, lambda x: x, a, b, t).mean()
    assert rounded > 3 * double  # images of 8 bits: the trap


def test_path_length_of_a_model_is_the_mean_without_the_ends():
    """For uniform codes E |W (b - a)|² = 2/3 Σ W²; of chi-square-like lengths 1 % from each end takes a little more."""
    model = Linear("uniform")
    result = path_length(model, PixelFeatures(), n=4000)
    g, lengths = torch.Generator().manual_seed(0), []
    for _ in range(16):
        a, b = (model.prior.sample(250, g) for _ in range(2))
        torch.rand(250, generator=g)
        lengths.append(((b - a).double() @ model.W).square().sum(1))
    kept = torch.cat(lengths).sort().values[39:-39]
    assert result.value == pytest.approx(float(kept.mean()), rel=2e-3)
    expected = 2 / 3 * float(model.W.square().sum())
    assert 0.95 * expected < result.value < expected + 3 * result.error
    assert (result.n, result.between, result.e) == (4000, "lerp", 1e-4)
    assert path_length(Linear("normal"), PixelFeatures(), n=100).between == "slerp"


def test_a_constant_decoder_has_no_length_and_a_steeper_one_more():
    assert path_length(Constant(), PixelFeatures(), n=200).value == 0
    flat, steep = (path_length(Linear(scale=s), PixelFeatures(), n=200).value for s in (0.02, 0.06))
    assert steep == pytest.approx(9 * flat, rel=1e-2)


def test_a_path_keeps_its_class():
    model = Linear(classes=3)
    path_length(model, PixelFeatures(), n=100)
    y = torch.cat(model.labels)
    assert torch.equal(y[:100], torch.arange(100) % 3)
    assert torch.equal(y[:100], y[100:])


# ---- steps and mid-points ------------------------------------------------------------------------------------------


def test_even_and_uneven_paths():
    even = torch.arange(17.0)[None, :, None] * torch.tensor([1.0, 2.0])
    jump = torch.cat([torch.zeros(1, 9, 2), torch.ones(1, 8, 2)], 1)
    twice = torch.tensor([0.0, 1.0, 4.0])[None, :, None]
    assert evenness(even).tolist() == pytest.approx([1])
    assert evenness(jump).tolist() == pytest.approx([16])
    assert evenness(twice).tolist() == pytest.approx([1.5])
    assert evenness(torch.ones(2, 17, 3)).tolist() == [1, 1]
    assert step_evenness(Linear(), PixelFeatures(), paths=40).value == pytest.approx(1, abs=1e-4)
    assert step_evenness(Constant(), PixelFeatures(), paths=4).value == 1
    result = step_evenness(Jump(), PixelFeatures(), paths=200)
    assert result.worst == pytest.approx(16)
    assert 1 < result.value < 16  # half of the paths stay on one side


def test_all_steps_of_a_path_have_the_label_of_its_draw():
    model, attributes = Linear(), Attributes({"hair": ["red", "grey"], "glasses": ["none", "round"]})
    model.condition = attributes
    step_evenness(model, PixelFeatures(), paths=3, steps=4)
    (y,) = model.labels
    assert torch.equal(y.view(3, 5, 4), attributes.default(3)[:, None].expand(3, 5, 4))


def test_straight_mid_points_of_normal_codes_lie_too_near_the_middle():
    """Half the variance is left, so the distance of (1 - √½)² Σλ is put in; the arc keeps the samples' own."""
    real = Moments().update(codes(20_000, 11).float() @ Linear().W.float()).compute()
    straight = Linear("normal")

    class Plain:
        def sample(self, n: int, generator: torch.Generator, truncation: float | None = None) -> Tensor:
            return torch.randn(n, Z, generator=generator)

    straight.prior = Plain()
    result = interpolation_fd(straight, PixelFeatures(), real=real, n=4000)
    assert result.midpoints == pytest.approx((1 - math.sqrt(0.5)) ** 2 * np.trace(real[1]), rel=0.1)
    assert result.ratio == pytest.approx(result.midpoints / result.samples)
    assert result.ratio > 20
    arc = interpolation_fd(Linear("normal"), PixelFeatures(), real=real, n=4000)
    assert arc.midpoints < 0.1 * result.midpoints


def test_mid_points_of_images_are_scored_as_8_bits():
    """By hand: one Gaussian against another."""
    real = (np.zeros(9), np.eye(9))
    model = Linear("uniform")
    result = interpolation_fd(model, PixelFeatures(), real=real, n=500, seed=3)
    g = torch.Generator().manual_seed(3)
    samples, middles = [], []
    for _ in range(2):
        a, b = (model.prior.sample(250, g) for _ in range(2))
        samples.append(a.double() @ model.W)
        middles.append((a + b).double() / 2 @ model.W)
    grey = [((torch.cat(part) + 1) * 127.5).round() / 127.5 - 1 for part in (samples, middles)]
    by_hand = [frechet_distance(*Moments().update(part).compute(), *real) for part in grey]
    assert [result.samples, result.midpoints] == pytest.approx(by_hand, rel=1e-6)


# ---- gaps and round trips --------------------------------------------------------------------------------------------


class Posterior(Linear):
    """Codes N(shift, 1) whatever the image."""

    def __init__(self, shift: float, logvar: float = 0.0) -> None:
        super().__init__("normal")
        self.shift, self.logvar = shift, logvar

    def posterior(self, x: Tensor, *y: Tensor | None) -> tuple[Tensor, Tensor]:
        return torch.full((len(x), Z), self.shift), torch.full((len(x), Z), self.logvar)


def test_the_gap_between_posterior_and_prior():
    data = Pixels("any", torch.zeros(1500, 1, 3, 3))
    none = posterior_prior_gap(Posterior(0.0), data)
    assert none.drawn
    assert none.n == 1500
    assert abs(none.value) < 3 * none.noise
    assert none.error == pytest.approx(none.noise, rel=0.5)
    some, more = posterior_prior_gap(Posterior(0.5), data), posterior_prior_gap(Posterior(1.5), data)
    assert 5 * some.error < some.value < more.value
    narrow = posterior_prior_gap(Posterior(0.0, -4.0), data)  # posterior means alone would look like this
    assert narrow.value > 10 * narrow.error
    with pytest.raises(LimnerError, match="no prior"):
        posterior_prior_gap(nn.Identity(), data)


def test_a_plain_encoder_is_asked_for_its_codes():
    model = Linear("normal")
    images = Pixels("linear", model.decode(codes(1200, 12)).float())
    result = posterior_prior_gap(model, images)
    assert not result.drawn
    assert abs(result.value) < 3 * result.error


def test_round_trips():
    model = Linear("normal")
    x = model.decode(codes(20, 13))
    result = round_trip(model, x)
    assert result.codes == "prior"
    assert result.x_max < 1e-9
    assert result.z_max < 1e-5  # draws of the prior are float32

    class Off(Linear):
        def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return super().decode(z) + 0.25

        def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return super().encode(x - 0.25) + torch.tensor([1.0, 0, 0, 0])

    result = round_trip(Off(), x + 0.25)
    assert result.z_max == pytest.approx(1, abs=1e-5)
    assert result.z_mean == pytest.approx(0.25, abs=1e-5)
    assert result.x_max == pytest.approx(float(model.W[0].abs().max()), abs=1e-9)
    del model.prior
    assert round_trip(model, x).codes == "images"
    with pytest.raises(LimnerError, match="at least 1 image"):
        round_trip(model, x[:0])


def test_options_that_mean_nothing():
    with pytest.raises(LimnerError, match="at least 100 paths"):
        path_length(Linear(), PixelFeatures(), n=99)
    with pytest.raises(LimnerError, match="at least 1 path"):
        step_evenness(Linear(), PixelFeatures(), paths=0)
