"""Facts of the VAE: its bounds are bounds, and tight where they should be."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from limner import data
from limner.config import recipe as recipes
from limner.core.errors import LimnerError
from limner.core.optimisers import Adam
from limner.core.stream import Stream
from limner.core.update import Updates
from limner.evaluation.likelihood import bounds
from limner.losses.likelihood import log_mean_exp
from limner.models.vae import VAE


class Linear(nn.Module):
    """Decoder of probabilistic PCA, x = W z, and the encoder that is its exact posterior up to a given error."""

    def __init__(self, W: torch.Tensor, error: float = 0.0) -> None:
        super().__init__()
        self.z, self.heads = W.shape[1], 2
        self.W = W
        noise = 0.01  # variance of p(x|z)
        precision = torch.eye(self.z, dtype=W.dtype) + W.T @ W / noise
        self.cov = precision.inverse()
        self.to_mean = self.cov @ W.T / noise
        self.error = error


class PPCAEncoder(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.flatten(1) @ self.to_mean.T + self.error
        return torch.cat([mean, self.cov.diagonal().log().expand_as(mean)], 1)


class PPCADecoder(Linear):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return (z @ self.W.T).view(-1, 1, 2, 2)


def ppca(error: float) -> tuple[VAE, torch.Tensor, torch.Tensor]:
    """A Gaussian VAE whose exact log p(x) = log N(0, W Wᵀ + s² I) is known."""
    torch.manual_seed(0)
    W = torch.linalg.qr(torch.randn(4, 2))[0] * torch.tensor([0.5, 0.3])  # orthogonal: the posterior is diagonal
    model = VAE(PPCAEncoder(W, error), PPCADecoder(W), z=2, likelihood="gaussian")
    with torch.no_grad():
        model.log_scale.fill_(math.log(0.1))
    x = (torch.randn(200, 2) @ W.T + 0.1 * torch.randn(200, 4)).view(-1, 1, 2, 2)
    exact = torch.distributions.MultivariateNormal(torch.zeros(4), W @ W.T + 0.01 * torch.eye(4))
    return model, x, exact.log_prob(x.flatten(1))


def noise(*size: int) -> torch.Tensor:
    return torch.randn(*size)


def test_with_the_exact_posterior_every_weight_is_the_likelihood() -> None:
    model, x, exact = ppca(0.0)
    with torch.no_grad():
        log_w = model.log_weights(x, 3, noise)
    torch.testing.assert_close(log_w, exact.expand(3, -1), atol=2e-4, rtol=1e-4)


def test_elbo_below_iwae_below_the_likelihood() -> None:
    model, x, exact = ppca(0.08)
    with torch.no_grad():
        log_w = model.log_weights(x, 2000, noise)
    elbo, means = log_w.mean(0), [log_mean_exp(log_w[:k], 0).mean() for k in (1, 5, 50, 2000)]
    assert elbo.mean() < exact.mean() - 0.05
    assert means == sorted(means)
    assert abs(float(means[-1] - exact.mean())) < 0.02
    gap = (exact - elbo).mean()  # = KL(q || p(z|x)) = 1/2 sum error^2 / posterior variance
    expected = 0.5 * (0.08**2 / model.encoder.cov.diagonal()).sum()
    assert abs(float(gap - expected)) < 0.01


def test_an_image_is_scored_by_its_likelihood_at_the_mean_code_less_the_kl() -> None:
    """Both terms from `torch.distributions`; an encoder that is in error makes the KL speak."""
    model, x, _ = ppca(0.5)
    with torch.no_grad():
        mu, logvar = model.posterior(x)
        log_px = Normal(model.decoder(mu), 0.1).log_prob(x).flatten(1).sum(1)
        kl = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
        torch.testing.assert_close(model.score_samples(x), log_px - kl, rtol=1e-4, atol=1e-3)
    assert float(kl.min()) > 1


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "logistic"])
def test_a_likelihood_sums_to_one_over_what_its_measure_says(likelihood: str) -> None:
    """Black and white for bernoulli, 256 levels for discrete, all numbers for a density."""
    model = VAE(Linear(torch.zeros(1, 1)), Linear(torch.zeros(1, 1)), likelihood=likelihood)  # only p(x|z) is looked at
    levels = (2 * torch.arange(256) - 255) / 255
    fine = torch.linspace(-8, 8, 16_001)
    x, width = {
        "bernoulli": (torch.tensor([-1.0, 1.0]), 1.0),
        "discrete": (levels, 1.0),
        "density": (fine, 16 / 16_000),
    }[model.measure]
    with torch.no_grad():
        log_px = model.log_likelihood(x.view(-1, 1, 1, 1), torch.full((len(x), 1, 1, 1), 0.4))
    assert float(log_px.double().exp().sum() * width) == pytest.approx(1, abs=1e-4)


def test_black_and_white_images_are_scored_likewise() -> None:
    torch.manual_seed(0)
    model = recipes.load("vae-mnist").model.build(shape=(1, 8, 8), classes=10)
    x = torch.randn(6, 1, 8, 8).sign()
    with torch.no_grad():
        mu, logvar = model.posterior(x)
        log_px = Bernoulli(logits=model.decoder(mu)).log_prob((x + 1) / 2).flatten(1).sum(1)
        kl = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
        torch.testing.assert_close(model.score_samples(x), log_px - kl, rtol=1e-5, atol=1e-4)


def test_the_step_descends_the_negative_elbo() -> None:
    torch.manual_seed(0)
    model = recipes.load("vae-mnist").model.build(shape=(1, 8, 8), classes=10)
    stream = Stream(data.load("digits"), 512)
    update = Updates(model.groups(), {"VAE": Adam(lr=0)})
    stream.begin()
    logs = model.step(stream, update)
    loss = float(logs["loss/VAE"].detach())
    assert math.isclose(loss, float((logs["term/kl"] - logs["term/log_likelihood"]).detach()), rel_tol=1e-5)
    stream.position = 0
    x = next(stream).x
    with torch.no_grad():
        estimate = -model.log_weights(x, 64, noise).mean()
    assert abs(loss - float(estimate)) < 0.5


@pytest.mark.parametrize("name", ["vae-mnist", "cvae-mnist"])
def test_the_step_is_the_papers_box(name: str) -> None:
    """β KL less the likelihood of one draw, both from `torch.distributions`, for the same batch and noise."""
    torch.manual_seed(0)
    model = recipes.load(name, {"beta": 3.0}).model.build(shape=(1, 8, 8), classes=10)
    stream, again = (Stream(data.load("digits", binarise="static"), 64) for _ in range(2))
    stream.begin(), again.begin()
    losses: dict[str, torch.Tensor] = {}
    logs = model.step(stream, losses.__setitem__)
    x, y = next(again)
    classes = (y,) if name == "cvae-mnist" else ()
    with torch.no_grad():
        mu, logvar = model.encoder(x, *classes).chunk(2, 1)
        q = Normal(mu, (logvar / 2).exp())
        z = q.loc + q.scale * again.randn(*mu.shape)
        log_px = Bernoulli(logits=model.decoder(z, *classes)).log_prob((x + 1) / 2).flatten(1).sum(1).mean()
        kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1).mean()
        assert not torch.allclose(model.decode(z, *classes), model.decode(mu, *classes))
        torch.testing.assert_close(model.decode(z, *classes), 2 * torch.sigmoid(model.decoder(z, *classes)) - 1)
    torch.testing.assert_close(losses["VAE"].detach(), 3 * kl - log_px, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logs["term/kl"].detach(), kl, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logs["term/log_likelihood"].detach(), log_px, rtol=1e-5, atol=1e-5)


def test_the_weights_of_a_class_are_those_of_its_own_images() -> None:
    """p(x,z|y) / q(z|x,y) by `torch.distributions`, for three draws of each image with the class of that image."""
    torch.manual_seed(0)
    model = recipes.load("cvae-mnist").model.build(shape=(1, 8, 8), classes=10)
    x, y = next(Stream(data.load("digits", binarise="static"), 5))
    eps = torch.randn(5, 3, model.prior.z)
    with torch.no_grad():
        result = model.log_weights(x, 3, lambda *size: eps.view(size), y)
        for i in range(5):
            mu, logvar = model.posterior(x[i : i + 1], y[i : i + 1])
            q = Normal(mu, (logvar / 2).exp())
            z = q.loc + q.scale * eps[i]  # (3,z)
            log_px = Bernoulli(logits=model.decoder(z, y[i].expand(3))).log_prob((x[i] + 1) / 2).flatten(1).sum(1)
            expected = log_px + Normal(0.0, 1.0).log_prob(z).sum(1) - q.log_prob(z).sum(1)
            torch.testing.assert_close(result[:, i], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("likelihood", ["gaussian", "logistic"])
def test_other_likelihoods_learn(likelihood: str) -> None:
    torch.manual_seed(0)
    chosen = recipes.load(
        "vae-mnist",
        {
            "likelihood": likelihood,
            "model.decoder.out": "tanh",
            "model.decoder.widths": [64],
            "model.encoder.widths": [64],
        },
    )
    model = chosen.model.build(shape=(1, 8, 8), classes=10)
    stream = Stream(data.load("digits"), 64)
    update = Updates(model.groups(), {"VAE": Adam(lr=2e-3)})
    losses = []
    for _ in range(400):
        stream.begin()
        losses.append(float(model.step(stream, update)["loss/VAE"].detach()))
    assert sum(losses[-20:]) / 20 < sum(losses[:20]) / 20 - 30
    assert abs(model.log_scale.item() + 1) > 0.01, "the scale is learnt"


def test_the_bounds_do_not_depend_on_how_they_are_batched() -> None:
    model, x, exact = ppca(0.05)
    from limner.data.datasets import Pixels

    model.measure = "bernoulli"  # values are used as they are
    result = bounds(model, Pixels("x", x), k=500)
    assert result.elbo < result.iwae
    assert abs(result.iwae - float(exact.mean())) < 0.05
    assert result.n == 200
    assert result.iwae_error == pytest.approx(float(exact.std()) / 200**0.5, rel=0.1)


def test_importance_weighting_replaces_the_elbo() -> None:
    model = recipes.load("vae-mnist", {"importance": 5}).model.build(shape=(1, 8, 8), classes=10)
    stream = Stream(data.load("digits"), 16)
    logs = model.step(stream, lambda group, loss: None)
    assert set(logs) == {"loss/VAE"}
    again = Stream(data.load("digits"), 16)
    bound = log_mean_exp(model.log_weights(next(again).x, 5, again.randn), 0)
    torch.testing.assert_close(logs["loss/VAE"], -bound.mean())
    with pytest.raises(LimnerError, match="beta has no place"):
        recipes.load("vae-mnist", {"importance": 5, "beta": 2}).model.build(shape=(1, 8, 8), classes=10)


def test_samples_have_the_requested_class() -> None:
    model = recipes.load("cvae-mnist").model.build(shape=(1, 8, 8), classes=10)
    model.spec = recipes.load("cvae-mnist").model.resolve(shape=(1, 8, 8), classes=10)
    z = torch.randn(1, model.prior.z).expand(2, -1)
    a, b = model.decode(z, torch.tensor([3, 8]))
    assert not torch.equal(a, b)
    assert torch.equal(model.sample(3, y=7, seed=0), model.sample(3, y=torch.tensor([7, 7, 7]), seed=0))
    for wrong in (10, -1):
        with pytest.raises(LimnerError, match="choose from: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"):
            model.sample(2, y=wrong)
    with pytest.raises(LimnerError, match="needs data with class"):
        recipes.load("cvae-mnist").model.build(shape=(1, 8, 8), classes=0)
