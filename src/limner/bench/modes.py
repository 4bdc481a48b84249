"""How many modes a recipe finds: every recipe on every testbed with several seeds, one table, published rows beside it.

==========  ============================================================  =====================  =========
testbed     data                                                          samples                found all
==========  ============================================================  =====================  =========
ring        8 Gaussians, radius 1, sigma 0.01                             2,500                  8
grid        25 Gaussians, 2 apart, sigma 0.05                             2,500                  24 or 25
stacked     Stacked MNIST: 1,000 classes, read by limner's classifier     26,000                 1,000
==========  ============================================================  =====================  =========

Counts depend on the nets more than on the method (a plain GAN finds 3.3 or 17.3 modes of the same grid in two papers),
so all recipes of a testbed have the same nets, and published rows stand beside as what other nets gave, not as rivals.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limner import api, report
from limner.core import catalogue, recipe
from limner.core.checkpoint import replace_file
from limner.core.errors import LimnerError, unknown
from limner.core.progress import Progress, Silent
from limner.core.run import Run, relative
from limner.core.units import count
from limner.metrics.modes import Modes, point_modes, stacked_modes
from limner.report import Figure, Section, Table

_HIGH_QUALITY = 0.9  # the share of samples near a mode that a solved testbed has
_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # 95 %, by n


@dataclass(frozen=True)
class Testbed:
    """Data whose modes are known, and how they are counted."""

    data: str
    samples: int
    known: int
    enough: int
    recipes: str


TESTBEDS = {
    "ring": Testbed("ring", 2500, 8, 8, "toy-*"),
    "grid": Testbed("grid", 2500, 25, 24, "toy-*"),
    "stacked": Testbed("stacked-mnist", 26_000, 1000, 1000, "stacked-*"),
}
_NOT_IN_THE_PLANE = ("toy-shift",)

PUBLISHED = {
    "ring": (
        ("GAN, VEEGAN's run", "1", "99.3", "–"),
        ("Unrolled GAN, VEEGAN's run", "7.6", "35.6", "–"),
        ("VEEGAN", "8", "52.9", "–"),
        ("GAN, PacGAN's run", "6.3 ± .5", "98.2 ± .2", ".45 ± .09"),
        ("ALI, PacGAN's run", "6.6 ± .3", "97.6 ± .4", ".36 ± .04"),
        ("PacGAN2", "7.9 ± .1", "95.6 ± 2.0", ".07 ± .03"),
        ("PacGAN4", "7.8 ± .1", "95.9 ± 1.4", ".07 ± .02"),
    ),
    "grid": (
        ("GAN, VEEGAN's run", "3.3", "0.5", "–"),
        ("Unrolled GAN, VEEGAN's run", "23.6", "16", "–"),
        ("VEEGAN", "24.6", "40", "–"),
        ("GAN, PacGAN's run", "17.3 ± .8", "94.8 ± .7", ".70 ± .07"),
        ("ALI, PacGAN's run", "24.1 ± .4", "95.7 ± .6", ".14 ± .03"),
        ("PacGAN2", "23.8 ± .7", "91.3 ± .8", ".13 ± .04"),
        ("PacGAN4", "24.8 ± .2", "93.6 ± .6", ".04 ± .01"),
    ),
    "stacked": (
        ("DCGAN, VEEGAN's run", "99.0", "–", "3.40"),
        ("Unrolled GAN, VEEGAN's run", "48.7", "–", "4.32"),
        ("VEEGAN", "150.0", "–", "2.95"),
        ("DCGAN, PacGAN's run", "78.9 ± 6.5", "–", "4.50 ± .13"),
        ("PacDCGAN2", "1000.0 ± 0", "–", ".06 ± .003"),
    ),
}
"""Name, modes, % high quality, KL: Srivastava et al. 2017, Table 1; Lin et al. 2018, Tables 1 and 2."""


@dataclass(frozen=True)
class Trained:
    """One training and what was counted of it."""

    testbed: str
    recipe: str
    seed: int
    images: int
    seconds: float
    run: str
    modes: Modes

    @property
    def solved(self) -> bool:
        """Every mode found, and nearly every sample at one."""
        quality = self.modes.high_quality
        return self.modes.found >= TESTBEDS[self.testbed].enough and (quality is None or quality >= _HIGH_QUALITY)


@dataclass(frozen=True)
class Mean:
    """A mean over seeds: its standard error and its 95 % t-interval; None for a single seed."""

    mean: float
    error: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Mean:
        """Of at least one value."""
        x = list(values)
        n, mean = len(x), sum(x) / len(x)
        if n < 2:
            return cls(mean, None, None, None)
        error = math.sqrt(sum((v - mean) ** 2 for v in x) / (n - 1) / n)
        reach = _T.get(n, 1.96 if n > 30 else 2.1) * error
        return cls(mean, error, mean - reach, mean + reach)

    def text(self, digits: int, times: float = 1.0) -> str:
        """As papers write it: mean ± standard error."""
        shown = f"{times * self.mean:.{digits}f}"
        return shown if self.error is None else f"{shown} ± {times * self.error:.{digits}f}"


def work(
    *,
    progress: Progress | None = None,
    recipes: str | list[str] | None = None,
    testbeds: str | list[str] = ("ring", "grid"),  # type: ignore[assignment]
    seeds: int | str = 3,
    out: str | Path = "runs/bench-modes",
    **overrides: Any,
) -> dict[str, Any]:
    """Trains what is not yet there, counts, and writes ``results.json`` and ``index.html`` into `out`.

    A bench that was cut off goes on where it stopped: finished trainings are counted again, the others resumed.

    Args:
        progress: who is told.
        recipes: names, or patterns such as toy-r1gan,toy-pac*; default all of the testbed.
        testbeds: ring, grid or stacked, one or several. Stacked takes hours on a CPU.
        seeds: how many seeds, from 0.
        out: the folder.
        **overrides: keys of every recipe, e.g. images=200k or train.threads=1.

    Returns:
        ``page``, ``rows`` (per testbed and recipe: means, errors, intervals, seeds that solved it) and ``trainings``.
    """
    told = progress or Silent()
    beds, folder, n = _beds(testbeds), Path(out), _seeds(seeds)
    chosen = [(bed, name) for bed in beds for name in _recipes(bed, recipes)]
    folder.mkdir(parents=True, exist_ok=True)
    trained: list[Trained] = []
    for seed in range(n):
        for bed, name in chosen:
            told.say(f"bench modes: {name} on {bed}, seed {seed}")
            trained.append(_train(bed, name, seed, folder, overrides, told))
            _write(folder, trained)
    return _write(folder, trained)


def _beds(names: str | list[str] | tuple[str, ...]) -> list[str]:
    wanted = _words(names)
    for name in wanted:
        if name not in TESTBEDS:
            raise unknown("testbed", name, TESTBEDS)
    return wanted


def _seeds(seeds: int | str) -> int:
    try:
        n = count(seeds)
    except ValueError as error:
        raise LimnerError(f"seeds: {error}") from None
    if not isinstance(n, int) or n < 1:
        raise LimnerError(f"seeds: {seeds!r} is not possible; write a whole number from 1 up")
    return n


def _recipes(bed: str, names: str | list[str] | None) -> list[str]:
    """The recipes of a testbed that are wanted, in order."""
    if names is None:
        return [r for r in catalogue.list_recipes(TESTBEDS[bed].recipes) if r not in _NOT_IN_THE_PLANE]
    found: list[str] = []
    for pattern in _words(names):
        matches = catalogue.list_recipes(pattern)
        if not matches:
            raise unknown("recipe", pattern, catalogue.list_recipes())
        found += matches
    return found


def _words(names: str | list[str] | tuple[str, ...]) -> list[str]:
    words = names.split(",") if isinstance(names, str) else list(names)
    return [w.strip() for w in words if w.strip()]


def _train(bed: str, name: str, seed: int, folder: Path, overrides: dict[str, Any], told: Progress) -> Trained:
    """Trains, resumes or only finds a run, then counts its modes."""
    place = folder / "runs" / f"{bed}-{name}-{seed}"
    settings: dict[str, Any] = {"data": _data(bed, name), "train.seed": seed} | overrides
    images = recipe.load(name, settings).train.get("images")
    if place.exists() and Run(place).ended(images):
        run = Run(place)
    elif place.exists() and any(place.iterdir()):
        run = api.resume(place, progress=told, images=images)
    else:
        run = api.train(name, out=place, progress=told, **settings)
    last = run.metrics()[-1]
    x = api.load(run.latest).sample(TESTBEDS[bed].samples, seed=0)
    return Trained(bed, name, seed, last["images"], last["seconds"], f"runs/{place.name}", _count(bed, x))


def _data(bed: str, name: str) -> dict[str, Any]:
    """The testbed's data; a toy recipe keeps its number of points."""
    own = recipe.load(name).data.kwargs
    return {"name": TESTBEDS[bed].data} | ({"n": own["n"]} if "n" in own else {})


def _count(bed: str, x: Any) -> Modes:
    if bed == "stacked":
        return stacked_modes(x)
    source = recipe.load("toy-gan", {"data": {"name": TESTBEDS[bed].data, "n": 1}}).data.build()
    return point_modes(x, source.centres, source.sigma)


# -- what is written -----------------------------------------------------------------------------------------


def _rows(trained: list[Trained]) -> Iterator[dict[str, Any]]:
    for bed in TESTBEDS:
        for name in dict.fromkeys(t.recipe for t in trained if t.testbed == bed):
            own = [t for t in trained if (t.testbed, t.recipe) == (bed, name)]
            quality = [t.modes.high_quality for t in own if t.modes.high_quality is not None]
            kl = [t.modes.kl for t in own if t.modes.kl is not None]
            yield {
                "testbed": bed,
                "recipe": name,
                "seeds": len(own),
                "solved": sum(t.solved for t in own),
                "modes": Mean.of(t.modes.found for t in own),
                "high_quality": Mean.of(quality) if quality else None,
                "reverse_kl": Mean.of(kl) if kl else None,
                "images": own[0].images,
                "seconds": Mean.of(t.seconds for t in own),
            }


def _write(folder: Path, trained: list[Trained]) -> dict[str, Any]:
    """The table as JSON and as a page."""
    rows = list(_rows(trained))
    content = {"rows": [_plain(r) for r in rows], "trainings": [asdict(t) for t in trained]}
    replace_file(folder / "results.json", (json.dumps(content, indent=1) + "\n").encode())
    sections = [_section(folder, bed, rows, trained) for bed in TESTBEDS if any(r["testbed"] == bed for r in rows)]
    page = report.write_page(folder / "index.html", "How many modes?", sections)
    return content | {"page": relative(page)}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {k: asdict(v) if isinstance(v, Mean) else v for k, v in row.items()}


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row for people: recipe, seeds, solved, modes, high quality in %, reverse KL, images, seconds."""
    quality, kl = row["high_quality"], row["reverse_kl"]
    return (
        row["recipe"],
        f"{row['solved']} of {row['seeds']}",
        row["modes"].text(1),
        quality.text(1, 100) if quality else "–",
        kl.text(3) if kl else "–",
        f"{row['images']:,}",
        f"{row['seconds'].mean:,.0f}",
    )


def text(trained: list[dict[str, Any]]) -> str:
    """The table of `work`'s ``trainings`` for a terminal."""
    rows = _rows([Trained(**t | {"modes": Modes(**t["modes"])}) for t in trained])
    head = ("testbed", "recipe", "solved", "modes", "% high quality", "reverse KL", "images", "seconds")
    lines = [head, *((r["testbed"], *cells(r)) for r in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(w.ljust(n) for w, n in zip(line, widths, strict=True)).rstrip() for line in lines)


def _section(folder: Path, bed: str, rows: list[dict[str, Any]], trained: list[Trained]) -> Section:
    """One testbed: our rows, then the published ones."""
    own = [r for r in rows if r["testbed"] == bed]
    ours = [cells(r) for r in own]
    theirs = [(name, "published", modes, quality, kl, "–", "–") for name, modes, quality, kl in PUBLISHED[bed]]
    head = ("recipe", "solved", f"modes of {TESTBEDS[bed].known}", "% high quality", "reverse KL", "images", "seconds")
    first = {t.recipe: t for t in reversed(trained) if t.testbed == bed}
    figures = [
        Figure(sheets[-1], f"{name}, seed {t.seed}: {t.modes.found} modes.", f"Samples of {name}")
        for name, t in first.items()
        if (sheets := [file for _, file in Run(folder / t.run).samples()])
    ]
    floor = (TESTBEDS[bed].known - 1) / (2 * TESTBEDS[bed].samples)
    return Section(
        f"{bed}: {TESTBEDS[bed].known} modes",
        f"Mean ± standard error over seeds. Solved: at least {TESTBEDS[bed].enough} modes"
        + (f" and {_HIGH_QUALITY:.0%} of samples within 3 sigma of one" if bed != "stacked" else "")
        + f". {TESTBEDS[bed].samples:,} samples; a perfect sampler's KL is about {floor:.4f}. The published rows come"
        " from other nets and budgets: architecture alone moves these counts by a factor of 20.",
        figures,
        Table(head, [*ours, *theirs]),
    )
