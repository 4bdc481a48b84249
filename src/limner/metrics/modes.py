"""Counting modes: how many of the known modes of the data samples cover, and how evenly.

Points: Srivastava et al. 2017 (VEEGAN, arXiv:1705.07761) and Lin et al. 2018 (PacGAN, arXiv:1712.04086), section 4.1. A
sample is of high quality within three standard deviations of the nearest centre; a centre counts as found if it is
the nearest of at least one such sample. Of perfect samples in the plane 1 - exp(-9/2) = 98.89 % are of high quality: a
higher share means that the standard deviation around the centres has shrunk.

Images: the same counts on predicted classes; for Stacked MNIST these are one digit for each channel, a thousand
classes (PacGAN, section 4.2).

The divergence is KL(p_G || p_data) over modes, in nats; PacGAN calls it reverse KL. Of N samples of a perfect sampler
it is about (K - 1) / (2N), not 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log

import torch
from torch import Tensor
from torch.special import xlogy


@dataclass(frozen=True)
class Modes:
    """Counts of modes.

    Attributes:
        found: number of modes with at least one (high-quality) sample.
        known: number of modes.
        n: number of samples.
        kl: KL(p_G || p_data) over modes, in nats; None if no sample counts.
        floor: expected `kl` of a perfect sampler with as many samples.
        high_quality: share of samples near a mode; None for images.
        ceiling: expected `high_quality` of a perfect sampler; None for images.
    """

    found: int
    known: int
    n: int
    kl: float | None
    floor: float
    high_quality: float | None = None
    ceiling: float | None = None


def class_modes(labels: Tensor, known: int, weights: Tensor | None = None) -> Modes:
    """Counts class indices (N,) in 0…known-1.

    Args:
        labels: the mode of each sample.
        known: number of modes K.
        weights: p_data of each mode, (K,); equal by default.

    Raises:
        ValueError: an index is out of range.
    """
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < known:
        raise ValueError(f"modes must be indices from 0 to {known - 1}, got {int(labels.min())} to {int(labels.max())}")
    n = len(labels)
    counts = torch.bincount(labels, minlength=known).double()
    kl = None
    if n:
        p = counts / n
        log_q = torch.full_like(p, -log(known)) if weights is None else (weights.double() / weights.sum()).log()
        kl = float((xlogy(p, p) - p * log_q).sum())
    return Modes(int((counts > 0).sum()), known, n, kl, (known - 1) / (2 * max(n, 1)))


def point_modes(points: Tensor, centres: Tensor, sigma: float, within: float = 3.0) -> Modes:
    """Counts points (N,…) of D numbers each at centres (K,D), which are equally likely.

    Args:
        points: the samples.
        centres: the centres of the modes.
        sigma: standard deviation of the data around a centre.
        within: largest distance of a high-quality sample, in standard deviations. Only those enter the divergence.
    """
    distance, nearest = torch.cdist(points.flatten(1).double(), centres.double()).min(1)
    high_quality = distance <= within * sigma
    counts = class_modes(nearest[high_quality], len(centres))
    half = torch.tensor([centres.shape[1] / 2, within**2 / 2], dtype=torch.float64)  # of a chi-square with D degrees
    ceiling = float(torch.special.gammainc(half[0], half[1]))
    return replace(counts, n=len(points), high_quality=float(high_quality.double().mean()), ceiling=ceiling)


def stacked_labels(x: Tensor) -> Tensor:
    """Class indices (N,) in 0…999 of stacked digits (N,3,H,W) in [-1,1], by the digit classifier ``lenet64-v1``."""
    from limner.metrics.extractors.features import lenet64

    n, channels, h, w = x.shape
    if channels != 3:
        raise ValueError(f"stacked digits have 3 channels, got {channels}")
    digits = lenet64(x.device).classify(x.reshape(3 * n, 1, h, w)).argmax(1).view(n, 3).cpu()
    return (digits * torch.tensor([100, 10, 1])).sum(1)


def stacked_modes(x: Tensor) -> Modes:
    """Counts the thousand modes of Stacked MNIST in images (N,3,H,W) in [-1,1]."""
    return class_modes(stacked_labels(x), 1000)
