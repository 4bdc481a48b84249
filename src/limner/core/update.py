"""One descent step on one parameter group, once, for all models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limner.core.dist import average_
from limner.core.errors import LimnerError
from limner.core.optimisers import Optimiser, rate_schedule


@dataclass(frozen=True)
class _Look:
    """A loss and its gradients, and where the parameters were."""

    places: list[Tensor]
    gradients: list[Tensor]
    loss: Tensor


class Updates:
    """The `update` that a model's step calls.

    ``update("D", loss)`` runs the backward pass *for that group's parameters alone*, so no step toggles
    `requires_grad` and no gradient is computed to be thrown away. Gradients are averaged over ranks, their norm is
    logged, and when it is not finite the step is skipped on the device, without waiting for it: the fused
    optimisers take `found_inf` as a flag.

    Args:
        groups: modules by name, from `GenerativeModel.groups`.
        optimisers: an optimiser for each group; ``*`` stands for all groups that are not named.

    Attributes:
        logs: ``grad/<group>`` norms of the last step, on the device.
        skipped: skipped updates since training began, on the device.
        streaks: skipped updates in a row of each group, on the device.
    """

    def __init__(self, groups: Mapping[str, nn.Module], optimisers: Mapping[str, Optimiser]) -> None:
        missing = [g for g in groups if g not in optimisers and "*" not in optimisers]
        extra = [g for g in optimisers if g not in groups and g != "*"]
        if missing or extra:
            wrong = f"group {missing[0]!r} has none" if missing else f"there is no group {extra[0]!r}"
            raise LimnerError(f"optim: {wrong}; this model has the groups {', '.join(groups)}")
        optimisers = {g: optimisers[g] if g in optimisers else optimisers["*"] for g in groups}
        self.parameters = {g: [p for p in m.parameters() if p.requires_grad] for g, m in groups.items()}
        self.optimisers = {g: optimisers[g].make(m) for g, m in groups.items()}
        self.clips = {g: optimisers[g].clip for g in groups}
        self.scheduled = {g: o for g, o in optimisers.items() if o.decay or o.warm_up}
        self.rates = {g: [p["lr"] for p in self.optimisers[g].param_groups] for g in self.scheduled}
        device = next(iter(self.parameters.values()))[0].device
        self.skipped = torch.zeros((), device=device)
        self.streaks = {g: torch.zeros((), device=device) for g in groups}
        self.logs: dict[str, Tensor] = {}
        self.looks: dict[str, _Look] = {}
        if device.type == "cuda":
            self.rates_to_device()  # whether or not steps are recorded, so that results are the same
        if device.type == "cuda":
            self.rates_to_device()  # whether or not steps are recorded, so that results are the same

    def __call__(self, group: str, loss: Tensor | Callable[[], Tensor]) -> None:
        """One descent step on `group`.

        Raises:
            LimnerError: the optimiser needs a loss that can be computed again, and this one cannot.
        """
        parameters, optimiser = self.parameters[group], self.optimisers[group]
        if isinstance(optimiser, torch.optim.LBFGS):
            if isinstance(loss, Tensor):
                raise LimnerError(f"optim.{group}: this model's loss is noisy, so L-BFGS has no use; take adam")
            self._search(group, optimiser, loss)
            return
        loss = loss if isinstance(loss, Tensor) else loss()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(loss.device.type, enabled=False):
            loss.backward(inputs=parameters)
        grads = [p.grad for p in parameters if p.grad is not None]
        average_(grads)
        norm = torch.nn.utils.get_total_norm(grads)
        bad = (~torch.isfinite(norm + loss.detach())).float()
        clip = self.clips[group]
        if clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        optimiser.found_inf = bad  # type: ignore[attr-defined]
        optimiser.step()
        torch.clear_autocast_cache()  # it holds the weights of before in bfloat16
        self.skipped += bad
        self.streaks[group].add_(bad).mul_(bad)  # in place, as a recorded step needs it
        self.logs[f"grad/{group}"] = norm

    def _search(self, group: str, optimiser: torch.optim.LBFGS, loss: Callable[[], Tensor]) -> None:
        """A step with a line search, which computes the loss as often as it needs; what is not finite is undone.

        Torch begins every step with a look at where the last one ended, which its line search has seen already: half of
        all looks. So the last look is kept.
        """
        parameters = self.parameters[group]
        before = [p.detach().clone() for p in parameters]

        def closure() -> Tensor:
            seen = self.looks.get(group)
            if seen is not None and all(torch.equal(p, x) for p, x in zip(parameters, seen.places, strict=True)):
                for p, g in zip(parameters, seen.gradients, strict=True):
                    p.grad = g.clone()
                return seen.loss
            optimiser.zero_grad(set_to_none=True)
            value = loss()
            with torch.autocast(value.device.type, enabled=False):
                value.backward(inputs=parameters)
            average_([p.grad for p in parameters if p.grad is not None])
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
            self.looks[group] = _Look([p.detach().clone() for p in parameters], gradients, value.detach())
            return value

        value = torch.as_tensor(optimiser.step(closure)).detach()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        bad = (~torch.isfinite(norm + value.to(norm.device) + sum(p.detach().sum() for p in parameters))).float()
        for p, old in zip(parameters, before, strict=True):
            p.data.copy_(torch.where(bad > 0, old, p))
        self.skipped += bad
        self.streaks[group].add_(bad).mul_(bad)  # in place, as a recorded step needs it
        self.logs[f"grad/{group}"] = norm

    def begin(self, images: int, total: int) -> None:
        """Sets the learning rates of the coming step.

        Args:
            images: seen before the step.
            total: of the whole training.
        """
        for group, optimiser in self.scheduled.items():
            factor = rate_schedule(optimiser, total)(images / total)
            for parameters, rate in zip(self.optimisers[group].param_groups, self.rates[group], strict=True):
                if isinstance(parameters["lr"], Tensor):
                    parameters["lr"].fill_(rate * factor)
                else:
                    parameters["lr"] = rate * factor

    def rates_to_device(self) -> None:
        """Makes tensors of the learning rates that change, so that a step recorded as a CUDA graph reads them anew."""
        for group in self.scheduled:
            for parameters in self.optimisers[group].param_groups:
                parameters["lr"] = torch.tensor(float(parameters["lr"]), device=self.skipped.device)

    def state(self) -> dict[str, Any]:
        """Everything to save: optimiser moments and the guard's counters."""
        moments = {
            g: {str(i): dict(o.state[p]) for i, p in enumerate(self.parameters[g]) if p in o.state}
            for g, o in self.optimisers.items()
        }
        return {"moments": moments, "skipped": self.skipped, "streaks": self.streaks}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` gave; moments take the memory format of their parameters."""
        for g, optimiser in self.optimisers.items():
            for i, saved in state["moments"].get(g, {}).items():
                p = self.parameters[g][int(i)]
                optimiser.state[p] = {k: _like(v, p) for k, v in saved.items()}
        self.skipped.copy_(state["skipped"])
        self.streaks = {g: s.to(self.skipped.device) for g, s in state["streaks"].items()}

    @property
    def streak(self) -> Tensor:
        """The longest row of skipped updates that a group is in now: G may do well while D is lost."""
        return torch.stack(list(self.streaks.values())).max()


def _like(value: Any, parameter: Tensor) -> Any:
    """A saved moment on the parameter's device and in its memory format; L-BFGS has lists and plain numbers too."""
    if isinstance(value, list):
        return [_like(v, parameter) for v in value]
    if not isinstance(value, Tensor):
        return value
    if value.shape == parameter.shape:
        return torch.empty_like(parameter).copy_(value)
    return value.to(parameter.device)


def finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every floating number is finite."""
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())
