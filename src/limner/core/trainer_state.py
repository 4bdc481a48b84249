"""Whether the trainer's part of a checkpoint fits the model, the optimisers and the position that it is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limner.core.checkpoint import Checkpoint
from limner.core.errors import LimnerError
from limner.core.records import is_count, is_number, is_position
from limner.core.rollback import MOST
from limner.core.update import Updates, all_finite

_MOMENTS: dict[type[torch.optim.Optimizer], tuple[set[str], set[str]]] = {
    torch.optim.AdamW: ({"exp_avg", "exp_avg_sq", "step"}, {"exp_avg_sq", "step"}),
    torch.optim.SGD: ({"momentum_buffer"}, set()),
}
"""The moments that an optimiser keeps of each parameter, and those of them that cannot be negative."""


def check(start: Checkpoint, model: nn.Module, update: Updates) -> None:
    """Raises a `LimnerError` if names, shapes, types or values of a checkpoint's trainer state do not fit.

    The hashes of a checkpoint tell what has changed since it was written, and not whether it was written for this run.
    """
    problem = next(_problems(start, model, update), None)
    if problem is not None:
        raise LimnerError(
            f"checkpoint {start.path.name} does not fit this run: {problem}; restore it, or delete its folder to go on"
            " from the one before"
        )


def _problems(start: Checkpoint, model: nn.Module, update: Updates) -> Iterator[str]:
    state, trainer = start.state, start.trainer
    for key in ("steps", "seconds", "logged_images", "logged_seconds", "env", "data"):
        if key not in state:
            yield f"its state has no {key}"
            return
    if state.get("rollbacks", 0) > MOST:
        yield f"it was rolled back {state['rollbacks']} times, and limner does it {MOST} times at most"
    if max(state["steps"], state["logged_images"]) > state["images"] or state["logged_seconds"] > state["seconds"]:
        yield "its counters contradict each other"
    for key in ("model", "update", "meters"):
        if not isinstance(trainer.get(key), dict):
            yield f"it has no trainer state of the {key}"
            return
    yield from _weights(trainer["model"], model)
    yield from _meters(trainer["meters"])
    yield from _update(trainer["update"], update)


def _weights(saved: Mapping[str, Any], model: nn.Module) -> Iterator[str]:
    expected = model.state_dict()
    if saved.keys() != expected.keys():
        yield f"the names of {len(saved.keys() ^ expected.keys())} weights differ"
        return
    for name, tensor in expected.items():
        if not _like(saved[name], tensor):
            yield f"the weights {name} have another shape or type"
        elif not all_finite([saved[name]]):
            yield f"the weights {name} are not finite"


def _meters(saved: Mapping[str, Any]) -> Iterator[str]:
    names, sums, steps = (saved.get(key) for key in ("names", "sums", "steps"))
    if not (isinstance(names, list) and all(isinstance(n, str) for n in names) and is_count(steps)):
        yield "its running means are not what limner writes"
    elif sums is None:
        if names or steps:
            yield "its running means have no sums"
    elif not (isinstance(sums, Tensor) and sums.dtype == torch.float32 and sums.shape == (len(names),) and steps):
        yield "the sums of its running means have another shape or type"


def _update(saved: Mapping[str, Any], update: Updates) -> Iterator[str]:
    moments, streaks, skipped = (saved.get(key) for key in ("moments", "streaks", "skipped"))
    if not isinstance(moments, dict) or not moments.keys() <= update.optimisers.keys():
        yield "its optimisers are of other groups"
        return
    if not isinstance(streaks, dict) or streaks.keys() != update.streaks.keys():
        yield "its counters of skipped updates are of other groups"
        return
    if not all(_is_counter(t) for t in (skipped, *streaks.values())):
        yield "its counters of skipped updates are not what limner writes"
    for group, entries in moments.items():
        parameters, optimiser = update.parameters[group], update.optimisers[group]
        if not isinstance(entries, dict):
            yield f"the optimiser of {group} is not what limner writes"
            continue
        for index, entry in entries.items():
            if not (is_position(index) and int(index) < len(parameters) and isinstance(entry, dict)):
                yield f"the optimiser of {group} has moments of no parameter"
            elif isinstance(optimiser, torch.optim.LBFGS):
                if not _fits_lbfgs(entry, sum(p.numel() for p in parameters)):
                    yield f"the moments of {group} do not fit its optimiser"
            elif not _fits(entry, parameters[int(index)], *_MOMENTS[type(optimiser)]):
                yield f"the moments of {group} do not fit its optimiser"


def _fits(entry: Mapping[str, Any], parameter: Tensor, names: set[str], positive: set[str]) -> bool:
    """Whether the moments of one parameter have its shape and can be computed with."""
    return entry.keys() == names and all(
        (_is_counter(value) if key == "step" else _like(value, parameter) and all_finite([value]))
        and not (key in positive and bool((value < 0).any()))
        for key, value in entry.items()
    )


_LBFGS = {"d", "t", "old_dirs", "old_stps", "ro", "H_diag", "prev_flat_grad", "prev_loss"}


def _fits_lbfgs(entry: Mapping[str, Any], size: int) -> bool:
    """Whether the memory of L-BFGS is that of `size` numbers; its products and steps are single ones."""
    if not (is_count(entry.get("n_iter")) and is_count(entry.get("func_evals"))):
        return False
    if not entry["n_iter"]:
        return True
    lists = [entry.get(k) for k in ("old_dirs", "old_stps", "ro")]
    if not (entry.keys() >= _LBFGS and all(isinstance(x, list) and len(x) == len(lists[0] or ()) for x in lists)):
        return False
    vectors = [entry["d"], entry["prev_flat_grad"], *entry["old_dirs"], *entry["old_stps"]]
    numbers = [entry["t"], entry["H_diag"], entry["prev_loss"], *entry["ro"]]
    memory = entry.get("al")
    return (
        all(isinstance(v, Tensor) and v.is_floating_point() and v.shape == (size,) for v in vectors)
        and all(is_number(v) or (isinstance(v, Tensor) and v.is_floating_point() and v.shape == ()) for v in numbers)
        and (memory is None or (isinstance(memory, list) and len(memory) >= len(entry["old_dirs"])))
    )


def _is_counter(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.dtype == torch.float32
        and value.shape == ()
        and bool(torch.isfinite(value) & (value >= 0))
    )


def _like(value: Any, tensor: Any) -> bool:
    """Whether a value is a tensor of the same shape and type."""
    return isinstance(value, Tensor) and value.shape == tensor.shape and value.dtype == tensor.dtype
