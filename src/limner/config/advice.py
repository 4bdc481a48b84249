"""Which recipe suits a user's images, why, and what to expect: ``limner train photos/``.

The advice depends on what the data are (images, pairs or two domains; how many, how large, grey or in colour), on the
time that may be spent, and on the speed and memory of this machine, which are measured with a few steps of each
recipe that comes into question. The recipes are tried from the best images to the fastest training; the first that can
see enough images in the time is taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from limner.config import recipe as recipes
from limner.config.catalogue import names
from limner.config.spec import Spec
from limner.core.errors import LimnerError
from limner.core.paths import BUILTIN, ambiguous, exists, user_path
from limner.core.units import clock, size

if TYPE_CHECKING:
    from limner.core.batch import Dataset

DEFAULT_TIME = 3600.0
"""Seconds that a training may take if the user names no time."""

Estimate = Callable[..., dict[str, Any]]
"""`limner.api.dry_run`: the plan of a training, with its time and memory."""

_SMALL, _FEW, _LEAST = 32, 5000, 16
_OTHER = 0.05  # share of the time for other things than training steps
_MEASURED = 256
_MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class Facts:
    """What the data are.

    Args:
        name: name of the folder or file.
        kind: images, pairs or domains.
        n: number of training images.
        shape: (C,H,W) at which they are read by default.
        classes: number of classes, or 0.
        attributes: number of attributes, or 0.
    """

    name: str
    kind: str
    n: int
    shape: tuple[int, int, int]
    classes: int
    attributes: int = 0

    @property
    def text(self) -> str:
        """One sentence."""
        c, h, w = self.shape
        colours = {1: "grey", 2: "grey with alpha", 3: "colour", 4: "colour with alpha"}[c]
        what = {"images": "images", "pairs": "pairs of images", "domains": "images in each of two domains"}[self.kind]
        classes = f" in {self.classes} classes" if self.classes else ""
        classes = f" with {self.attributes} attributes" if self.attributes else classes
        return f"{self.name}: {self.n:,} {what} to train on{classes}, read as {colours} of {h}x{w}"


@dataclass(frozen=True)
class Candidate:
    """A recipe that may be taken.

    Args:
        recipe: its name.
        kind: kind of data.
        why: why it is taken.
        expect: what its images look like, with a figure where one was measured.
        enough: images that it has to see before its samples are of use.
        sides: the lowest and highest shorter side that it is meant for.
        few: whether it is for few images (True), many (False) or any number (None).
        labelled: whether it is for images with classes or attributes, which it is told (True), for those without
            (False), or for both, and is told none (None).
        side: pixels of the shorter side that larger images are resized to.
        settings: settings besides data and images.
        held_back: why it is only named, however much time there is; "" if it may be taken.
    """

    recipe: str
    kind: str
    why: str
    expect: str
    enough: int
    sides: tuple[int, int] = (1, 1 << 20)
    few: bool | None = None
    labelled: bool | None = None
    side: int = 64
    settings: Mapping[str, Any] = field(default_factory=dict)
    held_back: str = ""

    def suits(self, facts: Facts) -> bool:
        """Whether it is meant for such data, whatever the time."""
        side = min(facts.shape[1:])
        few = self.few is None or self.few == (facts.n < _FEW)
        labelled = self.labelled is None or self.labelled == bool(facts.classes or facts.attributes)
        return self.kind == facts.kind and self.sides[0] <= side <= self.sides[1] and few and labelled


@dataclass(frozen=True)
class Advice:
    """A recipe, its settings and the reasons.

    Args:
        recipe: name of the recipe.
        settings: overrides, the user's included.
        reasons: sentences: what the data are, which recipe is taken and why, which are not, what to expect, how long.
        plan: the plan of the training, as `limner.api.dry_run` gives it for a part of the data.
    """

    recipe: str
    settings: dict[str, Any]
    reasons: list[str]
    plan: dict[str, Any]

    @property
    def command(self) -> str:
        """The command that does the same without advice."""
        words = [f"{k}={_written(v)}" for k, v in self.settings.items()]
        return " ".join(["limner train", self.recipe, *words])


_DIFFUSION = "diffusion learns longer and draws in 20 passes; it was not measured on folders yet, so name it to try it"
_BEST_SMALL = "after five minutes a small rectified flow had better scores than the best of the small GANs"
_DIGITS = "clean images: Fréchet distance 0.5 on digits after 56,000 images, where noise has 95 and the GAN 2.4"
_UNLABELLED = "clean images; measured with labels only: Fréchet distance 0.5 on digits, where noise has 95, a GAN 2.4"

CANDIDATES = (
    Candidate("rectified-flow-64", "images", "", "", 3_000_000, (_SMALL + 1, 1 << 20), held_back=_DIFFUSION),
    Candidate("rectified-flow-small-mnist", "images", _BEST_SMALL, _DIGITS, 30_000, (1, _SMALL), labelled=True),
    Candidate(
        "rectified-flow-small-mnist",
        "images",
        _BEST_SMALL,
        _UNLABELLED,
        30_000,
        (1, _SMALL),
        labelled=False,
        settings={"model.F.conditional": False, "model.sampling.guidance": 1.0},
    ),
    Candidate(
        "r3gan-64",
        "images",
        "R3GAN draws the best images where there is time for millions of them",
        "not measured here; the paper's burn-in alone takes 20M images",
        2_000_000,
        (_SMALL + 1, 1 << 20),
        few=False,
    ),
    Candidate(
        "ada-64",
        "images",
        "with so few images D would learn them by heart; ADA augments what it sees as much as needed",
        "not measured in colour; on 1,000 digits a Fréchet distance of 20.5, where it is 44.9 without ADA",
        300_000,
        (_SMALL + 1, 1 << 20),
        few=True,
    ),
    Candidate(
        "dcgan-64",
        "images",
        "a DCGAN is the best that the time allows at this size",
        "not measured here; at half the width, 107,000 photographs of flowers gave their colours and no petals yet",
        200_000,
        (_SMALL + 1, 1 << 20),
    ),
    Candidate(
        "dcgan-64",
        "images",
        "a DCGAN of half the width is the best that the time allows at this size",
        "after 107,000 photographs of flowers: their colours and a bright middle, no petals yet",
        150_000,
        (_SMALL + 1, 1 << 20),
        settings={"model.G.width": 32, "model.D.width": 32, "train.batch": 64},
    ),
    Candidate(
        "sngan-mnist",
        "images",
        "of the small GANs, the one with spectral norm had the best scores after a few minutes",
        "sharp images: Fréchet distance 3.9 on digits after 229,000 images, where noise has 95 and a VAE 32 to 41",
        100_000,
        (1, _SMALL),
        few=None,
    ),
    Candidate(
        "conv-vae-mnist",
        "images",
        "a VAE is useful after minutes, and reconstructs too",
        "right but blurred images: Fréchet distance 31.8 on digits, where noise has 95 and a GAN 3.9",
        20_000,
    ),
    Candidate(
        "pix2pix-facades",
        "pairs",
        "pix2pix with the paper's nets learns from pairs",
        "layout and colours right after 20 passes, textures later",
        15_000,
        (96, 1 << 20),
        side=128,
    ),
    Candidate(
        "pix2pix-openmoji",
        "pairs",
        "pix2pix with nets of half the paper's width learns from pairs",
        "L1 .065 on held-out outlines after 18 passes, where the nearest training pair has .137",
        10_000,
    ),
    Candidate(
        "cyclegan-horse2zebra",
        "domains",
        "CycleGAN with the paper's nets learns without pairs",
        "not measured here; the paper gets colours and textures of the other domain, and keeps shapes",
        100_000,
        (96, 1 << 20),
        side=128,
    ),
    Candidate(
        "cyclegan-emoji",
        "domains",
        "CycleGAN with nets of half the paper's width learns without pairs",
        "colours and outlines of the other domain; a fine grain stayed after 24,000 images",
        20_000,
    ),
)
"""Recipes by kind of data, from the best images to the fastest training."""


def is_data(source: object) -> TypeGuard[str | Path]:
    """Whether a text names images on disk rather than a recipe.

    Raises:
        LimnerError: it names both.
    """
    if not isinstance(source, str | Path) or not exists(source):
        return False
    path = user_path(source)
    if not path.is_dir():
        return path.suffix.lower() not in (".yaml", ".yml") and source not in names("recipe")
    if source not in names("recipe"):
        return True
    if (path / "recipe.yaml").is_file():  # a run that was given the name of its recipe
        return False
    raise ambiguous(str(source), str(source), "recipe")


def advise(source: str | os.PathLike[str], overrides: Mapping[str, Any], estimate: Estimate) -> Advice:
    """The recipe for a user's images.

    Args:
        source: a folder, a ZIP, or another file of images.
        overrides: settings of the user, which stay. `time` is the time that may be spent.
        estimate: measures a recipe: `limner.api.dry_run`.

    Raises:
        LimnerError: the data cannot be read, or no recipe can learn from them on this machine.
    """
    settings: dict[str, Any] = dict(overrides)
    time = settings.get("time", settings.get("train.time"))
    budget = DEFAULT_TIME if time is None else Spec.parse("train", {"time": time}, name="trainer").get("time")
    facts = survey(source, settings)
    rejected: list[str] = []
    problems: set[str] = set()
    suitable = [c for c in CANDIDATES if c.suits(facts) and not c.held_back]
    rejected += [f"not {c.recipe}: {c.held_back}" for c in CANDIDATES if c.suits(facts) and c.held_back]
    for candidate in suitable:
        advice, problem = _try(candidate, facts, str(source), settings, budget, estimate, candidate is suitable[-1])
        if advice is not None:
            advice.reasons[2:2] = rejected
            return advice
        problems.add(problem)
        rejected.append(f"not {candidate.recipe}: {problem}")
    if len(suitable) > 1 and len(problems) == 1:  # of the data or of a setting, and not of a recipe
        raise LimnerError(f"no recipe suits {facts.name}: {problems.pop()}")
    raise LimnerError(f"no recipe suits {facts.name}: {'; '.join(rejected)}; choose one of 'limner list recipes'")


def survey(source: str | os.PathLike[str], settings: Mapping[str, Any]) -> Facts:
    """Reads what the data are; headers only, where the source has any."""
    from limner import data
    from limner.data.files.pair_layout import domain_paths, match_names
    from limner.data.files.store import open_store
    from limner.data.sources.folder import prepared_store

    path = user_path(source)
    options = ("size", "channels", "limit", "only", "without")
    given = {k: settings[key] for k in options for key in (k, f"data.{k}") if key in settings}
    shared = Spec.parse("data", {"name": "domains", **given}).kwargs
    tables = {k: settings[key] for k in ("attributes", "bins") for key in (k, f"data.{k}") if key in settings}
    own = Spec.parse("data", {"name": "folder", "path": str(path), **tables}).kwargs
    if path.is_dir() or path.suffix.lower() == ".zip":
        names = [] if prepared_store(str(path)) is not None else open_store(path).names
        domains = domain_paths(names)
        if domains is not None and len(domains) == len(names):  # else a/ and b/ are classes beside others
            kind = "pairs" if match_names(domains).names else "domains"
            return _facts(data.SOURCES[kind](str(path), **shared), kind, path)
        return _facts(data.SOURCES["folder"](**own, cache=False, **shared), "images", path)
    return _facts(data.load(str(path), **shared), "images", path)


def _facts(dataset: Dataset, kind: str, path: Path) -> Facts:
    channels, height, width = dataset.shape
    known = {"classes": len(dataset.classes or ()), "attributes": len(dataset.attributes or ())}
    return Facts(path.name or str(path), kind, len(dataset), (channels, height, width), **known)


def _try(
    candidate: Candidate,
    facts: Facts,
    source: str,
    settings: dict[str, Any],
    budget: float,
    estimate: Estimate,
    is_last: bool,
) -> tuple[Advice | None, str]:
    """The advice to take a candidate, or why not."""
    from limner.core.device import memory  # imports torch

    own: dict[str, Any] = {"data": source, **candidate.settings}
    if not _given("data.size", settings):
        own["data.size"] = _read_size(facts, candidate.side)
    batch = int(own.get("train.batch") or recipes.load(f"{BUILTIN}{candidate.recipe}").train.kwargs["batch"])
    if facts.n < 2 * batch and not _given("train.batch", settings):
        own["train.batch"] = 1 << max(0, (facts.n // 2).bit_length() - 1)  # the largest power of two in half of them
    part = {"data.limit": min(facts.n, _MEASURED)}  # a few images are enough to measure a step
    try:
        plan = estimate(f"{BUILTIN}{candidate.recipe}", **settings | own | part)
    except LimnerError as error:
        return None, str(error)
    needed, available = plan["estimate"]["bytes"], memory(plan["estimate"]["device"])
    if available is not None and needed > _MEMORY_SHARE * available:
        return None, f"it needs about {size(needed)} of memory and there are {size(available)}"
    device = plan["estimate"]["device"]
    rate = plan["images"] / max(plan["estimate"]["seconds"], 1e-9)
    if rate * budget < candidate.enough and not is_last:
        seconds = candidate.enough / rate
        return None, f"it needs {candidate.enough:,} images, which take {clock(seconds)} here ({device})"
    possible = int(rate * budget * (1 - _OTHER))
    if not _given("train.images", settings):
        own["train.images"] = min(plan["images"], _rounded(max(possible, 1000)))
    images = int(plan["images"] if _given("train.images", settings) else own["train.images"])
    reasons = [
        facts.text,
        f"recipe {candidate.recipe}: {candidate.why}",
        f"time: about {clock(images / rate)} on {device} for {images:,} images, {images / facts.n:.3g} passes",
        f"expect: {candidate.expect}",
    ]
    if plan.get("recipe", {}).get("data", {}).get("flip") and not _given("data.flip", settings):
        reasons.append(
            "half of them are mirrored at random: write flip=false where left and right differ, as in writing"
        )
    if facts.kind == "images" and (facts.classes or facts.attributes):
        what = "classes" if facts.classes else "attributes"
        ask = (
            "ask for one of them with y=…"
            if candidate.labelled
            else "to ask for one, train a conditional recipe by name"
        )
        reasons.append(f"its samples are of all {what}; {ask}")
    if images < candidate.enough:
        reasons.append(f"this is little: {candidate.enough:,} images are better; give it more time, as in time=3h")
    advice = Advice(candidate.recipe, own | settings, reasons, plan)
    reasons.append(f"the same without advice: {advice.command}")
    return advice, ""


def _given(key: str, settings: Mapping[str, Any]) -> bool:
    """Whether the user wrote a key, with or without its section."""
    return key in settings or key.rpartition(".")[2] in settings


def _read_size(facts: Facts, side: int) -> list[int]:
    """Height and width with a shorter side of at most `side`, close to the proportions of the data."""
    height, width = facts.shape[1:]
    scale = min(1.0, side / min(height, width))
    if scale == 1 and min(height, width) >= _LEAST:
        return [height, width]
    return [max(_LEAST, round(n * scale / 8) * 8) for n in (height, width)]


def _rounded(n: int) -> int:
    """Two significant digits, rounded down."""
    unit = 10 ** max(0, len(str(n)) - 2)
    return n // unit * unit


def _written(value: Any) -> str:
    text = str(value).replace(" ", "")
    return f"'{value}'" if isinstance(value, str) and text != value else text
