from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from limner.nets import conv

DIGIT = (1, 28, 28)
SHAPES = [(1, 28, 28), (2, 32, 32), (3, 37, 53), (4, 48, 72), (3, 64, 64), (1, 128, 128), (3, 16, 16)]


def count(*nets: nn.Module) -> int:
    return sum(p.numel() for net in nets for p in net.parameters())


def summary(net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[tuple[str, tuple[int, ...], int]]]:
    """A table of layers: kind, output shape and parameters of each leaf, in the order of use."""
    rows = []
    hooks = [
        m.register_forward_hook(lambda m, _, out: rows.append((type(m).__name__, tuple(out.shape[1:]), count(m))))
        for m in net.modules()
        if not list(m.children())
    ]
    out = net(x)
    for hook in hooks:
        hook.remove()
    return out, rows


def test_the_convolutional_autoencoder_layer_by_layer():
    encoder, decoder = conv.PoolEncoder(shape=DIGIT), conv.TransposedDecoder(shape=DIGIT)
    code, down = summary(encoder, torch.randn(2, *DIGIT))
    image, up = summary(decoder, code)
    assert down == [
        ("Conv2d", (32, 10, 10), 320),
        ("ReLU", (32, 10, 10), 0),
        ("MaxPool2d", (32, 5, 5), 0),
        ("Conv2d", (64, 3, 3), 18_496),
        ("ReLU", (64, 3, 3), 0),
        ("MaxPool2d", (64, 2, 2), 0),
    ]
    assert up == [
        ("ConvTranspose2d", (32, 5, 5), 18_464),
        ("ReLU", (32, 5, 5), 0),
        ("ConvTranspose2d", (16, 15, 15), 12_816),
        ("ReLU", (16, 15, 15), 0),
        ("ConvTranspose2d", (1, 28, 28), 65),
        ("Tanh", (1, 28, 28), 0),
    ]
    assert count(encoder, decoder) == 50_161
    assert encoder.code_shape == decoder.code_shape == (64, 2, 2)
    assert encoder.z == decoder.z == 256
    assert image.shape == (2, *DIGIT)


@pytest.mark.parametrize(("pool", "expected"), [("max", [[13, 22], [17, 4]]), ("average", [[7, 15.5], [9, 2.5]])])
def test_pooling_of_a_small_matrix(pool, expected):
    matrix = torch.tensor([[3.0, 13, 18, 22], [5, 7, 12, 10], [7, 1, 2, 3], [11, 17, 1, 4]]).view(1, 1, 4, 4)
    encoder = conv.PoolEncoder((1,), (1,), (1,), (0,), pool, (2,), shape=(1, 4, 4))
    nn.init.ones_(encoder.blocks[0][0].weight)
    nn.init.zeros_(encoder.blocks[0][0].bias)
    assert encoder(matrix).squeeze().tolist() == expected


def test_pool_encoder_layers():
    encoder = conv.PoolEncoder(shape=DIGIT)
    x = torch.randn(2, *DIGIT)
    recorded = encoder.layers(x)
    assert [tuple(h.shape) for h in recorded] == [(2, 32, 5, 5), (2, 64, 2, 2)]
    assert torch.equal(recorded[-1], encoder(x))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pool_strides", [(2, 1), (2, 2)])
def test_the_nearest_decoder_mirrors_its_encoder_at_any_size(shape, pool_strides):
    options = {"strides": (1, 1), "pool_strides": pool_strides, "shape": shape}
    encoder, decoder = conv.PoolEncoder(**options), conv.NearestDecoder(**options)
    assert encoder.code_shape == decoder.code_shape
    x = torch.randn(2, *shape)
    image, up = summary(decoder, encoder(x))
    assert image.shape == x.shape
    sizes = [s[1:] for kind, s, _ in up if kind == "Upsample"]
    _, down = summary(encoder, x)
    pooled = [s[1:] for kind, s, _ in down if kind == "MaxPool2d"]
    assert sizes == [*pooled[-2::-1], shape[1:]]  # stride-1 convolutions keep the size: only poolings are undone


def test_nearest_upsampling_by_two_repeats_pixels():
    decoder = conv.NearestDecoder((1,), (3,), (1,), (1,), (2,), out="linear", shape=(1, 4, 6))
    with torch.no_grad():  # the convolution passes its centre through
        decoder.net[1].weight.zero_()[0, 0, 1, 1] = 1.0
        decoder.net[1].bias.zero_()
    code = torch.randn(2, 1, 2, 3)
    assert torch.equal(decoder(code), code.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_the_convolutional_autoencoder_fits_16_pixels_and_the_nearest_one_any_size():
    for shape in [(1, 16, 16), (3, 16, 28)]:
        x = torch.randn(2, *shape)
        assert conv.TransposedDecoder(shape=shape)(conv.PoolEncoder(shape=shape)(x)).shape == x.shape
    for shape in SHAPES:
        x = torch.randn(2, *shape)
        assert conv.NearestDecoder(shape=shape)(conv.PoolEncoder(shape=shape)(x)).shape == x.shape


def test_a_geometry_that_misses_the_image_is_refused():
    with pytest.raises(ValueError, match=r"into 28×28, not into images of 32×32; .*NearestDecoder"):
        conv.TransposedDecoder(shape=(3, 32, 32))
    with pytest.raises(ValueError, match="images of 6×6 are too small"):
        conv.PoolEncoder(shape=(1, 6, 6))
    with pytest.raises(ValueError, match="strides has 1 entries for 2 layers"):
        conv.PoolEncoder(strides=(2,), shape=DIGIT)
    with pytest.raises(ValueError, match="kernels has 3 entries for 4 layers"):
        conv.TransposedDecoder((32, 16, 8), shape=DIGIT)


@pytest.mark.parametrize("shape", [*SHAPES, (1, 5, 9)])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_stride_2_nets_fit_any_shape(shape, norm):
    x = torch.randn(2, *shape)
    code = conv.Encoder(7, heads=2, norm=norm, shape=shape)(x)
    assert code.shape == (2, 14)
    image = conv.Decoder(7, norm=norm, shape=shape)(code[:, :7])
    assert image.shape == x.shape
    assert image.abs().max() <= 1


def test_stride_2_layers_and_outputs():
    x = torch.randn(2, *DIGIT)
    encoder = conv.Encoder(5, shape=DIGIT).eval()
    recorded = encoder.layers(x)
    assert [tuple(h.shape) for h in recorded] == [(2, 32, 14, 14), (2, 64, 7, 7), (2, 5)]
    assert torch.equal(recorded[-1], encoder(x))
    decoder = conv.Decoder(5, outputs=2, shape=(3, 28, 28)).eval()
    with torch.no_grad():
        decoder.net[-2].weight.zero_()
        decoder.net[-2].bias.copy_(torch.arange(6.0))
    image = decoder(torch.zeros(1, 5))[0, :, 0, 0]
    assert torch.equal(image, torch.cat([torch.arange(3.0).tanh(), torch.arange(3.0, 6.0)]))


def test_conditional_stride_2_nets():
    x, y = torch.randn(2, *DIGIT), torch.tensor([1, 7])
    encoder = conv.Encoder(4, norm="none", conditional=True, shape=DIGIT, classes=10)
    decoder = conv.Decoder(4, norm="none", conditional=True, shape=DIGIT, classes=10)
    first = encoder.blocks[0][0]
    planes = F.one_hot(y, 10).float()[:, :, None, None].expand(-1, -1, 28, 28)
    recorded = []
    first.register_forward_hook(lambda m, i, o: recorded.append(i[0]))
    z = encoder(x, y)
    assert torch.equal(recorded[0], torch.cat([x, planes], 1))
    assert not torch.allclose(decoder(z, y), decoder(z, y.flip(0)))
    with pytest.raises(ValueError, match="give the label"):
        decoder(z)


def test_too_many_halvings_are_an_error():
    with pytest.raises(ValueError, match="3×28 are too small to be halved 2 times"):
        conv.Encoder(4, shape=(1, 3, 28))
    with pytest.raises(ValueError, match="widths is empty"):
        conv.Decoder(4, (), shape=DIGIT)
