"""What a model makes of held-out pictures, as rows of a sheet: the pictures that a training leaves on its way."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from limner.core.batch import Dataset, Domains, Pairs, to_float
from limner.core.chance import keys
from limner.core.model import Corrupts, Reconstructs, Stylises, Translates, reconstruct, stylised, translated

_COLUMNS, _PAIRS = 16, 8


def spread(n: int, wanted: int) -> list[int]:
    """At most `wanted` of n places, evenly spaced.

    >>> spread(10, 4)
    [1, 3, 6, 8]
    """
    wanted = min(n, wanted)
    return [(2 * i + 1) * n // (2 * wanted) for i in range(wanted)]


def reconstructions(model: Reconstructs, heldout: Dataset, device: torch.device, seed: int) -> tuple[Tensor, int]:
    """Rows of inputs (corrupted ones below them, where the model undoes corruption) and outputs; and the columns."""
    ids = spread(len(heldout), _COLUMNS)
    x = to_float(heldout.fetch(ids)).to(device)
    y = None if heldout.labels is None else heldout.labels[ids].to(device)
    rows = [x]
    if isinstance(model, Corrupts):
        rows.append(model.corrupt(x, _noise(device, seed)))
    rows.append(reconstruct(model, rows[-1], y))
    return torch.cat(rows), len(ids)


def translations(model: Translates, dataset: Dataset, seed: int = 0) -> tuple[Tensor, int]:
    """Rows (…,3,H,W) that `told` names, and the columns."""
    if isinstance(dataset, Domains):
        parts = [dataset.a, dataset.b]
        a, b = (to_float(part.fetch(spread(len(part), _PAIRS))) for part in parts)
        y, x = translated(model, a, "b", seed=seed), translated(model, b, "a", seed=seed)
        rows = [a, y, translated(model, y, "a", seed=seed), b, x, translated(model, x, "b", seed=seed)]
    elif isinstance(dataset, Pairs):
        a, b = pairs(dataset, spread(len(dataset), _PAIRS))
        rows = [a, translated(model, a, "b", seed=seed), b]
    else:
        a = b = to_float(dataset.fetch(spread(len(dataset), _PAIRS)))
        rows = [a, translated(model, a, "b", seed=seed)]
    return torch.cat([rgb(row.cpu()) for row in rows]), max(len(a), len(b))


def told(dataset: Dataset) -> str:
    """What the rows of `translations` are."""
    if isinstance(dataset, Domains):
        return "pictures of a, as b, and back again; pictures of b, as a, and back again"
    return "sources, translations, targets" if isinstance(dataset, Pairs) else "pictures, painted"


def painted(model: Stylises, dataset: Domains, device: torch.device) -> tuple[Tensor, int]:
    """Rows of pictures, styles and the pictures in those styles, (…,3,H,W), and the columns."""
    n = min(len(dataset.a), len(dataset.b), _PAIRS)
    x, s = (to_float(part.fetch(spread(len(part), n))).to(device) for part in (dataset.a, dataset.b))
    return torch.cat([x, s, stylised(model, x, [model.look(s)])]).cpu(), n


def pairs(dataset: Dataset, indices: list[int]) -> tuple[Tensor, Tensor]:
    """Sources (B,C',H,W) and targets (B,C,H,W) in [-1,1] of a set of pairs, not augmented, the same each time."""
    if not isinstance(dataset, Pairs):
        raise TypeError(f"{dataset.name} has no pairs")
    ids = torch.tensor(indices)
    return dataset.part(to_float(dataset.joined.fetch(indices)), keys(0, torch.zeros_like(ids), ids))


def rgb(x: Tensor) -> Tensor:
    """What pictures (B,C,H,W) of any number of channels look like in colour: (B,3,H,W)."""
    return x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)


def _noise(device: torch.device, seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator(device).manual_seed(seed)
    return lambda *size: torch.randn(*size, generator=generator, device=device)
