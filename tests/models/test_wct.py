"""Facts of whitening and colouring (Li et al. 2017)."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from limner.core.batch import Unpaired
from limner.core.errors import LimnerError
from limner.core.inference import stylised
from limner.losses import style
from limner.models.wct import WCT
from limner.nets.style import Decoder


def covariance(f: Tensor) -> Tensor:
    f = f.flatten(2)
    f = f - f.mean(2, keepdim=True)
    return f @ f.transpose(1, 2) / f.shape[2]


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> str:
    g, drawn = torch.Generator().manual_seed(0), {}
    for n, a, b in (("1_1", 3, 64), ("1_2", 64, 64), ("2_1", 64, 128)):
        drawn[f"conv{n}.weight"] = torch.randn(b, a, 3, 3, generator=g) * (2 / (9 * a)) ** 0.5
        drawn[f"conv{n}.bias"] = torch.zeros(b)
    path = tmp_path_factory.mktemp("wct") / "vgg.safetensors"
    save_file(drawn, path)
    return str(path)


def model(vgg: str, **options: float) -> WCT:
    torch.manual_seed(0)
    return WCT(Decoder("relu2_1", shape=(3, 32, 32)), vgg, **options, shape=(3, 32, 32))


def test_whitened_and_coloured_maps_have_the_means_and_covariances_of_the_style():
    g = torch.Generator().manual_seed(0)
    f, s = torch.rand(2, 5, 9, 7, generator=g), torch.rand(1, 5, 6, 8, generator=g) ** 2
    t = style.whiten_and_colour(f, s)
    torch.testing.assert_close(t.mean((2, 3)), s.mean((2, 3)).expand(2, -1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(covariance(t), covariance(s).expand(2, -1, -1), rtol=1e-4, atol=1e-6)
    same_moments = style.adain(f, s)
    assert not torch.allclose(covariance(same_moments), covariance(s).expand(2, -1, -1), atol=1e-3)


def test_a_content_with_few_colours_is_whitened_where_it_has_any():
    """A covariance without full rank: what the content does not vary in, the result does not either."""
    f = torch.rand(1, 1, 6, 6).expand(1, 4, 6, 6)
    t = style.whiten_and_colour(f, torch.rand(1, 4, 6, 6))
    assert bool(torch.isfinite(t).all())
    assert int(torch.linalg.matrix_rank(covariance(t)[0], atol=1e-5)) == 1


def test_the_decoder_learns_to_invert_the_net_without_styles(vgg):
    net, recorded = model(vgg, feature_weight=3.0), []
    x, s = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1
    result = net.step(iter([Unpaired(x, s)]), lambda group, loss: recorded.append((group, loss)))
    both = torch.cat([x, s])
    y = net.decoder(net.encode_features(both))
    expected = (y - both).square().mean() + 3 * (net.encode_features(y) - net.encode_features(both)).square().mean()
    torch.testing.assert_close(result["loss/decoder"], expected)
    ((group, loss),) = recorded
    assert group == "decoder"
    torch.testing.assert_close(loss, expected)


def test_strength_interpolates_between_the_maps_and_the_styles_statistics(vgg):
    net, recorded = model(vgg), []
    net.decoder.register_forward_hook(lambda module, args, out: recorded.append(args[0]))
    x, a, b = torch.rand(1, 3, 32, 40), torch.rand(1, 3, 24, 24), torch.rand(1, 3, 20, 28) * 2 - 1
    with torch.no_grad():
        (s, t), both = map(net.encode_features, (a, b)), [3.0, 1.0]
        for styles, strength, shares in (([s], 0.0, None), ([s], 1.0, None), ([s, t], 1.0, both), ([t], 1.0, None)):
            assert stylised(net, x, styles, strength=strength, shares=shares).shape == x.shape
    own, first, mixed, second = recorded
    torch.testing.assert_close(own, net.encode_features(x))
    torch.testing.assert_close(first.mean((2, 3)), s.mean((2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed, 0.75 * first + 0.25 * second)
    with pytest.raises(LimnerError, match="style_shares needs 2 numbers"):
        stylised(net, x, [s, t], shares=[1.0])


def test_errors_are_one_line(vgg):
    with pytest.raises(ValueError, match="no layer 'relu4_1'"):
        WCT(Decoder("relu4_1", shape=(3, 32, 32)), vgg, shape=(3, 32, 32))
    with pytest.raises(ValueError, match="feature_weight must not be negative"):
        WCT(Decoder("relu2_1", shape=(3, 32, 32)), vgg, -1.0, shape=(3, 32, 32))
