"""State dicts as layers in the order of the forward pass, and what kind of net they look like."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from limner.core.errors import LimnerError

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_PARTS = ("weight", "bias", *_STATISTICS)

Names = Collection[str]


@dataclass
class Layer:
    """One module of a published net.

    Attributes:
        name: the beginning of its tensors' names.
        tensors: by their last name: ``weight``, ``bias``, ``running_mean`` and so on.
        may_lack_bias: whether a module with a bias may take it; the bias is zero then.
    """

    name: str
    tensors: dict[str, Tensor]
    may_lack_bias: bool = False

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution, transposed or not."""
        return self.tensors["weight"].ndim == 4

    @property
    def weight(self) -> Tensor:
        """Its weight."""
        return self.tensors["weight"]


@dataclass
class Imported:
    """A model to be built, and the layers of its nets.

    Attributes:
        tree: the constructor call of the model.
        facts: its facts, such as the shape.
        nets: for each attribute of the model the layers to load, in the order of its modules.
        notes: what the user should know about the conversion.
        states: for each attribute of the model the tensors by limner's own names, where they are known; the others
            keep their first values.
    """

    tree: dict[str, Any]
    facts: dict[str, Any]
    nets: dict[str, list[Layer]]
    notes: list[str] = field(default_factory=list)
    states: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def layers_of(tensors: dict[str, Tensor], file: str) -> list[Layer]:
    """The layers in the order of the numbers in their names, which is the order of the forward pass.

    Raises:
        LimnerError: a tensor is no part of a layer with a weight.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.rpartition(".")
        if part not in _PARTS:
            raise LimnerError(f"{file} has a tensor {key}, {looks_like(tensors)}")
        layers.setdefault(name, {})[part] = tensor
    numbers = {name: [int(n[:9]) for n in re.findall(r"\d+", name)] for name in layers}
    ordered = [Layer(name, layers[name]) for name in sorted(layers, key=numbers.__getitem__)]
    # Instance norm without scale has no weights; old files have its statistics nevertheless.
    ordered = [layer for layer in ordered if not set(layer.tensors) <= set(_STATISTICS)]
    for layer in ordered:
        if "weight" not in layer.tensors:
            raise LimnerError(f"{file} has a bias {layer.name}.bias and no weight beside it; save the whole net")
    if not any(layer.is_conv for layer in ordered):
        raise LimnerError(f"{file} holds no convolutions, {looks_like(tensors)}")
    return ordered


def load_layers(net: nn.Module, layers: list[Layer], file: str) -> None:
    """Copies the layers into a net whose modules have the same order; statistics only where the net keeps some.

    Raises:
        LimnerError: the layers do not fit the net.
    """
    modules = [m for m in net.modules() if next(m.parameters(recurse=False), None) is not None]
    if len(modules) != len(layers):
        raise LimnerError(
            f"{file} has {len(layers)} layers instead of {len(modules)}; give weights of this kind of net"
        )
    for module, layer in zip(modules, layers, strict=True):
        own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
        given = {k: t for k, t in layer.tensors.items() if k in own or k not in _STATISTICS}
        if layer.may_lack_bias and "bias" in own:
            given.setdefault("bias", torch.zeros_like(own["bias"]))
        if "num_batches_tracked" in own:  # older versions of PyTorch did not save it
            given["num_batches_tracked"] = own["num_batches_tracked"]
        shapes = {k: tuple(t.shape) for k, t in given.items()}
        if shapes != {k: tuple(t.shape) for k, t in own.items()}:
            raise LimnerError(
                f"{file}: {layer.name} has {shapes}, which does not fit; give weights of this kind of net"
            )
        if "running_var" in given and bool((given["running_var"] < 0).any()):
            raise LimnerError(
                f"{file}: {layer.name} has negative variances; its training diverged or the file is damaged"
            )
        with torch.no_grad():
            for k, t in given.items():
                own[k].copy_(t)


def check_state(net: nn.Module, tensors: dict[str, Tensor], file: str) -> None:
    """Checks that tensors fit a net by their names and shapes.

    Raises:
        LimnerError: a tensor has another shape than the net's.
    """
    own = net.state_dict()
    for name, tensor in tensors.items():
        if name not in own or own[name].shape != tensor.shape:
            raise LimnerError(
                f"{file}: {name} is {tuple(tensor.shape)}, which does not fit; give weights of such a net"
            )


def load_state(net: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copies tensors that fit a net into it by their names."""
    own = net.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def drop_biases_before_norms(layers: list[Layer]) -> None:
    """Leaves out the biases of convolutions before batch norm, which subtracts them again, and corrects its means."""
    for conv, norm in pairwise(layers):
        if conv.is_conv and not norm.is_conv and "bias" in conv.tensors:
            bias = conv.tensors.pop("bias")
            mean = norm.tensors.get("running_mean")
            if mean is not None and mean.shape == bias.shape:
                norm.tensors["running_mean"] = mean - bias


def _any(pattern: str) -> Callable[[Names], bool]:
    found = re.compile(pattern)
    return lambda names: any(found.match(n) for n in names)


_KINDS: tuple[tuple[Callable[[Names], bool], str, str], ...] = (
    (_any(r".*\.filt$"), "a CUT or FastCUT generator", "cut"),
    (_any(r".*\.conv_block\."), "a ResNet generator of CycleGAN or pix2pix", "cyclegan"),
    (_any(r"model\.model\.1\.model\."), "a U-Net generator of pix2pix", "pix2pix"),
    (_any(r"deconv1\.conv2d\."), "a net of PyTorch's fast-neural-style", "fast-style"),
    (_any(r"(Model\.)?MainLayers\.0\.Layers\.0\.Basis$"), "a generator of R3GAN", "r3gan"),
    (_any(r"(Model\.)?ExtractionLayer\."), "a discriminator of R3GAN", ""),
    (lambda names: {"main.0.weight", "main.1.weight"} <= set(names), "a generator of DCGAN", "dcgan"),
    (lambda names: {"main.0.weight", "main.2.weight"} <= set(names), "a discriminator of DCGAN", ""),
    (_any(r"(features\.0|conv1_1)\.weight"), "VGG-19 or another classifier", "vgg19"),
    (lambda names: {"model.0.weight", "model.2.weight"} <= set(names), "a PatchGAN discriminator", ""),
    (_any(r"mlp_\d+\.0\."), "the projection head of CUT", ""),
    (_any(r"(g_)?(synthesis|mapping)\.|.*\.modulation\."), "a StyleGAN", "stylegan2"),
    (_any(r"(down_blocks|input_blocks|model\.diffusion_model)\."), "a U-Net of a diffusion model", ""),
    (
        lambda names: {"0.weight", "2.weight", "5.weight", "9.weight"} <= set(names),
        "VGG-19 (vgg_normalised.pth)",
        "vgg19",
    ),
    (lambda names: all(re.fullmatch(r"\d+\.(weight|bias)", n) for n in names), "a decoder of VGG-19's maps", "adain"),
)


def looks_like(names: Names) -> str:
    """The end of a message: what the names of a state dict look like, and the command for it."""
    for test, text, kind in _KINDS:
        if test(names):
            return f"and looks like {text}; " + (f"use limner import {kind}" if kind else "give the generator's file")
    return "and looks like no net that limner imports; limner import --help lists them"
