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
    recorded = []
    for m in [*G.net, *D.net]:
        if isinstance(m, (nn.Unflatten, nn.ConvTranspose2d, nn.Conv2d)):
            m.register_forward_hook(lambda m, i, o: recorded.append(tuple(o.shape[1:])))
    assert D(G(torch.randn(2, 100))).shape == (2,)
    assert recorded == [(256, 7, 7), (128, 7, 7), (64, 14, 14), (1, 28, 28), (64, 14, 14), (128, 7, 7)]


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


@pytest.mark.parametrize("size", [(28, 28), (7, 10), (9, 7)])
def test_same_convolution_is_the_adjoint_of_the_transposed_one(size):
    down, up = SameConv2d(2, 3, 5, 2, bias=False).double(), SameConvTranspose2d(3, 2, 5, 2, size).double()
    with torch.no_grad():
        up.weight.copy_(down.weight)
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    y = down(x)
    assert y.shape[2:] == tuple(-(-n // 2) for n in size)
    v = torch.randn_like(y)
    assert torch.allclose((y * v).sum(), (x * up(v)).sum())  # <down x, v> = <x, up v>
    if size[0] % 2 == 0 and size[1] % 2 == 0:
        doubling = SameConvTranspose2d(3, 2, 5, 2).double()
        doubling.load_state_dict(up.state_dict())
        assert torch.equal(doubling(v), up(v))


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


def test_the_nets_follow_the_guidelines():
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


@pytest.mark.parametrize("norm", ["none", "layer", "instance", "batch"])
def test_only_batch_norm_mixes_the_images_of_a_batch(norm):
    torch.manual_seed(0)
    D = dcgan.Discriminator(width=8, norm=norm, shape=(1, 16, 16)).double()
    x = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    alone, together = D(x[:1]), D(torch.cat([x[:1], 3 * x[1:]]))[:1]
    assert torch.allclose(alone, together, atol=1e-12) == (norm != "batch")
    assert D.mixes == (norm == "batch")
    G = dcgan.Generator(z=5, width=8, norm=norm, shape=(1, 16, 16)).double()
    z = torch.randn(4, 5, dtype=torch.float64)
    assert torch.allclose(G(z[:1]), G(torch.cat([z[:1], 3 * z[1:]]))[:1], atol=1e-12) == (norm != "batch")


@pytest.mark.parametrize(("norm", "dims"), [("layer", (1, 2, 3)), ("instance", (2, 3))])
def test_norms_of_an_image(norm, dims):
    D = dcgan.Discriminator(width=8, norm=norm, shape=(3, 16, 16))
    recorded = []
    layer = next(m for m in D.modules() if "Norm" in type(m).__name__)
    layer.register_forward_hook(lambda m, i, o: recorded.append((i[0], o)))
    with torch.no_grad():
        layer.weight.fill_(2.0)
        layer.bias.fill_(0.5)
        D(torch.randn(3, 3, 16, 16) * 100)
    (before, after) = recorded[0]
    mean, std = before.mean(dims, keepdim=True), before.std(dims, keepdim=True, correction=0)
    assert torch.allclose(after, 2 * (before - mean) / std + 0.5, atol=1e-3)
    assert [p.shape for p in layer.parameters()] == [(16,), (16,)]  # a scale and a shift for each channel


def test_every_weight_learns_with_every_norm():
    for norm in ("batch", "instance", "layer", "none"):
        torch.manual_seed(0)
        G = dcgan.Generator(z=5, width=8, norm=norm, activation="leaky_relu", shape=(1, 16, 16))
        D = dcgan.Discriminator(width=8, norm=norm, shape=(1, 16, 16))
        D(G(torch.randn(4, 5))).square().sum().backward()
        for net in (G, D):
            assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_dropout_in_g_is_active_in_evaluation_mode():
    G = dcgan.Generator(z=5, width=8, dropout=0.5, shape=(1, 16, 16)).eval()
    z = torch.randn(2, 5)
    torch.manual_seed(3)
    first = G(z)
    assert not torch.equal(G(z), first)
    torch.manual_seed(3)
    assert torch.equal(G(z), first)
    assert [type(m).__name__ for m in G.net].count("AlwaysOnDropout") == 2
    assert [type(m).__name__ for m in G.net[-2:]] == ["ConvTranspose2d", "Tanh"]
    with pytest.raises(ValueError, match="probability"):
        dcgan.Generator(dropout=1.0, shape=(1, 16, 16))


def test_the_names_of_the_default_weights_are_those_of_saved_runs():
    G, D = dcgan.Generator(shape=(3, 32, 32)), dcgan.Discriminator(shape=(3, 32, 32))
    assert [k for k, _ in G.named_parameters()] == [
        *("net.0.weight", "net.1.weight", "net.1.bias"),
        *("net.3.weight", "net.4.weight", "net.4.bias"),
        *("net.6.weight", "net.7.weight", "net.7.bias"),
        "net.9.weight",
    ]
    assert [k for k, _ in D.named_parameters()] == [
        "net.0.weight",
        *("net.2.weight", "net.3.weight", "net.3.bias"),
        *("net.5.weight", "net.6.weight", "net.6.bias"),
        "net.8.weight",
    ]


def test_images_too_small_for_dcgan():
    with pytest.raises(ValueError, match="images of 4×28 are too small"):
        dcgan.Generator(shape=(1, 4, 28))
    with pytest.raises(ValueError, match="8 pixels at least"):
        dcgan.Discriminator(shape=(1, 7, 7))
