"""Noise keyed by seed, image and step; models with other sampling options; the ramp of the moving average."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limner.core.ema import EMA
from limner.core.errors import LimnerError
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.prior import NormalPrior
from limner.core.rng import Noise, keys_of, normal


def test_normal_numbers_have_the_moments_and_the_tails_of_a_normal_distribution() -> None:
    x = normal(torch.arange(1000), 3, 1001)
    assert x.shape == (1000, 1001)
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert abs(float(x.double().pow(power).mean()) - moment) < 0.02
    assert abs(float((x > 2).double().mean()) - 0.02275) < 5e-4
    assert torch.isfinite(x).all()
    assert abs(float((x[:, ::2][:, :500] * x[:, 1::2][:, :500]).mean())) < 5e-3, "neighbours are independent"


def test_the_noise_of_an_image_depends_on_seed_image_and_step_alone() -> None:
    whole = Noise(7, 5)(2, 3, 4)
    assert torch.equal(whole[2:4], Noise(7, 2, first=2)(2, 3, 4))
    assert not torch.equal(whole, Noise(8, 5)(2, 3, 4))
    assert not torch.equal(whole, Noise(7, 5)(3, 3, 4))
    assert len(whole.unique()) == whole.numel()


def test_keys_of_contents_do_not_depend_on_the_batch() -> None:
    x = torch.randn(6, 1, 5, 5)
    assert torch.equal(keys_of(x)[2:4], keys_of(x[2:4]))
    assert len(keys_of(x).unique()) == 6
    assert keys_of(x.flatten(1).flip(1))[0] != keys_of(x)[0], "the order counts"


def test_the_normal_prior_gives_the_same_first_samples_at_any_number_and_scales_by_temperature() -> None:
    prior = NormalPrior((2, 1, 1))
    seven, three = (prior.sample(n, torch.Generator().manual_seed(1)) for n in (7, 3))
    assert torch.equal(seven[:3], three)
    cold = prior.sample(7, torch.Generator().manual_seed(1), temperature=0.5)
    torch.testing.assert_close(cold, 0.5 * seven)
    generator = torch.Generator().manual_seed(1)
    assert not torch.equal(prior.sample(3, generator), prior.sample(3, generator)), "each call draws new noise"
    with pytest.raises(LimnerError, match="temperature is 0"):
        prior.sample(1, torch.Generator(), temperature=0)


class Blur(GenerativeModel):
    """Draws noise of any scale."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)

    def groups(self) -> dict[str, nn.Module]:
        return {"net": self.net}

    def step(self, data: Data, update: Update) -> Logs:
        raise NotImplementedError

    def draw(self, n: int, y: Tensor | None, noise: Noise, *, scale: float = 1.0, **options: Any) -> Tensor:
        return scale * noise(0, 1, 2, 2)


class Described:
    name = "blur"


def blur() -> Blur:
    model = Blur()
    model.spec = Described()  # type: ignore[assignment]
    return model


def test_a_model_at_other_options_samples_with_them_and_shares_its_weights() -> None:
    model = blur()
    half = model.at(scale=0.5)
    assert torch.equal(half.sample(3, seed=0), 0.5 * model.sample(3, seed=0))
    assert torch.equal(half.sample(3, seed=0, scale=2.0), model.sample(3, seed=0, scale=2.0)), "a call goes first"
    assert half.net is model.net
    assert torch.equal(half.at(scale=None).sample(2, seed=0), half.sample(2, seed=0)), "None means no change"
    assert not model.options
    with pytest.raises(LimnerError, match="blur has no sampling option 'size'"):
        model.at(size=2)


def test_picture_i_is_the_same_at_any_number_and_batch_size() -> None:
    model = blur()
    whole = model.sample(7, seed=3)
    assert torch.equal(model.sample(7, seed=3, batch=2), whole)
    assert torch.equal(model.sample(4, seed=3), whole[:4])
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(model.sample(4, generator=generator), whole[:4])
    assert not torch.equal(model.sample(4, generator=generator), whole[:4]), "a generator goes on"


def test_the_ramp_bounds_the_half_life_by_the_images_seen() -> None:
    model = blur()
    average = EMA(model, 1000, ramp=0.05)
    with torch.no_grad():
        average.averages[0].zero_()
        model.net.weight.fill_(1.0)
    average.update(10, seen=200)  # half-life 10
    torch.testing.assert_close(average.averages[0], torch.full((1, 1), 0.5))
    with torch.no_grad():
        average.averages[0].zero_()
    average.update(1000, seen=1_000_000)  # half-life 1000
    torch.testing.assert_close(average.averages[0], torch.full((1, 1), 0.5))
