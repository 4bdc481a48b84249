from __future__ import annotations

import pytest
import torch
from torch import nn

from limner.nets import pacgan
from limner.nets._layers import Maxout

POINT, STACKED = (2, 1, 1), (3, 28, 28)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_generator_of_points():
    G = pacgan.Generator(shape=POINT)
    assert G.z == 2
    assert [(m.in_features, m.out_features) for m in G.net if isinstance(m, nn.Linear)] == [
        (2, 400),
        (400, 400),
        (400, 400),
        (400, 400),
        (400, 2),
    ]
    assert [type(m).__name__ for m in G.net] == ["Linear", "BatchNorm1d", "ReLU"] * 4 + ["Linear"]
    assert count(G) == 2 * 400 + 3 * 400 * 400 + 4 * 2 * 400 + 400 * 2 + 2
    assert G(torch.randn(5, 2)).shape == (5, *POINT)


def test_points_are_not_bounded():
    G = pacgan.Generator(shape=POINT)
    with torch.no_grad():
        G.net[-1].bias.fill_(7.0)
    assert G(torch.randn(5, 2)).min() > 2


@pytest.mark.parametrize("pack", [1, 2, 3, 4])
def test_the_discriminator_of_points(pack):
    D = pacgan.Discriminator(pack=pack, shape=POINT)
    first = (2 * pack + 1) * 200 * 5
    assert count(D) == first + 2 * (200 + 1) * 200 * 5 + 201
    assert [type(m) for m in D.net] == [nn.Linear, Maxout] * 3 + [nn.Linear]
    assert D(torch.randn(12, *POINT)).shape == (12 // pack,)


def test_a_maxout_discriminator_is_piecewise_linear():
    torch.manual_seed(0)
    D = pacgan.Discriminator(shape=POINT).double()
    x, step = torch.randn(2, 50, *POINT, dtype=torch.float64)
    logits, gradient = D.input_gradient(x)
    near = D(x + 1e-6 * step)
    assert torch.allclose(near - logits, 1e-6 * (gradient * step).flatten(1).sum(1), atol=1e-15)


@pytest.mark.parametrize("pack", [1, 2])
def test_stacked_mnist_layer_by_layer(pack):
    G, D = pacgan.StackedGenerator(shape=STACKED), pacgan.StackedDiscriminator(pack=pack, shape=STACKED)
    recorded = []
    for m in [*G.net, *D.net]:
        if isinstance(m, (nn.Unflatten, nn.ConvTranspose2d, nn.Conv2d)):
            m.register_forward_hook(lambda m, i, o: recorded.append(tuple(o.shape[1:])))
    assert D(G(torch.rand(4, 100) * 2 - 1)).shape == (4 // pack,)
    maps = [(64, 14, 14), (128, 7, 7), (256, 4, 4), (512, 2, 2)]
    assert recorded == [*reversed(maps), STACKED, *maps]
    convs = 25 * (64 * 128 + 128 * 256 + 256 * 512)
    assert count(G) == 101 * 2048 + convs + 25 * 64 * 3 + 3 + 2 * (512 + 256 + 128 + 64)
    assert count(D) == 25 * 3 * pack * 64 + 64 + convs + 2 * (128 + 256 + 512) + 2049


def test_no_norm_on_gs_output_nor_on_ds_input():
    G, D = pacgan.StackedGenerator(shape=STACKED), pacgan.StackedDiscriminator(shape=STACKED)
    assert [type(m) for m in G.net[-2:]] == [type(G.net[-2]), nn.Tanh]
    assert isinstance(G.net[-2], nn.ConvTranspose2d)
    assert isinstance(D.net[1], nn.LeakyReLU)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 37, 53), (1, 8, 8), (2, 1, 1)])
def test_any_shape(shape):
    G, D = pacgan.StackedGenerator(width=4, shape=shape), pacgan.StackedDiscriminator(width=4, pack=2, shape=shape)
    fake = G.eval()(torch.randn(4, 100))
    assert fake.shape == (4, *shape)
    assert D.eval()(fake).shape == (2,)
    points = pacgan.Generator(width=8, shape=shape)(torch.randn(4, 2))
    assert pacgan.Discriminator(width=8, pack=2, shape=shape)(points).shape == (2,)


def test_weights_start_small():
    torch.manual_seed(0)
    for net in (
        pacgan.Generator(shape=POINT),
        pacgan.Discriminator(shape=POINT),
        pacgan.StackedGenerator(shape=STACKED),
        pacgan.StackedDiscriminator(shape=STACKED),
    ):
        layers = [m for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))]
        assert torch.cat([m.weight.flatten() for m in layers]).std().item() == pytest.approx(0.02, rel=0.02)
        assert all(m.bias.abs().max() == 0 for m in layers if m.bias is not None)
