"""Published generators of GANs, built from their descriptions, draw what limner's draw of the same noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import limner
from limner.apply.draw import draw
from limner.config.import_weights import import_weights
from limner.core.errors import LimnerError


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file({k: t.clone().contiguous() for k, t in tensors.items()}, path)
    return path


def published_dcgan(z: int, w: int, channels: int, doublings: int) -> nn.Module:
    """The generator of PyTorch's examples: ``main`` holds transposed convolutions and batch norms."""
    widths = [w << k for k in reversed(range(doublings))]
    layers: list[nn.Module] = [nn.ConvTranspose2d(z, widths[0], 4, 1, 0, bias=False)]
    for a, b in zip(widths, [*widths[1:], channels], strict=True):
        layers += [nn.BatchNorm2d(a), nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)]
    net = nn.Module()
    net.main = nn.Sequential(*layers, nn.Tanh())
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.copy_(torch.randn(m.num_features, generator=g))
                m.running_var.copy_(torch.rand(m.num_features, generator=g) + 0.5)
    return net.eval()


@pytest.mark.parametrize(("z", "w", "channels", "doublings"), [(100, 8, 3, 4), (20, 4, 1, 3)])
def test_dcgan_of_pytorchs_examples_draws_the_same(
    tmp_path: Path, z: int, w: int, channels: int, doublings: int
) -> None:
    net = published_dcgan(z, w, channels, doublings)
    file = saved(tmp_path / "netG_epoch_24.safetensors", net.state_dict())
    out = import_weights("dcgan", file, tmp_path / "m.safetensors")
    model, noise = limner.load(out), torch.randn(3, z)
    with torch.no_grad():
        torch.testing.assert_close(model.decode(noise), net.main(noise[:, :, None, None]), rtol=1e-4, atol=1e-5)
    draw(out, tmp_path / "out.png", n=4)
    side = 4 << doublings
    assert Image.open(tmp_path / "out.png").size >= (2 * side, 2 * side)


def published_r3gan(z: int, widths: list[int], blocks: int) -> dict[str, Tensor]:
    """The state dict of the authors' generator."""
    g = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g) / max(1, torch.Size(shape[1:]).numel()) ** 0.5

    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    state = {"MainLayers.0.Layers.0.Basis": torch.randn(widths[0], 4, 4, generator=g)}
    state["MainLayers.0.Layers.0.LinearLayer.weight"] = drawn(widths[0], z)
    for stage, w in enumerate(widths):
        if stage:
            state[f"MainLayers.{stage}.Layers.0.Resampler.Kernel"] = row[:, None] * row[None]
            if w != widths[stage - 1]:
                state[f"MainLayers.{stage}.Layers.0.LinearLayer.Layer.weight"] = drawn(w, widths[stage - 1], 1, 1)
        for b in range(1, blocks + 1):
            at = f"MainLayers.{stage}.Layers.{b}."
            state[f"{at}LinearLayer1.Layer.weight"] = drawn(2 * w, w, 1, 1)
            state[f"{at}LinearLayer2.Layer.weight"] = drawn(2 * w, 8, 3, 3)
            state[f"{at}LinearLayer3.Layer.weight"] = drawn(w, 2 * w, 1, 1)
            state[f"{at}NonLinearity1.Bias"], state[f"{at}NonLinearity2.Bias"] = drawn(2 * w), drawn(2 * w)
    state["AggregationLayer.Layer.weight"] = drawn(3, widths[-1], 1, 1)
    return state


def r3gan(state: dict[str, Tensor], z: Tensor, widths: list[int], blocks: int) -> Tensor:
    """What the authors' generator computes."""
    basis = state["MainLayers.0.Layers.0.Basis"]
    x = basis * F.linear(z, state["MainLayers.0.Layers.0.LinearLayer.weight"])[:, :, None, None]
    for stage, w in enumerate(widths):
        if stage:
            change = state.get(f"MainLayers.{stage}.Layers.0.LinearLayer.Layer.weight")
            x = x if change is None else F.conv2d(x, change)
            kernel = 4 * state[f"MainLayers.{stage}.Layers.0.Resampler.Kernel"]
            flat = x.flatten(0, 1)[:, None]
            x = F.conv_transpose2d(flat, kernel[None, None], stride=2, padding=1).unflatten(0, (len(z), w))[:, :, 0]
        for b in range(1, blocks + 1):
            at = f"MainLayers.{stage}.Layers.{b}."
            w1, w2, w3 = (state[f"{at}LinearLayer{i}.Layer.weight"] for i in (1, 2, 3))
            b1, b2 = (state[f"{at}NonLinearity{i}.Bias"][:, None, None] for i in (1, 2))
            h = F.leaky_relu(F.conv2d(x, w1) + b1, 0.2)
            h = F.leaky_relu(F.conv2d(h, w2, padding=1, groups=2 * w // 8) + b2, 0.2)
            x = x + F.conv2d(h, w3)
    return F.conv2d(x, state["AggregationLayer.Layer.weight"])


@pytest.mark.parametrize("widths", [[32, 32, 16], [16, 16]])
def test_r3gan_draws_the_same(tmp_path: Path, widths: list[int]) -> None:
    state = published_r3gan(8, widths, 2)
    file = saved(tmp_path / "g.safetensors", {f"Model.{k}": t for k, t in state.items()})
    out = import_weights("r3gan", file, tmp_path / "m.safetensors")
    model, z = limner.load(out), torch.randn(2, 8)
    with torch.no_grad():
        torch.testing.assert_close(model.G(z), r3gan(state, z, widths, 2), rtol=1e-4, atol=1e-4)
    draw(out, tmp_path / "out.png", n=1)
    assert Image.open(tmp_path / "out.png").size >= (4 << (len(widths) - 1),) * 2


def test_other_generators_of_r3gan_are_refused_by_name(tmp_path: Path) -> None:
    state = published_r3gan(8, [16, 16], 1)
    for change, match in (
        ({"EmbeddingLayer.weight": torch.ones(8, 10)}, "10 classes; limner's r3gan has no classes"),
        ({"MainLayers.1.Layers.0.Resampler.Kernel": torch.ones(4, 4)}, "no generator of R3GAN"),
        ({"more": torch.ones(1)}, "no generator of R3GAN"),
    ):
        with pytest.raises(LimnerError, match=match):
            import_weights("r3gan", saved(tmp_path / "g.safetensors", state | change), tmp_path / "m.safetensors")
