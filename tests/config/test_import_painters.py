"""Published nets of style transfer in one pass: built from their descriptions, they compute what limner's compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import limner
from limner.config.import_weights import import_weights
from limner.core.errors import LimnerError
from limner.core.inference import stylised

WIDTHS = (64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512)
POOLED = (1, 3, 7, 11)  # convolutions after which maps are halved


def padded(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    layer = nn.Sequential()
    layer.add_module("reflection_pad", nn.ReflectionPad2d(kernel // 2))
    layer.add_module("conv2d", nn.Conv2d(inputs, outputs, kernel, stride))
    return layer


class Block(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.in1 = padded(n, n, 3), nn.InstanceNorm2d(n, affine=True)
        self.conv2, self.in2 = padded(n, n, 3), nn.InstanceNorm2d(n, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.in2(self.conv2(self.in1(self.conv1(x)).relu()))


class PublishedTransformer(nn.Module):
    """PyTorch's fast-neural-style: three convolutions, five blocks, two doublings, on images of [0,255]."""

    def __init__(self, w: int) -> None:
        super().__init__()
        widths = {"conv1": (3, w, 9, 1), "conv2": (w, 2 * w, 3, 2), "conv3": (2 * w, 4 * w, 3, 2)}
        up = {"deconv1": (4 * w, 2 * w, 3, 1), "deconv2": (2 * w, w, 3, 1), "deconv3": (w, 3, 9, 1)}
        for name, arguments in (widths | up).items():
            setattr(self, name, padded(*arguments))
        for i, n in enumerate((w, 2 * w, 4 * w, 2 * w, w), 1):
            setattr(self, f"in{i}", nn.InstanceNorm2d(n, affine=True))
            setattr(self, f"res{i}", Block(4 * w))

    def forward(self, x: Tensor) -> Tensor:
        for i in (1, 2, 3):
            x = getattr(self, f"in{i}")(getattr(self, f"conv{i}")(x)).relu()
        for i in (1, 2, 3, 4, 5):
            x = getattr(self, f"res{i}")(x)
        for i in (1, 2):
            x = nn.functional.interpolate(x, scale_factor=2)
            x = getattr(self, f"in{i + 3}")(getattr(self, f"deconv{i}")(x)).relu()
        return self.deconv3(x)


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file({k: t.clone().contiguous() for k, t in tensors.items()}, path)
    return path


def test_fast_neural_style_of_pytorchs_examples_computes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = PublishedTransformer(4)
    with torch.no_grad():
        net.deconv3.conv2d.weight.mul_(600)
        net.deconv3.conv2d.bias.add_(127)
    old = net.state_dict() | {f"in{i}.running_mean": torch.zeros(3) for i in range(1, 6)}  # as the released files have
    old |= {f"res{i}.in2.running_var": torch.zeros(3) for i in range(1, 6)}
    model = limner.load(
        import_weights("fast-style", saved(tmp_path / "candy.safetensors", old), tmp_path / "m.safetensors")
    )
    clipped = 0
    for size in ((32, 32), (61, 47), (30, 9)):
        x = torch.rand(1, 3, *size) * 2 - 1
        with torch.no_grad():
            expected = net((x + 1) * 127.5)[..., : size[0], : size[1]]
            levels = (model.translate(x) + 1) * 127.5
        clipped += int(((expected < 0) | (expected > 255)).sum())
        torch.testing.assert_close(levels, expected.clamp(0, 255), rtol=1e-4, atol=1e-2)
    assert clipped > 10  # values that its test script cuts off


def test_the_published_net_has_as_many_parameters(tmp_path: Path) -> None:
    file = saved(tmp_path / "w.safetensors", PublishedTransformer(32).state_dict())
    model = limner.load(import_weights("fast-style", file, tmp_path / "m.safetensors"))
    assert sum(p.numel() for p in model.T.parameters()) == 1_679_235


def published_vgg(convolutions: int) -> nn.Sequential:
    """`vgg_normalised.pth`: a 1×1 convolution, then VGG-19 with reflection, whose pooling keeps odd rows."""
    torch.manual_seed(1)
    layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
    before, end = 3, 0
    for i, n in enumerate(WIDTHS[:9]):
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(before, n, 3), nn.ReLU()]
        end = len(layers) if i + 1 == convolutions else end
        layers += [nn.MaxPool2d(2, ceil_mode=True)] if i in POOLED else []
        before = n
    net = nn.Sequential(*layers)
    with torch.no_grad():
        for m in net:
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight)
        net[0].weight.copy_(255 * torch.eye(3).flip(0)[:, :, None, None])
        net[0].bias.copy_(-torch.tensor([103.939, 116.779, 123.68]))
        net[2].weight.mul_(0.01)
    return net[:end]


def published_decoder(convolutions: int) -> nn.Sequential:
    """VGG-19 in reverse up to an image on [0,1]."""
    torch.manual_seed(2)
    layers: list[nn.Module] = []
    for i in reversed(range(convolutions)):
        outputs = WIDTHS[i - 1] if i else 3
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(WIDTHS[i], outputs, 3)]
        layers += [nn.ReLU()] if i else []
        layers += [nn.Upsample(scale_factor=2)] if i - 1 in POOLED else []
    net = nn.Sequential(*layers)
    with torch.no_grad():
        for m in net:
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight)
        net[-1].weight.mul_(0.2)
        net[-1].bias.fill_(0.5)
    return net


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vgg")
    torch.save(published_vgg(9).state_dict(), folder / "vgg_normalised.pth", _use_new_zipfile_serialization=False)
    return import_weights("vgg19", folder / "vgg_normalised.pth", folder / "vgg.safetensors")


def test_adain_with_its_published_files_computes_the_same(tmp_path: Path, vgg: Path) -> None:
    """pytorch-AdaIN's `decoder.pth` and `vgg_normalised.pth`, for sides that 8 does not divide."""
    encoder, decoder = published_vgg(9), published_decoder(9)
    file = saved(tmp_path / "decoder.safetensors", decoder.state_dict())
    model = limner.load(import_weights("adain", file, tmp_path / "m.safetensors", vgg=str(vgg)))
    x, s = torch.rand(1, 3, 45, 39), torch.rand(1, 3, 34, 53)
    with torch.no_grad():
        f, t = encoder(x), encoder(s)
        assert f.shape[2:] == (6, 5)  # rounded up
        (mean, std), (mean_s, std_s) = (
            (m.mean((2, 3), keepdim=True), (m.var((2, 3), keepdim=True) + 1e-5).sqrt()) for m in (f, t)
        )
        expected = decoder((f - mean) / std * std_s + mean_s)[..., :45, :39].clamp(0, 1)
        y = stylised(model, 2 * x - 1, [model.encode_features(2 * s - 1)])
    assert float(expected.std()) > 0.05
    torch.testing.assert_close((y + 1) / 2, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("level", "convolutions"), [(1, 1), (2, 3), (3, 5), (4, 9)])
def test_wct_takes_the_decoder_of_each_level(tmp_path: Path, vgg: Path, level: int, convolutions: int) -> None:
    decoder = published_decoder(convolutions)
    named = {f"decoder.{k}": t for k, t in decoder.state_dict().items()}
    file = saved(tmp_path / "decoder.safetensors", named)
    model = limner.load(import_weights("wct", file, tmp_path / "m.safetensors", vgg=str(vgg), size=64))
    assert model.layer == f"relu{level}_1"
    x = torch.rand(1, 3, 30, 41)
    with torch.no_grad():
        maps = published_vgg(convolutions)(x)
        torch.testing.assert_close(model.encode_features(2 * x - 1), maps, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close((model.decode_features(maps) + 1) / 2, decoder(maps), rtol=1e-4, atol=1e-4)


def test_a_model_says_which_weights_it_lacks(tmp_path: Path, vgg: Path) -> None:
    file = saved(tmp_path / "decoder.safetensors", published_decoder(1).state_dict())
    (tmp_path / "vgg.safetensors").write_bytes(vgg.read_bytes())
    out = import_weights("wct", file, tmp_path / "m.safetensors", vgg=str(tmp_path / "vgg.safetensors"))
    (tmp_path / "vgg.safetensors").unlink()
    with pytest.raises(LimnerError, match=r"no file .*vgg\.safetensors with VGG-19's weights, which this model needs"):
        limner.load(out)


def test_a_decoder_is_not_guessed_to_be_torchvisions(tmp_path: Path) -> None:
    file = saved(tmp_path / "decoder.safetensors", published_decoder(3).state_dict())
    with pytest.raises(LimnerError, match=r"Give vgg=vgg_normalised\.pth"):
        import_weights("adain", file, tmp_path / "m.safetensors")


def test_a_decoder_of_the_fifth_level_needs_the_whole_of_vgg19(tmp_path: Path, vgg: Path) -> None:
    file = saved(tmp_path / "decoder.safetensors", published_decoder(13).state_dict())
    with pytest.raises(LimnerError, match="no layer 'relu5_1'"):
        import_weights("wct", file, tmp_path / "m.safetensors", vgg=str(vgg))


def test_other_weights_than_vgg19s_are_refused(tmp_path: Path) -> None:
    for state, match in (
        (published_decoder(9).state_dict(), "decoder.*: these are no weights of VGG-19"),
        ({"features.1.running_mean": torch.ones(3)}, "batch norm"),
        ({"a": torch.ones(3)}, "no weights of VGG-19"),
    ):
        with pytest.raises(LimnerError, match=match):
            import_weights("vgg19", saved(tmp_path / "decoder.safetensors", state), tmp_path / "vgg.safetensors")
    assert not (tmp_path / "vgg.safetensors").exists()
