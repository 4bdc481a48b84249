from __future__ import annotations

from math import ceil, sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.nets import progressive
from limner.nets._layers import PixelNorm
from limner.nets.progressive import _Conv, at_level, downsample, sizes, upsample

SHAPES = [(1, 28, 28), (2, 32, 32), (3, 48, 64), (1, 8, 8), (1, 20, 12)]
JUST = 2.0**-52  # α right after a doubling, as small as float64 has it


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def noise(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def nets(shape: tuple[int, int, int] = (1, 16, 16), **more: object) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    G = progressive.Generator(z=8, width=4, shape=shape)
    return G.double(), progressive.Discriminator(width=4, shape=shape, **more).double()


def test_parameter_counts_of_the_papers_table_2():
    """23.1M each at 1024×1024 with z of 512 and at most 512 channels, the output layers of smaller sizes aside."""
    with torch.device("meta"):
        G = progressive.Generator(z=512, width=16, widest=512, shape=(3, 1024, 1024))
        D = progressive.Discriminator(width=16, widest=512, shape=(3, 1024, 1024))
    assert G.levels == D.levels == 8
    assert round((count(G) - count(G.to_rgb[:-1])) / 1e6, 1) == 23.1
    assert round((count(D) - count(D.from_rgb[:-1])) / 1e6, 1) == 23.1


@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_that_doubles(shape):
    G, D = nets(shape)
    grown = sizes(shape[1:])
    assert min(grown[0]) < 8
    for level in [k / 2 for k in range(2 * G.levels + 1)]:
        x = G(noise(3, 8), level=level)
        assert x.shape == (3, shape[0], *grown[ceil(level)])
        assert D(x, level=level).shape == (3,)
    assert torch.equal(G(noise(3, 8)), G(noise(3, 8), level=G.levels))
    assert torch.equal(D(x), D(x, level=D.levels))


@pytest.mark.parametrize("level", [0, 1])
def test_a_new_block_changes_nothing_at_first(level):
    """α = 0: G gives its old image with every pixel repeated, D the old score of the image halved."""
    G, D = nets()
    z, x = noise(3, 8), noise(3, 1, 8 << level, 8 << level)
    old, new = G(z, level=level), G(z, level=level + JUST)
    assert torch.allclose(new, upsample(old), rtol=1e-12, atol=1e-14)
    assert torch.allclose(D(x, level=level + JUST), D(downsample(x), level=level), rtol=1e-12, atol=1e-14)
    full = noise(3, 1, 16, 16)
    before, after = at_level(full, level, levels=2), at_level(full, level + JUST, levels=2)
    assert torch.allclose(after, upsample(before), atol=1e-14)


@pytest.mark.parametrize("level", [1, 2])
def test_at_the_end_of_a_fade_only_the_new_block_counts(level):
    G, D = nets()
    z, x = noise(3, 8), noise(3, 1, 4 << level, 4 << level)
    assert torch.allclose(G(z, level=level - JUST), G(z, level=level))
    assert torch.allclose(D(x, level=level - JUST), D(x, level=level))


def test_a_fade_works_in_bfloat16():
    G, D = nets()
    G, D, x = G.float(), D.float(), torch.randn(3, 1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        real = at_level(x, 1.5, levels=2)
        logits = D(real, level=1.5), D(G(torch.randn(3, 8), level=1.5), level=1.5)
    assert torch.equal(real, at_level(x, 1.5, levels=2)), "real images stay exact"
    assert all(v.isfinite().all() for v in logits)


def test_a_fade_is_linear_in_alpha():
    G, _ = nets()
    z, x = noise(3, 8), noise(3, 1, 16, 16)
    assert torch.allclose(G(z, level=1.25), 0.75 * upsample(G(z, level=1)) + 0.25 * G(z, level=2))
    assert torch.allclose(at_level(x, 1.25, levels=2), 0.75 * upsample(downsample(x)) + 0.25 * x)
    assert torch.equal(at_level(x, 2, levels=2), x)
    assert torch.allclose(at_level(x, 0.5, levels=2), 0.5 * upsample(downsample(x, 2)) + 0.5 * downsample(x))


def test_doubling_repeats_and_halving_averages():
    x = noise(2, 3, 4, 6)
    assert torch.equal(upsample(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(upsample(upsample(x)), upsample(x, 2))
    assert torch.equal(progressive._upsample_2x(x), upsample(x))
    assert torch.allclose(downsample(upsample(x, 2), 2), x, rtol=1e-15)
    assert torch.allclose(downsample(x), F.interpolate(x, scale_factor=0.5, mode="area"))


def active(net: nn.Module, loss: Tensor) -> set[str]:
    net.zero_grad()
    loss.backward()
    return {n for n, p in net.named_parameters() if p.grad is not None and p.grad.any()}


def test_the_gradient_reaches_active_levels_only():
    G, D = nets()
    blocks_G = {1.0: {0}, 1.5: {0, 1}, 2.0: {0, 1}}
    heads = {1.0: {1}, 1.5: {1, 2}, 2.0: {2}}
    for level in (1.0, 1.5, 2.0):
        x = noise(3, 1, 4 << ceil(level), 4 << ceil(level))
        for names, where in (
            (active(G, G(noise(3, 8), level=level).square().sum()), "to_rgb"),
            (active(D, D(x, level=level).square().sum()), "from_rgb"),
        ):
            assert {int(n.split(".")[1]) for n in names if n.startswith("blocks")} == blocks_G[level]
            assert {int(n.split(".")[1]) for n in names if n.startswith(where)} == heads[level]


def test_every_parameter_has_its_level():
    G, D = nets()
    levels = [0.0, 0.5, 1.0, 1.5, 2.0]
    of_G = set().union(*(active(G, G(noise(3, 8), level=v).square().sum()) for v in levels))
    of_D = set().union(*(active(D, D(noise(3, 1, s, s), level=v).sum()) for v in levels for s in [4 << ceil(v)]))
    assert of_G == {n for n, _ in G.named_parameters()}
    assert of_D == {n for n, _ in D.named_parameters()}


def test_weights_are_standard_normal_and_scaled_when_used():
    torch.manual_seed(0)
    for net in (progressive.Generator(shape=(3, 32, 32)), progressive.Discriminator(shape=(3, 32, 32))):
        weights = torch.cat([m.weight.flatten() for m in net.modules() if isinstance(m, _Conv)])
        assert weights.mean().item() == pytest.approx(0.0, abs=0.01)
        assert weights.std().item() == pytest.approx(1.0, abs=0.01)
    layer, x = _Conv(6, 5, 3, 1).double(), noise(2, 6, 7, 7)
    assert torch.allclose(layer(x), F.conv2d(x, layer.weight * sqrt(2 / (6 * 9)), padding=1))
    assert progressive.Generator(shape=(3, 32, 32)).to_rgb[0].gain == 1 / sqrt(128)


def test_adam_moves_wide_and_narrow_layers_alike():
    """One step of Adam changes a weight by the learning rate, so each layer by the same share of its scale."""
    layers = nn.ModuleList([_Conv(16, 32, 1), _Conv(256, 8, 3, 1)])
    used = [m.weight.detach() * m.gain for m in layers]
    optimiser = torch.optim.Adam(layers.parameters(), lr=0.01)
    sum(m(torch.randn(2, m.in_channels, 5, 5)).square().mean() for m in layers).backward()
    optimiser.step()
    for m, before in zip(layers, used, strict=True):
        change = (m.weight.detach() * m.gain - before).square().mean().sqrt() / before.std()
        assert change.item() == pytest.approx(0.01, rel=0.1)


def test_pixel_norm_gives_every_pixel_unit_mean_square():
    x = PixelNorm()(5 * noise(3, 7, 4, 4))
    assert torch.allclose(x.square().mean(1), torch.ones(3, 4, 4).double(), atol=1e-7)
    G, _ = nets()
    assert torch.allclose(G(noise(3, 8)), G(3 * noise(3, 8)), atol=1e-6), "z lives on a sphere"


def test_d_detects_a_collapsed_batch_and_needs_two_images():
    _, D = nets()
    x = noise(4, 1, 16, 16)
    assert not torch.allclose(D(x)[:1], D(x[:1].expand(4, -1, -1, -1))[:1])
    D.check_batch(2)
    with pytest.raises(ValueError, match="has only one"):
        D.check_batch(1)
    _, D = nets(minibatch="none")
    assert torch.allclose(D(x)[:1], D(x[:1])), "a logit depends on its image alone"
    D.check_batch(1)


def test_a_pack_gets_one_logit():
    _, D = nets(minibatch="none", pack=2)
    x = noise(4, 1, 8, 8)
    assert D(x, level=0.5).shape == (2,)
    assert torch.allclose(D(x, level=0.5)[:1], D(x[:2], level=0.5))


def test_the_input_gradient_is_that_of_the_grown_net():
    _, D = nets()
    x = noise(4, 1, 16, 16)
    logits, gradient = D.input_gradient(x)
    at = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(D(at).sum(), at)
    assert torch.allclose(logits, D(x))
    assert torch.allclose(gradient, expected)


def test_sizes_that_do_not_double_are_refused_with_those_that_do():
    assert sizes((28, 28)) == [(7, 7), (14, 14), (28, 28)]
    assert sizes((48, 64), start=12) == [(12, 16), (24, 32), (48, 64)]
    assert sizes((30, 30)) == [(15, 15), (30, 30)]
    with pytest.raises(
        ValueError, match=r"images of 28×28 do not come from doubling 4 pixels; use start=7 or start=14"
    ):
        sizes((28, 28), start=4)
    with pytest.raises(ValueError, match=r"use data\.size=32 or data\.size=64"):
        progressive.Generator(shape=(3, 37, 53))
    with pytest.raises(ValueError, match=r"data\.size=8"):
        progressive.Discriminator(shape=(1, 4, 4))
    with pytest.raises(ValueError, match="between 0 and 2"):
        nets()[0](noise(1, 8), level=2.5)
