"""The labs of the course: each trains what its lecture trains, checks the numbers and draws the figures.

`limner lab NAME` calls `run`. Nothing heavy is imported before that. A lab is a module with a function `work`, whose
keyword arguments are the lab's own settings, and `IMAGES`, what each of its trainings sees: None for a lab without
images. A lab that draws no random numbers has `SEED = None`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from limner.core.errors import LimnerError, unknown

if TYPE_CHECKING:
    from limner.core.progress import Progress

_TITLES = {
    "ae": "Lab 1, a vanilla autoencoder: three numbers for a digit, and what more of them buy",
    "conv-ae": "Lab 2, a convolutional autoencoder: maps of codes, and random codes that give no digits",
    "vae": "Lab 3, a variational autoencoder: a latent space that can be sampled and walked through",
    "gan": "Lab 4, a generative adversarial network: digits out of noise, and losses that do not say how good",
    "dcgan": "Lab 5, the convolutional generator of TensorFlow's tutorial",
    "oscillation": "Oscillation: the smallest GAN of all goes round its equilibrium, and what makes it arrive",
    "optimal-d": "The optimal D: what a discriminator learns, what its loss then measures, and what labels do to it",
    "vanishing-gradient": "The vanishing gradient: G stands still, D learns on, and what is left for G to follow",
    "style": "Neural style transfer: what a picture shows and how it is painted",
}
_COMMON = ("out", "images", "data", "seed")


def titles() -> dict[str, str]:
    """The labs in the order of the course, each in one line."""
    return dict(_TITLES)


def run(name: str, *, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Does one lab and writes its page.

    Args:
        name: of `titles`.
        progress: who is told how training goes; default nobody.
        **settings: `out` (a folder; default ``runs/lab-NAME``, numbered if taken) and `seed`; for labs that train on
            images `images` (what each training sees; lower it for a quick look, raise it for better pictures) and
            `data` (labelled grey images of 28×28; default mnist-5k); and the lab's own, such as `iterations`.

    Returns:
        ``lab``, ``page`` (the path of ``index.html``), ``run`` (the run folders, in order), ``checks`` (the lecture's
        numbers: name, expected, measured, ok), ``claims`` (its statements: claim, measured, holds), ``results`` (all
        that was measured) and ``figures`` (paths by name).

    Raises:
        LimnerError: an unknown lab or setting, unfit data, or a folder that is in use.
    """
    if name not in _TITLES:
        raise unknown("lab", name, _TITLES)
    from limner.config.call import keywords, read

    lab = import_module(f"limner.labs.{name.replace('-', '_')}")
    own = keywords(lab.run)
    seed = getattr(lab, "SEED", 0)
    unused = (*(("images", "data") if lab.IMAGES is None else ()), *(("seed",) if seed is None else ()))
    known = [k for k in (*_COMMON, *own) if k not in unused]
    for key in settings:
        if key not in known:
            raise unknown(f"setting of lab {name}", key, known)
    chosen = read(own, {k: v for k, v in settings.items() if k in own})
    common = _checked({k: v for k, v in settings.items() if k not in own})
    from limner.labs._bench import Bench

    defaults = {"images": lab.IMAGES, "seed": seed}
    bench = Bench(name, _TITLES[name], progress=progress, **(defaults | common), **chosen)
    lab.run(bench, **chosen)
    return bench.finish()


def text(result: Mapping[str, Any]) -> str:
    """The checks of a lab with a line each, and its page."""
    lines = [
        f"{'ok  ' if c['ok'] else 'FAIL'} {c['name']}: {c['measured']} (expected {c['expected']})"
        for c in result["checks"]
    ]
    return "\n".join([*lines, result["page"]])


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of all labs with numbers read as people write them (``60k``)."""
    from limner.core.units import count

    given = dict(settings)
    for key, least in (("images", 1), ("seed", 0)):
        if key in given:
            try:
                given[key] = count(given[key])
            except ValueError as error:
                raise LimnerError(f"{key}: {error}") from None
            if not isinstance(given[key], int) or given[key] < least:
                raise LimnerError(f"{key}: {given[key]!r} is not possible; write a whole number from {least} up")
    return given
