"""The reference's key layout, built from its published description, computes what limner's nets compute."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import limner
from limner.config.import_weights import import_weights
from limner.core.errors import LimnerError


class Level(nn.Module):
    """One level of the published U-Net: downsampling, the next level, upsampling, and a skip connection.

    The description (Isola et al. 2017, appendix, and the key layout of the released files): the outermost level is
    [down, next, ReLU, up, tanh], the innermost [LeakyReLU, down, ReLU, up, norm], the others
    [LeakyReLU, down, norm, next, ReLU, up, norm, sometimes dropout].
    """

    def __init__(self, outer: int, inner: int, inputs: int, below: Level | None, first: bool, norm: str) -> None:
        super().__init__()
        self.first = first
        bias = norm == "instance"

        def outer_norm() -> nn.Module:
            return nn.BatchNorm2d(outer) if norm == "batch" else nn.InstanceNorm2d(outer)

        def inner_norm() -> nn.Module:
            return nn.BatchNorm2d(inner) if norm == "batch" else nn.InstanceNorm2d(inner)

        down = nn.Conv2d(inputs, inner, 4, 2, 1, bias=bias)
        if first:
            parts = [down, below, nn.ReLU(), nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1), nn.Tanh()]
        elif below is None:
            parts = [
                nn.LeakyReLU(0.2),
                down,
                nn.ReLU(),
                nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias),
                outer_norm(),
            ]
        else:
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=bias)
            parts = [nn.LeakyReLU(0.2), down, inner_norm(), below, nn.ReLU(), up, outer_norm()]
        self.model = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x) if self.first else torch.cat([x, self.model(x)], 1)


class PublishedUNet(nn.Module):
    def __init__(self, inputs: int, outputs: int, width: int, depth: int, norm: str) -> None:
        super().__init__()
        widths = [width * min(2**k, 8) for k in range(depth)]
        level = None
        for k in reversed(range(1, depth)):
            level = Level(widths[k - 1], widths[k], widths[k - 1], level, False, norm)
        self.model = Level(outputs, width, inputs, level, True, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class PublishedBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv_block(x)


def published_resnet(width: int, blocks: int, channels: int = 3) -> nn.Module:
    w = width
    layers = [
        nn.ReflectionPad2d(3), nn.Conv2d(channels, w, 7), nn.InstanceNorm2d(w), nn.ReLU(),
        nn.Conv2d(w, 2 * w, 3, 2, 1), nn.InstanceNorm2d(2 * w), nn.ReLU(),
        nn.Conv2d(2 * w, 4 * w, 3, 2, 1), nn.InstanceNorm2d(4 * w), nn.ReLU(),
        *(PublishedBlock(4 * w) for _ in range(blocks)),
        nn.ConvTranspose2d(4 * w, 2 * w, 3, 2, 1, 1), nn.InstanceNorm2d(2 * w), nn.ReLU(),
        nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1), nn.InstanceNorm2d(w), nn.ReLU(),
        nn.ReflectionPad2d(3), nn.Conv2d(w, channels, 7), nn.Tanh(),
    ]  # fmt: skip

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(*layers)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x)

    return Net()


def randomised(net: nn.Module) -> nn.Module:
    """Sets weights large enough that a wrong layer changes the output."""
    torch.manual_seed(3)
    for p in net.parameters():
        nn.init.normal_(p, 0.0 if p.ndim > 1 else 0.3, 0.1)
    return net


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("depth", [3, 6])
def test_a_published_u_net_computes_the_same(tmp_path: Path, norm: str, depth: int) -> None:
    net = randomised(
        PublishedUNet(1, 3, 4, depth, norm)
    ).train()  # as released: tested with the statistics of one picture
    torch.save(net.state_dict(), tmp_path / "latest_net_G.pth")
    out = import_weights("pix2pix", tmp_path / "latest_net_G.pth", tmp_path / "m.safetensors", size=64, dropout=0.0)
    model = limner.load(out)
    assert model.source == (1, 64, 64)
    assert model.shape == (3, 64, 64)
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.translate(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("blocks", [6, 9])
def test_a_published_resnet_computes_the_same_both_ways(tmp_path: Path, blocks: int) -> None:
    there, back = randomised(published_resnet(4, blocks)), randomised(published_resnet(4, blocks))
    for p in back.parameters():
        p.data *= 0.9
    old = OrderedDict((f"module.{k}", v) for k, v in there.state_dict().items())  # as DataParallel saves it
    old["module.model.2.running_mean"] = torch.zeros(4)  # as files of old versions carry it
    old["module.model.2.num_batches_tracked"] = torch.tensor(7)
    torch.save(old, tmp_path / "a.pth")
    save_file(back.state_dict(), tmp_path / "b.safetensors")
    out = import_weights(
        "cyclegan", tmp_path / "a.pth", tmp_path / "m.safetensors", back=tmp_path / "b.safetensors", size=32
    )
    model, x = limner.load(out), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.translate(x, "b"), there(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.translate(x, "a"), back(x), rtol=1e-4, atol=1e-5)
    one_way = limner.load(import_weights("cyclegan", tmp_path / "a.pth", tmp_path / "one.safetensors"))
    assert one_way.domains == ("b",)
    with torch.no_grad():
        torch.testing.assert_close(one_way.translate(x), there(x), rtol=1e-4, atol=1e-5)


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    def refused(content: object, match: str, kind: str = "pix2pix") -> None:
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(LimnerError, match=match):
            import_weights(kind, tmp_path / "w.pth", tmp_path / "m.safetensors")

    with pytest.raises(LimnerError, match="there is no file"):
        import_weights("pix2pix", tmp_path / "none.pth", tmp_path / "m.safetensors")
    refused(nn.Linear(2, 2), "cannot be read safely|can be read safely")  # a pickled object, not tensors
    refused({"a": 1}, "no state dict of one net")
    refused(nn.Linear(2, 2).state_dict(), "no convolutions")
    refused(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 3, 3)).state_dict(), "3 convolutions")
    refused(randomised(published_resnet(4, 2)).model[:9].state_dict(), "convolutions|layers", "cyclegan")
    with pytest.raises(LimnerError, match="kind of weights"):
        import_weights("stylegan", tmp_path / "w.pth", tmp_path / "m.safetensors")
    (tmp_path / "broken.pth").write_bytes(b"no pickle")
    with pytest.raises(LimnerError, match="can be read safely"):
        import_weights("pix2pix", tmp_path / "broken.pth", tmp_path / "m.safetensors")
