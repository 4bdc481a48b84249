"""Tasks without training: a denoiser draws images that agree with what is known.

What is known is y = A(x): some pixels, small pictures, grey ones. A linear A with a pseudo-inverse A⁺, A(A⁺(y)) = y,
is written as a pair of functions; `inpainting`, `upscaling` and `colourising` make such pairs. `noise(k)` gives
standard normal numbers of an image's shape; each k = 0, 1, 2 … is asked for once. Lists of noise levels end in 0, as
everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count, pairwise
from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.errors import LimnerError
from limner.samplers._gradient import with_gradient
from limner.samplers.steps import Denoiser, Sampler, StepNoise, ancestral, dpm2m

Map = Callable[[Tensor], Tensor]


def inpaint(
    D: Denoiser, x: Tensor, mask: Tensor, sigmas: Sequence[float], noise: StepNoise, resample: int = 1
) -> Tensor:
    """Fills holes. RePaint: Lugmayr et al. 2022, arXiv:2201.09865, Algorithm 1, with jumps of one step.

    The known pixels get the noise of each level anew, the holes are drawn by ancestral steps.

    Args:
        D: the denoiser.
        x: images (B,C,H,W) in [-1,1]; what is in their holes does not matter.
        mask: (B or 1,1,H,W), 1 in the holes.
        sigmas: noise levels.
        noise: standard normal numbers.
        resample: U, how often each level is drawn. Raise it if what fills a hole does not fit what is around it; time
            grows as much. With U = 3 the error in holes of digits is between that of U = 1 and that of `restore` with
            `sigma_data`, which takes the same time.
    """
    known, draw = torch.where(mask > 0, 0.0, x), map(noise, count())
    x = sigmas[0] * next(draw)
    for sigma, lower in pairwise(sigmas):
        for u in range(resample if lower > 0 else 1):
            if u:
                x = x + sqrt(sigma**2 - lower**2) * next(draw)  # back up to σ
            drawn = ancestral(D, x, [sigma, lower], lambda _: next(draw))
            x = torch.where(mask > 0, drawn, known + lower * next(draw) if lower > 0 else known)
    return x


def restore(
    D: Denoiser,
    y: Tensor,
    A: Map,
    A_plus: Map,
    sigmas: Sequence[float],
    noise: StepNoise,
    *,
    sigma_data: float | None = None,
    eta: float = 0.85,
) -> Tensor:
    """Images x (B,C,H,W) with A(x) = y. DDNM: Wang, Yu and Zhang 2022, arXiv:2212.00490, Algorithm 1.

    It is ancestral sampling with a denoiser that is `consistent` with y, and with `sigma_data` also `informed` by it:
    two or three times the work for a step, and far fewer images whose unknown part does not fit the known one.

    Args:
        D: the denoiser.
        y: what is known of the images.
        A: the degradation, linear.
        A_plus: its pseudo-inverse.
        sigmas: noise levels.
        noise: standard normal numbers.
        sigma_data: standard deviation of the data, for the gradient that informs; None goes without it.
        eta: share of the noise that is drawn anew at each step, as in `ancestral`. Raise it if errors stay, lower it
            with few steps.
    """
    if sigma_data is not None:
        D = informed(D, y, A, A_plus, sigma_data)
    return ancestral(consistent(D, y, A, A_plus), sigmas[0] * noise(0), sigmas, noise, eta=eta)


def consistent(D: Denoiser, y: Tensor, A: Map, A_plus: Map) -> Denoiser:
    """A denoiser whose predictions x0 have A(x0) = y: A⁺y + (I − A⁺A)D. DDNM (as above), eq. 13."""

    def D_y(x: Tensor, sigma: float) -> Tensor:
        x0 = D(x, sigma)
        return x0 + A_plus(y - A(x0))

    return D_y


def informed(D: Denoiser, y: Tensor, A: Map, A_plus: Map, sigma_data: float) -> Denoiser:
    """An estimate of E[x0 | x, y]: D + (1 + σ²/σ_d²) · (∂D/∂x)ᵀ A⁺(y − A(D)), which any sampler can use.

    ΠGDM: Song, Vahdat, Mardani and Kautz 2023, *Pseudoinverse-guided diffusion models for inverse problems* (ICLR),
        eq. 7 with
    r² = σ²σ_d²/(σ² + σ_d²), exact for Gaussian data. The gradient tells the unknown part what the known part says of
    it, which a projection does not. It needs a pass backwards, and works under inference mode.
    """

    def D_y(x: Tensor, sigma: float) -> Tensor:
        x0, pulled_back = with_gradient(D, x, sigma)
        return x0 + (1 + (sigma / sigma_data) ** 2) * pulled_back(A_plus(y - A(x0)))

    return D_y


def edit(
    D: Denoiser, x0: Tensor, sigmas: Sequence[float], strength: float, noise: StepNoise, sampler: Sampler = dpm2m
) -> Tensor:
    """New images that keep the large shapes of x0 (B,C,H,W). SDEdit: Meng et al. 2022, arXiv:2108.01073, Algorithm 1.

    Args:
        D: the denoiser, which may be guided towards another class.
        x0: images in [-1,1].
        sigmas: noise levels.
        strength: share in [0,1] of the steps that are gone back and drawn again: 0 changes nothing, 1 keeps nothing.
            Raise it if the result is too close to x0.
        noise: standard normal numbers.
        sampler: what draws.

    Raises:
        LimnerError: the strength is not in [0,1].
    """
    if not 0 <= strength <= 1:
        raise LimnerError(f"strength={strength:g} must be from 0 (nothing changes) to 1 (nothing is kept)")
    start = round((1 - strength) * (len(sigmas) - 1))
    return sampler(D, x0 + sigmas[start] * noise(0), sigmas[start:]) if sigmas[start] > 0 else x0


def denoise(
    D: Denoiser, y: Tensor, sigma: float, sigmas: Sequence[float], noise: StepNoise, *, eta: float = 1.0
) -> Tensor:
    """Clean images of y (B,C,H,W) = x + σε with a known σ > 0: a sampler is at y when it is at σ, and goes on from it.

    With η = 1 and many steps these are samples of p(x | y); Kawar, Vaksman and Elad 2021, arXiv:2105.14951. D(y, σ)
    itself is their mean, which is nearest to x in pixels and smoother than images are.

    Args:
        D: the denoiser.
        y: noisy images, not clipped to [-1,1].
        sigma: standard deviation of the noise, on the scale of [-1,1]: twice that on [0,1].
        sigmas: noise levels, of which the lower ones are used.
        noise: standard normal numbers.
        eta: share of the noise that is drawn anew, as in `ancestral`. Lower it with few steps.
    """
    return ancestral(D, y, [sigma, *(s for s in sigmas if s < sigma)], noise, eta=eta)


def inpainting(mask: Tensor) -> tuple[Map, Map]:
    """A and A⁺ of holes: mask (B or 1,1,H,W), 1 in the holes; y is an image with 0 in them."""

    def A(x: Tensor) -> Tensor:
        return torch.where(mask > 0, 0.0, x)

    return A, A


def upscaling(factor: int) -> tuple[Map, Map]:
    """A and A⁺ of small images: means of blocks of `factor` × `factor` pixels, (B,C,H,W) -> (B,C,H/factor,W/factor).

    >>> A, A_plus = upscaling(2)
    >>> torch.equal(A(A_plus(torch.eye(3)[None, None])), torch.eye(3)[None, None])
    True
    """

    def A(x: Tensor) -> Tensor:
        if x.shape[2] % factor or x.shape[3] % factor:
            raise ValueError(f"{x.shape[2]}x{x.shape[3]} pixels have no whole blocks of {factor}x{factor}")
        return F.avg_pool2d(x, factor)

    def A_plus(y: Tensor) -> Tensor:
        return F.interpolate(y, scale_factor=factor, mode="nearest")

    return A, A_plus


def colourising(channels: int = 3) -> tuple[Map, Map]:
    """A and A⁺ of grey images: the mean of the channels, (B,C,H,W) -> (B,1,H,W)."""

    def A(x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)

    def A_plus(y: Tensor) -> Tensor:
        return y.expand(-1, channels, -1, -1)

    return A, A_plus
