"""The parts that labs share: layer tables, scores of realism, grids of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from limner.labs import _figures as draw
from limner.labs import _realism as realism
from limner.labs._bench import LabelledImages
from limner.labs._layers import checks, layers
from limner.labs.conv_ae import random_codes
from limner.labs.vae import printed_kl


def test_multiply_adds_are_those_of_the_products_really_made() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 5))
    found = layers(net, lambda: net(torch.zeros(1, 2, 8, 8)))
    assert [f.macs for f in found] == [3 * 2 * 9 * 16, 0, 0, 48 * 5]
    assert [f.shape for f in found] == [(3, 4, 4), (3, 4, 4), (48,), (5,)]
    assert not any(m._forward_hooks for m in net.modules())


def test_a_transposed_convolution_multiplies_on_its_input() -> None:
    net = nn.ConvTranspose2d(4, 2, 3, stride=2)
    (found,) = layers(net, lambda: net(torch.zeros(1, 4, 5, 5)))
    assert found.macs_on_input == 4 * 2 * 9 * 25
    assert found.macs == 4 * 2 * 9 * 121
    assert found.printed_macs == found.macs + 4 * 2 * 9


def test_a_layer_too_many_or_too_few_is_a_failed_check() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    found = layers(net, lambda: net(torch.zeros(1, 4)))
    right = [("Linear", "3", 15), ("Linear", "2", 8)]
    assert [c.ok for c in checks(found, right)] == [True, True]
    assert [c.ok for c in checks(found, right[:1])] == [True, False]
    assert [c.ok for c in checks(found, [*right, ("Linear", "1", 3)])] == [True, True, False]
    assert [c.ok for c in checks(found, [("Linear", "3", 16), right[1]])] == [False, True]


def test_random_codes_keep_each_mean_and_spread_and_lose_what_binds_them() -> None:
    base = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    codes = torch.cat([base, 2 * base + 5], 1).view(4000, 2, 1)
    drawn = random_codes(codes, 4000, seed=1).flatten(1)
    torch.testing.assert_close(drawn.mean(0), codes.flatten(1).mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(drawn.std(0), codes.flatten(1).std(0), rtol=0.05, atol=0)
    assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 0.06


def test_the_lectures_kl_is_negative_at_one_over_root_two() -> None:
    sigma = torch.tensor(0.5, dtype=torch.float64).sqrt().requires_grad_()
    value = printed_kl(torch.zeros((), dtype=torch.float64), sigma)
    (slope,) = torch.autograd.grad(value, sigma)
    assert value.item() == pytest.approx(0.5 * np.log(2) - 0.5)
    assert slope.item() == pytest.approx(0, abs=1e-12)


def test_neighbours_agree_where_classes_lie_apart_and_not_where_they_are_mixed() -> None:
    g = torch.Generator().manual_seed(0)
    middles, y = torch.randn(4, 1, 6, 6, generator=g), torch.arange(200) % 4
    x = middles[y] + 0.05 * torch.randn(200, 1, 6, 6, generator=g)
    assert realism.agreement(LabelledImages(x, y, list("abcd")), middles) == 1
    assert realism.agreement(LabelledImages(x, y[torch.randperm(200, generator=g)], list("abcd")), middles) < 0.6


def test_pixels_are_enlarged_as_squares() -> None:
    x = torch.tensor([[[[-1.0, 1.0], [1.0, -1.0]]]])
    assert (
        np.asarray(draw.image_grid(x, 1, scale=3)).tolist() == np.kron([[0, 255], [255, 0]], np.ones((3, 3))).tolist()
    )


def test_names_are_pushed_apart_and_stay_near_their_places() -> None:
    places = np.array([[0.0, 0.0], [0.01, 0.0], [1.0, 1.0]], dtype=np.float32)
    moved = draw._separate(places, np.ones(2, dtype=np.float32), minimum=0.1)
    assert np.linalg.norm(moved[0] - moved[1]) >= 0.099
    assert np.abs(moved - places).max() < 0.1
    np.testing.assert_array_equal(moved[2], places[2])
