"""Generators of pix2pix, CycleGAN, CUT and FastCUT.

The reference repositories save the state dict of one generator in each file. Its keys number the modules of nested
`nn.Sequential`. The keys of a U-Net look like ``model.model.1.model.3…``: the outermost level has the largest feature
map, and each level holds its downsampling layer, the next level and its upsampling layer. Those of a ResNet generator
look like ``model.1.weight`` and ``model.10.conv_block.1.weight``; those of CUT have the filters of its resizing
(``model.7.filt``) as well. What the keys tell:

* convolutions have no bias before batch norm, and one before instance norm, which has no weights of its own;
* dropout in a block moves its second convolution from ``conv_block.5`` to ``conv_block.6``.

The reference tests its nets in training mode unless it is told ``--eval``: batch norm then uses the statistics of the
one image, and dropout stays on. The same is the default here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from limner.config.published.layers import (
    Imported,
    Layer,
    drop_biases_before_norms,
    layers_of,
    looks_like,
)
from limner.core.errors import LimnerError

_FILTERS = {3: torch.tensor([1.0, 2.0, 1.0]) / 4, 4: torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4}  # of CUT: down, up


def translator(
    kind: str, files: Sequence[tuple[str, dict[str, Tensor]]], size: int, dropout: float | None, eval: bool
) -> Imported:
    """A model of one generator, or of two in both directions.

    Args:
        kind: pix2pix, cyclegan or cut.
        files: names and tensors of one or two generators.
        size: side of the images in training.
        dropout: probability of dropping an activation; None for what the reference does.
        eval: use the running statistics of batch norm and no dropout, as the reference does with --eval.

    Raises:
        LimnerError: a file holds no such generator.
    """
    nets, layers, notes = [], [], []
    for name, tensors in files:
        net, found = _generator(kind, name, dict(tensors), dropout, eval)
        nets.append(net)
        layers.append(found)
        notes += _notes(name, net, eval)
    channels = [_channels(net, found) for net, found in zip(nets, layers, strict=True)]
    source, shape = channels[0]
    facts: dict[str, Any] = {"shape": (shape, size, size), "source": (source, size, size), "pairing": None}
    if len(nets) == 1:
        d = {"name": "patchgan.PairDiscriminator", "width": nets[0]["width"]}
        tree: dict[str, Any] = {"name": "pix2pix", "G": nets[0], "D": d}
        return Imported(tree, facts, {"G": layers[0]}, notes)
    if source != shape or channels[1] != channels[0]:
        raise LimnerError(
            f"{files[0][0]} makes {shape} channels of {source} and {files[1][0]} {channels[1][1]} of {channels[1][0]};"
            " both directions need images of one kind"
        )
    d = {"name": "patchgan.Discriminator", "norm": "instance", "width": nets[0]["width"]}
    tree = {"name": "cyclegan", "G": nets[0], "F": nets[1], "D_X": d, "D_Y": d}
    return Imported(tree, facts, {"G": layers[0], "F": layers[1]}, notes)


def _notes(name: str, net: dict[str, Any], eval: bool) -> list[str]:
    """What was decided that the file does not say."""
    if eval:
        return []
    said = []
    if net["norm"] == "batch":
        said.append("batch norm takes the statistics of each picture")
    if net["dropout"]:
        said.append(f"dropout of {net['dropout']:g} stays on (dropout=0 leaves it out)")
    if not said:
        return []
    return [f"{name}: {' and '.join(said)}, as the reference's test does; eval=true does what its --eval does"]


def _generator(
    kind: str, name: str, tensors: dict[str, Tensor], dropout: float | None, eval: bool
) -> tuple[dict[str, Any], list[Layer]]:
    """The call of the net, whose arguments follow from the tensors, and its layers."""
    antialias = _take_filters(name, tensors)
    is_resnet = any(".conv_block." in key for key in tensors)
    if not is_resnet and not any(re.match(r"model\.model\.1\.model\.", key) for key in tensors):
        found = sum(t.ndim == 4 for t in tensors.values()) or "no"
        raise LimnerError(
            f"{name} has {found} convolutions and is no generator of pix2pix, CycleGAN or CUT, {looks_like(tensors)}"
        )
    layers = layers_of(tensors, name)
    norm = _norm(name, layers, eval)
    if norm == "batch":
        drop_biases_before_norms(layers)
    for layer in layers:
        layer.may_lack_bias = norm == "none"
    statistics = {"statistics": "running" if eval else "image"} if norm == "batch" else {}
    convs = [layer for layer in layers if layer.is_conv]
    common: dict[str, Any] = {"width": convs[0].weight.shape[0], "norm": norm, "dropout": dropout} | statistics
    if is_resnet:
        net = common | {"name": "resnet.Generator", "odd_sizes": "keep"} | antialias | _blocks(name, layers)
        trained_with_dropout = any(re.search(r"\.conv_block\.6$", layer.name) and layer.is_conv for layer in layers)
    else:
        if len(convs) % 2 or len(convs) < 4:
            raise LimnerError(
                f"{name} has {len(convs)} convolutions, which is no U-Net; give the weights of a generator"
            )
        net = common | {"name": "unet.Generator", "depth": len(convs) // 2}
        trained_with_dropout = kind == "pix2pix" and len(convs) > 10  # five levels have none; others do not tell
    if dropout is None:
        net["dropout"] = 0.5 if trained_with_dropout and not eval else 0.0
    return net, layers


def _blocks(name: str, layers: list[Layer]) -> dict[str, int]:
    """The number of residual blocks."""
    if any(layer.name.endswith("conv_block.0") for layer in layers):
        raise LimnerError(f"{name} pads its blocks with zeros; limner's resnet.Generator reflects the edge")
    inside = [layer.name for layer in layers if ".conv_block." in layer.name and layer.is_conv]
    outside = sum(layer.is_conv for layer in layers) - len(inside)
    blocks = {n.partition(".conv_block.")[0] for n in inside}
    if len(inside) != 2 * len(blocks) or outside != 6:
        raise LimnerError(f"{name} is a ResNet with {outside} convolutions outside its blocks; limner's has 6")
    return {"blocks": len(blocks)}


def _norm(name: str, layers: list[Layer], eval: bool) -> str:
    """The norm: batch norm has weights; without one, convolutions have biases only before instance norm."""
    norms = [layer for layer in layers if not layer.is_conv]
    if not norms:
        return "instance" if all("bias" in layer.tensors for layer in layers) else "none"
    if eval and any("running_mean" not in layer.tensors for layer in norms):
        raise LimnerError(f"{name} has norms without running statistics; leave eval out")
    return "batch"  # instance norm with a scale is batch norm with the statistics of each image


def _channels(net: dict[str, Any], layers: list[Layer]) -> tuple[int, int]:
    """Numbers of input and of output channels."""
    convs = [layer.weight for layer in layers if layer.is_conv]
    return convs[0].shape[1], convs[-1].shape[1 if net["name"] == "unet.Generator" else 0]


def _take_filters(name: str, tensors: dict[str, Tensor]) -> dict[str, str]:
    """Takes CUT's filters out of the tensors; which resizing has them.

    Raises:
        LimnerError: they are other filters than those of the published nets.
    """
    found = set()
    for key in [k for k in tensors if k.endswith(".filt")]:
        filt = tensors.pop(key).float()
        row = _FILTERS.get(filt.shape[-1]) if filt.ndim == 4 else None
        if row is None or not torch.allclose(filt, row.outer(row).expand_as(filt), atol=1e-3):
            raise LimnerError(f"{name} has another filter {key} than CUT's generators; limner resizes with those")
        found.add("down" if len(row) == 3 else "up")
    return {"antialias": "both" if len(found) == 2 else found.pop()} if found else {}
