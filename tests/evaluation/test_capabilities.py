"""Scores carry their conditions, and their units are right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import logistic

from limner import data
from limner.config import recipe as recipes
from limner.data.datasets import Pixels
from limner.evaluation.capabilities import capability_scores
from limner.evaluation.reconstruction import corrupted, denoising_psnr, reconstruction_psnr
from limner.losses.reconstruction import psnr


def built(name: str, **overrides: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return recipes.load(name, overrides).model.build(shape=(1, 8, 8), classes=10).eval()


def test_each_capability_has_its_scores() -> None:
    heldout = data.load("digits", split="test")
    assert set(capability_scores(built("ae-mnist"), heldout)) == {"psnr_db"}
    assert set(capability_scores(built("denoising-ae-mnist"), heldout)) == {"psnr_noisy_db", "psnr_denoised_db"}
    assert set(capability_scores(built("vae-mnist"), heldout)) == {
        "psnr_db",
        "elbo_nats",
        "iwae50_nats",
        "bits_per_dim",
    }
    assert capability_scores(built("gan-mnist"), heldout) == {}
    for entry in capability_scores(built("vae-mnist"), heldout).values():
        assert "held-out images of digits" in entry.on
        assert entry.how
        assert math.isfinite(entry.value)


def test_psnr_of_the_noise_is_known() -> None:
    """Clipping aside, noise of sigma s on a range of 2 has a PSNR of 20 log10(2/s)."""
    grey = Pixels("grey", torch.full((300, 1, 8, 8), 128, dtype=torch.uint8))
    model = built("denoising-ae-mnist", sigma=0.1)
    values, _ = denoising_psnr(model, grey)["psnr_noisy_db"]
    assert abs(float(values.mean()) - 20 * math.log10(2 / 0.1)) < 0.1
    clean, noisy = corrupted(model, grey)
    assert torch.equal(corrupted(model, grey)[1], noisy)
    assert torch.equal(psnr(noisy, clean), values)


def test_reconstruction_does_not_depend_on_the_batch() -> None:
    model, heldout = built("ae-mnist"), data.load("digits", split="test")
    values = reconstruction_psnr(model, heldout)
    first = Pixels("first", heldout.pixels[:3])
    torch.testing.assert_close(reconstruction_psnr(model, first), values[:3])


@pytest.mark.parametrize("likelihood", ["logistic", "gaussian"])
def test_bits_per_dimension(likelihood: str) -> None:
    """With q(z|x) = p(z) and a constant decoder the bound is log p(x|z) itself, which scipy knows too."""
    model = built("vae-mnist", likelihood=likelihood, **{"model.decoder.out": "tanh"})
    with torch.no_grad():
        for p in [*model.encoder.head.parameters(), *model.decoder.head.parameters()]:
            p.zero_()
        model.log_scale.zero_()
    torch.manual_seed(1)
    noise = Pixels("noise", torch.randint(0, 256, (200, 1, 8, 8), dtype=torch.uint8))
    result = capability_scores(model, noise)["bits_per_dim"].value
    grey = noise.pixels.numpy().astype(float)
    if likelihood == "logistic":
        above = np.where(grey == 255, np.inf, (grey + 0.5) / 127.5 - 1)
        below = np.where(grey == 0, -np.inf, (grey - 0.5) / 127.5 - 1)
        expected = -np.log2(logistic.cdf(above) - logistic.cdf(below)).mean()
    else:  # a density of grey values, each spread evenly over its width
        second_moment = ((grey / 127.5 - 1) ** 2).mean() + (1 / 127.5) ** 2 / 12
        expected = (0.5 * math.log(2 * math.pi) + 0.5 * second_moment) / math.log(2) + math.log2(127.5)
    assert abs(result - expected) < 1e-3
