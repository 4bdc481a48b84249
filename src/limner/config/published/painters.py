"""Nets for style transfer in one pass: decoders of VGG-19's maps, and PyTorch's fast-neural-style."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from limner.config.published.layers import Imported, layers_of, looks_like
from limner.core.errors import LimnerError

_LAYERS = {(64, 1): "relu1_1", (128, 3): "relu2_1", (256, 5): "relu3_1", (512, 9): "relu4_1", (512, 13): "relu5_1"}
"""The layer of VGG-19 by the number of its maps and of the decoder's convolutions."""


def decoder(kind: str, name: str, tensors: dict[str, Tensor], size: int, vgg: str | None) -> Imported:
    """A model of AdaIN or WCT with a published decoder.

    Args:
        kind: adain or wct.
        name: the file's name.
        tensors: its tensors, named by numbers, also after ``decoder.``.
        size: side of the images in training.
        vgg: file of the weights of VGG-19 that belong to the decoder.

    Raises:
        LimnerError: the tensors are no decoder of a layer ``reluN_1``.
    """
    layers = layers_of(tensors, name)
    key = (layers[0].weight.shape[1] if layers[0].is_conv else 0, len(layers))
    if key not in _LAYERS or not all(layer.is_conv for layer in layers):
        raise LimnerError(
            f"{name} has {key[1]} layers for {key[0]} feature maps, {looks_like(tensors)}; a decoder of VGG-19 takes"
            " 64, 128, 256 or 512 maps in 1, 3, 5, 9 or 13 convolutions"
        )
    if vgg is None:
        raise LimnerError(
            f"which VGG-19 does {name} decode? Give vgg=vgg_normalised.pth, which is published beside decoder.pth, or"
            " vgg=vgg19 for torchvision's"
        )
    net = {"name": "style.Decoder", "layer": _LAYERS[key]}
    tree: dict[str, Any] = {"name": kind, "weights": vgg, "decoder": net, "odd_sizes": "keep"}
    tree |= {"unbiased": True} if kind == "adain" else {}
    return Imported(tree, {"shape": (3, size, size)}, {"decoder": layers})


def fast_style(name: str, tensors: dict[str, Tensor], size: int) -> Imported:
    """A model of PyTorch's fast-neural-style, whose images are on [0,255].

    Raises:
        LimnerError: the tensors are no such net.
    """
    order = [*("conv1", "in1", "conv2", "in2", "conv3", "in3"), *("deconv1", "in4", "deconv2", "in5", "deconv3")]
    blocks = sorted({int(m[1]) for k in tensors if (m := re.match(r"res(\d{1,3})\.", k))})
    order[6:6] = [f"res{i}.{part}" for i in blocks for part in ("conv1", "in1", "conv2", "in2")]
    found = {layer.name.removesuffix(".conv2d"): layer for layer in layers_of(tensors, name)}
    if set(found) != set(order):
        raise LimnerError(f"{name} holds no net of PyTorch's fast-neural-style, {looks_like(tensors)}")
    layers = [found[n] for n in order]
    if not all("bias" in layer.tensors for layer in layers):
        raise LimnerError(f"{name} has a layer without a bias; give weights of PyTorch's fast-neural-style")
    first, last = layers[0].tensors, layers[-1].tensors  # W (127.5 x + 127.5) + b, and (W h + b) / 127.5 - 1
    if layers[0].weight.ndim != 4 or layers[-1].weight.ndim != 4:
        raise LimnerError(f"{name} has other layers than PyTorch's fast-neural-style")
    first["bias"] = first["bias"].double() + 127.5 * first["weight"].double().sum((1, 2, 3))
    first["weight"] = first["weight"].double() * 127.5
    last["weight"], last["bias"] = last["weight"].double() / 127.5, last["bias"].double() / 127.5 - 1
    net = {"name": "style.Transformer", "width": layers[0].weight.shape[0], "blocks": len(blocks)}
    tree = {"name": "fast_style", "T": net | {"out": "linear", "odd_sizes": "keep"}}
    return Imported(tree, {"shape": (3, size, size)}, {"T": layers})
