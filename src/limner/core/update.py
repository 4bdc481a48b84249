"""Optimiser steps on single parameter groups, the same for all models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from limner.core.dist import average_
from limner.core.errors import LimnerError
from limner.core.optimisers import Optimiser, rate_schedule


class _Evaluation(NamedTuple):
    """A loss and its gradients at given parameters."""

    parameters: list[Tensor]
    gradients: list[Tensor]
    loss: Tensor


class Updates:
    """The `update` that a model's step calls.

    ``update("D", loss)`` runs the backward pass *for the parameters of that group only*, so no step toggles
    `requires_grad` and no unused gradient is computed. Gradients are averaged over ranks and their norm is logged. If
    the norm is not finite, the device skips the step without a wait of the host: the fused optimisers read the flag
    `found_inf`.

    Args:
        groups: modules by name, from `GenerativeModel.groups`.
        optimisers: one optimiser for each group; ``*`` stands for all groups that are not named.

    Attributes:
        logs: gradient norms ``grad/<group>`` of the last step, on the device.
        rates: learning rates of the recipe, for each group and its parts, without schedules and `slow_down`.
        skipped: number of skipped updates since training began, on the device.
        streaks: number of skipped updates in a row, for each group, on the device.
    """

    def __init__(self, groups: Mapping[str, nn.Module], optimisers: Mapping[str, Optimiser]) -> None:
        missing = [g for g in groups if g not in optimisers and "*" not in optimisers]
        extra = [g for g in optimisers if g not in groups and g != "*"]
        if missing or extra:
            problem = f"group {missing[0]!r} has no optimiser" if missing else f"there is no group {extra[0]!r}"
            raise LimnerError(f"optim: {problem}; write an optimiser for each group of this model: {', '.join(groups)}")
        optimisers = {g: optimisers[g] if g in optimisers else optimisers["*"] for g in groups}
        self.parameters = {g: [p for p in m.parameters() if p.requires_grad] for g, m in groups.items()}
        self.optimisers = {g: optimisers[g].make(m) for g, m in groups.items()}
        self.clips = {g: optimisers[g].clip for g in groups}
        self.scheduled = {g: o for g, o in optimisers.items() if o.decay or o.warm_up}
        self.rates = {g: [p["lr"] for p in o.param_groups] for g, o in self.optimisers.items()}
        self.factor = 1.0
        device = next(iter(self.parameters.values()))[0].device
        self.skipped = torch.zeros((), device=device)
        self.streaks = {g: torch.zeros((), device=device) for g in groups}
        self.logs: dict[str, Tensor] = {}
        self._evaluations: dict[str, _Evaluation] = {}
        if device.type == "cuda":
            self.rates_to_device()  # also if no step is recorded, so that results are the same

    def __call__(self, group: str, loss: Tensor | Callable[[], Tensor]) -> None:
        """Takes one optimiser step on `group`; L-BFGS needs the loss () as a function that computes it.

        Raises:
            LimnerError: L-BFGS is given the loss as a tensor.
        """
        parameters, optimiser = self.parameters[group], self.optimisers[group]
        if isinstance(optimiser, torch.optim.LBFGS):
            if isinstance(loss, Tensor):
                raise LimnerError(
                    f"optim.{group}: L-BFGS needs a loss without noise, which this model does not have; use adam"
                )
            self._search(group, optimiser, loss)
            return
        loss = loss if isinstance(loss, Tensor) else loss()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(loss.device.type, enabled=False):
            loss.backward(inputs=parameters)
        grads = [p.grad for p in parameters if p.grad is not None]
        value = loss.detach().clone()
        average_([*grads, value])  # with the loss, so that all ranks skip the same updates
        norm = torch.nn.utils.get_total_norm(grads)
        bad = (~torch.isfinite(norm + value)).float()
        clip = self.clips[group]
        if clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        optimiser.found_inf = bad  # type: ignore[attr-defined]
        optimiser.step()
        torch.clear_autocast_cache()  # it holds the old weights in bfloat16
        self._count(group, bad, norm)

    def _search(self, group: str, optimiser: torch.optim.LBFGS, loss: Callable[[], Tensor]) -> None:
        """Takes a step with a line search, and undoes it if the result is not finite; the next search begins anew.

        PyTorch begins each step by computing the loss where the last line search ended and computed it already. That is
        half of all evaluations, so the last evaluation is reused.
        """
        parameters = self.parameters[group]
        before = [p.detach().clone() for p in parameters]

        def closure() -> Tensor:
            last = self._evaluations.get(group)
            if last is not None and all(torch.equal(p, x) for p, x in zip(parameters, last.parameters, strict=True)):
                for p, g in zip(parameters, last.gradients, strict=True):
                    p.grad = g.clone()
                return last.loss
            optimiser.zero_grad(set_to_none=True)
            value = loss()
            with torch.autocast(value.device.type, enabled=False):
                value.backward(inputs=parameters)
            average_([p.grad for p in parameters if p.grad is not None])
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
            points = [p.detach().clone() for p in parameters]
            self._evaluations[group] = _Evaluation(points, gradients, value.detach())
            return value

        value = torch.as_tensor(optimiser.step(closure)).detach()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        bad = (~torch.isfinite(norm + value.to(norm.device) + sum(p.detach().sum() for p in parameters))).float()
        if bad:
            for p, old in zip(parameters, before, strict=True):
                p.data.copy_(old)
            self._evaluations.pop(group, None)
            optimiser.state.clear()  # it remembers a gradient that is not finite
        self._count(group, bad, norm)

    def _count(self, group: str, bad: Tensor, norm: Tensor) -> None:
        self.skipped += bad
        self.streaks[group].add_(bad).mul_(bad)  # in place, so that a CUDA graph can record it
        self.logs[f"grad/{group}"] = norm

    def begin(self, images: int, total: int) -> None:
        """Sets the learning rates of the coming step.

        Args:
            images: images seen before the step.
            total: images of the whole training.
        """
        for group, optimiser in self.scheduled.items():
            self._set_rates(group, rate_schedule(optimiser, total)(images / total))

    def slow_down(self, factor: float) -> None:
        """Multiplies the learning rates of the recipe by a factor; steps that are recorded must be recorded anew."""
        self.factor = factor
        for group in self.optimisers:
            self._set_rates(group, 1.0)

    def _set_rates(self, group: str, factor: float) -> None:
        for parameters, rate in zip(self.optimisers[group].param_groups, self.rates[group], strict=True):
            if isinstance(parameters["lr"], Tensor):
                parameters["lr"].fill_(rate * factor * self.factor)
            else:
                parameters["lr"] = rate * factor * self.factor

    def rates_to_device(self) -> None:
        """Turns scheduled learning rates into tensors, whose new values a step recorded as a CUDA graph reads."""
        for group in self.scheduled:
            for parameters in self.optimisers[group].param_groups:
                parameters["lr"] = torch.tensor(float(parameters["lr"]), device=self.skipped.device)

    def state(self) -> dict[str, Any]:
        """The state to save: optimiser moments and the counters of skipped updates."""
        moments = {
            g: {str(i): dict(o.state[p]) for i, p in enumerate(self.parameters[g]) if p in o.state}
            for g, o in self.optimisers.items()
        }
        return {"moments": moments, "skipped": self.skipped, "streaks": self.streaks}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores a saved `state`; moments get the memory format of their parameters."""
        self._evaluations.clear()
        for g, optimiser in self.optimisers.items():
            optimiser.state.clear()  # a checkpoint from before the first step has no moments
            for i, saved in state["moments"].get(g, {}).items():
                p = self.parameters[g][int(i)]
                optimiser.state[p] = {k: _like(v, p) for k, v in saved.items()}
        self.skipped.copy_(state["skipped"])
        self.streaks = {g: s.to(self.skipped.device) for g, s in state["streaks"].items()}

    @property
    def streak(self) -> Tensor:
        """The largest of the groups' `streaks`, because one group may fail while the others learn."""
        return torch.stack(list(self.streaks.values())).max()


def _like(value: Any, parameter: Tensor) -> Any:
    """A saved moment on the parameter's device, in its memory format. L-BFGS also keeps lists and plain numbers."""
    if isinstance(value, list):
        return [_like(v, parameter) for v in value]
    if not isinstance(value, Tensor):
        return value
    if value.shape == parameter.shape:
        return torch.empty_like(parameter).copy_(value)
    return value.to(parameter.device)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all floating-point values are finite."""
    floats = [t.detach() for t in tensors if t.is_floating_point()]
    # A sum is quick and shows every value that is not finite. It can overflow, too, so it is not the last word.
    sums = [torch.stack([t.sum().float() for t in floats if t.device == d]) for d in {t.device for t in floats}]
    return all(bool(s.isfinite().all()) for s in sums) or all(bool(t.isfinite().all()) for t in floats)
