"""Conversion of published weights to limner's models: generators of pix2pix and CycleGAN, decoders of VGG-19.

The reference repository of pix2pix and CycleGAN saves the state dict of one generator in each file. Its keys number the
modules of nested `nn.Sequential`. The keys of a U-Net look like ``model.model.1.model.3…``: the outermost level has the
largest feature map, and each level holds its downsampling layer, the next level and its upsampling layer. The keys of a
ResNet generator look like ``model.1.weight`` and ``model.10.conv_block.1.weight``. Instance norm has no weights; its
statistics in old files are ignored.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limner.config.spec import Spec
from limner.core import checkpoint, weights
from limner.core.errors import LimnerError, unknown
from limner.core.model import GenerativeModel
from limner.core.paths import user_path

KINDS = ("pix2pix", "cyclegan", "adain", "wct")
_DECODERS = ("adain", "wct")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def import_weights(
    kind: str,
    file: str | Path,
    out: str | Path,
    *,
    back: str | Path | None = None,
    size: int = 256,
    dropout: float | None = None,
    vgg: str = "vgg19",
) -> Path:
    """Converts published weights to a model file.

    Args:
        kind: pix2pix or cyclegan, for a generator, whose net (U-Net or ResNet) is read from the file; or adain or wct,
            for a decoder of VGG-19's feature maps.
        file: a ``.pth`` or ``.safetensors`` with the state dict of a generator from domain a to domain b.
        out: the ``.safetensors`` file to write, for `limner apply` (a decoder: for `limner stylise`).
        back: for cyclegan, the file of the generator from b to a. Without it the model translates in one direction.
        size: side of the images it was trained on; it translates other sizes too.
        dropout: dropout of the generator in evaluation mode; default 0.5 for a U-Net and 0 for a ResNet.
        vgg: for adain and wct, the file of VGG-19's weights that belong to the decoder, or "vgg19" to download them.

    Returns:
        `out`. Discriminators were not published; the model has untrained ones, which matter for further training only.

    Raises:
        LimnerError: the file cannot be read, or does not hold such weights.
    """
    if kind not in KINDS:
        raise unknown("kind of weights", kind, KINDS)
    if back is not None and kind != "cyclegan":
        raise LimnerError(f"back=FILE is for cyclegan; leave it out for {kind}")
    if kind in _DECODERS:
        return _decoder(kind, user_path(file), user_path(out), vgg, size)
    files = [user_path(f) for f in (file, back) if f is not None]
    generators = [_layers(weights.read(path).tensors, path.name) for path in files]
    nets = [_generator(layers, path.name, dropout) for layers, path in zip(generators, files, strict=True)]
    source, shape = _channels(generators[0])
    facts: dict[str, Any] = {"shape": (shape, size, size), "source": (source, size, size), "pairing": None}
    if len(nets) == 2:
        d = {"name": "patchgan.Discriminator", "norm": "instance"}
        tree: dict[str, Any] = {"name": "cyclegan", "G": nets[0], "F": nets[1], "D_X": d, "D_Y": d}
    else:
        tree = {"name": "pix2pix", "G": nets[0], "D": {"name": "patchgan.PairDiscriminator"}}
    spec = Spec.parse("model", tree).resolve(**facts)
    torch.manual_seed(0)
    model: GenerativeModel = spec.build()
    model.spec = spec
    for net, layers, path in zip(("G", "F"), generators, files, strict=False):
        _load_layers(getattr(model, net), layers, path.name)
    return checkpoint.export(model, user_path(out))


def _decoder(kind: str, file: Path, out: Path, vgg: str, size: int) -> Path:
    """Converts a decoder; the width of its first convolution tells which layer of VGG-19 it decodes."""
    layers = _layers(weights.read(file).tensors, file.name)
    width = _convs(layers)[0].shape[1]
    layer = {128: "relu2_1", 256: "relu3_1", 512: "relu4_1"}.get(width)
    if layer is None:
        raise LimnerError(
            f"{file.name} takes {width} feature maps; give a decoder of VGG-19, which takes 128, 256 or 512"
        )
    tree = {"name": kind, "weights": vgg, "decoder": {"name": "style.Decoder", "layer": layer}}
    spec = Spec.parse("model", tree).resolve(shape=(3, size, size))
    model: Any = spec.build()
    model.spec = spec
    _load_layers(model.decoder, layers, file.name)
    return checkpoint.export(model, out)


Layer = tuple[str, dict[str, Tensor]]
"""Key prefix and tensors of a layer: a 4-d weight (and a bias) of a convolution, 1-d ones of a norm."""


def _layers(tensors: dict[str, Tensor], name: str) -> list[Layer]:
    """The layers in the order of their numbers, which is the order of the forward pass."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        prefix, _, part = key.rpartition(".")
        if part not in _STATISTICS:
            layers.setdefault(prefix, {})[part] = tensor
    ordered = sorted(layers.items(), key=lambda item: [int(n) for n in re.findall(r"\d+", item[0])])
    if not any(layer.get("weight", torch.empty(0)).ndim == 4 for _, layer in ordered):
        raise LimnerError(f"{name} holds no convolutions; give the weights of a pix2pix or CycleGAN generator")
    return ordered


def _convs(layers: list[Layer]) -> list[Tensor]:
    return [layer["weight"] for _, layer in layers if layer["weight"].ndim == 4]


def _channels(layers: list[Layer]) -> tuple[int, int]:
    """Numbers of input and of output channels. A transposed convolution has its outputs in dimension 1."""
    convs = _convs(layers)
    return convs[0].shape[1], convs[-1].shape[1 if _is_unet(layers) else 0]


def _is_unet(layers: list[Layer]) -> bool:
    return not any("conv_block" in prefix for prefix, _ in layers)


def _generator(layers: list[Layer], name: str, dropout: float | None) -> dict[str, Any]:
    """The call of the net, whose arguments follow from the shapes of the layers."""
    convs = _convs(layers)
    norm = "batch" if any(layer["weight"].ndim == 1 for _, layer in layers) else "instance"
    width = convs[0].shape[0]
    if _is_unet(layers):
        if len(convs) % 2 or len(convs) < 4:
            raise LimnerError(
                f"{name} has {len(convs)} convolutions, which is no U-Net; give the weights of a generator"
            )
        net = {"name": "unet.Generator", "depth": len(convs) // 2, "dropout": 0.5}
    else:
        net = {"name": "resnet.Generator", "blocks": (len(convs) - 6) // 2, "dropout": 0.0}
    return net | {"width": width, "norm": norm} | ({} if dropout is None else {"dropout": dropout})


def _load_layers(net: nn.Module, layers: list[Layer], name: str) -> None:
    """Copies the layers into a net whose modules have the same order.

    Raises:
        LimnerError: the layers do not fit the net.
    """
    modules = [m for m in net.modules() if next(m.parameters(recurse=False), None) is not None]
    if len(modules) != len(layers):
        raise LimnerError(
            f"{name} has {len(layers)} layers instead of {len(modules)}; give weights of this kind of net"
        )
    for module, (prefix, tensors) in zip(modules, layers, strict=True):
        shapes = {k: tuple(t.shape) for k, t in tensors.items()}
        if shapes != {k: tuple(p.shape) for k, p in module.named_parameters(recurse=False)}:
            raise LimnerError(f"{name}: {prefix} has {shapes}, which does not fit; give weights of this kind of net")
        with torch.no_grad():
            for k, p in module.named_parameters(recurse=False):
                p.copy_(tensors[k])
