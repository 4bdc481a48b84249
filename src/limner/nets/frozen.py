"""Nets that a model uses and neither trains nor saves."""

from __future__ import annotations

from itertools import chain
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


class Frozen(Generic[Net]):
    """Holds a net out of the sight of the module that owns it.

    The net has no part in `parameters`, `state_dict`, `train` or `to` of its owner, copies of the owner share it, and
    it follows the images it is given from device to device.

    Args:
        net: in evaluation mode from now on; its weights ask for no gradient.

    >>> owner = nn.Module()
    >>> owner.judge = Frozen(nn.Linear(2, 1))
    >>> list(owner.state_dict()), owner.judge(torch.zeros(1, 2)).requires_grad
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
