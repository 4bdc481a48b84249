"""Log-likelihoods of images, log p(x | ·) (B,) in nats, and bounds on them.

They are sums over the pixels of an image. `gaussian` is a density, so its log can be positive; `bernoulli` and
`discretised_logistic` are probabilities, so theirs cannot.
"""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.losses._precision import in_float32


def _per_image(logp: Tensor) -> Tensor:
    return logp.flatten(1).sum(1)


@in_float32
def bernoulli(logits: Tensor, x: Tensor) -> Tensor:
    """The log p(x) (B,) of pixels that are black or white: logits (B,…), x (B,…) in [-1,1].

    x is mapped to [0,1]. A grey x counts as the expectation over its two outcomes, which is common but no likelihood.
    """
    return _per_image(-F.binary_cross_entropy_with_logits(logits, (x + 1) / 2, reduction="none"))


@in_float32
def gaussian(mean: Tensor, logvar: Tensor, x: Tensor) -> Tensor:
    """The log N(x; mean, exp(logvar)) (B,), summed over pixels: x (B,…), mean and logvar are broadcast to it."""
    return _per_image(-0.5 * ((x - mean).square() * (-logvar).exp() + logvar + log(2 * pi)))


@in_float32
def categorical(logits: Tensor, one_hot: Tensor) -> Tensor:
    """The log P(k) (B,) of classes k, given as one-hot vectors (B,K), with P the softmax of logits (B,K)."""
    return (one_hot * F.log_softmax(logits, 1)).sum(1)


@in_float32
def discretised_logistic(mean: Tensor, log_scale: Tensor, x: Tensor) -> Tensor:
    """The log P(x) (B,) of images with 256 levels on [-1,1] under a logistic distribution cut into 256 bins.

    The bin of a level is ±1/255 around it; those of the first and the last level include the tails, so P sums to 1.
    Kingma et al. 2016, *Improving variational inference with inverse autoregressive flow*, arXiv:1606.04934, and
    Salimans et al. 2017, *PixelCNN++*, arXiv:1701.05517, section 2.1.

    Args:
        mean: location (B,…).
        log_scale: log of the scale, broadcast to x. At about -7 the distribution is narrower than a bin.
        x: images (B,…) whose values are levels: (2k − 255)/255 for k = 0…255.
    """
    half = 1 / 255
    rate = (-log_scale).exp()
    below, above = (x - half - mean) * rate, (x + half - mean) * rate
    # sigmoid(above) - sigmoid(below) = sigmoid(above) · sigmoid(-below) · (1 - exp(below - above)), which is stable
    # where both are nearly equal. The first level has no factors of `below`, the last none of `above`.
    first, last = x < -1 + half, x > 1 - half
    width = torch.log(-torch.expm1(-2 * half * rate)).expand_as(x)
    logp = (
        torch.where(last, 0.0, F.logsigmoid(above))
        + torch.where(first, 0.0, F.logsigmoid(-below))
        + torch.where(first | last, 0.0, width)
    )
    return _per_image(logp)


@in_float32
def discretised_gaussian(mean: Tensor, logvar: Tensor, x: Tensor) -> Tensor:
    """The log P(x) (B,) of images with 256 levels on [-1,1] under a Gaussian cut into 256 bins.

    The bin of a level is ±1/255 around it; those of the first and the last level include the tails, so P sums to 1. Ho,
    Jain and Abbeel 2020, *Denoising diffusion probabilistic models*, arXiv:2006.11239, eq. 13.

    Args:
        mean: location (B,…).
        logvar: log of the variance, broadcast to x.
        x: images (B,…) whose values are levels: (2k − 255)/255 for k = 0…255.
    """
    half, rate = 1 / 255, (-0.5 * logvar).exp()
    above = torch.where(x > 1 - half, torch.inf, (x + half - mean) * rate)
    below = torch.where(x < -1 + half, -torch.inf, (x - half - mean) * rate)
    # The mass of an interval right of the mean is computed left of it, where the tails keep their digits.
    right = below + above > 0
    low, high = torch.where(right, -above, below), torch.where(right, -below, above)
    log_high = torch.special.log_ndtr(high)
    log_low = torch.special.log_ndtr(low.clamp_min(-1e4))
    gap = torch.where(torch.isinf(low), -torch.inf, log_low - log_high)
    return _per_image(log_high + torch.log1p(-gap.clamp_max(-1e-6).exp()))


def bits_per_dim(nats: Tensor, dims: int) -> Tensor:
    """Bits per dimension of a log-likelihood in nats: −nats / (dims · log 2); smaller is better.

    >>> bits_per_dim(torch.tensor([-784 * log(256)]), 784)  # uniform over 256 levels
    tensor([8.])
    """
    return -nats / (dims * log(2))


def log_mean_exp(log_w: Tensor, dim: int = 0) -> Tensor:
    """Returns log((1/K) Σ exp log_w) over the K entries of `dim`.

    With log_w = log p(x,z) − log q(z|x) for K draws of z this is the bound of Burda et al. 2016, *Importance weighted
    autoencoders*, arXiv:1509.00519, eq. 8: for K = 1 the ELBO, and it never falls as K grows (in expectation).
    """
    return torch.logsumexp(log_w, dim) - log(log_w.shape[dim])
