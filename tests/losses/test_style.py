"""Gram matrices in three conventions, style, content, AdaIN: formulas, gradients, batches."""

from __future__ import annotations

import pytest
import torch

from limner.losses import style
from limner.losses.translation import l1

CONVENTIONS = ("gatys", "places", "all")


def maps(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_conventions_are_their_formulas():
    f = maps(2, 3, 4, 5)
    by_hand = torch.stack([one.reshape(3, 20) @ one.reshape(3, 20).T for one in f])
    torch.testing.assert_close(style.gram(f, "gatys"), by_hand)
    torch.testing.assert_close(style.gram(f, "places"), by_hand / 20)
    torch.testing.assert_close(style.gram(f, "all"), by_hand / 60)


def test_the_losses_are_their_formulas_and_differ_by_known_factors():
    f, s = maps(1, 3, 4, 5), maps(1, 3, 4, 5, seed=1)
    n, m = 3, 20
    g, a = style.gram(f)[0], style.gram(s)[0]
    paper = ((g - a) ** 2).sum() / (4 * n**2 * m**2)
    result = {c: style.style(style.gram(f, c), style.gram(s, c), m, m, c) for c in CONVENTIONS}
    torch.testing.assert_close(result["gatys"], paper, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(result["places"], 4 * paper)
    torch.testing.assert_close(result["all"], 4 * paper / n**2)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_two_images_of_a_batch_are_not_mixed(convention):
    f, s = maps(2, 3, 4, 5), maps(1, 3, 6, 6, seed=1)
    target = style.gram(s, convention)
    together = style.style(style.gram(f, convention), target, 20, 36, convention)
    apart = [style.style(style.gram(one[None], convention), target, 20, 36, convention) for one in f]
    torch.testing.assert_close(together, (apart[0] + apart[1]) / 2)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_style_of_another_size_has_no_loss_where_its_statistics_are_met(convention):
    f = maps(1, 3, 4, 5)
    twice = torch.cat([f, f], 3)  # every place twice: the same statistics, twice the places
    result = style.style(style.gram(f, convention), style.gram(twice, convention), 20, 40, convention)
    assert float(result) < 1e-20


def test_a_mask_counts_only_its_places():
    f = maps(1, 3, 4, 6)
    mask = torch.zeros(1, 1, 4, 6, dtype=torch.float64)
    mask[..., :3] = 1
    for convention in CONVENTIONS:
        torch.testing.assert_close(style.gram(f, convention, mask), style.gram(f[..., :3], convention))


def test_gradients():
    f, s = maps(2, 3, 3, 4).requires_grad_(), maps(1, 3, 3, 4, seed=1)
    for c in CONVENTIONS:
        assert torch.autograd.gradcheck(lambda x, c=c: style.gram(x, c), (f,))  # each product alone: no symmetry helps
        assert torch.autograd.gradcheck(lambda x, c=c: style.style(style.gram(x, c), style.gram(s, c), 12, 12, c), (f,))
    assert torch.autograd.gradcheck(style.total_variation, (f,))
    assert torch.autograd.gradcheck(lambda x: style.adain(x, s).square().sum(), (f,))


def test_adain_gives_the_moments_of_the_style():
    f, s = maps(2, 3, 8, 8), 3 * maps(1, 3, 5, 9, seed=1) + 1
    mean, std = style.moments(style.adain(f, s))
    wanted_mean, wanted_std = style.moments(s)
    torch.testing.assert_close(mean, wanted_mean.expand_as(mean), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(std, wanted_std.expand_as(std), atol=1e-4, rtol=1e-4)


def test_moments_are_those_of_all_places():
    mean, std = style.moments(torch.tensor([0.0, 2.0, 4.0, 6.0]).view(1, 1, 2, 2), eps=0.25)
    assert (mean.item(), std.item()) == (3.0, pytest.approx((5 + 0.25) ** 0.5))  # 5, not 20/3: divided by all four


def test_a_flat_picture_varies_nowhere():
    assert float(style.total_variation(torch.full((1, 3, 4, 4), 0.3))) == 0
    stripes = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    assert float(style.total_variation(stripes)) == 1


def test_l1_is_the_mean_over_pixels_and_batch():
    assert float(l1(torch.ones(2, 1, 2, 2), -torch.ones(2, 1, 2, 2))) == 2
    with pytest.raises(ValueError, match="one shape"):
        l1(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 3))


def test_gram_matrices_are_exact_under_autocast_and_have_a_second_derivative():
    f = torch.rand(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        g = style.gram(f)
    assert g.dtype == torch.float32
    torch.testing.assert_close(g, style.gram(f.double()).float(), rtol=1e-5, atol=0)
    small = torch.rand(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(style.gram, (small,))


def test_gram_matrices_do_not_depend_on_the_memory_format():
    f = maps(2, 5, 4, 6)
    other = f.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(style.gram(other), style.gram(f), rtol=1e-12, atol=1e-12)
