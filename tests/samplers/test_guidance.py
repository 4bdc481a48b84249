"""Classifier-free guidance on two Gaussian classes, whose densities are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limner.samplers.guidance import guided

from .mixture import randn  # noqa: TID252 - tests are no package that could be imported by name

MEANS = torch.tensor([[-0.5], [0.5], [0.0]], dtype=torch.float64)  # two classes, and none at all
NULL = 2


class Recorder:
    """A conditional denoiser that counts its calls and images."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        assert sigma.shape == (len(x),)
        self.batches.append(len(x))
        y = torch.full((len(x),), NULL) if y is None else y
        return (MEANS[y] * 0.9 + x.flatten(1) / (1 + sigma[:, None] ** 2)).view_as(x)


X, Y = randn(4, 2, 3, 3), torch.tensor([0, 1, 1, 0])


def test_a_scale_of_1_is_the_conditional_and_0_the_unconditional_denoiser() -> None:
    denoise, sigma = Recorder(), torch.full((4,), 0.7, dtype=torch.float64)
    assert torch.equal(guided(denoise, Y, 1.0, null=NULL)(X, 0.7), denoise(X, sigma, Y))
    assert torch.equal(guided(denoise)(X, 0.7), denoise(X, sigma, None))
    assert torch.allclose(guided(denoise, Y, 0.0, null=NULL)(X, 0.7), denoise(X, sigma, None), rtol=1e-12)


def test_the_convention_is_the_unconditional_plus_g_times_the_difference() -> None:
    """Not w = g − 1: at g = 2 the class's shift of the mean is doubled."""
    denoise, sigma = Recorder(), torch.full((4,), 0.7, dtype=torch.float64)
    D_c, D_u = denoise(X, sigma, Y), denoise(X, sigma, None)
    assert torch.allclose(guided(denoise, Y, 2.0, null=NULL)(X, 0.7), D_u + 2 * (D_c - D_u), rtol=1e-12)


def test_both_passes_are_one_batch_and_a_scale_of_1_has_one_pass() -> None:
    denoise = Recorder()
    guided(denoise, Y, 3.0, null=NULL)(X, 0.7)
    assert denoise.batches == [8]
    denoise = Recorder()
    guided(denoise, Y, 1.0, null=NULL)(X, 0.7)
    assert denoise.batches == [4]


def test_outside_the_interval_there_is_no_guidance_and_no_second_pass() -> None:
    denoise = Recorder()
    D = guided(denoise, Y, 3.0, null=NULL, interval=(0.2, 2.0))
    plain = guided(denoise, Y, 1.0)
    for sigma, size in ((0.1, 4), (0.2, 8), (2.0, 8), (2.1, 4)):
        denoise.batches.clear()
        x0 = D(X, sigma)
        assert denoise.batches == [size]
        assert torch.equal(x0, plain(X, sigma)) == (size == 4)


def test_rescale_brings_the_deviation_of_each_image_back() -> None:
    denoise = Recorder()
    D_c = guided(denoise, Y)(X, 0.7)
    full, half = (guided(denoise, Y, 5.0, null=NULL, rescale=phi)(X, 0.7) for phi in (1.0, 0.5))
    none = guided(denoise, Y, 5.0, null=NULL)(X, 0.7)
    assert torch.allclose(full.flatten(1).std(1), D_c.flatten(1).std(1), rtol=1e-12)
    assert torch.allclose(half, (full + none) / 2, rtol=1e-12)


def test_rescale_equals_diffusers() -> None:
    rescale_noise_cfg = pytest.importorskip("diffusers.guiders.guider_utils").rescale_noise_cfg

    def denoise(x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        return x * (1 + y.view(-1, 1, 1, 1)) + x.square() if y is not None else x

    D_c, D_u = denoise(X, X, Y), denoise(X, X, torch.full_like(Y, NULL))
    theirs = rescale_noise_cfg(D_u + 4.0 * (D_c - D_u), D_c, guidance_rescale=0.7)
    assert torch.allclose(guided(denoise, Y, 4.0, null=NULL, rescale=0.7)(X, 1.0), theirs, rtol=1e-12)


def test_guidance_needs_a_class_and_a_null_class() -> None:
    for y, null in ((None, NULL), (Y, None)):
        with pytest.raises(ValueError, match="leave scale at 1"):
            guided(Recorder(), y, 2.0, null=null)


def test_nothing_waits_for_the_device() -> None:
    x, y = torch.empty(2, 1, 4, 4, device="meta"), torch.empty(2, dtype=torch.int64, device="meta")
    D = guided(lambda x, sigma, y: x / (1 + sigma.view(-1, 1, 1, 1)), y, 2.0, null=3, rescale=0.5, interval=(0.1, 9.0))
    assert D(x, 1.0).shape == x.shape
