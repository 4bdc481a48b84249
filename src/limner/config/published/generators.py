"""Generators of GANs: DCGAN of PyTorch's examples, and R3GAN."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from limner.config.published.layers import Imported, Layer, layers_of, looks_like
from limner.core.errors import LimnerError

_KERNEL = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8  # of R3GAN's resampling


def dcgan(name: str, tensors: dict[str, Tensor]) -> Imported:
    """A GAN with the generator of PyTorch's examples and tutorial, whose layers are named ``main.0``, ``main.1`` ….

    Raises:
        LimnerError: the tensors are no such generator.
    """
    wrong = LimnerError(f"{name} holds no generator of DCGAN, {looks_like(tensors)}")
    if not {"main.0.weight", "main.1.weight"} <= set(tensors):
        raise wrong
    layers = layers_of(tensors, name)
    convs = [layer.weight for layer in layers if layer.is_conv]
    if len(convs) < 2 or len(convs) > 9 or any(w.shape[2:] != (4, 4) for w in convs):
        raise wrong
    side = 4 << (len(convs) - 1)
    width = convs[-1].shape[0]
    net = {"name": "dcgan.Generator", "z": convs[0].shape[0], "width": width}
    tree: dict[str, Any] = {"name": "gan", "G": net, "D": {"name": "dcgan.Discriminator", "width": width}}
    return Imported(tree, {"shape": (convs[-1].shape[1], side, side)}, {"G": layers})


def r3gan(name: str, tensors: dict[str, Tensor]) -> Imported:
    """R3GAN with the authors' generator, with or without ``Model.`` before the names.

    Raises:
        LimnerError: the tensors are no such generator, or one with classes.
    """
    tensors = {k.removeprefix("Model."): t for k, t in tensors.items()}
    wrong = LimnerError(f"{name} holds no generator of R3GAN, {looks_like(tensors)}")
    if "EmbeddingLayer.weight" in tensors:
        classes = tensors["EmbeddingLayer.weight"].shape[-1]
        raise LimnerError(
            f"{name} is a generator of R3GAN with {classes} classes; limner's r3gan has no classes, so import one"
            " without (FFHQ)"
        )
    stages: dict[int, set[int]] = {}
    for key in tensors:
        if m := re.match(r"MainLayers\.(\d{1,2})\.Layers\.(\d{1,2})\.", key):
            stages.setdefault(int(m[1]), set()).add(int(m[2]))
    try:
        blocks = max(stages[0])
        if any(stages[s] | {0} != set(range(blocks + 1)) for s in range(len(stages))):
            raise wrong
        layers = [Layer("basis", {"basis": tensors.pop("MainLayers.0.Layers.0.Basis")})]
        layers.append(Layer("scale", {"weight": tensors.pop("MainLayers.0.Layers.0.LinearLayer.weight")}))
        widths = []
        for stage in range(len(stages)):
            layers += _transition(f"MainLayers.{stage}.Layers.0.", tensors) if stage else []
            for block in range(1, blocks + 1):
                layers += _block(f"MainLayers.{stage}.Layers.{block}.", tensors)
            widths.append(layers[-1].weight.shape[0])
        layers.append(Layer("AggregationLayer", {"weight": tensors.pop("AggregationLayer.Layer.weight")}))
    except (KeyError, ValueError):
        raise wrong from None
    if tensors or not 2 <= len(stages) <= 9:
        raise wrong
    first, grouped = layers[2].weight, layers[3].weight
    width, widest = widths[-1], max(widths)
    if widths[::-1] != [min(width << k, widest) for k in range(len(widths))] or first.ndim != 4 or grouped.ndim != 4:
        raise LimnerError(f"{name} has widths {widths}; limner's r3gan doubles them from {width} up to a largest one")
    d = {"width": width, "blocks": blocks, "group": grouped.shape[1], "widest": widest}
    d["expansion"] = first.shape[0] // max(1, first.shape[1])
    tree: dict[str, Any] = {"name": "r3gan", "D": {"name": "r3gan.Discriminator"} | d}
    tree["G"] = {"name": "r3gan.Generator", "z": layers[1].weight.shape[-1]} | d
    side = 4 << (len(stages) - 1)
    return Imported(tree, {"shape": (3, side, side)}, {"G": layers})


def _transition(at: str, tensors: dict[str, Tensor]) -> list[Layer]:
    """The 1×1 convolution of a doubling, if the channels change."""
    kernel = tensors.pop(f"{at}Resampler.Kernel").float()
    if kernel.shape != (4, 4) or not torch.allclose(kernel, _KERNEL.outer(_KERNEL), atol=1e-4):
        raise ValueError("another filter")
    weight = tensors.pop(f"{at}LinearLayer.Layer.weight", None)
    return [] if weight is None else [Layer(at, {"weight": weight})]


def _block(at: str, tensors: dict[str, Tensor]) -> list[Layer]:
    """The three convolutions of a residual block; the biases of the first two belong to the activations."""
    layers = [Layer(f"{at}{i}", {"weight": tensors.pop(f"{at}LinearLayer{i}.Layer.weight")}) for i in (1, 2, 3)]
    for i in (1, 2):
        layers[i - 1].tensors["bias"] = tensors.pop(f"{at}NonLinearity{i}.Bias")
    return layers
