"""Nets that a model uses but neither trains nor saves."""

from __future__ import annotations

from itertools import chain
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


class Frozen(Generic[Net]):
    """Wraps a net so that it is no sub-module of the module that owns it.

    The net is not part of `parameters`, `state_dict`, `train` or `to` of its owner, and copies of the owner share it.
    It is moved to the device of its input.

    Args:
        net: put into evaluation mode, without gradients of its weights.

    >>> owner = nn.Module()
    >>> owner.perceptual_net = Frozen(nn.Linear(2, 1))
    >>> list(owner.state_dict()), owner.perceptual_net(torch.zeros(1, 2)).requires_grad
    ([], False)
    """

    def __init__(self, net: Net) -> None:
        self.net: Net = net.eval().requires_grad_(False)

    def on(self, device: torch.device) -> Net:
        """The net, on a device."""
        first = next(chain(self.net.parameters(), self.net.buffers()), None)
        if first is not None and first.device != device:
            self.net.to(device)
        return self.net

    def __call__(self, x: Tensor, *args: Any) -> Any:
        return self.on(x.device)(x, *args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen[Net]:
        return self
