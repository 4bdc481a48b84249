"""Denoising diffusion probabilistic model: a net predicts the noise in an image.

Ho, Jain and Abbeel 2020, *Denoising diffusion probabilistic models*, arXiv:2006.11239, Algorithm 1.

    ᾱ_t = Π_{s ≤ t} (1 − β_s)
    repeat
        x ~ data;  t ~ U{1 … T};  ε ~ N(0, I)
        x_t = √ᾱ_t x + √(1 − ᾱ_t) ε
        descend  ‖ε − F(x_t, t)‖²

`limner sample RUN out.png sampler=ancestral grid=discrete steps=1000` is the paper's Algorithm 2 with the variance β̃,
and `sampler=euler grid=discrete` is DDIM (Song, Meng and Ermon 2021, arXiv:2010.02502).

Options of later papers: the cosine schedule and a learned variance (Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 15
to 17), which a net with `heads: 2` has; prediction of the velocity v = √ᾱ ε − √(1−ᾱ) x instead of the noise (Salimans
and Ho 2022, arXiv:2202.00512). Indices here run from 0 to T−1, so ᾱ of index 0 has one step of noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import cos, log, pi
from typing import Any, Literal

import torch
from torch import Tensor

from limner.core.model import Data, Logs, Update
from limner.core.rng import Noise
from limner.losses.divergence import kl_normals
from limner.losses.likelihood import discretised_gaussian
from limner.losses.reconstruction import mse
from limner.nets.protocols import Denoiser
from limner.samplers import grids
from limner.samplers.bound import decoder_term, step_term
from limner.samplers.diffusion import DiffusionModel, Sampling


@dataclass(frozen=True, kw_only=True)
class DiscreteSampling(Sampling):
    """How a DDPM draws its samples.

    Args:
        grid: noise levels of the steps: flow is even in t = σ/(1+σ), karras in σ^(1/7), discrete takes those of
            training.
    """

    grid: Literal["flow", "karras", "discrete"] = "flow"  # type: ignore[assignment]


class DDPM(DiffusionModel):
    """A net that predicts the noise, in T steps.

    Args:
        F: net from x_t and t/T to the noise (denoiser.UNet, or denoiser.MLP for points). With heads: 2 it also gives
            the variance of each step, which shortens the bound of the likelihood and helps ancestral sampling with few
            steps.
        T: number of noise levels. Lower it (to 100, say) for a coarser process; β grows in proportion.
        schedule: linear β as in the first paper, or cosine, which keeps more of the image for longer.
        prediction: what the net predicts, the noise or the velocity. Take v with the cosine schedule, at whose highest
            levels the noise says nothing about the image.
        drop: share of the labels that are hidden in training, so that guidance has an unconditional denoiser.
        sampling: options of `samplers.diffusion.Sampling` that replace its defaults, such as {sampler: ancestral}.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.
        condition: names of the classes; filled from the data.
    """

    Options = DiscreteSampling
    log_sigmas: Tensor

    def __init__(
        self,
        F: Denoiser,
        T: int = 1000,
        schedule: Literal["linear", "cosine"] = "linear",
        prediction: Literal["noise", "v"] = "noise",
        drop: float = 0.1,
        sampling: dict[str, object] | None = None,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        if not 25 <= T <= 10_000:
            raise ValueError(f"T={T} noise levels are not possible; write 25 to 10000")
        self.T, self.levels = T, sigmas(alphas_bar(T, schedule))
        super().__init__(F, F.classes, drop, sampling, shape, classes, condition)
        self.prediction, self.learns_variance = prediction, F.heads == 2
        self.sigma_min, self.sigma_max = self.levels[0], min(self.levels[-1], 160.0)
        self.register_buffer(
            "log_sigmas", torch.tensor(self.levels, dtype=torch.float64).log().float(), persistent=False
        )

    def step(self, data: Data, update: Update) -> Logs:
        x, y = next(data)  # (B,C,H,W) in [-1,1], (B,)
        t = (data.rand(len(x)) * self.T).long()  # (B,) in 0 … T−1
        noise, sigma = data.randn(*x.shape), self.log_sigmas[t].exp().view(-1, 1, 1, 1)
        alpha = (1 + sigma**2).rsqrt()  # √ᾱ_t
        out, v = self._heads(alpha * (x + sigma * noise), t / self.T, self.dropped(y, data))
        loss = simple = mse(out, noise if self.prediction == "noise" else alpha * (noise - sigma * x))
        if v is not None:
            x0 = self._denoised(x + sigma * noise, sigma, out.detach())
            loss = simple + self.T / 1000 * self._bits(x, x0, v, t).mean()
        update("F", loss)
        return {"loss/F": loss, "term/simple": simple}

    def denoise(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        """(x_t − √(1−ᾱ) F(x_t, t)) / √ᾱ (B,C,H,W) of x = x_t / √ᾱ with sigma (B,); t is interpolated in ln σ."""
        return self._parts(x, sigma, y)[0]

    def draw(self, n: int, y: Tensor | None, noise: Noise, **options: Any) -> Tensor:
        """Samples (n,C,H,W), from noise at the highest level down to none."""
        sampling = replace(self.sampling, **options)
        if not self.learns_variance or sampling.sampler != "ancestral":
            return super().draw(n, y, noise, **options)
        shares: list[Tensor] = []  # v of the last pass of the net, of its conditional half if there is guidance

        def denoise(x: Tensor, sigma: Tensor, y: Tensor | None) -> Tensor:
            out, v = self._parts(x, sigma, y)
            shares[:] = [] if v is None else [v[:n]]
            return out

        D, levels = self.denoiser(sampling, y, denoise), self.sigmas(sampling)
        x = self.at_level(noise(0, *self.shape), levels[0])
        for i, (sigma, lower) in enumerate(pairwise(levels), 1):  # Algorithm 2 with the learnt variance
            x = torch.lerp(D(x, sigma), x, (lower / sigma) ** 2)
            if lower > 0:
                x = x + (0.5 * _log_variance(shares[0], *x.new_tensor([lower, sigma]))).exp() * noise(i, *self.shape)
        return x if self.is_points else x.clamp(-1, 1)

    def sigmas(self, sampling: Sampling) -> list[float]:
        """The noise levels of the steps, from the highest to 0."""
        if isinstance(sampling, DiscreteSampling) and sampling.grid == "discrete":
            return grids.discrete(sampling.steps, self.levels)
        return super().sigmas(sampling)

    # ---- the net -----------------------------------------------------------------------------------------

    def _heads(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The predicted noise or velocity (B,C,H,W), and the share v of log β in the log variance, or None."""
        out = self.F(x_t, t, y).float()
        if not self.learns_variance:
            return out, None
        mean, v = out.chunk(2, 1)
        return mean, (v + 1) / 2

    def _parts(self, x: Tensor, sigma: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The estimate of x0 (B,C,H,W) from x with sigma (B,), and v of the variance, or None."""
        s = sigma.view(-1, 1, 1, 1)
        out, v = self._heads(x * (1 + s**2).rsqrt(), self._index(sigma) / self.T, y)
        return self._denoised(x, s, out), v

    def _denoised(self, x: Tensor, sigma: Tensor, out: Tensor) -> Tensor:
        """x0 (B,C,H,W) from x and sigma (B,1,1,1) in the coordinate of σ, and the net's prediction."""
        if self.prediction == "noise":
            return x - sigma * out
        return x / (1 + sigma**2) - sigma * (1 + sigma**2).rsqrt() * out

    def _index(self, sigma: Tensor) -> Tensor:
        """The index (B,) float32 in 0 … T−1 whose noise level is sigma (B,), interpolated in ln σ."""
        target = sigma.log().clamp(self.log_sigmas[0], self.log_sigmas[-1])
        above = torch.searchsorted(self.log_sigmas, target).clamp(1, self.T - 1)
        low, high = self.log_sigmas[above - 1], self.log_sigmas[above]
        return above - 1 + (target - low) / (high - low)

    # ---- likelihood --------------------------------------------------------------------------------------

    @property
    def elbo_levels(self) -> list[float]:
        """The noise levels of the training, ascending."""
        return self.levels

    def last_nats(self, x: Tensor, noisy: Tensor, y: Tensor | None) -> Tensor:
        """The nats (B,) of images x from `noisy` at the lowest level."""
        x0, v = self._parts(noisy, x.new_full((len(x),), self.levels[0]), y)
        return decoder_term(x, x0, self.levels[0]) if v is None else self._last(x, x0, v).double()

    def step_nats(self, x: Tensor, noisy: Tensor, lower: Tensor, sigma: Tensor, y: Tensor | None) -> Tensor:
        """The nats (B,) of one step of the chain from images `noisy` with sigma (B,) to lower (B,)."""
        x0, v = self._parts(noisy, sigma, y)
        return step_term(x, x0, lower, sigma) if v is None else _kl(x, x0, v, lower, sigma).double()

    def _last(self, x: Tensor, x0: Tensor, v: Tensor) -> Tensor:
        """−log P(x) (B,) under a Gaussian with a log variance between those of the first two steps, at the share v."""
        first, second = self.log_sigmas[:2].exp()
        log_small, log_large = _log_bounds(first, second)[0], 2 * first.log()
        return -discretised_gaussian(x0, v * log_large + (1 - v) * log_small, x)

    def _bits(self, x: Tensor, x0: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """The bound's term of index t (B,) in bits per dimension (B,), which trains the variance."""
        sigmas = self.log_sigmas.exp()
        nats = _kl(x, x0, v, sigmas[(t - 1).clamp_min(0)], sigmas[t.clamp_min(1)])
        return torch.where(t > 0, nats, self._last(x, x0, v)) / (x[0].numel() * log(2))


def _log_bounds(lower: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Log β̃ and log β of a step from sigma to lower, in the coordinate of σ (Ho et al., eq. 7)."""
    log_small = (lower**2 * (1 - (lower / sigma) ** 2)).log()
    return log_small, log_small + ((1 + lower**-2) / (1 + sigma**-2)).log()


def _log_variance(v: Tensor, lower: Tensor, sigma: Tensor) -> Tensor:
    """The log variance of a step, at the share v (B,C,H,W) of log β. Nichol and Dhariwal 2021, eq. 15."""
    log_small, log_large = _log_bounds(lower, sigma)
    return v * log_large + (1 - v) * log_small


def _kl(x: Tensor, x0: Tensor, v: Tensor, lower: Tensor, sigma: Tensor) -> Tensor:
    """KL(q ‖ p) (B,) of a step from sigma (B,) to lower (B,) with the estimate x0 of x and the learnt variance."""
    lower, sigma = lower.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
    move = 1 - (lower / sigma) ** 2  # how far a step goes from x_t to x0
    return kl_normals(move * x, _log_bounds(lower, sigma)[0], move * x0, _log_variance(v, lower, sigma))


def alphas_bar(T: int, schedule: Literal["linear", "cosine"]) -> list[float]:
    """ᾱ of the indices 0 … T−1, in float64.

    The linear β goes from 1e-4 to 0.02 at T = 1000, and in proportion to 1000/T at other T, so that ᾱ_T is always near
    0 (Nichol and Dhariwal 2021, section 3.2 has the cosine: eq. 17, with β of at most 0.999).
    """
    if schedule == "linear":
        betas = [1000 / T * (1e-4 + (0.02 - 1e-4) * i / (T - 1)) for i in range(T)]
    else:
        f = [cos((i / T + 0.008) / 1.008 * pi / 2) ** 2 for i in range(T + 1)]
        betas = [min(1 - f[i + 1] / f[i], 0.999) for i in range(T)]
    result, product = [], 1.0
    for beta in betas:
        product *= 1 - beta
        result.append(product)
    return result


def sigmas(alphas: list[float]) -> list[float]:
    """Noise levels √((1 − ᾱ)/ᾱ) of a list of ᾱ."""
    return [((1 - a) / a) ** 0.5 for a in alphas]
