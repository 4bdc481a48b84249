"""Search: the samples of a model that are most like a picture, or that show best what is described.

Draws are compared by features of their pictures, or by what a reader reads in them, and the best can be made better by
projection (`limner.latent.project`). Nothing is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from limner.config.call import checked
from limner.core.condition import Attributes
from limner.core.errors import LimnerError
from limner.core.grid import make_grid
from limner.latent import judges
from limner.latent.neighbours import nearest
from limner.latent.project import looked_at, pictures, projected
from limner.latent.results import Shown, Target, opened
from limner.latent.spaces import Label, Measured
from limner.metrics.extractors.readers import ReadsAttributes

_STEPS = 50  # of the projection that refines


def described(reader: ReadsAttributes, x: Tensor, what: str) -> Tensor:
    """Log probability (N,) that images x (N,C,H,W) show what is described, such as ``glasses=round hair=red``.

    Raises:
        LimnerError: the reader knows no such attribute or value.
    """
    table = judges.scores(reader, x)
    asked = Attributes(reader.values).asked(what)
    return torch.stack([table[attribute][:, k] for attribute, k in asked.items()]).sum(0)


@checked
def search(
    path: str | Path,
    out: str | Path,
    *,
    like: str | Path | None = None,
    want: str | None = None,
    space: str | None = None,
    k: Annotated[int, Field(ge=1, le=100)] = 10,
    samples: Annotated[int, Field(ge=2, le=200_000)] = 2000,
    refine: bool = False,
    steps: Annotated[int, Field(ge=1, le=100_000)] | None = None,
    data: str | None = None,
    y: str | int | None = None,
    fit: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    **options: Any,
) -> Shown:
    """Finds the samples that are most like a picture, or that show best what is described.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a folder, for search.png and search.json; or one file: a sheet (.png), the best first, with distances.
        like: a picture of the size that the model draws.
        want: instead of a picture, a description such as "glasses=round hair=red".
        space: the space; the first that the model has by default.
        k: samples to show.
        samples: samples to search in.
        refine: go on from the best by projection, with like=.
        steps: iterations of refine; 50 by default.
        data: for want, labelled pictures, a folder or a named set, from which a reader learns; by default the run's
            own.
        y: for conditional models, the label of all samples.
        fit: resize and convert a picture of another size or mode, instead of refusing it.
        seed: seed of the samples.
        overwrite: replace files that exist.
        device: auto, cpu, cuda or mps.
        **options: sampling options of the model, such as truncation=0.7, or psi=0.7 of a model with styles.

    Raises:
        LimnerError: there is no such model, space, picture or value, nothing reads the pictures, or a file exists.
    """
    if (like is None) == (want is None):
        raise LimnerError('search for one of the two: like=PICTURE, or want="glasses=round"')
    if (fit and like is None) or (data is not None and want is None):
        raise LimnerError("fit= is for like=PICTURE, and data= for want=; leave it out")
    if steps is not None and not refine:
        raise LimnerError("steps are those of the projection; write refine=true too, or leave steps out")
    place = opened(path, space, device, options, search)
    if k > samples:
        raise LimnerError(f"k={k} of {samples} samples cannot be shown; write k={samples} or less")
    if refine and (like is None or isinstance(place, Label)):
        raise LimnerError("refine goes on by projection, which needs like=PICTURE and a space other than y")
    target = Target(out, "search", (".png",), overwrite=overwrite)
    wanted = None if like is None else pictures(like, place.shape, fit, 2)[1].float()
    if wanted is not None and len(wanted) > 1:
        raise LimnerError(f"a search is for one picture, and {like} has more; write like=PICTURE")
    eye = None if want is None else judges.reader(path, place.shape, data, place.model.device)
    if want is not None and eye is None:
        raise LimnerError(
            f"nothing reads {want!r} in pictures of {place.model.title}; name labelled pictures: data=FOLDER"
        )
    rest = place.rest(samples, y, seed)
    found = Measured.of(place.draw(samples, seed, rest))
    x = place.images(found.points, rest)
    numbers: dict[str, Any] = {"samples": samples, "seed": seed}
    if wanted is not None:
        judge = judges.extractor(path, x, place.model.device)
        far, order = (v[0] for v in nearest(judge.features(x).cpu(), judge.features(wanted).cpu(), k))
        numbers |= {"features": judge.key, "distances": far.tolist()}
        headings, title = (
            [f"{v:.3g}" for v in far.tolist()],
            f"Samples of {place.model.title} like {Path(str(like)).name}",
        )
        lines = [f"{title}: distances of {judge.key} from {far[0]:.3g} to {far[-1]:.3g}, the nearest of {samples}"]
    else:
        assert eye is not None
        log_p, order = described(eye, x, str(want)).topk(k)
        shares = log_p.exp()
        numbers |= {"reader": eye.key, "probabilities": shares.tolist()}
        headings, title = [f"{v:.2f}" for v in shares.tolist()], f"Samples of {place.model.title} with {want}"
        lines = [f"{title}: probability {shares[0]:.2f} to {shares[-1]:.2f} ({eye.key}), the best of {samples}"]
    numbers["indices"] = order.tolist()
    shown = x[order]
    if wanted is not None:
        shown, headings = torch.cat([wanted, shown]), ["wanted", *headings]
        if refine:
            best = Measured(found.points[order[:1]], found.mean, found.sigma)
            one = None if rest is None else rest[order[:1]]
            distance = looked_at(place.shape[0], 0.1, place.model.device)
            better = projected(place, wanted, one, best, judge, distance, steps=steps or _STEPS, of=found)
            shown, headings = torch.cat([shown, better.images]), [*headings, f"refined {better.features[0]:.3g}"]
            numbers["refined"] = better.rows([Path(str(like)).name])[0]
            lines.append(f"refined by projection: distance {better.features[0]:.3g}, PSNR {better.psnr[0]:.1f} dB")
    target.sheet(make_grid(shown, len(shown), headings=headings), f"limner latent search: {lines[0]}")
    result = Shown(target.written, place.model.title, place.name, numbers, lines)
    target.numbers(result.document())
    return result
