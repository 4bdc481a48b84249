"""Samples of a trained model as pictures on disk."""

from __future__ import annotations

from pathlib import Path

from limner.apply.pictures import save
from limner.core import checkpoint
from limner.core.device import pick
from limner.core.errors import LimnerError
from limner.core.model import Conditions
from limner.core.run import save_sheet, sheet


def draw(
    path: str | Path,
    out: str | Path,
    *,
    n: int = 64,
    seed: int = 0,
    y: int | None = None,
    truncation: float | None = None,
    device: str = "auto",
) -> list[Path]:
    """Samples of a trained model as one sheet (`out` ends in .png or .webp) or as single PNGs in a folder.

    Single images are drawn with `seed`, so a sheet and a folder of the same seed hold the same images.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a .png or .webp for one sheet, or a folder for single images.
        n: how many images.
        seed: of the noise.
        y: class index, for conditional models; all classes in turn by default.
        truncation: largest number in the noise, e.g. 0.7: more typical, less varied.
        device: auto, cpu, cuda or mps.

    Returns:
        What was written.

    Raises:
        LimnerError: there is no such model, it does not draw samples, or `out` has another suffix.
    """
    model = checkpoint.load(path, pick(device))
    x = model.sample(n, seed=seed, y=y, truncation=truncation)
    out = Path(out)
    classes = model.classes if isinstance(model, Conditions) and y is None else 0
    columns = classes if 1 < classes <= 16 else max(1, round(n**0.5))  # a class a column
    if out.suffix.lower() in (".png", ".webp"):
        out.parent.mkdir(parents=True, exist_ok=True)
        save_sheet(sheet(x, columns), out)
        return [out]
    if out.suffix:
        raise LimnerError(f"cannot write {out.name}; give a name that ends in .png or .webp, or a folder")
    if x.shape[2] * x.shape[3] == 1:
        raise LimnerError("points are no pictures; give a sheet that ends in .png")
    return [save(image, out / f"{i:05d}.png") for i, image in enumerate(x)]
