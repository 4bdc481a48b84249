"""The labs of the course: each trains what its lecture trains, checks the numbers and draws the figures.

`limner lab NAME` calls `run`. Nothing heavy is imported before that.
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
}
_SETTINGS = ("out", "images", "data", "seed")


def titles() -> dict[str, str]:
    """The labs in the order of the course, each in one line."""
    return dict(_TITLES)


def run(name: str, *, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Does one lab and writes its page.

    Args:
        name: of `titles`.
        progress: who is told how training goes; default nobody.
        **settings: `out` (a folder; default ``runs/lab-NAME``, numbered if taken), `images` (what each training sees;
            lower it for a quick look, raise it for better pictures), `data` (labelled grey images of 28×28; default
            mnist-5k) and `seed`.

    Returns:
        ``lab``, ``page`` (the path of ``index.html``), ``run`` (the run folders, in order), ``checks`` (the lecture's
        numbers: name, expected, measured, ok), ``claims`` (its statements: claim, measured, holds), ``results`` (all
        that was measured) and ``figures`` (paths by name).

    Raises:
        LimnerError: an unknown lab or setting, unfit data, or a folder that is in use.
    """
    if name not in _TITLES:
        raise unknown("lab", name, _TITLES)
    for key in settings:
        if key not in _SETTINGS:
            raise unknown(f"setting of lab {name}", key, _SETTINGS)
    lab = import_module(f"limner.labs.{name.replace('-', '_')}")
    from limner.labs._bench import Bench

    bench = Bench(name, _TITLES[name], progress=progress, **{"images": lab.IMAGES} | _checked(settings))
    lab.work(bench)
    return bench.finish()


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with numbers read as people write them (``60k``)."""
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
