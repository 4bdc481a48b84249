from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from limner.losses import reconstruction


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(5, 3, 4, 6, generator=g, dtype=torch.float64),
        torch.rand(5, 3, 4, 6, generator=g, dtype=torch.float64) * 2 - 1,
    )


@pytest.mark.parametrize("loss", [reconstruction.mse, reconstruction.bce])
def test_sum_is_the_mean_times_the_pixels(loss, pair):
    assert torch.allclose(loss(*pair, reduction="sum"), loss(*pair, reduction="mean") * 3 * 4 * 6)


@pytest.mark.parametrize("loss", [reconstruction.mse, reconstruction.bce])
def test_an_image_weighs_the_same_in_any_batch(loss, pair):
    x_hat, x = pair
    alone = [loss(x_hat[i : i + 1], x[i : i + 1], reduction="sum") for i in range(5)]
    assert torch.allclose(loss(x_hat, x, reduction="sum"), torch.stack(alone).mean())


def test_bce_is_least_where_the_sigmoid_is_the_grey_value(pair):
    _, x = pair
    p = (x + 1) / 2
    logits = p.logit().requires_grad_()
    loss = reconstruction.bce(logits, x)
    assert torch.allclose(loss, F.binary_cross_entropy(p, p))
    (grad,) = torch.autograd.grad(loss, logits)
    assert grad.abs().max() < 1e-15


def test_psnr_counts_decades_of_the_squared_error():
    x = torch.zeros(3, 1, 8, 8, dtype=torch.float64)
    x_hat = x + torch.tensor([2.0, 0.2, 0.0], dtype=torch.float64).view(3, 1, 1, 1)
    assert reconstruction.psnr(x_hat, x).tolist() == pytest.approx([0.0, 20.0, math.inf])
    # the same pictures on [0,1] have the same ratio
    assert torch.allclose(reconstruction.psnr(x_hat / 2, x / 2, peak=1.0), reconstruction.psnr(x_hat, x))


@pytest.mark.parametrize("loss", [reconstruction.mse, reconstruction.bce, reconstruction.psnr])
def test_shapes_never_broadcast(loss):
    with pytest.raises(ValueError, match="differ"):
        loss(torch.zeros(4, 1, 8, 8), torch.zeros(1, 1, 8, 8))
