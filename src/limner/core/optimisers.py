"""The optimisers of recipes and their learning-rate schedules. This module does not import torch until one is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from limner.core.errors import LimnerError
from limner.core.schedule import Constant, Cosine, Linear, Schedule, Step, WarmUp
from limner.core.units import Count

if TYPE_CHECKING:
    import torch
    from torch import nn

NotNegative = Annotated[float, Field(ge=0)]
_Decay = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015), the fused kernel.

    Args:
        lr: learning rate. Raise it if the loss falls too slowly; lower it if it jumps or is not finite.
        betas: decay of the first and second moment. GANs like a first of 0.5 or 0.
        eps: added to the root of the second moment.
        weight_decay: decoupled weight decay (AdamW, Loshchilov and Hutter 2019).
        clip: largest norm of the group's gradient; null clips nothing. Lower it if single steps break training.
        decay: last share of the training over which lr falls to 0; pix2pix and CycleGAN take 0.5. Raise it if the end
            is unsteady.
        schedule: how lr falls over `decay`: linear, cosine, or step, which divides it by 10 where `decay` begins and
            again in its middle.
        warm_up: images over which lr rises from 0 to its value. Raise it if the first steps break training.
        scale: learning-rate factors of sub-modules, e.g. {decoder: 0.5}.
    """

    lr: NotNegative = 1e-3
    betas: tuple[_Decay, _Decay] = (0.9, 0.999)
    eps: NotNegative = 1e-8
    weight_decay: NotNegative = 0.0
    clip: Annotated[float, Field(gt=0)] | None = None
    decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    schedule: Literal["linear", "cosine", "step"] = "linear"
    warm_up: Annotated[Count, Field(ge=0)] = 0
    scale: dict[str, NotNegative] | None = None

    def make(self, module: nn.Module) -> torch.optim.Optimizer:
        """The torch optimiser over the module's parameters."""
        import torch

        device = next(module.parameters()).device.type
        fused = {"fused": True} if device in ("cpu", "cuda", "mps") else {"foreach": True}
        groups = _parameter_groups(module, self.lr, self.scale)
        return torch.optim.AdamW(groups, self.lr, self.betas, self.eps, self.weight_decay, **fused)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, the fused kernel.

    Args:
        lr: learning rate. Raise it if the loss falls too slowly; lower it if it jumps or is not finite.
        momentum: share of the last step kept.
        weight_decay: L2 penalty on the weights.
        clip: largest norm of the group's gradient; null clips nothing.
        decay: last share of the training over which lr falls to 0.
        schedule: how lr falls over `decay`: linear, cosine, or step, which divides it by 10 where `decay` begins and
            again in its middle.
        warm_up: images over which lr rises from 0 to its value.
        scale: learning-rate factors of sub-modules, e.g. {decoder: 0.5}.
    """

    lr: NotNegative = 1e-2
    momentum: NotNegative = 0.0
    weight_decay: NotNegative = 0.0
    clip: Annotated[float, Field(gt=0)] | None = None
    decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    schedule: Literal["linear", "cosine", "step"] = "linear"
    warm_up: Annotated[Count, Field(ge=0)] = 0
    scale: dict[str, NotNegative] | None = None

    def make(self, module: nn.Module) -> torch.optim.Optimizer:
        """The torch optimiser over the module's parameters."""
        import torch

        groups = _parameter_groups(module, self.lr, self.scale)
        return torch.optim.SGD(groups, self.lr, self.momentum, weight_decay=self.weight_decay, fused=True)


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS (Liu and Nocedal 1989) with a line search (strong Wolfe): for few parameters and a loss without noise.

    Args:
        lr: length of the first trial step.
        iterations: descents in one step of training, each with its line search.
        history: descents remembered. Raise it for speed; lower it if memory is short.
    """

    lr: NotNegative = 1.0
    iterations: Annotated[int, Field(ge=1)] = 1
    history: Annotated[int, Field(ge=1)] = 20

    clip: ClassVar[None] = None
    decay: ClassVar[float] = 0.0
    schedule: ClassVar[str] = "linear"
    warm_up: ClassVar[int] = 0

    def make(self, module: nn.Module) -> torch.optim.Optimizer:
        """The torch optimiser over the module's parameters, with a line search, without which the loss can jump.

        PyTorch limits the evaluations of a step to 1.25 per iteration, which stops a line search early. The limit here
        is 25 per iteration.
        """
        import torch

        evaluations = 25 * self.iterations
        return torch.optim.LBFGS(
            module.parameters(), self.lr, self.iterations, evaluations, 0.0, 0.0, self.history, "strong_wolfe"
        )


Optimiser = Adam | SGD | LBFGS
OPTIMISERS = {"adam": Adam, "lbfgs": LBFGS, "sgd": SGD}


def rate_schedule(optimiser: Optimiser, total: int) -> Schedule:
    """The factor (in [0,1]) of a learning rate as a function of the fraction of a training of `total` images."""
    begin, length = 1 - optimiser.decay, optimiser.decay
    decay: Schedule = Constant(1.0)
    if length and optimiser.schedule == "linear":
        decay = Linear(1.0, 0.0, begin, length)
    elif length and optimiser.schedule == "cosine":
        decay = Cosine(1.0, 0.0, begin, length)
    elif length:
        decay = Step(1.0, at=(begin, begin + length / 2))
    return WarmUp(decay, optimiser.warm_up / total) if optimiser.warm_up else decay


def _parameter_groups(module: nn.Module, lr: float, scale: Mapping[str, float] | None) -> list[dict[str, Any]]:
    factors = dict(scale or {})
    children = dict(module.named_children())
    for name in factors:
        if name not in children:
            raise LimnerError(f"optim scale: there is no sub-module {name!r}; choose from {', '.join(children)}")
    scaled = {id(p) for name in factors for p in children[name].parameters()}
    groups = [{"params": [p for p in module.parameters() if id(p) not in scaled], "lr": lr}]
    groups += [{"params": list(children[n].parameters()), "lr": lr * f} for n, f in factors.items()]
    return [g for g in groups if g["params"]]
