"""Likelihoods against models that know theirs in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from limner.core.batch import Dataset
from limner.core.capabilities import HasBound
from limner.core.errors import LimnerError
from limner.core.prior import Prior
from limner.data import load
from limner.data.datasets import Pixels
from limner.evaluation.annealing import AisOptions, Decoder, ais, temperatures, tuned
from limner.evaluation.draws import dequantised
from limner.evaluation.likelihood import bits, bounds, likelihood
from limner.evaluation.likelihood_scores import likelihood_scores, quick_likelihood_scores
from limner.losses import likelihood as log_p

Z, SIDE, SIGMA = 3, 3, 0.3
DIMS = SIDE * SIDE


class Linear(nn.Module):
    """Probabilistic PCA (Tipping and Bishop 1999): x = W z + b + sigma e, so that p(x) = N(b, W W' + sigma² I)."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.W = 0.3 * torch.randn(DIMS, Z, generator=g)
        self.b = 0.1 * torch.randn(DIMS, generator=g)
        self.prior = Prior("normal", Z)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (z @ self.W.to(z.dtype).T + self.b.to(z.dtype)).view(len(z), 1, SIDE, SIDE)

    def exact(self, x: Tensor) -> Tensor:
        covariance = (self.W @ self.W.T + SIGMA**2 * torch.eye(DIMS)).double().numpy()
        values = multivariate_normal(self.b.double().numpy(), covariance).logpdf(x.flatten(1).double().numpy())
        return torch.as_tensor(np.atleast_1d(values))

    def images(self, n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(seed)
        z = torch.randn(n, Z, generator=g)
        return self.decode(z) + SIGMA * torch.randn(n, 1, SIDE, SIDE, generator=g), z


class Exact(Linear):
    """The same with a likelihood."""

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.exact(x)


class Bounded(Linear):
    """The same with a posterior that is somewhat off and somewhat too wide."""

    measure = "density"

    def log_weights(self, x: Tensor, k: int, noise: Callable[..., Tensor], y: Tensor | None = None) -> Tensor:
        covariance = torch.linalg.inv(torch.eye(Z) + self.W.T @ self.W / SIGMA**2)
        mean = (x.flatten(1) - self.b) @ self.W @ covariance / SIGMA**2 + 0.1
        root = 1.3 * torch.linalg.cholesky(covariance)
        eps = noise(len(x), k, Z).transpose(0, 1)
        z = mean + eps @ root.T
        log_q = -0.5 * (eps.square().sum(2) + Z * math.log(2 * math.pi)) - root.diagonal().log().sum()
        log_pz = -0.5 * (z.square().sum(2) + Z * math.log(2 * math.pi))
        out = self.decode(z.flatten(0, 1))
        many = x.repeat(k, 1, 1, 1)
        log_px = log_p.gaussian(out, torch.full_like(many, 2 * math.log(SIGMA)), many)
        return log_px.view(k, len(x)) + log_pz - log_q


def heldout(n: int, seed: int = 1) -> Pixels:
    return Pixels("linear", Linear().images(n, seed)[0])


# ---- bounds and the exact value ------------------------------------------------------------------------------------


def test_importance_weighted_bound_reaches_the_exact_value():
    exact = likelihood(Exact(), heldout(20))
    bound = likelihood(Bounded(), heldout(20), k=5000)
    assert (exact.kind, bound.kind) == ("exact", "IWAE-5000")
    assert bound.nats == pytest.approx(exact.nats, abs=0.05)
    assert bound.bits == pytest.approx(exact.bits, abs=0.05 / (DIMS * math.log(2)))


def test_bounds_are_in_their_order_over_a_hundred_images():
    elbo = likelihood(Bounded(), heldout(100), kind="ELBO")
    iwae = {k: likelihood(Bounded(), heldout(100), k=k).nats for k in (1, 5, 50)}
    exact = likelihood(Exact(), heldout(100)).nats
    assert elbo.kind == "ELBO"
    assert elbo.nats < iwae[5] < iwae[50] <= exact + 0.01
    assert iwae[1] < iwae[5]
    assert elbo.nats < exact - 0.1
    older = bounds(Bounded(), heldout(100), k=50)
    assert (older.elbo, older.iwae) == (pytest.approx(elbo.nats), pytest.approx(iwae[50]))


def test_training_images_that_are_known_by_heart():
    """A gap of 3 nats is put in by hand: the density of what was trained on is e³ times too high."""
    train, test = heldout(200, seed=5), heldout(200, seed=6)

    class Memory(Exact):
        def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            known = (x.flatten(1)[:, None] - train.pixels.flatten(1)).abs().amax(2).amin(1) < 0.01
            return self.exact(x) + 3 * known

    result = likelihood(Memory(), test, train=train)
    assert result.train_gap == pytest.approx(3, abs=4 * result.train_gap_error)
    assert 0 < result.train_gap_error < 1
    assert likelihood(Memory(), test).train_gap is None
    assert result.n == 200
    assert result.ms_per_image > 0
    assert isinstance(Bounded(), HasBound)


# ---- bits ----------------------------------------------------------------------------------------------------------


class Uniform(nn.Module):
    def __init__(self, measure: str, nats: float, low: float, high: float) -> None:
        super().__init__()
        self.measure, self.nats, self.low, self.high = measure, nats, low, high

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        assert x.min() >= self.low - 1e-6
        assert x.max() <= self.high + 1e-6
        return torch.full((len(x),), self.nats * x[0].numel(), dtype=torch.float64)


@pytest.mark.parametrize(
    ("measure", "nats", "low", "high"),
    [
        ("discrete", -math.log(256), -1, 1),
        ("density", -math.log(512 / 255), -1 - 1 / 255, 1 + 1 / 255),
        ("unit_density", 0.0, 0, 1),
    ],
)
def test_knowing_nothing_costs_eight_bits(measure, nats, low, high):
    grey = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    result = likelihood(Uniform(measure, nats, low, high), Pixels("grey", grey))
    assert result.bits == pytest.approx(8, abs=1e-9)
    assert result.measure == measure


def test_grey_levels_are_spread_over_their_own_width_and_no_further():
    x = (torch.arange(256) / 127.5 - 1).repeat(100).view(100, 1, 16, 16)
    wide = dequantised(x, "density", 0)
    assert (wide - x).abs().max() <= 1 / 255 + 1e-6
    assert torch.equal(((wide + 1) * 127.5).round().clamp(0, 255), ((x + 1) * 127.5).round())
    assert (wide - x).std() == pytest.approx(2 / 255 / math.sqrt(12), rel=0.02)
    unit = dequantised(x, "unit_density", 0)
    assert torch.equal((unit * 256).floor(), ((x + 1) * 127.5).round())
    assert torch.equal(dequantised(x, "discrete", 0), x)


def test_probabilities_of_all_images_of_one_pixel_sum_to_one():
    grey = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)

    class Logistic(nn.Module):
        measure = "discrete"

        def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            x = x.double()
            return log_p.discretised_logistic(torch.full_like(x, 0.7), torch.full_like(x, -2.0), x)

    class Normal(nn.Module):
        """A density that all lies within the grey levels."""

        def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return log_p.gaussian(torch.full_like(x, 0.1), torch.full_like(x, 2 * math.log(0.15)), x)

    def total(model: nn.Module, seeds: int) -> float:
        each = []
        for i in range(256):
            one = Pixels("one", grey[i : i + 1])
            result = [likelihood(model, one, seed=s).bits for s in range(seeds)]
            each.append(np.mean(np.exp2(-np.array(result))))
        return float(np.sum(each))

    assert total(Logistic(), 1) == pytest.approx(1, abs=1e-4)
    assert total(Normal(), 4) == pytest.approx(1, abs=5e-3)  # the luck of where a level's value falls


# ---- annealed importance sampling ----------------------------------------------------------------------------------


def test_annealing_from_both_sides_holds_the_exact_value():
    model = Linear()
    x, z = model.images(200)
    lower, upper = Decoder(model, Z).both(x, z, SIGMA, AisOptions(chains=4, steps=120, leapfrog=5), seed=0)
    exact = model.exact(x)
    for below, above in ((lower, exact), (exact, upper), (lower, upper)):
        gaps = above - below
        assert float(gaps.mean()) > -3 * float(gaps.std()) / math.sqrt(200)
        assert float(gaps.mean()) < 0.25


def test_more_temperatures_close_the_gap():
    model = Linear()
    x, z = model.images(100)
    gaps = []
    for steps in (4, 16, 64):
        lower, upper = Decoder(model, Z).both(x, z, SIGMA, AisOptions(chains=1, steps=steps, leapfrog=5), seed=0)
        gaps.append(float((upper - lower).mean()))
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0


def test_many_temperatures_find_the_exact_value():
    model = Linear()
    x, z = model.images(40)
    lower, upper = Decoder(model, Z).both(x, z, SIGMA, AisOptions(chains=8, steps=500, leapfrog=5), seed=0)
    assert float((lower - model.exact(x)).mean()) == pytest.approx(0, abs=0.05)
    assert float((upper - model.exact(x)).mean()) == pytest.approx(0, abs=0.05)


def test_the_weights_of_annealing_are_unbiased():
    """E exp(log_w) is the integral itself, however few the temperatures: here of exp(-z²/2·3) under N(0,1), 1/2."""

    def prior(z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(1) - 0.5 * math.log(2 * math.pi)

    def tilt(z: Tensor) -> Tensor:
        return -1.5 * z.square().sum(1)

    start = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    forward = ais(prior, tilt, start, steps=4, leapfrog=3, step=0.4)
    w = forward.log_w.exp()
    assert float(w.mean()) == pytest.approx(0.5, abs=4 * float(w.std()) / math.sqrt(20_000))
    backward = ais(prior, tilt, 0.5 * start, steps=4, leapfrog=3, step=0.4, backward=True, seed=1)
    w = (-backward.log_w).exp()
    assert float(w.mean()) == pytest.approx(2, abs=4 * float(w.std()) / math.sqrt(20_000))
    assert 0.5 < forward.acceptance <= 1
    slow = ais(prior, tilt, start, steps=40, leapfrog=3, step=0.4)
    assert float(slow.z.std()) == pytest.approx(0.5, rel=0.03)  # where the chains end up: at the posterior
    back = ais(prior, tilt, 0.5 * start, steps=40, leapfrog=3, step=0.4, backward=True)
    assert float(back.z.std()) == pytest.approx(1, rel=0.05)


def test_step_lengths_are_tuned_to_the_wanted_share():
    def prior(z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(1)

    def narrow(z: Tensor) -> Tensor:
        return -0.5 * (z / 0.05).square().sum(1)

    g = torch.Generator().manual_seed(0)
    lengths = tuned(prior, narrow, torch.randn(200, 5, generator=g), steps=150, leapfrog=5, step=1.0)
    result = ais(prior, narrow, torch.randn(200, 5, generator=g), steps=150, leapfrog=5, step=lengths)
    assert 0.4 < result.acceptance < 0.9
    assert lengths[-1] < lengths[:20].max()  # the posterior is narrower than the prior
    betas = temperatures(100)
    assert float(betas[0]) == 0
    assert float(betas[-1]) == 1
    assert (betas.diff() > 0).all()


def test_annealing_through_the_one_interface():
    """The noise is fitted: the images have 0.3, plus the width of a grey level."""
    options = AisOptions(chains=2, steps=60, leapfrog=5, images=40, simulated=10)
    result = likelihood(Linear(), heldout(60), kind="AIS", ais=options)
    assert (result.kind, result.n, result.measure) == ("AIS", 40, "density")
    assert result.sigma == pytest.approx(SIGMA, rel=0.15)
    assert 0 <= result.ais_gap < 0.3
    exact = likelihood(Exact(), heldout(60), limit=40)
    assert result.nats == pytest.approx(exact.nats, abs=0.5)
    with pytest.raises(LimnerError, match="by AIS only"):
        likelihood(Linear(), heldout(5))


# ---- flows in time -------------------------------------------------------------------------------------------------


class Flow(Exact):
    """A continuous flow whose solver is off by off / steps² nats per dimension."""

    likelihood_kind, probes = "ODE", 2

    def __init__(self, off: float, steps: int = 20) -> None:
        super().__init__()
        self.off, self.steps = off, steps

    def at(self, steps: int) -> Flow:
        return Flow(self.off, steps)

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.exact(x) + DIMS * self.off / self.steps**2


@pytest.mark.parametrize(("off", "steps"), [(10, 100), (50, 200), (200, 400), (-800, 800)])
def test_steps_of_a_flow_in_time_are_doubled_until_its_likelihood_is_steady(off, steps):
    """From n/2 to n steps the number changes by 3 off / n² a dimension."""
    result = likelihood(Flow(off), heldout(20))
    assert result.kind == f"ODE({steps})"
    assert abs(3 * off / steps**2) < 0.005 <= abs(3 * off / (steps / 2) ** 2) or steps == 100
    assert result.nats == pytest.approx(likelihood(Exact(), heldout(20)).nats, abs=DIMS * 0.005)
    assert f"{2 * steps} evaluations" in result.how
    assert "2 probes" in result.how
    assert f"{abs(3 * off / steps**2):.2g} nats per dimension" in result.how


def test_a_likelihood_that_does_not_settle_is_not_printed():
    with pytest.raises(
        LimnerError, match=r"not steady: from 400 to 800 steps it changes by 0\.0094 nats per dimension"
    ):
        likelihood(Flow(2000), heldout(20))
    with pytest.raises(LimnerError, match="no flow in time"):
        likelihood(Exact(), heldout(20), kind="ODE")


class Chain(Flow):
    """The same with a bound."""

    elbo_evaluations = 32

    def elbo(self, x: Tensor, noise: Callable[..., Tensor], y: Tensor | None = None) -> Tensor:
        return self.exact(x) - 5 + noise(len(x))


def test_a_bound_goes_before_a_solver_and_each_says_what_it_is():
    model, dataset = Chain(50), heldout(400)
    bound = likelihood(model, dataset)
    assert (bound.kind, bound.measure) == ("ELBO", "discrete")
    assert "32 evaluations" in bound.how
    assert bound.nats == pytest.approx(likelihood(Exact(), dataset).nats - 5, abs=0.2 + DIMS * 0.01)
    card = likelihood_scores(model, None, dataset, "cpu", "ODE")
    assert card["bits_per_dim"].unit == "bits per dimension, ELBO"
    assert card["bits_per_dim_ode"].unit == "bits per dimension, ODE(200)"
    assert "train_gap" not in card
    assert "train_gap" in likelihood_scores(Exact(), dataset, dataset, "cpu")
    assert likelihood_scores(Exact(), None, dataset, "cpu")["bits_per_dim"].unit.endswith("exact")
    steep = likelihood_scores(Chain(2000), None, dataset, "cpu", "ODE")
    assert steep["bits_per_dim"].value is not None
    assert steep["bits_per_dim_ode"].value is None
    assert "train longer" in steep["bits_per_dim_ode"].why
    assert quick_likelihood_scores(model, dataset, "cpu") == {}, "at the end of a training only what takes seconds"
    assert "bits_per_dim" in quick_likelihood_scores(Exact(), dataset, "cpu")


# ---- points --------------------------------------------------------------------------------------------------------


class Ring(nn.Module):
    """The density of the ring, off by a factor; the solver of its flow is exact at any number of steps."""

    def __init__(self, dataset: Dataset, off: float) -> None:
        super().__init__()
        self.dataset, self.off = dataset, off

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        assert x.shape[1:] == (2, 1, 1)
        true = self.dataset.log_density(x)
        assert true is not None
        return true - self.off


def test_points_have_nats_and_the_gap_to_the_true_density():
    dataset = load("ring", n=20_000, radius=2.0, sigma=0.3, split="test")
    card = likelihood_scores(Ring(dataset, 0.25), None, dataset, "cpu")
    assert set(card) == {"log_likelihood", "density_gap", "likelihood_ms"}
    assert card["density_gap"].value == pytest.approx(0.25, abs=1e-6)
    assert card["log_likelihood"].unit == "nats per point, exact"
    entropy = math.log(2 * math.pi * math.e * 0.3**2) + math.log(8)  # of modes that hardly touch
    assert -card["log_likelihood"].value - 0.25 == pytest.approx(entropy, abs=0.06)
    assert "2000 held-out points of ring" in card["density_gap"].on
    assert card["density_gap"].error == pytest.approx(0, abs=1e-6), "the same points are used for both densities"
    assert f"entropy of ring is {dataset.entropy:.4g} nats" in card["density_gap"].how
    roll = load("swiss-roll", sigma=0.0, n=1000, split="test")
    assert "density_gap" not in likelihood_scores(Ring(dataset, 0.25), None, roll, "cpu"), "a curve has no density"

    class Moving(Ring):
        likelihood_kind = "ODE"
        elbo_evaluations = 5

        def at(self, steps: int) -> Moving:
            return self

        def elbo(self, x: Tensor, noise: Callable[..., Tensor], y: Tensor | None = None) -> Tensor:
            raise AssertionError("points have no grey values")

    assert likelihood(Moving(dataset, 0.0), dataset).kind == "ODE(100)"


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_models_and_options_without_a_likelihood():
    with pytest.raises(LimnerError, match="neither log p"):
        likelihood(nn.Identity(), heldout(5))
    with pytest.raises(LimnerError, match="no log_prob"):
        likelihood(Bounded(), heldout(5), kind="exact")
    with pytest.raises(LimnerError, match="no importance weights"):
        likelihood(Exact(), heldout(5), kind="ELBO")
    with pytest.raises(LimnerError, match="decodes noise"):
        likelihood(nn.Identity(), heldout(5), kind="AIS")
    with pytest.raises(LimnerError, match="at least one draw"):
        likelihood(Bounded(), heldout(5), k=0)
    with pytest.raises(LimnerError, match="unknown measure 'nats'"):
        bits(1.0, 1, "nats")
    with pytest.raises(LimnerError, match="at least 1 step"):
        temperatures(0)

    class Broken(Exact):
        def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return self.exact(x) * float("nan")

    with pytest.raises(LimnerError, match="not a number"):
        likelihood(Broken(), heldout(5))
