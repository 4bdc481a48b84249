"""Samples of a trained model as image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from limner.apply import outputs
from limner.apply.images import save
from limner.apply.metadata import DESCRIPTION, Metadata
from limner.config.call import keywords, read_options
from limner.config.load import load_model
from limner.core.capabilities import Conditional
from limner.core.device import pick
from limner.core.errors import LimnerError
from limner.core.grid import make_grid
from limner.core.paths import user_path

_MOST = 100_000
_ORIGIN = "limner sample: "
_STEPS = 8  # images between two labels, with both ends


@dataclass(frozen=True)
class Drawn:
    """Samples that were written.

    Attributes:
        written: the files.
        model: name of the model.
        n: number of images.
        seed: seed of the noise.
        y: the label that was asked for; None stands for a sheet of labels.
        options: every sampling option of the model with the value that was used.
    """

    written: list[Path]
    model: str
    n: int
    seed: int
    y: str | int | None
    options: dict[str, Any]


def draw(
    path: str | Path,
    out: str | Path,
    *,
    n: int = 64,
    seed: int = 0,
    y: str | int | None = None,
    to: str | int | None = None,
    overwrite: bool = False,
    batch: int = 256,
    device: str = "auto",
    **options: Any,
) -> Drawn:
    """Draws samples of a trained model, as one grid or as single PNG files in a folder.

    Without `y`, samples of a conditional model are a sheet: the images of a row share their noise, and each column has
    a label of its own, which is its heading in a grid. A grid and a folder of the same seed hold the same images. The
    EXIF description of a file names the model, the seed, the label and the options that were chosen.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a .png or .webp file for one grid, or a folder for single images.
        n: number of images.
        seed: seed of the noise; the same seed gives the same images.
        y: for conditional models, a class by its name or its index, attributes such as "hair=red glasses=round", or
            a text, as the data of the model have them; all classes in turn or labels of the data by default.
        to: with y, another label: the eight images of a row share their noise and go from the one label to the other,
            as between two captions.
        overwrite: replace files that exist; earlier samples are replaced in any case.
        batch: images at a time; lower it if memory is short. The images stay the same.
        device: auto, cpu, cuda or mps.
        **options: sampling options of the model, such as truncation=0.7 for models that draw from a prior (the largest
            number in the noise: images become more typical and less varied); `limner explain PATH` lists them.

    Raises:
        LimnerError: there is no such model, it does not draw samples, it has no such option or not this value of it, or
            `out` has another suffix or exists.
    """
    if not 1 <= n <= _MOST:
        raise LimnerError(f"n: {n} samples cannot be drawn at once; write 1 to {_MOST}")
    as_folder = outputs.is_folder(out)
    target = user_path(out)
    if not as_folder and target.suffix.lower() not in (".png", ".webp"):
        raise LimnerError(
            f"cannot write {target.name}; give a name that ends in .png or .webp, or {target.name}/ for a folder"
        )
    files = [target / f"{i:05d}.png" for i in range(n)] if as_folder else [target]
    outputs.refuse_existing([f for f in files if not _is_sample(f)], overwrite)
    model = load_model(user_path(path), pick(device))
    chosen = model.checked_options(read_options(model.sampling_options, options), keywords(draw))
    columns = _STEPS if to is not None else model.sheet_columns if y is None else None
    x = model.sample(n, seed=seed, y=y, to=to, batch=batch, columns=columns, **chosen)
    said = {"seed": seed, **({} if y is None else {"class": y}), **({} if to is None else {"to": to}), **chosen}
    origin = f"{_ORIGIN}{model.spec.name}, " + ", ".join(f"{k} {_text(v)}" for k, v in said.items())
    if as_folder and x.shape[2] * x.shape[3] == 1:
        raise LimnerError("the samples of this model are points, not images; give a file that ends in .png for a plot")
    if as_folder:
        written = [save(image, file, origin) for image, file in zip(x, files)]
    else:
        headings = None
        if to is not None:
            headings = [str(y), *[""] * (_STEPS - 2), str(to)]
        elif isinstance(model, Conditional) and columns:
            headings = model.condition.name(model.condition.default(columns))
        grid = make_grid(x, columns or max(1, round(n**0.5)), headings=headings)
        written = [outputs.write(grid, target, Metadata().described(origin))]
    defaults = {k: p.default for k, p in model.sampling_options.items()}
    return Drawn(written, model.spec.name, n, seed, y, {**defaults, **model.options, **chosen})


def _text(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, tuple | list):
        return ",".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_sample(path: Path) -> bool:
    """Whether a file was written by `draw`: it can be drawn again, so it may be replaced."""
    try:
        with Image.open(path, formats=["PNG", "WEBP"]) as image:
            return str(image.getexif().get(DESCRIPTION, "")).startswith(_ORIGIN)
    except (OSError, ValueError, SyntaxError):
        return False
