"""Facts of nets that are told a text: Reed et al. 2016 (arXiv:1605.05396), section 4.1 and figure 2."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limner.nets import _labels as labels
from limner.nets import dcgan

COLOUR = (3, 64, 64)
SIZE = 384


def test_the_joined_map_is_that_of_a_concatenation_with_the_replicated_text():
    torch.manual_seed(0)
    layer = labels.Joined(SIZE, 5, []).double()
    h, t = torch.randn(2, 5, 4, 4, dtype=torch.float64), torch.randn(2, SIZE, dtype=torch.float64)
    (mix, act) = layer.net
    text = nn.functional.leaky_relu(t @ layer.reduced.E.weight + layer.reduced.bias, 0.2)
    expected = torch.empty_like(h)
    for i in range(4):
        for j in range(4):
            joined = torch.cat([h[:, :, i, j], text], 1)
            expected[:, :, i, j] = act(joined @ mix.weight[:, :, 0, 0].T + mix.bias)
    torch.testing.assert_close(layer(h, t), expected)


def test_a_text_is_reduced_to_128_numbers_of_about_one():
    """The paper: "in practice we used 128". Vectors of texts have entries of about 1."""
    torch.manual_seed(0)
    reduced = labels.Reduced(SIZE)
    v = reduced.E(torch.randn(64, SIZE))
    assert v.shape == (64, 128)
    assert float(v.detach().std()) == pytest.approx(1, abs=0.05)


def test_the_generator_is_given_noise_and_the_reduced_text():
    G = dcgan.Generator(100, 8, conditional="text", shape=COLOUR, classes=SIZE)
    assert G.net[0].in_channels == 100 + 128
    z, t = torch.randn(4, 100), torch.randn(4, SIZE)
    G.eval()
    seen: list[torch.Tensor] = []
    G.net[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    G(z, t)
    torch.testing.assert_close(seen[0].flatten(1), torch.cat([z, G.reduced(t)], 1))


def test_the_discriminator_sees_the_text_at_the_smallest_map_only():
    D = dcgan.Discriminator(8, conditional="text", shape=COLOUR, classes=SIZE).eval()
    (place,) = [k for k, layer in enumerate(D.net) if isinstance(layer, labels.Joined)]
    assert place == len(D.net) - 2, "a convolution over the whole map follows"
    assert [m.kernel_size for m in D.net[place].modules() if isinstance(m, nn.Conv2d)] == [(1, 1)]
    x, t = torch.rand(2, *COLOUR), torch.randn(2, SIZE)
    assert D.net[:place](x).shape == (2, 64, 4, 4)
    assert not torch.allclose(D(x, t), D(x, t.flip(0)))


def test_a_gain_is_a_factor_of_the_texts_vector():
    z, x, t = torch.randn(2, 10), torch.rand(2, 3, 8, 8), torch.randn(2, SIZE)
    for net, one in ((dcgan.Generator, {"z": 10}), (dcgan.Discriminator, {})):
        nets = [
            net(width=4, conditional="text", text_gain=gain, shape=(3, 8, 8), classes=SIZE, **one) for gain in (1, 20)
        ]
        nets[1].load_state_dict(nets[0].state_dict())
        first = z if one else x
        plain, loud = (n.eval() for n in nets)
        torch.testing.assert_close(loud(first, t), plain(first, 20 * t))
    with pytest.raises(ValueError, match="text_gain is a factor above 0"):
        dcgan.Generator(conditional="text", text_gain=0, shape=(3, 8, 8), classes=SIZE)


def test_classes_are_told_in_the_same_way():
    G = dcgan.Generator(4, 8, conditional="text", shape=COLOUR, classes=3).eval()
    D = dcgan.Discriminator(8, conditional="text", shape=COLOUR, classes=3).eval()
    y = torch.tensor([0, 2])
    one_hot = nn.functional.one_hot(y, 3).float()
    x = G(torch.randn(2, 4), y)
    torch.testing.assert_close(D(x, y), D(x, one_hot))
    with pytest.raises(ValueError, match="needs data with class labels"):
        dcgan.Generator(4, 8, conditional="text", shape=COLOUR)
    with pytest.raises(ValueError, match="this net is conditional"):
        D(x)


def test_a_pack_has_no_text():
    with pytest.raises(ValueError, match="pack=1"):
        dcgan.Discriminator(8, pack=2, conditional="text", shape=COLOUR, classes=3)
