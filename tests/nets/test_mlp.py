from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn import functional as F

from limner.nets import conv, mlp

DIGIT = (1, 28, 28)


def count(*nets: nn.Module) -> int:
    return sum(p.numel() for net in nets for p in net.parameters())


def test_the_mnist_autoencoder_layer_by_layer():
    encoder, decoder = mlp.Encoder(z=3, shape=DIGIT), mlp.Decoder(z=3, shape=DIGIT)
    rows = [count(m) for net in (encoder, decoder) for m in net.modules() if isinstance(m, nn.Linear)]
    assert rows == [100_480, 8_256, 195, 256, 8_320, 101_136]
    assert count(encoder, decoder) == 218_643
    assert [tuple(h.shape) for h in encoder.layers(torch.zeros(2, *DIGIT))] == [(2, 128), (2, 64), (2, 3)]


def test_a_small_gan_layer_by_layer():
    assert count(mlp.Decoder(z=100, widths=(256,), shape=DIGIT)) == 227_344
    assert count(mlp.Discriminator(shape=DIGIT)) == 201_217


def test_layers_end_with_the_code():
    encoder = mlp.Encoder(z=2, heads=2, activation="elu", shape=(3, 5, 7))
    x = torch.randn(4, 3, 5, 7)
    recorded = encoder.layers(x)
    assert torch.equal(recorded[-1], encoder(x))
    assert torch.equal(recorded[0], F.elu(encoder.hidden[0][0](x.flatten(1))))
    assert recorded[-1].shape == (4, 4)
    assert encoder.code_shape == (2,)


def test_no_hidden_layer_is_a_linear_autoencoder():
    encoder, decoder = mlp.Encoder(4, (), shape=(1, 4, 4)), mlp.Decoder(4, (), out="linear", shape=(1, 4, 4))
    x, y = torch.randn(2, 3, 1, 4, 4)
    with torch.no_grad():
        f = lambda v: decoder(encoder(v))  # noqa: E731
        zero = f(torch.zeros_like(x))
        assert torch.allclose(f(x + y) - zero, f(x) - zero + f(y) - zero, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (4, 37, 53)])
def test_any_shape(shape):
    x = torch.randn(3, *shape)
    z = mlp.Encoder(5, shape=shape)(x)
    assert mlp.Decoder(5, shape=shape)(z).shape == x.shape
    assert mlp.Discriminator(shape=shape)(x).shape == (3,)


def test_tanh_bounds_the_mean_and_leaves_the_log_scale():
    one, two = (mlp.Decoder(4, (8,), outputs=n, shape=(3, 2, 2)) for n in (1, 2))
    with torch.no_grad():
        two.head.weight.fill_(0)
        two.head.bias.copy_(torch.arange(24.0) + 5)
    image = two(torch.zeros(1, 4))
    assert image.shape == (1, 6, 2, 2)
    assert torch.equal(image[:, :3].flatten(), (torch.arange(12.0) + 5).tanh())
    assert torch.equal(image[:, 3:].flatten(), torch.arange(12.0, 24.0) + 5)
    assert one(torch.zeros(1, 4)).shape == (1, 3, 2, 2)


def test_a_conditional_net_depends_on_the_class_and_others_ignore_it():
    x, y = torch.randn(3, *DIGIT), torch.tensor([0, 4, 9])
    for make in (lambda **k: mlp.Encoder(2, **k), lambda **k: mlp.Discriminator(**k)):
        plain = make(shape=DIGIT, classes=10)
        assert plain.classes == 0
        assert torch.equal(plain(x, y), plain(x))
        net = make(conditional=True, shape=DIGIT, classes=10)
        assert net.classes == 10
        assert not torch.allclose(net(x, y), net(x, y.flip(0)))
        with pytest.raises(ValueError, match="give the label"):
            net(x)
        with pytest.raises(ValueError, match="needs data with class labels"):
            make(conditional=True, shape=DIGIT)


def test_a_class_is_the_column_of_its_weights():
    decoder = mlp.Decoder(2, (6,), conditional=True, shape=(1, 4, 4), classes=3)
    z = torch.zeros(3, 2)
    first = decoder.hidden[0][0]
    recorded = []
    first.register_forward_hook(lambda m, i, o: recorded.append(o))
    decoder(z, torch.arange(3))
    assert torch.allclose(recorded[0] - first.bias, first.weight[:, 2:].T)


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_only_batch_norm_mixes_images(norm):
    torch.manual_seed(0)
    x, z = torch.randn(4, 1, 4, 4, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    D, G = mlp.Discriminator(norm=norm, shape=(1, 4, 4)).double(), mlp.Decoder(3, norm=norm, shape=(1, 4, 4)).double()
    for net, v in ((D, x), (G, z)):
        alone = net(torch.cat([v[:1], 3 * v[1:]]))[0]
        assert torch.allclose(alone, net(v)[0], atol=1e-12) == (norm != "batch")
    assert D.mixes == (norm == "batch")
    D(G(z)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for net in (D, G) for p in net.parameters())


def test_layer_norm_of_a_hidden_layer():
    D = mlp.Discriminator((6,), norm="layer", shape=(1, 4, 4))
    x = torch.randn(3, 1, 4, 4)
    h = F.linear(x.flatten(1), D.hidden[0][0].weight, D.hidden[0][0].bias)
    assert torch.allclose(D(x), D.head(F.leaky_relu(F.layer_norm(h, (6,)), 0.2)).squeeze(1), atol=1e-6)


def test_dropout_in_a_decoder_is_active_in_evaluation_mode():
    G = mlp.Decoder(3, (32,), dropout=0.5, shape=(1, 4, 4)).eval()
    z = torch.randn(2, 3)
    torch.manual_seed(3)
    first = G(z)
    assert not torch.equal(G(z), first)
    torch.manual_seed(3)
    assert torch.equal(G(z), first)


def test_the_names_of_the_default_weights_are_those_of_saved_runs():
    names = ["hidden.0.0.weight", "hidden.0.0.bias", "head.weight", "head.bias"]
    assert [k for k, _ in mlp.Discriminator(shape=DIGIT).named_parameters()] == names
    assert [k for k, _ in mlp.Decoder(3, (8,), shape=DIGIT).named_parameters()] == names


class Pair(nn.Module):
    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.decoder = mlp.Decoder(3, (8, 16), shape=(1, 4, 4))  # before the encoder, on purpose
        self.encoder = mlp.Encoder(3, (16, 8), shape=(1, 4, 4))
        if tied:
            mlp.tie(self.encoder, self.decoder)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


def test_tied_weights_are_the_transposes():
    tied, free = Pair(), Pair(tied=False)
    weights = [m for m in tied.encoder.modules() if isinstance(m, nn.Linear)]
    z = torch.randn(5, 3)
    h = z
    biases = dict(tied.decoder.named_parameters())
    for source, bias, act in zip(reversed(weights), biases.values(), (F.relu, F.relu, torch.tanh), strict=True):
        h = act(h @ source.weight + bias)
    assert torch.allclose(tied.decoder(z), h.view(5, 1, 4, 4), atol=1e-6)
    assert count(free) - count(tied) == sum(m.weight.numel() for m in weights)
    assert [n for n, _ in tied.decoder.named_parameters()] == ["hidden.0.0.bias", "hidden.1.0.bias", "head.bias"]


def test_both_directions_train_a_tied_weight():
    pair = Pair()
    x = torch.randn(6, 1, 4, 4)
    code = pair.encoder(x).detach()
    pair.decoder(code).square().mean().backward()
    assert all(m.weight.grad is not None for m in pair.encoder.modules() if isinstance(m, nn.Linear))


def test_a_copy_is_tied_to_itself():
    pair = Pair()
    twin = copy.deepcopy(pair)
    x = torch.randn(2, 1, 4, 4)
    before = pair(x)
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(0.5)
    assert torch.equal(pair(x), before)
    source = twin.encoder.head
    expected = F.relu(F.linear(torch.ones(1, 3), source.weight.T, twin.decoder.hidden[0][0].bias))
    assert torch.equal(twin.decoder.hidden[0](torch.ones(1, 3)), expected)
    assert torch.allclose(copy.deepcopy(pair).double()(x.double()).float(), before, atol=1e-5)


def test_a_tied_forward_is_one_graph():
    pair, x = Pair(), torch.randn(2, 1, 4, 4)
    assert torch.equal(torch.compile(pair, backend="eager", fullgraph=True)(x), pair(x))


def test_tied_weights_are_saved_once(tmp_path):
    pair, other = Pair(), Pair()
    tensors = list(pair.state_dict().values())
    assert len({t.data_ptr() for t in tensors}) == len(tensors) == 9
    save_model(pair, str(tmp_path / "model.safetensors"))
    load_model(other, str(tmp_path / "model.safetensors"))
    x = torch.randn(2, 1, 4, 4)
    assert torch.equal(pair(x), other(x))


@pytest.mark.parametrize("options", [{"widths": (8, 12)}, {"widths": (8,)}, {"widths": (8, 16), "outputs": 2}])
def test_nets_that_do_not_mirror_cannot_be_tied(options):
    with pytest.raises(ValueError, match="mirrors its encoder") as error:
        mlp.tie(mlp.Encoder(3, (16, 8), shape=(1, 4, 4)), mlp.Decoder(3, shape=(1, 4, 4), **options))
    assert "\n" not in str(error.value)


def test_only_mlps_can_be_tied():
    shape = (1, 28, 28)
    for encoder, decoder in [
        (conv.PoolEncoder(shape=shape), conv.TransposedDecoder(shape=shape)),  # no linear layers at all
        (conv.Encoder(4, shape=shape), conv.Decoder(4, shape=shape)),  # linear layers that do mirror
    ]:
        with pytest.raises(ValueError, match=r"mlp\.Encoder and mlp\.Decoder"):
            mlp.tie(encoder, decoder)
