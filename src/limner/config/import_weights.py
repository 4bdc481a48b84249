"""Weights that others published, as limner's own models: generators of pix2pix and CycleGAN, decoders of VGG-19.

The layout of pix2pix's and CycleGAN's reference repository: state dicts of one generator each, whose keys number the
modules of nested `nn.Sequential`. A U-Net's keys read ``model.model.1.model.3…``: outside is the largest map; each
level holds its halving, the next level, and its doubling. A ResNet generator's read ``model.1.weight``,
``model.10.conv_block.1.weight``. Instance norm has no weights of its own; what old files hold of its statistics is left
out.
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
    """Makes a model of published weights.

    Args:
        kind: pix2pix (a U-Net) or cyclegan (a ResNet): what the file holds decides, either will do for the other; or
            adain or wct, whose file holds a decoder of VGG-19's maps, for use with one or the other.
        file: a ``.pth`` or ``.safetensors`` with the state dict of a generator from domain a to domain b.
        out: the ``.safetensors`` to write, for `limner apply` (of a decoder: `limner stylise`).
        back: of cyclegan, the file of the generator from b to a. Without it the model translates one way only.
        size: side of the pictures it was trained on; others work too.
        dropout: of the generator in use; by default 0.5 in a U-Net, as it was trained, and 0 in a ResNet.
        vgg: of adain and wct, the file of VGG-19's weights that the decoder goes with, or "vgg19" for the download.

    Returns:
        `out`. Discriminators were not published: the model has new ones, which matter only to go on training.

    Raises:
        LimnerError: the file cannot be read or holds no such generator.
    """
    if kind not in KINDS:
        raise unknown("kind of weights", kind, KINDS)
    if back is not None and kind != "cyclegan":
        raise LimnerError("pix2pix translates one way; back=FILE belongs to cyclegan")
    if kind in _DECODERS:
        return _decoder(kind, Path(file), Path(out), vgg, size)
    files = [Path(f) for f in (file, back) if f is not None]
    convs = [_layers(weights.read(path).tensors, path.name) for path in files]
    nets = [_generator(found, path.name, dropout) for found, path in zip(convs, files, strict=True)]
    source, shape = _channels(convs[0])
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
    for own, found, path in zip(("G", "F"), convs, files, strict=False):
        _fill(getattr(model, own), found, path.name)
    return checkpoint.export(model, Path(out))


def _decoder(kind: str, file: Path, out: Path, vgg: str, size: int) -> Path:
    """A model of a decoder's weights: its first convolution says which layer of VGG-19 it reads."""
    layers = _layers(weights.read(file).tensors, file.name)
    widths = {128: "relu2_1", 256: "relu3_1", 512: "relu4_1"}
    layer = widths.get(_convs(layers)[0].shape[1])
    if layer is None:
        n = _convs(layers)[0].shape[1]
        raise LimnerError(f"{file.name} reads {n} maps; decoders of VGG-19 read 128, 256 or 512")
    tree = {"name": kind, "weights": vgg, "decoder": {"name": "style.Decoder", "layer": layer}}
    spec = Spec.parse("model", tree).resolve(shape=(3, size, size))
    model: Any = spec.build()
    model.spec = spec
    _fill(model.decoder, layers, file.name)
    return checkpoint.export(model, out)


Layer = tuple[str, dict[str, Tensor]]
"""Where a layer stands, and its tensors: a 4-d weight (and a bias) of a convolution, 1-d ones of a norm."""


def _layers(tensors: dict[str, Tensor], name: str) -> list[Layer]:
    """The layers in the order of their numbers, which is that of a pass through the net."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        place, _, part = key.rpartition(".")
        if part not in _STATISTICS:
            found.setdefault(place, {})[part] = tensor
    ordered = sorted(found.items(), key=lambda item: [int(n) for n in re.findall(r"\d+", item[0])])
    if not any(layer.get("weight", torch.empty(0)).ndim == 4 for _, layer in ordered):
        raise LimnerError(f"{name} holds no convolutions; give the weights of a pix2pix or CycleGAN generator")
    return ordered


def _convs(layers: list[Layer]) -> list[Tensor]:
    return [layer["weight"] for _, layer in layers if layer["weight"].ndim == 4]


def _channels(layers: list[Layer]) -> tuple[int, int]:
    """Channels of a source and of a picture: a transposed convolution counts its output second, others first."""
    convs = _convs(layers)
    return convs[0].shape[1], convs[-1].shape[1 if _is_unet(layers) else 0]


def _is_unet(layers: list[Layer]) -> bool:
    return not any("conv_block" in place for place, _ in layers)


def _generator(layers: list[Layer], name: str, dropout: float | None) -> dict[str, Any]:
    """The net's Spec, read off the shapes."""
    convs = _convs(layers)
    norm = "batch" if any(layer["weight"].ndim == 1 for _, layer in layers) else "instance"
    width = convs[0].shape[0]
    if _is_unet(layers):
        if len(convs) % 2 or len(convs) < 4:
            raise LimnerError(
                f"{name} has {len(convs)} convolutions, and a U-Net as many down as up; is it a generator?"
            )
        made = {"name": "unet.Generator", "depth": len(convs) // 2, "dropout": 0.5}
    else:
        made = {"name": "resnet.Generator", "blocks": (len(convs) - 6) // 2, "dropout": 0.0}
    return made | {"width": width, "norm": norm} | ({} if dropout is None else {"dropout": dropout})


def _fill(net: nn.Module, layers: list[Layer], name: str) -> None:
    """Puts the layers into a net of the same order.

    Raises:
        LimnerError: they do not fit.
    """
    own = [m for m in net.modules() if next(m.parameters(recurse=False), None) is not None]
    if len(own) != len(layers):
        raise LimnerError(f"{name} has {len(layers)} layers where {len(own)} belong; is it a generator of this kind?")
    for module, (place, tensors) in zip(own, layers, strict=True):
        wanted = {k: p.shape for k, p in module.named_parameters(recurse=False)}
        if wanted != {k: t.shape for k, t in tensors.items()}:
            shapes = {k: tuple(t.shape) for k, t in tensors.items()}
            raise LimnerError(f"{name}: {place} has {shapes}, which fits no layer of this kind of generator")
        with torch.no_grad():
            for k, p in module.named_parameters(recurse=False):
                p.copy_(tensors[k])
