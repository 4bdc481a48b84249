from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from limner.nets import dcgan
from limner.nets._layers import SameConv2d, SameConvTranspose2d

SHAPES = [(1, 28, 28), (2, 32, 32), (3, 37, 53), (4, 48, 72), (3, 64, 64), (1, 128, 128), (3, 16, 16), (1, 8, 8)]


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def statistics(net: nn.Module) -> int:
    return sum(b.numel() for n, b in net.named_buffers() if not n.endswith("num_batches_tracked"))


def test_tensorflow_tutorial_counts():
    G, D = dcgan.TFGenerator(shape=(1, 28, 28)), dcgan.TFDiscriminator(shape=(1, 28, 28))
    assert count(G) == 2_305_472
    assert statistics(G) == 25_472
    assert [count(m) for m in G.net if isinstance(m, (nn.Linear, nn.ConvTranspose2d))] == [
        1_254_400,
        819_200,
        204_800,
        1_600,
    ]
    assert count(D) == 1_664 + 204_928 + 6_273


def test_tensorflow_tutorial_shapes():
    G, D = dcgan.TFGenerator(shape=(1, 28, 28)), dcgan.TFDiscriminator(shape=(1, 28, 28))
    seen = []
    for m in [*G.net, *D.net]:
        if isinstance(m, (nn.Unflatten, nn.ConvTranspose2d, nn.Conv2d)):
            m.register_forward_hook(lambda m, i, o: seen.append(tuple(o.shape[1:])))
    assert D(G(torch.randn(2, 100))).shape == (2,)
    assert seen == [(256, 7, 7), (128, 7, 7), (64, 14, 14), (1, 28, 28), (64, 14, 14), (128, 7, 7)]


def keras_transposed(x: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    """TensorFlow's definition, pixel by pixel: y is the gradient of a "same" convolution of a map of n·stride pixels.

    That convolution reads, for output i, the pixels i·stride + a - before, where before is half of the padding
    max(k - stride, 0), rounded down. So input i adds w[a] to those pixels.
    """
    (_, _, h, w), (_, outputs, k, _) = x.shape, weight.shape
    before = max(k - stride, 0) // 2
    y = torch.zeros(len(x), outputs, h * stride, w * stride, dtype=x.dtype)
    for i in range(h):
        for j in range(w):
            for a in range(k):
                for b in range(k):
                    r, c = i * stride + a - before, j * stride + b - before
                    if 0 <= r < h * stride and 0 <= c < w * stride:
                        y[:, :, r, c] += x[:, :, i, j] @ weight[:, :, a, b]
    return y


@pytest.mark.parametrize("stride", [1, 2])
def test_same_transposed_convolution_is_tensorflows(stride):
    layer = SameConvTranspose2d(3, 2, 5, stride).double()
    x = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    assert torch.allclose(layer(x), keras_transposed(x, layer.weight.detach(), stride), rtol=1e-12)


def test_output_padding_would_shift_the_image():
    layer = SameConvTranspose2d(1, 1, 5, 2).double()
    x = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    shifted = F.conv_transpose2d(x, layer.weight, stride=2, padding=2, output_padding=1)
    ours = layer(x)
    assert shifted.shape == ours.shape
    assert torch.allclose(shifted[..., :-1, :-1], ours[..., 1:, 1:])


@pytest.mark.parametrize("size", [(28, 28), (7, 10)])
def test_same_convolution_is_the_adjoint_of_the_transposed_one(size):
    down, up = SameConv2d(2, 3, 5, 2).double(), SameConvTranspose2d(3, 2, 5, 2).double()
    nn.init.zeros_(down.bias)
    with torch.no_grad():
        up.weight.copy_(down.weight)
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    y = down(x)
    assert y.shape[2:] == tuple(-(-n // 2) for n in size)
    if size[0] % 2 == 0 and size[1] % 2 == 0:  # <down x, v> = <x, up v>
        v = torch.randn_like(y)
        assert torch.allclose((y * v).sum(), (x * up(v)).sum())


def test_guideline_counts_at_64_are_those_of_pytorchs_tutorial():
    assert count(dcgan.Generator(shape=(3, 64, 64))) == 3_576_704
    assert count(dcgan.Discriminator(shape=(3, 64, 64))) == 2_765_568


@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape(shape):
    for G, D in [
        (dcgan.Generator(width=8, shape=shape), dcgan.Discriminator(width=8, shape=shape)),
        (dcgan.TFGenerator(shape=shape), dcgan.TFDiscriminator(shape=shape)),
    ]:
        fake = G.eval()(torch.randn(2, G.z))
        assert fake.shape == (2, *shape)
        assert fake.abs().max() <= 1
        assert D(fake).shape == (2,)


@pytest.mark.parametrize(("size", "base"), [(16, 4), (28, 7), (32, 4), (64, 4), (128, 4)])
def test_the_smallest_map_is_about_4_pixels(size, base):
    with torch.device("meta"):
        G, D = dcgan.Generator(shape=(3, size, size)), dcgan.Discriminator(shape=(3, size, size))
    assert G.net[0].kernel_size == D.net[-1].kernel_size == (base, base)
    n = (size // base).bit_length() - 1
    assert G.net[0].out_channels == D.net[-1].in_channels == 64 * 2 ** (n - 1)


def test_the_guidelines_are_kept():
    G, D = dcgan.Generator(shape=(3, 32, 32)), dcgan.Discriminator(shape=(3, 32, 32), dropout=0.3)
    kinds = Counter(type(m).__name__ for m in [*G.net, *D.net])
    assert kinds.keys() == {"ConvTranspose2d", "Conv2d", "BatchNorm2d", "ReLU", "LeakyReLU", "Tanh", "Dropout"}
    assert [type(m) for m in G.net[-2:]] == [nn.ConvTranspose2d, nn.Tanh]  # no norm on G's output
    assert isinstance(D.net[1], nn.LeakyReLU)  # nor on D's input
    assert D.net[1].negative_slope == 0.2
    assert kinds["BatchNorm2d"] == 3 + 2
    assert not [m for m in dcgan.Discriminator(norm="none", shape=(3, 32, 32)).modules() if "Norm" in type(m).__name__]


def test_weights_start_at_the_papers_scale():
    torch.manual_seed(0)
    G = dcgan.Generator(shape=(3, 64, 64))
    weights = torch.cat([m.weight.flatten() for m in G.net if isinstance(m, nn.ConvTranspose2d)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    gammas = torch.cat([m.weight for m in G.net if isinstance(m, nn.BatchNorm2d)])
    assert gammas.mean().item() == pytest.approx(1.0, abs=0.005)


def test_without_norm_each_image_is_judged_on_its_own():
    D = dcgan.Discriminator(width=8, norm="none", shape=(1, 16, 16))
    x = torch.randn(4, 1, 16, 16)
    assert torch.allclose(D(x)[:1], D(x[:1]), atol=1e-6)


def test_images_too_small_for_dcgan():
    with pytest.raises(ValueError, match="images of 4×28 are too small"):
        dcgan.Generator(shape=(1, 4, 28))
    with pytest.raises(ValueError, match="8 pixels at least"):
        dcgan.Discriminator(shape=(1, 7, 7))
