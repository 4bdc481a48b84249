"""The labs of the course: each repeats the trainings of a lecture, checks its numbers and draws its figures.

`limner lab NAME` calls `run`, which imports torch and matplotlib; this module does not. A lab is a module with a
function `run`, whose keyword arguments are the lab's own settings, and the constant `IMAGES`, the number of images that
each of its trainings sees (None for a lab without images). A lab that uses no random numbers has `SEED = None`, and one
that needs data of a certain kind names them in `DATA`, so that nobody chooses others; settings of the lab that are
options of these data are given to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from limner.core.errors import LimnerError, unknown

if TYPE_CHECKING:
    from limner.core.progress import Progress

_TITLES = {
    "ae": "Lab 1, a vanilla autoencoder: a code of three numbers for a digit, and what a larger code gains",
    "conv-ae": "Lab 2, a convolutional autoencoder: maps of codes, and random codes that decode to no digits",
    "vae": "Lab 3, a variational autoencoder: a latent space that can be sampled and interpolated",
    "gan": "Lab 4, a generative adversarial network: digits from noise, and losses that do not measure quality",
    "dcgan": "Lab 5, the convolutional generator of TensorFlow's tutorial",
    "oscillation": "Oscillation: why the smallest GAN circles its equilibrium, and what makes it converge",
    "optimal-d": "The optimal D: what a discriminator learns, what its loss measures, and the effect of soft labels",
    "vanishing-gradient": "The vanishing gradient: what remains of G's gradient while D learns and G is frozen",
    "cgan": "A conditional GAN: the digit that one asks for, and what becomes of it when the label tells D nothing",
    "acgan": "AC-GAN and classes that overlap: a classifier that rewards what no other class could have made",
    "infogan": "InfoGAN: codes that nobody named, how much of them an image tells, and whether they are the digits",
    "disentangle": "Disentanglement: sliders that nobody named, by three methods and several seeds, and known factors",
    "cogan": "CoGAN: pairs of digits and edges, learnt without a single pair, by layers that two GANs share",
    "lapgan": "LAPGAN: a picture from coarse to fine, a GAN for each level, beside one GAN of as much computation",
    "stylegan": "StyleGAN: what each layer's style decides, truncation, noise apart from style, and w beside z",
    "latent": "Latent spaces: walks and arithmetic in an autoencoder, a VAE and a GAN, and the holes they fall into",
    "text": "Text to image: faces from captions, and what real pictures with a wrong caption teach the discriminator",
    "ageing": "Ageing: a face at another age by CAAE and by Age-cGAN, and how much of its identity they keep",
    "diffusion": "Diffusion: noise a little at a time, a net that guesses the image, and the ways back",
    "flow": "Flows: the change of variables, its determinant layer by layer, and exact likelihoods",
    "four-families": "Four families: VAE, GAN, flow and diffusion on one set in equal time, by six properties",
    "style": "Neural style transfer: the content of one picture in the style of another",
}
_COMMON = ("out", "images", "data", "seed")


def titles() -> dict[str, str]:
    """Names of the labs in the order of the course, with a line about each."""
    return dict(_TITLES)


def run(name: str, *, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Runs a lab and writes its page.

    Args:
        name: a name of `titles`.
        progress: receives the progress of trainings and messages; default none.
        **settings: `out` (a folder; default ``runs/lab-NAME``, numbered if that exists) and `seed`; for labs that train
            on images also `images` (how many each training sees; lower it for a quick look, raise it for better
            pictures) and, unless the lab has data of its own, `data` (labelled grey images of 28×28; default mnist-5k);
            and the lab's own, such as `iterations`.

    Returns:
        ``lab``, ``page`` (the path of ``index.html``), ``run`` (the run folders, in order), ``checks`` (the lecture's
        numbers: name, expected, measured, ok), ``claims`` (its statements: claim, measured, holds), ``results`` (all
        measurements) and ``figures`` (paths by name).

    Raises:
        LimnerError: an unknown lab or setting, unsuitable data, or a folder that is not empty.
    """
    if name not in _TITLES:
        raise unknown("lab", name, _TITLES)
    from limner.config.call import keywords, read
    from limner.config.written import read_as

    lab = import_module(f"limner.labs.{name.replace('-', '_')}")
    parameters = keywords(lab.run)
    seed = getattr(lab, "SEED", 0)
    own_data = getattr(lab, "DATA", None)
    unused = (
        *(("images", "data") if lab.IMAGES is None else ()),
        *(("data",) if own_data else ()),
        *(("seed",) if seed is None else ()),
    )
    known = [k for k in (*_COMMON, *parameters) if k not in unused]
    for key in settings:
        if key not in known:
            raise unknown(f"setting of lab {name}", key, known)
    own = read(parameters, {k: read_as(v, parameters[k][0]) for k, v in settings.items() if k in parameters})
    if own_data:
        own_data = own_data | {k: v for k, v in own.items() if k in own_data}
    common = _checked({k: v for k, v in settings.items() if k not in parameters})
    from limner.labs._bench import Bench

    defaults = {"images": lab.IMAGES, "seed": seed}
    bench = Bench(name, _TITLES[name], progress=progress, own_data=own_data, **(defaults | common), **own)
    lab.run(bench, **own)
    return bench.finish()


def summary(result: Mapping[str, Any]) -> str:
    """A line for each check of a lab, and the path of its page, for a terminal."""
    lines = [
        f"{'ok  ' if c['ok'] else 'FAIL'} {c['name']}: {c['measured']} (expected {c['expected']})"
        for c in result["checks"]
    ]
    return "\n".join([*lines, result["page"]])


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that all labs share, with numbers such as ``60k`` read as integers."""
    from limner.core.units import count

    values = dict(settings)
    for key, minimum in (("images", 1), ("seed", 0)):
        if key in values:
            try:
                values[key] = count(values[key])
            except ValueError as error:
                raise LimnerError(f"{key}: {error}") from None
            if not isinstance(values[key], int) or values[key] < minimum:
                raise LimnerError(f"{key}: {values[key]!r} is not possible; write a whole number from {minimum} up")
    return values
