from __future__ import annotations

import copy
from math import sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.losses import penalties
from limner.nets import r3gan

SHAPES = [(1, 28, 28), (2, 32, 32), (3, 37, 53), (4, 48, 72), (3, 64, 64), (1, 8, 8), (1, 9, 30)]


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def noise(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awake(net: nn.Module) -> nn.Module:
    """The net in float64, every weight moved off its start: the branches that began at zero speak too."""
    net = net.double()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p += 0.1 * noise(*p.shape, seed=i)
    return net


def test_parameter_counts_of_the_papers_table_1():
    """Config E on FFHQ-256: channels 96, 192, 384 and 768, two blocks at each size, z of 64."""
    with torch.device("meta"):
        G = r3gan.Generator(z=64, width=96, blocks=2, shape=(3, 256, 256))
        D = r3gan.Discriminator(width=96, blocks=2, shape=(3, 256, 256))
    assert round(count(G) / 1e6, 3) == 23.058
    assert round(count(D) / 1e6, 3) == 23.010


@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape(shape):
    G, D = r3gan.Generator(width=8, blocks=1, shape=shape), r3gan.Discriminator(width=8, blocks=1, shape=shape)
    fake = G(torch.randn(2, G.z))
    assert fake.shape == (2, *shape)
    assert D(fake).shape == (2,)
    bounded = r3gan.Generator(width=8, blocks=1, out="tanh", shape=shape)
    assert bounded(torch.randn(2, G.z)).abs().max() <= 1


def test_every_residual_block_starts_as_the_identity():
    D = r3gan.Discriminator(width=8, blocks=2, shape=(1, 16, 16))
    blocks = [m for m in D.modules() if isinstance(m, r3gan._Block)]
    assert len(blocks) == 2 * 3
    for block in blocks:
        x = torch.randn(2, block.branch[0].in_channels, 5, 5)
        assert torch.equal(block(x), x)


def test_d_starts_as_a_linear_function_and_g_as_one_of_z():
    D = r3gan.Discriminator(width=8, blocks=1, shape=(1, 12, 20)).double()
    x, y = noise(3, 1, 12, 20), noise(3, 1, 12, 20, seed=1)
    assert torch.allclose(D(2 * x - 3 * y), 2 * D(x) - 3 * D(y), rtol=1e-9)
    G = r3gan.Generator(width=8, blocks=1, shape=(1, 12, 20)).double()
    z, w = noise(3, G.z), noise(3, G.z, seed=1)
    assert torch.allclose(G(2 * z - 3 * w), 2 * G(z) - 3 * G(w), rtol=1e-9)
    assert D(x).abs().min() > 0


def test_branches_start_at_the_fix_up_scale():
    """sqrt(2 / (1 + 0.2²)) L^(−1/4) / sqrt(fan in): L^(−1/(2m−2)) with m = 3 layers a branch."""
    torch.manual_seed(0)
    D = r3gan.Discriminator(width=64, blocks=2, shape=(1, 32, 32))
    L = 2 * 4
    gain = sqrt(2 / 1.04) * L**-0.25
    for block in (m for m in D.modules() if isinstance(m, r3gan._Block)):
        expand, mix, reduce = block.branch[::2]
        assert expand.weight.std().item() == pytest.approx(gain / sqrt(expand.in_channels), rel=0.05)
        assert mix.weight.std().item() == pytest.approx(gain / sqrt(16 * 9), rel=0.05)
        assert mix.weight.shape[1] == 16
        assert not reduce.weight.any()
    assert D.net[-1].weight.std().item() == pytest.approx(1 / sqrt(D.net[-1].in_features), rel=0.15)


def test_no_normalisation_and_no_stride_that_learns():
    for net in (r3gan.Generator(width=8, shape=(1, 32, 32)), r3gan.Discriminator(width=8, shape=(1, 32, 32))):
        assert not [m for m in net.modules() if "Norm" in type(m).__name__]
        assert {m.stride for m in net.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}


def test_maps_double_bilinearly_and_halve_by_the_transpose():
    up, down = r3gan._Resample(3, 3, up=True).double(), r3gan._Resample(3, 3, up=False).double()
    x, y = noise(2, 3, 6, 5), noise(2, 3, 12, 10, seed=1)
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(up(x)[..., 1:-1, 1:-1], bilinear[..., 1:-1, 1:-1])  # the rim sees zeros outside
    assert torch.allclose((up(x) * y).sum(), 4 * (x * down(y)).sum())
    assert torch.allclose(down(torch.ones(1, 3, 8, 8).double())[..., 1:-1, 1:-1], torch.ones(1).double())
    assert count(up) == 0


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 11, 21)])  # the second is padded
def test_the_gradient_by_rules_is_autograds_to_second_order(shape):
    D = awake(r3gan.Discriminator(width=8, blocks=2, group=8, shape=shape))
    twice = copy.deepcopy(D)
    x = noise(3, *shape, seed=5)
    logits, gradient = D.input_gradient(x)
    at = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(twice(at).sum(), at, create_graph=True)
    assert torch.allclose(logits, twice(x))
    assert torch.allclose(gradient, expected)
    penalties.r1(D, x).backward()
    penalties.r1(lambda x: twice(x), x).backward()  # a function has no input_gradient: autograd, twice
    recorded = 0
    for p, q in zip(D.parameters(), twice.parameters(), strict=True):
        if q.grad is not None and q.grad.any():
            assert torch.allclose(p.grad, q.grad)
            recorded += 1
        else:  # biases move slopes, not gradients
            assert p.grad is None or not p.grad.any()
    assert recorded > len([*D.parameters()]) / 2


def test_the_gradient_by_rules_works_in_bfloat16():
    D = r3gan.Discriminator(width=16, blocks=1, shape=(1, 16, 16))
    x = torch.randn(4, 1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        _, rough = D.input_gradient(x)
    _, exact = D.input_gradient(x)
    assert (rough - exact).norm() < 0.03 * exact.norm()


def test_a_logit_depends_on_its_image_or_pack_alone():
    x = noise(4, 1, 16, 16)
    D = awake(r3gan.Discriminator(width=8, blocks=1, shape=(1, 16, 16)))
    assert torch.allclose(D(x)[:1], D(x[:1]))
    D = awake(r3gan.Discriminator(width=8, blocks=1, pack=2, shape=(1, 16, 16)))
    assert D(x).shape == (2,)
    assert torch.allclose(D(x)[:1], D(x[:2]))
    assert D.input_gradient(x)[1].shape == x.shape
    with pytest.raises(ValueError, match="multiple of 2"):
        D.check_batch(3)


def test_channels_double_up_to_the_widest():
    G = r3gan.Generator(width=8, widest=16, blocks=1, shape=(1, 32, 32))
    assert [m.branch[0].in_channels for m in G.net if isinstance(m, r3gan._Block)] == [16, 16, 16, 8]
    assert G.basis.shape == (16, 4, 4)


def test_refusals():
    with pytest.raises(ValueError, match="8 pixels at least"):
        r3gan.Generator(shape=(1, 7, 28))
    with pytest.raises(ValueError, match="cannot form groups of 48"):
        r3gan.Discriminator(width=16, group=48, shape=(1, 28, 28))
