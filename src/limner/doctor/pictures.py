"""Pictures that show a failure, made of the newest checkpoint: rows of images, each above what it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from limner.core.batch import to_float
from limner.core.capabilities import Decodes, Encodes
from limner.core.grid import make_grid, save_grid
from limner.core.model import GenerativeModel
from limner.core.run import Run
from limner.doctor.finding import Finding
from limner.doctor.ground import Ground
from limner.doctor.history import History
from limner.doctor.signals import samples
from limner.metrics.neighbours import nearest

PREFIX = "doctor-"
"""How the names of the pictures begin."""

_COLUMNS = 8
_KINDS = 4
_SEED = 1_000_003  # that of the signals, so that the picture shows what was measured


@dataclass(frozen=True)
class Picture:
    """Rows of images.

    Attributes:
        images: (R·_COLUMNS,C,H,W) in [-1,1], row by row.
        names: a name for each row.
        caption: what it shows, in a sentence.
    """

    images: Tensor
    names: list[str]
    caption: str
    columns: int = _COLUMNS


def save(run: Run, finding: Finding, model: GenerativeModel, ground: Ground, history: History) -> Finding:
    """The finding with its picture, which is written to ``figures/`` of the run; without one where none can be made."""
    make = _MAKERS.get(finding.check)
    if make is None or ground.is_points:
        return finding
    with torch.inference_mode():
        made = make(model, ground, history)
    if made is None:
        return finding
    name = f"{PREFIX}{finding.check}"
    (run.path / "figures").mkdir(exist_ok=True)
    save_grid(make_grid(made.images, made.columns, names=made.names or None), run.path / "figures" / f"{name}.png")
    captions = run.read_json("figures/captions.json") or {}
    run.write_json("figures/captions.json", captions | {name: made.caption})
    return replace(finding, picture=f"figures/{name}.png")


def sweep(run: Run) -> None:
    """Deletes the pictures of earlier diagnoses."""
    for path in (run.path / "figures").glob(f"{PREFIX}*.png"):
        path.unlink()


def _alike(model: GenerativeModel, ground: Ground, history: History) -> Picture | None:
    """Samples, each above the other sample that is most like it."""
    if not samples.applies(model):
        return None
    x = model.sample(128, seed=_SEED).cpu()
    features = ground.look(x)[0]
    distances, neighbours = nearest(features, features, 1, same=True)
    first = torch.from_numpy(distances[:, 0]).argsort()[: 2 * _COLUMNS]
    pairs: dict[frozenset[int], tuple[int, int]] = {}
    for i in first.tolist():
        j = int(neighbours[i, 0])
        pairs.setdefault(frozenset((i, j)), (i, j))
    shown = list(pairs.values())[:_COLUMNS]
    rows = torch.cat([x[[i for i, _ in shown]], x[[j for _, j in shown]]])
    caption = "Samples of different noise, each above the one that is most like it: the nearest pairs of 128 samples."
    return Picture(rows, ["sample", "most like it"], caption, len(shown))


def _copied(model: GenerativeModel, ground: Ground, history: History) -> Picture | None:
    """Samples, each above the training image that is nearest."""
    if not samples.applies(model):
        return None
    x = model.sample(128, seed=_SEED).cpu()
    distances, neighbours = nearest(ground.look(x)[0], ground.features, 1)
    chosen = torch.from_numpy(distances[:, 0]).argsort()[:_COLUMNS]
    real = to_float(ground.real.images[torch.from_numpy(neighbours[:, 0])[chosen]])
    n = len(ground.real.images)
    caption = f"Samples, each above the nearest of {n} training images: the nearest pairs of 128 samples."
    return Picture(torch.cat([x[chosen], real]), ["sample", "training"], caption)


def _missing(model: GenerativeModel, ground: Ground, history: History) -> Picture | None:
    """Training images of the kinds that are drawn least, for their share."""
    counts = history.counts()
    if counts is None or not counts.drawn:
        return None
    drawn = torch.tensor([n for _, n in counts.drawn]).sum(0)
    shares = torch.tensor(counts.shares)
    ratio = drawn / drawn.sum() / shares.clamp(min=1e-9)
    kinds = ground.kinds.of_each(ground.features, ground.logits)
    rows: list[Tensor] = []
    names: list[str] = []
    for k in ratio.argsort().tolist():
        of_kind = ground.real.images[kinds == k][:_COLUMNS]
        if ratio[k] < 0.5 and len(of_kind) == _COLUMNS and len(names) < _KINDS:
            rows.append(to_float(of_kind))
            names.append(f"{counts.names[k]}: {float(ratio[k] * shares[k]):.1%} of {float(shares[k]):.0%}")
    if not rows:
        return None
    caption = "Training images of the kinds that are drawn least, with their share of samples and of training images."
    return Picture(torch.cat(rows), names, caption)


def _beside(model: GenerativeModel, ground: Ground, history: History) -> Picture | None:
    """Samples above training images."""
    if not samples.applies(model):
        return None
    x = model.sample(2 * _COLUMNS, seed=_SEED).cpu()
    rows = torch.cat([x, to_float(ground.real.images[: 2 * _COLUMNS])])
    return Picture(rows, ["samples", "", "training", "images"], "Samples, and training images below them.")


def _spectrum(model: GenerativeModel, ground: Ground, history: History) -> Picture | None:
    """The mean power at each frequency, of samples and of training images."""
    if not samples.applies(model):
        return None
    spectra = [_power(model.sample(128, seed=_SEED).cpu()), _power(to_float(ground.real.images[:128]))]
    low, high = (torch.stack(spectra).quantile(q) for q in (0.01, 0.999))
    images = torch.stack([2 * (s - low) / (high - low) - 1 for s in spectra]).clamp(-1, 1)[:, None]
    caption = (
        "Mean power at each frequency, on a scale of logarithms: samples on the left, training images on the right. The"
        " middle is the mean brightness; bright points at the ends of the axes and in the corners are a checkerboard."
    )
    return Picture(images, [], caption, 2)


def _power(x: Tensor) -> Tensor:
    """The logarithm of the mean power (H,W) of images (N,C,H,W), lowest frequency in the middle."""
    grey = x.double().mean(1)
    power = torch.fft.fft2(grey - grey.mean((1, 2), keepdim=True)).abs().square().mean(0)
    return torch.fft.fftshift(power + 1e-9).log10().float()


def _reconstructed(model: GenerativeModel, ground: Ground, history: History) -> Picture | None:
    """Images above their reconstructions."""
    if not (isinstance(model, Encodes) and isinstance(model, Decodes)):
        return None
    side = ground.held or ground.real
    x, y = side.batch(_COLUMNS, model.device)
    rows = torch.cat([x, model.decode(model.encode(x, y), y)]).cpu()
    return Picture(rows, ["image", "decoded"], "Images, each above its reconstruction.")


_Maker = Callable[[GenerativeModel, Ground, History], Picture | None]
_MAKERS: dict[str, _Maker] = {
    **dict.fromkeys(("collapse", "low_variety", "noise_ignored"), _alike),
    **dict.fromkeys(("copying", "critic_overfit"), _copied),
    **dict.fromkeys(("dropped_classes", "oscillation"), _missing),
    **dict.fromkeys(("noise", "blur", "vanishing", "weak_critic", "divergence"), _beside),
    **dict.fromkeys(
        ("posterior_collapse", "kl_vanishing", "not_reconstructing", "blurred_reconstructions", "dead_units"),
        _reconstructed,
    ),
    "checkerboard": _spectrum,
}
"""How the picture of a check is made."""
