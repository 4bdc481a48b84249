"""Annealed importance sampling, and with it the likelihood of a decoder with Gaussian noise on its pixels.

Neal 2001, *Annealed importance sampling*; Wu et al. 2017, *On the quantitative analysis of decoder-based generative
models*, arXiv:1611.04273. `limner.evaluation.likelihood` calls it for models that decode normal noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from limner.core.capabilities import Decodes
from limner.core.errors import LimnerError
from limner.evaluation.draws import GREY
from limner.losses.likelihood import gaussian, log_mean_exp

_CHAINS = 7_919_000_003  # offset of the seed of chains, so that they share no noise with other draws

LogDensity = Callable[[Tensor], Tensor]
"""Log of a density up to a constant, of codes (M,d): (M,) nats, differentiable."""


@dataclass(frozen=True)
class Annealed:
    """Chains from the prior to the posterior, or back.

    Attributes:
        log_w: log weights (M,). Forward, E exp(log_w) = p(x); backward, E exp(-log_w) = 1 / p(x).
        z: ends of the chains, (M,d).
        acceptance: mean share of proposals that were accepted.
    """

    log_w: Tensor
    z: Tensor
    acceptance: float


def temperatures(steps: int) -> Tensor:
    """Inverse temperatures (steps+1,) from 0 to 1, dense at both ends: a logistic curve from -4 to 4 (Wu et al. 2017).

    >>> [round(b, 4) for b in temperatures(4).tolist()]
    [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    if steps < 1:
        raise LimnerError(f"annealing needs at least 1 step, got {steps}")
    s = torch.sigmoid(torch.linspace(-4, 4, steps + 1, dtype=torch.float64))
    return (s - s[0]) / (s[-1] - s[0])


def ais(
    log_prior: LogDensity,
    log_likelihood: LogDensity,
    start: Tensor,
    *,
    steps: int = 500,
    leapfrog: int = 10,
    step: float | Tensor = 0.1,
    backward: bool = False,
    seed: int = 0,
) -> Annealed:
    """Annealed importance sampling of log ∫ p(z) p(x|z) dz, with Hamiltonian transitions.

    Neal 2001, *Annealed importance sampling*: chains pass through p(z) p(x|z)^b for b from 0 to 1, and the weight of a
    chain is the product of p(x|z)^(b' - b). Forward from draws of the prior, it is unbiased for p(x), so the log of
    its mean is below log p(x) on average. Backward from draws of the exact posterior, its reciprocal is unbiased for
    1 / p(x), so minus the log of the mean of the reciprocal is above (Grosse, Ghahramani and Adams 2015, *Sandwiching
    the marginal likelihood using bidirectional Monte Carlo*, arXiv:1511.02543).

    Args:
        log_prior: normalised log p(z).
        log_likelihood: normalised log p(x|z) of the image that belongs to each row.
        start: codes (M,d): draws of the prior, or with `backward` of the posterior.
        steps: number of temperatures after the first. The gap between both directions falls about as 1 / steps.
        leapfrog: number of steps of each Hamiltonian path.
        step: length of such a step, or (steps,) lengths from `tuned`. They must not depend on these chains.
        backward: go from the posterior to the prior.
        seed: seed of the chains.

    Raises:
        LimnerError: steps, leapfrog or step are not positive.
    """
    betas = temperatures(steps)
    lengths = torch.as_tensor(step, dtype=torch.float64).expand(steps)
    if leapfrog < 1 or not bool((lengths > 0).all()):
        raise LimnerError(f"a Hamiltonian path needs at least 1 step of positive length, got {leapfrog} and {step}")
    generator = torch.Generator(start.device).manual_seed(_CHAINS + seed)
    z, log_w, acceptance = start.detach(), start.new_zeros(len(start), dtype=torch.float64), 0.0
    for t in range(steps - 1, -1, -1) if backward else range(steps):
        low, high = float(betas[t]), float(betas[t + 1])
        if backward:  # the reverse of the forward order: first the transition, then the weight
            z, accepted = _hamiltonian(log_prior, log_likelihood, z, high, float(lengths[t]), leapfrog, generator)
        with torch.no_grad():
            log_w += (high - low) * log_likelihood(z).double()
        if not backward:
            z, accepted = _hamiltonian(log_prior, log_likelihood, z, high, float(lengths[t]), leapfrog, generator)
        acceptance += float(accepted.mean()) / steps
    return Annealed(log_w, z, acceptance)


def tuned(
    log_prior: LogDensity,
    log_likelihood: LogDensity,
    start: Tensor,
    *,
    steps: int = 500,
    leapfrog: int = 10,
    step: float = 0.1,
    seed: int = 0,
) -> Tensor:
    """Step lengths (steps,) for `ais` at which about 65 % of proposals are accepted, from separate chains.

    Weights are unbiased for fixed lengths, but not for lengths that adapt to the same chains.
    """
    betas, lengths = temperatures(steps), []
    generator = torch.Generator(start.device).manual_seed(_CHAINS + seed)
    z = start.detach()
    for t in range(steps):
        z, accepted = _hamiltonian(log_prior, log_likelihood, z, float(betas[t + 1]), step, leapfrog, generator)
        step *= math.exp(0.2 * (float(accepted.mean()) - 0.65))
        lengths.append(step)
    return torch.tensor(lengths, dtype=torch.float64)


def _hamiltonian(
    log_prior: LogDensity,
    log_likelihood: LogDensity,
    z: Tensor,
    beta: float,
    step: float,
    leapfrog: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Leaves p(z) p(x|z)^beta invariant (Neal 2011, arXiv:1206.1901, figure 2); gives codes and acceptance (M,)."""

    def energy(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_p = log_prior(z) + beta * log_likelihood(z)
            (gradient,) = torch.autograd.grad(log_p.sum(), z)
        return log_p.detach(), gradient

    momentum = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
    log_p, gradient = energy(z)
    before = log_p - 0.5 * momentum.square().sum(1)
    new, momentum, end = z, momentum + 0.5 * step * gradient, log_p
    for i in range(leapfrog):
        new = new + step * momentum
        end, gradient = energy(new)
        momentum = momentum + (step if i < leapfrog - 1 else 0.5 * step) * gradient
    after = end - 0.5 * momentum.square().sum(1)
    u = torch.rand(len(z), generator=generator, device=z.device, dtype=z.dtype)
    accepted = u.log() < after - before  # false where the path diverged and `after` is not a number
    return torch.where(accepted[:, None], new, z), accepted.double()


def sandwich(forward: Annealed, backward: Annealed, chains: int) -> tuple[Tensor, Tensor]:
    """Lower and upper estimates of log p(x), (B,) each, from weights (chains·B,) with the chains outermost."""
    lower = log_mean_exp(forward.log_w.view(chains, -1), 0)
    upper = -log_mean_exp(-backward.log_w.view(chains, -1), 0)
    return lower, upper


@dataclass(frozen=True)
class AisOptions:
    """Options of AIS for decoders.

    Attributes:
        sigma: standard deviation of the Gaussian noise on pixels in [-1,1]. A decoder has a likelihood only together
            with noise, and its value depends much on this number. None fits it to the images.
        chains: number of chains for each image.
        steps: number of temperatures.
        leapfrog: number of steps of a Hamiltonian path.
        images: largest number of images.
        simulated: number of images drawn from the model, with known codes, for the gap.
    """

    sigma: float | None = None
    chains: int = 4
    steps: int = 300
    leapfrog: int = 10
    images: int = 50
    simulated: int = 20


class Decoder:
    """A decoder of normal noise with Gaussian noise on its pixels, p(x|z) = N(decode(z), sigma² I).

    Args:
        model: decodes, in evaluation mode.
        z: number of dimensions of a code.
    """

    def __init__(self, model: Decodes, z: int) -> None:
        self.model, self.z = model, z

    @staticmethod
    def log_prior(z: Tensor) -> Tensor:
        """Log N(z; 0, I), (M,)."""
        return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))

    def log_likelihood(self, x: Tensor, sigma: float) -> LogDensity:
        """Log N(x; decode(z), sigma² I) as a function of z (M,d), for images x (M,C,H,W)."""
        logvar = torch.tensor(2 * math.log(sigma), device=x.device, dtype=x.dtype)

        def log_likelihood(z: Tensor) -> Tensor:
            return gaussian(self.model.decode(z), logvar.expand_as(x), x)

        return log_likelihood

    def draw(self, n: int, like: Tensor, seed: int) -> Tensor:
        """Codes (n,z) from N(0, I)."""
        generator = torch.Generator(like.device).manual_seed(seed)
        return torch.randn(n, self.z, generator=generator, device=like.device, dtype=like.dtype)

    def lower(self, x: Tensor, sigma: float, options: AisOptions, seed: int) -> Tensor:
        """Lower estimates of log p(x), (B,)."""
        return log_mean_exp(self._forward(x, sigma, options, seed).log_w.view(options.chains, -1), 0)

    def gap(self, like: Tensor, sigma: float, options: AisOptions, seed: int) -> float:
        """Mean difference in nats of the upper and lower estimates, on images simulated from known codes.

        On average it bounds the error of `lower` on such images; the error on real images is assumed to be similar.
        """
        z = self.draw(options.simulated, like, seed)
        with torch.no_grad():
            x = self.model.decode(z)
        noise = torch.Generator(like.device).manual_seed(seed + 1)
        x = x + sigma * torch.randn(x.shape, generator=noise, device=x.device, dtype=x.dtype)
        lower, upper = self.both(x, z, sigma, options, seed + 2)
        return float((upper - lower).mean())

    def both(self, x: Tensor, z: Tensor, sigma: float, options: AisOptions, seed: int) -> tuple[Tensor, Tensor]:
        """Lower and upper estimates of log p(x), (B,) each, for images x drawn from known codes z."""
        lengths = self._tuned(x, sigma, options, seed)
        forward = self._forward(x, sigma, options, seed, lengths)
        repeated = x.repeat(options.chains, *[1] * (x.dim() - 1))
        backward = ais(
            self.log_prior,
            self.log_likelihood(repeated, sigma),
            z.repeat(options.chains, 1),
            steps=options.steps,
            leapfrog=options.leapfrog,
            step=lengths,
            backward=True,
            seed=seed + 3,
        )
        return sandwich(forward, backward, options.chains)

    def fitted_noise(self, x: Tensor, options: AisOptions, seed: int) -> float:
        """The standard deviation that maximises the likelihood of images x, by four rounds of EM.

        The next estimate is the residual on pixels for codes near the posterior, and at least that of a grey level.
        """
        sigma, options_short = 0.3, replace(options, steps=max(options.steps // 2, 50), chains=1)
        for i in range(4):
            z = self._forward(x, sigma, options_short, seed + 10 + i).z
            with torch.no_grad():
                sigma = max(float((self.model.decode(z) - x).square().mean().sqrt()), GREY / math.sqrt(12))
        return sigma

    def _tuned(self, x: Tensor, sigma: float, options: AisOptions, seed: int) -> Tensor:
        subset = x[:: max(1, len(x) // 16)]
        return tuned(
            self.log_prior,
            self.log_likelihood(subset, sigma),
            self.draw(len(subset), x, seed + 4),
            steps=options.steps,
            leapfrog=options.leapfrog,
            seed=seed + 5,
        )

    def _forward(
        self, x: Tensor, sigma: float, options: AisOptions, seed: int, lengths: Tensor | None = None
    ) -> Annealed:
        repeated = x.repeat(options.chains, *[1] * (x.dim() - 1))  # the chains outermost
        return ais(
            self.log_prior,
            self.log_likelihood(repeated, sigma),
            self.draw(len(repeated), x, seed + 6),
            steps=options.steps,
            leapfrog=options.leapfrog,
            step=self._tuned(x, sigma, options, seed) if lengths is None else lengths,
            seed=seed + 7,
        )
