"""Held-out images with their translations, side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.batch import Dataset, batch_of, evenly_spaced, to_float
from limner.core.capabilities import Translates
from limner.core.inference import translated
from limner.core.previews import rgb
from limner.data.pairs import DomainSet
from limner.evaluation.translation.without_learning import NAMES, baselines, task_of, translator


def before_after(
    model: Translates, heldout: Dataset, train: Dataset | None = None, rows: int = 10, references: int = 5000
) -> tuple[Tensor, int, str]:
    """Held-out images with their translations and, for pairs, baselines and targets: a row for each.

    Returns:
        Images (rows·columns,3,H,W) in [-1,1] row by row, the number of columns, and the names of the columns.
    """
    if isinstance(heldout, DomainSet):
        return _domain_rows(model, heldout, rows)
    a, b = batch_of(heldout, [evenly_spaced(len(heldout), rows)])
    task = task_of(heldout)
    columns = {"source": a}
    for name, method in baselines(heldout, train, references).items():
        if name in ("classic", "nearest"):
            columns[NAMES[name] if task is None or name != "classic" else task.classic_name] = method(a)
    columns |= {"translation": translator(model, task)(a), "target": b}
    return _interleave(columns)


def _domain_rows(model: Translates, heldout: DomainSet, rows: int) -> tuple[Tensor, int, str]:
    n = min(rows, len(heldout.a), len(heldout.b))
    a, b = (to_float(part.fetch(evenly_spaced(len(part), n))) for part in (heldout.a, heldout.b))
    columns = {"a": a, "as b": translated(model, a, "b")}
    if heldout.known:
        columns["its partner in b"] = b
        return _interleave(columns | ({"that as a": translated(model, b, "a")} if "a" in model.domains else {}))
    if "a" in model.domains:
        columns["back again"] = translated(model, columns["as b"], "a")
        columns |= {"another of b": b, "as a": translated(model, b, "a")}
        columns["and back"] = translated(model, columns["as a"], "b")
    return _interleave(columns)


def _interleave(columns: dict[str, Tensor]) -> tuple[Tensor, int, str]:
    shown = torch.stack([rgb(x.cpu()) for x in columns.values()], 1).flatten(0, 1)
    return shown, len(columns), ", ".join(columns)
