"""Batch norm for the training of small nets that ship without it: it is folded into the convolutions in the end."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Net = TypeVar("Net", bound=nn.Module)


def with_norms(net: Net) -> Net:
    """A copy of a net with batch norm after each convolution of its `body`, for training."""
    trained: Any = copy.deepcopy(net)
    layers: list[nn.Module] = []
    for layer in trained.body:
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            layers.append(nn.BatchNorm2d(layer.out_channels))
    trained.body = nn.Sequential(*layers)
    return trained


def folded(trained: Net) -> Net:
    """The net as it ships, a copy of one made by `with_norms`: the norms inside the convolutions, without gradients."""
    net: Any = copy.deepcopy(trained)
    norms = iter([m for m in net.body if isinstance(m, nn.BatchNorm2d)])
    layers = [m for m in net.body if not isinstance(m, nn.BatchNorm2d)]
    net.body = nn.Sequential(*(fuse_conv_bn_eval(m, next(norms)) if isinstance(m, nn.Conv2d) else m for m in layers))
    return net.requires_grad_(False)
