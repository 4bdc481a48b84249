"""Moving average of weights: what samples are drawn from."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from limner.core.model import GenerativeModel


class EMA:
    """Exponential moving average of a model's averaged groups; everything else is shared by copy.

    The decay is given by a half-life in *images*, so it means the same at any batch size
    (Karras et al. 2020, arXiv 1912.04958, use 10k images).

    Args:
        model: the model in training.
        half_life: images after which a weight's influence has halved.
        batch: images per step.
    """

    def __init__(self, model: GenerativeModel, half_life: int, batch: int) -> None:
        self.decay = 0.5 ** (batch / half_life)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        names = model.ema_groups or tuple(model.groups())
        own, live = self.model.groups(), model.groups()
        pairs = [pair for n in names for pair in zip(own[n].parameters(), live[n].parameters(), strict=True)]
        self.averages: list[Tensor] = [a for a, _ in pairs]
        self.weights: list[Tensor] = [w.detach() for _, w in pairs]
        averaged = {id(a) for a in self.averages}
        rest = [*_tensors(self.model)], [*_tensors(model)]
        self.copies = [(a, w) for a, w in zip(*rest, strict=True) if id(a) not in averaged]
        both = zip(self.model.modules(), model.modules(), strict=True)
        self.stateful = [(a, m) for a, m in both if type(m).get_extra_state is not nn.Module.get_extra_state]

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the weights."""
        torch._foreach_lerp_(self.averages, self.weights, 1 - self.decay)

    @torch.no_grad()
    def averaged_model(self) -> GenerativeModel:
        """The averaged model, with buffers and unaveraged groups as they are now."""
        for copy_, live in self.copies:
            copy_.copy_(live)
        for module, living in self.stateful:
            module.set_extra_state(living.get_extra_state())
        return self.model


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
