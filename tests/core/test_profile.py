"""The facts of a model for its report, and the grid of paths from noise to images."""

from __future__ import annotations

import pytest
import torch

from limner.bench.shrink import shrunk
from limner.core.model import GenerativeModel
from limner.core.previews import Level, paths
from limner.core.profile import profile


@pytest.mark.parametrize(
    ("recipe", "facts"),
    [
        ("vae-mnist", {"family": "VAE", "likelihood": "ELBO"}),
        ("gan-mnist", {"family": "GAN"}),
        ("realnvp-mnist", {"family": "normalising flow", "likelihood": "exact"}),
        ("stylise", {}),
    ],
)
def test_a_model_says_its_family_and_likelihood(recipe: str, facts: dict[str, str]) -> None:
    small = shrunk(recipe)
    assert profile(small.model.build(**small.data.build().facts())) == facts


def test_what_a_model_draws_with_is_said_with_the_options_of_at() -> None:
    small = shrunk("vae-mnist")
    model: GenerativeModel = small.model.build(**small.data.build().facts())
    assert profile(model.at(truncation=0.5))["sampling"] == {"truncation": 0.5}


def test_a_path_has_one_contrast_and_ends_in_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    images = 0.5 * torch.randn(2, 1, 16, 16, generator=generator)
    noise = torch.randn(2, 1, 16, 16, generator=generator)
    levels = [Level(s, images + s * noise, images / (1 + s)) for s in (80.0, 20.0, 5.0, 1.0, 0.2, 0.0)]
    grid = paths(levels, images, sigma_data=0.5, columns=4)
    assert grid.columns == 4
    tiles = grid.images.unflatten(0, (2, 2, 4))  # image, row, column
    assert torch.equal(tiles[:, :, -1], images[:, None].expand(-1, 2, -1, -1, -1))
    assert torch.equal(tiles[:, 1, :-1], torch.stack([levels[i].denoised for i in (0, 2, 4)], 1))
    assert tiles[:, 0].std((2, 3, 4)).sub(0.5).abs().max() < 0.1  # of noise of σ = 80 as of images
    assert tiles[:, 0, 0].sub(0.5 * noise).abs().max() < 0.02
