"""Facts of StyleGAN2's nets: the activation form, demodulation, styles of layers, noise."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.nets import stylegan, stylegan2
from limner.nets.stylegan2 import _ModulatedConv, _StyledLayer


def noise(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awake(net: nn.Module) -> nn.Module:
    """The net in float64, with biases and strengths of noise away from their start at zero."""
    net = net.double()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p += 0.3 * noise(*p.shape, seed=i)
    return net


def weight_form(conv: _ModulatedConv, x: Tensor, s: Tensor) -> Tensor:
    """Eq. 1 and 3 of the paper for each image by itself: its own weights, then an ordinary convolution."""
    filters = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
    blur = 4 * filters.outer(filters)[None, None] / 64
    results = []
    for image, style in zip(x, s, strict=True):
        w = conv.weight * style[None, :, None, None]
        if conv.demodulate:
            w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        else:
            w = w / sqrt(w[0].numel())
        if conv.up is None:
            h = F.conv2d(image[None], w, padding=w.shape[2] // 2)
        else:
            h = F.conv_transpose2d(image[None], w.transpose(0, 1), stride=2)
            h = torch.cat([F.conv2d(c[None, None], blur, padding=1) for c in h[0]], 1)
        results.append(conv.gain * (h + conv.bias[:, None, None]))
    return torch.cat(results)


@pytest.mark.parametrize(("kernel", "up", "demodulate"), [(3, False, True), (3, True, True), (1, False, False)])
def test_the_activation_form_is_the_weight_form(kernel: int, up: bool, demodulate: bool) -> None:
    conv = awake(_ModulatedConv(5, 7, kernel, up, demodulate))
    x, s = noise(3, 5, 6, 4, seed=20), 1 + noise(3, 5, seed=21)
    got, expected = conv(x, s), weight_form(conv, x, s)
    assert got.shape == (3, 7, 12, 8) if up else (3, 7, 6, 4)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    parts = (conv.weight, conv.bias)
    other = noise(*got.shape, seed=22)
    for a, b in zip(
        torch.autograd.grad((got * other).sum(), parts),
        torch.autograd.grad((expected * other).sum(), parts),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_demodulated_outputs_of_white_inputs_have_unit_variance() -> None:
    """Section 2.2: whatever the style, here with scales from 0.01 to 100."""
    conv = _ModulatedConv(64, 32, 3, gain=1.0).double()
    x, s = noise(8, 64, 32, 32), 100 ** noise(8, 64, seed=1).clamp(-1, 1)
    inside = conv(x, s)[..., 1:-1, 1:-1]
    torch.testing.assert_close(inside.var((2, 3)).mean(1), torch.ones(8).double(), rtol=0.05, atol=0)


def test_a_scale_of_all_styles_changes_nothing() -> None:
    conv = awake(_ModulatedConv(4, 3, 3))
    x, s = noise(2, 4, 5, 5), 1 + noise(2, 4, seed=1)
    torch.testing.assert_close(conv(x, 7 * s), conv(x, s), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("net", [stylegan, stylegan2])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (4, 16, 40), (2, 37, 53), (3, 8, 8)])
def test_any_shape(shape: tuple[int, int, int], net: Any) -> None:
    G = net.Generator(z=8, w=8, width=4, widest=8, mapping=1, shape=shape)
    D = stylegan2.Discriminator(width=4, widest=8, shape=shape)
    fake = G(torch.randn(2, 8))
    assert fake.shape == (2, *shape)
    assert D(fake).shape == (2,)


def test_a_layer_of_stylegan_is_noise_leaky_relu_and_adain() -> None:
    """Eq. 1 of Karras et al. 2019, computed anew; styles begin as deviations of 1 and means of 0."""
    layer = stylegan._StyledLayer(4, 3, 5, up=True)
    assert layer.affine.bias.tolist() == [1, 1, 1, 0, 0, 0]
    awake(layer)
    x, w, maps = noise(2, 4, 6, 5), noise(2, 5, seed=1), noise(2, 1, 12, 10, seed=2)
    wide = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear")[..., 2:-2, 2:-2]
    h = F.conv2d(wide, layer.conv.weight / sqrt(4 * 9), layer.conv.bias, padding=1)
    h = F.leaky_relu(h + layer.strength * maps, 0.2)
    y_s, y_b = F.linear(w, layer.affine.weight / sqrt(5), layer.affine.bias)[:, :, None, None].chunk(2, 1)
    variance = h.var((2, 3), correction=0, keepdim=True)
    expected = y_s * (h - h.mean((2, 3), keepdim=True)) / (variance + 1e-8).sqrt() + y_b
    torch.testing.assert_close(layer(x, w, maps), expected, rtol=1e-11, atol=1e-11)


def test_there_are_two_styles_for_each_size() -> None:
    """num_ws = 2 log2(side) − 2, and one map of noise for each convolution."""
    G = stylegan2.Generator(z=8, w=8, width=4, widest=8, mapping=1, shape=(3, 32, 32))
    assert G.styles(torch.randn(3, 8)).shape == (3, 8, 8)
    assert [h for h, _ in G.noise.sizes] == [4, 8, 8, 16, 16, 32, 32]
    assert len(G.modulations()) == 7


def test_a_style_acts_from_its_own_layer_on() -> None:
    """If layers from `cut` on get the styles of another z, the layers before see no difference."""
    G = awake(stylegan2.Generator(z=8, w=8, width=4, widest=8, mapping=2, shape=(3, 16, 16)))
    a, b = G.styles(noise(1, 8)), G.styles(noise(1, 8, seed=1))
    seen: list[Tensor] = []
    layers = [m for m in G.modules() if isinstance(m, _StyledLayer)]
    for layer in layers:
        layer.register_forward_hook(lambda module, given, out: seen.append(out))
    for cut in range(1, G.L):
        seen.clear()
        mixed = torch.cat([a[:, :cut], b[:, cut:]], 1)
        before, after = G.synthesis(a), G.synthesis(mixed)
        own, new = seen[: len(layers)], seen[len(layers) :]
        same = [torch.equal(x, y) for x, y in zip(own, new, strict=True)]
        assert same == [k < cut for k in range(len(layers))], cut
        assert not torch.equal(before, after)


@pytest.mark.parametrize("net", [stylegan, stylegan2])
def test_noise_acts_by_its_strength_and_none_at_first(net: Any) -> None:
    G = net.Generator(z=8, w=8, width=4, widest=8, mapping=1, shape=(1, 16, 16)).double()
    z, maps = noise(2, 8), noise(2, G.noise.total, seed=1)
    assert torch.equal(G(z), G(z, None, maps)), "strengths begin at 0"
    awake(G)
    assert not torch.equal(G(z), G(z, None, maps))
    assert torch.equal(G(z), G(z)), "without noise the fixed maps are taken"


@pytest.mark.parametrize("net", [stylegan, stylegan2])
def test_without_noise_inputs_no_strength_is_learnt(net: Any) -> None:
    sizes = {"z": 8, "w": 8, "width": 4, "widest": 8, "mapping": 1, "shape": (1, 16, 16)}
    G, noisy = net.Generator(noise_inputs=False, **sizes), net.Generator(**sizes)
    learnt, usual = ({n for n, p in part.named_parameters() if p.requires_grad} for part in (G, noisy))
    assert {name.rpartition(".")[2] for name in usual - learnt} == {"strength"}
    assert len(usual - learnt) == len(G.layers)
    assert learnt < usual


def test_the_mapping_sees_the_direction_of_z_alone() -> None:
    G = awake(stylegan2.Generator(z=8, w=8, width=4, widest=8, mapping=2, shape=(1, 16, 16)))
    z = noise(2, 8)
    torch.testing.assert_close(G.styles(3 * z), G.styles(z), rtol=1e-6, atol=1e-6)


def test_nets_begin_at_the_equalised_scale() -> None:
    """Weights are N(0,1), those of the mapping 100 times larger, biases of styles 1, strengths of noise 0."""
    torch.manual_seed(0)
    G = stylegan2.Generator(z=64, w=64, width=64, widest=64, mapping=2, shape=(3, 16, 16))
    assert G.mapping.net[0].weight.std().item() == pytest.approx(100, rel=0.05)
    w = G.styles(torch.randn(2000, 64))[:, 0]
    assert w.square().mean().item() == pytest.approx(1, rel=0.3), "scales keep the size of w"
    layer = next(m for m in G.modules() if isinstance(m, _StyledLayer))
    assert layer.conv.weight.std().item() == pytest.approx(1, rel=0.05)
    assert torch.equal(layer.affine.bias, torch.ones(64))
    assert float(layer.strength.detach()) == 0


@pytest.mark.parametrize("residual", [True, False])
def test_the_discriminator_is_the_papers(residual: bool) -> None:
    """Weights over √(fan in), LeakyReLU times √2, maps halved by (1,3,3,1), residual sums over √2."""
    D = awake(stylegan2.Discriminator(width=4, widest=8, residual=residual, minibatch="none", shape=(2, 16, 16)))
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8

    def blurred(h: Tensor, pad: int) -> Tensor:
        return torch.cat([F.conv2d(c, taps.outer(taps)[None, None], padding=pad) for c in h.split(1, 1)], 1)

    def conv(h: Tensor, layer: Any, **how: int) -> Tensor:
        return F.conv2d(h, layer.weight / sqrt(layer.weight[0].numel()), layer.bias, **how)

    def linear(h: Tensor, layer: Any) -> Tensor:
        return F.linear(h, layer.weight / sqrt(layer.weight.shape[1]), layer.bias)

    def active(h: Tensor) -> Tensor:
        return F.leaky_relu(h, 0.2) * sqrt(2)

    colours, _, *blocks, last, _, _, hidden, _, score = D.net
    x = noise(3, 2, 16, 16)
    h = active(conv(x, colours))
    assert len(blocks) == 2
    for block in blocks:
        main = active(conv(blurred(active(conv(h, block.conv0, padding=1)), 2), block.conv1, stride=2))
        h = (main + conv(blurred(h, 1)[..., ::2, ::2], block.skip)) / sqrt(2) if residual else main
    expected = linear(active(linear(active(conv(h, last, padding=1)).flatten(1), hidden)), score).flatten()
    torch.testing.assert_close(D(x), expected, rtol=1e-12, atol=1e-12)


def test_a_conditional_critic_is_a_product_of_features_and_labels() -> None:
    """f(x,y) = ⟨φ(x), m(y)⟩/√F, so logits of labels with m(y') = −m(y) are opposite."""
    sizes: dict[str, Any] = {"width": 4, "widest": 8, "mapping": 3, "shape": (1, 16, 16), "classes": 3}
    D = awake(stylegan2.Discriminator(conditional=True, minibatch="none", **sizes))
    x, match = noise(2, 1, 16, 16), D.net[-1]
    phi: list[Tensor] = []
    match.head.register_forward_hook(lambda module, given, out: phi.append(out))
    got = D(x, torch.tensor([2, 0]))
    m = match.mapping(None, torch.tensor([2, 0]))
    torch.testing.assert_close(got, (phi[0] * m).sum(1) / sqrt(8))
    assert len(match.mapping.net) == 2 * 3, "layers, each with its LeakyReLU"
    one_hot = F.one_hot(torch.tensor([2, 0]), 3).double()
    torch.testing.assert_close(D(x, one_hot), got)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="too small for stylegan2 nets"):
        stylegan2.Generator(shape=(1, 7, 28))
    with pytest.raises(ValueError, match="mapping is a number of layers"):
        stylegan2.Generator(mapping=0, shape=(1, 28, 28))
    with pytest.raises(ValueError, match="needs data with class labels"):
        stylegan2.Generator(conditional=True, shape=(1, 28, 28))
