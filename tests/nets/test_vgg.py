"""VGG-19: its layers, layouts of weights, and what it says of what it cannot do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from limner.core import weights
from limner.core.errors import LimnerError
from limner.nets import vgg


def drawn(upto: int = 16) -> dict[str, torch.Tensor]:
    """Weights that came from nowhere, in torchvision's layout."""
    g = torch.Generator().manual_seed(0)
    result, before, position = {}, 3, 0
    widths = [w for block in vgg.BLOCKS for w in block]
    for i, n in enumerate(vgg.CONVOLUTIONS[:upto]):
        result[f"features.{position}.weight"] = (
            torch.randn(widths[i], before, 3, 3, generator=g) * (2 / (9 * before)) ** 0.5
        )
        result[f"features.{position}.bias"] = 0.1 * torch.randn(widths[i], generator=g)
        before, position = widths[i], position + 2
        if i + 1 < 16 and vgg.CONVOLUTIONS[i + 1][0] != n[0]:
            position += 1
    return result


def sequential(found: dict[str, torch.Tensor]) -> nn.Sequential:
    """The same by torch's own modules, as torchvision stacks them."""
    layers, before = [], 3
    for block in vgg.BLOCKS:
        for w in block:
            layers += [nn.Conv2d(before, w, 3, padding=1), nn.ReLU()]
            before = w
        layers.append(nn.MaxPool2d(2))
    net = nn.Sequential(*layers)
    net.load_state_dict({k.removeprefix("features."): v for k, v in found.items()})
    return net


def test_it_has_sixteen_convolutions_and_computes_what_torchs_modules_compute():
    result = drawn()
    net, reference = vgg.VGG19(result), sequential(result)
    assert len(net.layers) == 32
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    h, expected = ((x + 1) / 2 - mean) / std, {}
    names = iter(net.layers)
    with torch.no_grad():
        for layer in reference:
            h = layer(h)
            if not isinstance(layer, nn.MaxPool2d):
                expected[next(names)] = h
        for name, maps in net(x, net.layers).items():
            torch.testing.assert_close(maps, expected[name], rtol=1e-4, atol=1e-4)


def test_its_weights_are_neither_trained_nor_saved():
    net = vgg.VGG19(drawn(3))
    assert [*net.parameters()] == []
    assert net.state_dict() == {}
    x = torch.zeros(1, 3, 16, 16, requires_grad=True)
    net(x, ["relu2_1"])["relu2_1"].sum().backward()
    assert float(x.grad.abs().sum()) > 0


def test_average_pooling_and_reflection():
    result, x = drawn(3), torch.rand(1, 3, 32, 32)
    a, b = (vgg.VGG19(result, pooling=p)(x, ["conv2_1"])["conv2_1"] for p in ("max", "average"))
    assert not torch.allclose(a, b)
    flat = torch.full((1, 3, 16, 16), 0.4)
    edge = vgg.VGG19(result, padding="reflect")(flat, ["conv1_2"])["conv1_2"]
    assert float(edge.std((2, 3)).max()) < 1e-5  # a flat picture has flat maps: no border
    assert float(vgg.VGG19(result)(flat, ["conv1_2"])["conv1_2"].std((2, 3)).max()) > 1e-3


def test_unknown_layers_and_small_images_are_refused():
    net = vgg.VGG19(drawn(5))
    assert net.layers[-1] == "relu3_1"
    for x, names, match in (
        (torch.zeros(1, 3, 64, 64), ["conv4_2"], "no layer 'conv4_2'"),
        (torch.zeros(1, 3, 7, 64), ["relu3_1"], "7×64 are too small; use images of 8 pixels"),
    ):
        with pytest.raises(ValueError, match=match):
            net(x, names)
    with pytest.raises(ValueError, match=r"no weights of VGG-19"):
        vgg.VGG19({"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="not VGG-19's"):
        vgg.VGG19({"conv1_1.weight": torch.zeros(8, 3, 3, 3), "conv1_1.bias": torch.zeros(8)})


def normalised() -> Path:
    own = os.environ.get("LIMNER_DATA", "")
    return Path(own).parent / "weights" / "vgg19_normalised_to_conv3_1.safetensors"


def caffes_picture(x: torch.Tensor) -> torch.Tensor:
    """Images in [-1,1] as Caffe's weights take them: BGR on [0,255], less the mean."""
    mean = torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    return (255 * (x + 1) / 2).flip(1) - mean


def named(found: dict[str, torch.Tensor], names: str) -> dict[str, torch.Tensor]:
    """Weights in torchvision's layout under other names, of which ``{i}`` is a number in the order of the layers."""
    keys = zip(range(0, len(found), 2), vgg.CONVOLUTIONS)
    values = list(found.values())
    return {names.format(n) + p: values[i + (p == "bias")] for i, n in keys for p in ("weight", "bias")}


def test_gatys_and_johnsons_files_take_bgr_on_255():
    """`vgg_conv.pth` has Caffe's names; `vgg19-d01eb7cb.pth` numbers the classifier otherwise than torchvision."""
    found, x = drawn(3), torch.rand(1, 3, 8, 8) * 2 - 1
    expected = torch.nn.functional.conv2d(
        caffes_picture(x), found["features.0.weight"], found["features.0.bias"], padding=1
    )
    classifier = {f"classifier.{i}.weight": torch.zeros(2, 2) for i in (1, 4)}
    for weights_of_a_file in (named(found, "conv{}."), found | classifier):
        maps = vgg.VGG19(weights_of_a_file)(x, ["conv1_1"])["conv1_1"]
        torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-2)
    plain = vgg.VGG19(found | {f"classifier.{i}.weight": torch.zeros(2, 2) for i in (0, 3, 6)})
    assert not torch.allclose(plain(x, ["conv1_1"])["conv1_1"], expected, atol=1.0)


@pytest.mark.skipif(not normalised().is_file(), reason="the normalised weights are not at hand")
def test_caffes_weights_are_known_by_their_values():
    """Under torchvision's names, scaled and in half precision, the first filters give away where they come from."""
    own = weights.read(normalised()).tensors
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    expected = vgg.VGG19(own)(x, ["relu2_1"])["relu2_1"]
    numbers = dict(zip(vgg.CONVOLUTIONS, (0, 2, 5, 7, 10), strict=False))
    renamed = {f"features.{i}.{p}": own[f"conv{n}.{p}"].half() for n, i in numbers.items() for p in ("weight", "bias")}
    maps = vgg.VGG19(renamed)(x, ["relu2_1"])["relu2_1"]
    torch.testing.assert_close(maps, expected, rtol=0.02, atol=0.02)


def test_a_sequence_that_begins_with_a_1x1_convolution_is_the_normalised_file():
    """`vgg_normalised.pth`: keys 0, 2, 5, 9 …; its first layer makes of RGB on [0,1] what the others take."""
    found, x = drawn(3), torch.rand(1, 3, 8, 8) * 2 - 1
    layers = [torch.rand(3, 3, 1, 1), torch.rand(3), *found.values()]
    keys = [f"{i}.{p}" for i in (0, 2, 5, 9) for p in ("weight", "bias")]
    net = vgg.VGG19(dict(zip(keys, layers, strict=True)))
    assert net.normalised
    h = torch.nn.functional.conv2d((x + 1) / 2, *layers[:2])
    expected = torch.nn.functional.conv2d(h, *layers[2:4], padding=1)
    torch.testing.assert_close(net(x, ["conv1_1"])["conv1_1"], expected, rtol=1e-4, atol=1e-4)
    plain = vgg.VGG19({k.removeprefix("features."): t for k, t in found.items()})  # `vgg.features.state_dict()`
    torch.testing.assert_close(plain(x, ["conv2_1"]), vgg.VGG19(found)(x, ["conv2_1"]))


def test_other_classifiers_are_refused_by_name():
    for state, match in (
        ({"features.0.weight": torch.ones(1), "features.1.running_mean": torch.ones(1)}, "batch norm"),
        ({f"features.{i}.weight": torch.ones(1) for i in (0, 2, 5, 7, 10, 12, 14, 17)}, "VGG-16"),
        ({"0.weight": torch.ones(3, 3, 1, 1)}, "no weights of VGG-19"),
        ({"conv1_1.weight": torch.ones(64, 3, 3, 3)}, "no weights of VGG-19"),
    ):
        with pytest.raises(ValueError, match=match):
            vgg.VGG19(state)


def test_missing_weights_are_named_with_checksum_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LIMNER_DATA", str(tmp_path))
    with pytest.raises(LimnerError, match=r"begins with dcbb9e9d.*weights/vgg19\.pth"):
        weights.fetch("vgg19.pth", "http://127.0.0.1:9/vgg19.pth", "dcbb9e9d", "weights")
    (tmp_path / "weights").mkdir()
    torch.save(drawn(1), tmp_path / "weights" / "vgg19.pth")
    digits = weights.digits_of(tmp_path / "weights" / "vgg19.pth")
    assert weights.fetch("vgg19.pth", "http://127.0.0.1:9/x", digits, "weights").is_file()


@pytest.mark.skipif(not normalised().is_file(), reason="the normalised weights are not at hand")
def test_normalised_weights_have_mean_activations_of_one():
    from sklearn.datasets import load_sample_image

    photo = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    net = vgg.VGG19(weights.read(normalised()).tensors, padding="reflect")
    for maps in net(photo, ["relu1_1", "relu2_1", "relu3_1"]).values():
        assert 0.7 < float(maps.mean()) < 1.5


@pytest.mark.parametrize("size", [(70, 203), (131, 64), (97, 150)])
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_maps_of_tiles_are_those_of_the_whole_picture(size: tuple[int, int], padding: Literal["zeros", "reflect"]):
    names = ["relu1_1", "conv2_2", "relu3_1", "relu4_1"]
    net = vgg.VGG19(drawn(9), padding=padding).double()
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        whole = net(x, names)
        result = {n: torch.full_like(m, torch.nan) for n, m in whole.items()}
        cover = vgg.tiles(size, 64, names)
        assert len(cover) > 2
        for tile in cover:
            for n, m in net(x[tile.crop], names).items():
                result[n][tile.outer(n)] = m[tile.inner(n)]
    for n, m in whole.items():
        torch.testing.assert_close(result[n], m, rtol=1e-12, atol=1e-12)


def test_a_layer_sees_within_its_radius():
    net = vgg.VGG19(drawn(5))
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    for n in ("relu1_1", "relu2_2", "relu3_1"):
        m = net(x, [n])[n]
        at = 32 // vgg.stride(n)
        (gradient,) = torch.autograd.grad(m[..., at, at].abs().sum(), x)
        rows = gradient[0].abs().sum((0, 2)).nonzero().flatten()
        first, last = int(rows[0]), int(rows[-1])
        assert first >= 32 - vgg.radius(n)
        assert last <= 32 + vgg.stride(n) - 1 + vgg.radius(n)
        assert first == 32 - vgg.radius(n)
