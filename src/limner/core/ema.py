"""Moving average of weights, which is used for sampling."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from limner.core.model import GenerativeModel


class EMA:
    """Exponential moving average of the groups `ema_groups` of a model; everything else is copied.

    The half-life is counted in *images*, so it has the same meaning at any batch size (Karras et al. 2020,
    arXiv:1912.04958, use 10k images).

    Args:
        model: the model in training.
        half_life: images after which the influence of old weights is halved.
        ramp: largest half-life as a share of the images seen so far, so that early weights are forgotten early (Karras
            et al. 2022, arXiv:2206.00364, table 7: 0.05); 0 sets no bound.
    """

    def __init__(self, model: GenerativeModel, half_life: int, ramp: float = 0.0) -> None:
        self.half_life, self.ramp = half_life, ramp
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        names = model.ema_groups or tuple(model.groups())
        averaged, trained = self.model.groups(), model.groups()
        self.averages: list[Tensor] = [p for n in names for p in averaged[n].parameters()]
        self.weights: list[Tensor] = [p.detach() for n in names for p in trained[n].parameters()]
        ids = {id(a) for a in self.averages}
        pairs = zip(_tensors(self.model), _tensors(model), strict=True)
        self.copies = [(a, w) for a, w in pairs if id(a) not in ids]
        modules = zip(self.model.modules(), model.modules(), strict=True)
        self.stateful = [(a, m) for a, m in modules if type(m).get_extra_state is not nn.Module.get_extra_state]

    @torch.no_grad()
    def update(self, images: int, seen: int = 0) -> None:
        """Moves the average towards the weights.

        Args:
            images: images of all ranks that the step took.
            seen: images of the training so far, with those of the step.
        """
        half_life = min(self.half_life, max(self.ramp * seen, 1e-9)) if self.ramp else self.half_life
        torch._foreach_lerp_(self.averages, self.weights, 1 - 0.5 ** (images / half_life))

    @torch.no_grad()
    def averaged_model(self) -> GenerativeModel:
        """The averaged model, with the current buffers and the current weights of the other groups."""
        for target, source in self.copies:
            target.copy_(source)
        for module, trained in self.stateful:
            module.set_extra_state(trained.get_extra_state())
        return self.model


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
