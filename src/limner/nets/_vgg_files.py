"""The layouts in which VGG-19's weights are published, told apart by their names and values.

=====================================  =======================  =====================================================
file                                   names                    images as its first convolution takes them
=====================================  =======================  =====================================================
torchvision's ``vgg19-dcbb9e9d.pth``   ``features.0.weight``    RGB on [0,1], less ImageNet's mean, over its deviation
AdaIN's ``vgg_normalised.pth``         ``0.weight`` (1×1)       BGR on [0,255] less Caffe's mean, by its layer 0
Gatys' ``vgg_conv.pth``                ``conv1_1.weight``       BGR on [0,255] less Caffe's mean
Johnson's ``vgg19-d01eb7cb.pth``       ``features.0.weight``    BGR on [0,255] less Caffe's mean
=====================================  =======================  =====================================================

All but the first are the weights of Simonyan and Zisserman for Caffe, scaled or not. They are recognised by the signs
of the first 16 filters, which no scaling changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

BLOCKS = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512))
CONVOLUTIONS = tuple(f"{b}_{i}" for b, widths in enumerate(BLOCKS, 1) for i in range(1, len(widths) + 1))
"""``1_1`` to ``5_4``, in the order of the forward pass."""
_FEATURES = tuple(2 * k + int(n[0]) - 1 for k, n in enumerate(CONVOLUTIONS))
"""Indices of the convolutions in torchvision's ``features``: a ReLU follows each of them, a pooling each block."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet in RGB on [0,1], as torchvision has them
_CAFFE_MEAN = (103.939, 116.779, 123.68)  # in BGR on [0,255]
_CAFFE_SIGNS = int(  # of the 16·3·3·3 values of the first filters, 1 for positive, in BGR
    "d86c361ffdb0036dbe18793c1e46c361b1ff000024f279372393c9ff803ff7f0381fa1d0e8363b2d8007fc01379b0900e0717ffc01ff", 16
)
_NO_VGG19 = (
    "these are no weights of VGG-19; give torchvision's vgg19-dcbb9e9d.pth, vgg_normalised.pth, vgg_conv.pth or"
    " vgg19-d01eb7cb.pth"
)


class Arranged(NamedTuple):
    """Weights of VGG-19 of any layout.

    Attributes:
        tensors: ``conv1_1.weight``, ``conv1_1.bias`` and so on.
        first: weight (3,3,1,1) of a 1×1 convolution that makes of images in [-1,1] what the first filters take.
        shift: its bias (3,).
        normalised: whether every map has a mean activation of about one.
    """

    tensors: dict[str, Tensor]
    first: Tensor
    shift: Tensor
    normalised: bool


def arrange(weights: Mapping[str, Tensor]) -> Arranged:
    """Weights of any published layout.

    Raises:
        ValueError: they are not VGG-19's.
    """
    if any(name.endswith("running_mean") for name in weights):
        raise ValueError("these look like weights of a net with batch norm (vgg19_bn); give VGG-19's without it")
    preprocess: tuple[Tensor, Tensor] | None = None
    if "preprocess.weight" in weights:
        tensors, preprocess = dict(weights), (weights["preprocess.weight"], weights["preprocess.bias"])
    elif all(re.fullmatch(r"\d{1,3}\.(weight|bias)", name) for name in weights):
        tensors, preprocess = _numbered(weights)
    else:
        tensors = _from_features(weights) if "features.0.weight" in weights else dict(weights)
    if tensors.get("conv1_1.weight", torch.empty(0)).shape[1:] != (3, 3, 3) or "conv1_1.bias" not in tensors:
        raise ValueError(_NO_VGG19)
    if preprocess is not None:  # of [0,1]: y = W (x + 1) / 2 + b
        weight, bias = (t.float() for t in preprocess)
        if weight.shape != (3, 3, 1, 1) or bias.shape != (3,):
            raise ValueError(_NO_VGG19)
        return Arranged(tensors, weight / 2, bias + weight.sum((1, 2, 3)) / 2, True)
    if _is_caffes(tensors, weights):
        weight = 127.5 * torch.eye(3).flip(0)[:, :, None, None]
        return Arranged(tensors, weight, 127.5 - torch.tensor(_CAFFE_MEAN), False)
    mean, std = torch.tensor(_MEAN), torch.tensor(_STD)
    return Arranged(tensors, torch.diag(0.5 / std)[:, :, None, None], (0.5 - mean) / std, False)


def _from_features(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if "features.17.weight" in weights and "features.16.weight" not in weights:
        raise ValueError("these look like weights of VGG-16; give VGG-19's")
    names = {f"features.{i}.{p}": f"conv{n}.{p}" for i, n in zip(_FEATURES, CONVOLUTIONS) for p in ("weight", "bias")}
    return {new: weights[old] for old, new in names.items() if old in weights}


def _numbered(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
    """Convolutions of one `nn.Sequential`, the first of which may be the 1×1 convolution before VGG-19."""
    numbers = sorted({int(name.partition(".")[0]) for name in weights})
    layers = [{p: weights[f"{n}.{p}"] for p in ("weight", "bias") if f"{n}.{p}" in weights} for n in numbers]
    if not all(len(layer) == 2 for layer in layers):
        raise ValueError(_NO_VGG19)
    has_first = layers[0]["weight"].shape == (3, 3, 1, 1)
    convolutions = zip(CONVOLUTIONS, layers[has_first:])
    tensors = {f"conv{n}.{p}": t for n, layer in convolutions for p, t in layer.items()}
    return tensors, (layers[0]["weight"], layers[0]["bias"]) if has_first else None


def _is_caffes(tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    """Whether the first filters take BGR on [0,255].

    Their signs say it of every copy of Caffe's weights. Names say it of weights that were trained again: Johnson's file
    numbers the classifier otherwise than torchvision, and Gatys' names are Caffe's. Weights under these names whose
    biases are all zero were never trained, and are taken as limner 0.1 took them.
    """
    first = tensors["conv1_1.weight"][:16].flatten()
    signs = int("".join("1" if v > 0 else "0" for v in first.tolist()), 2)
    if len(first) == 432 and (signs ^ _CAFFE_SIGNS).bit_count() < 22:
        return True
    if "classifier.1.weight" in weights and "classifier.4.weight" in weights:
        return True
    named = "conv1_1.weight" in weights
    return named and any(bool(t.any()) for name, t in tensors.items() if name.endswith("bias"))
