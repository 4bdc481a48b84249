"""Counts the modes that recipes find on testbeds, over several seeds, in a table beside published results.

==========  ============================================================  =====================  =========
testbed     data                                                          samples                found all
==========  ============================================================  =====================  =========
ring        8 Gaussians, radius 1, sigma 0.01                             2,500                  8
grid        25 Gaussians, 2 apart, sigma 0.05                             2,500                  24 or 25
stacked     Stacked MNIST: 1,000 classes, read by limner's classifier     26,000                 1,000
==========  ============================================================  =====================  =========

Counts depend on the nets more than on the method (a plain GAN finds 3.3 or 17.3 modes of the same grid in two papers).
So the default recipes have nets of one size, and published rows are shown as results of other nets, not as competitors;
the recipes published-* have the nets of those papers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limner import api, report
from limner.bench import _figures
from limner.bench._trainings import (
    Mean,
    check_same_settings,
    matching_recipes,
    positive_int,
    run_folder,
    split_names,
    train,
    without,
)
from limner.config import recipe
from limner.config.recipe import Recipe
from limner.config.spec import Spec
from limner.core.durable import replace_file
from limner.core.errors import LimnerError, unknown
from limner.core.paths import user_path
from limner.core.progress import Progress, Silent
from limner.core.run import Run, relative
from limner.core.train import Interrupted
from limner.metrics.modes import Modes, point_modes, stacked_modes
from limner.report import Figure, Section, Table
from limner.report.words import aligned

_SOLVED_QUALITY = 0.9  # share of samples near a mode for a solved testbed
_FREE_DATA_KEYS = ("n", "digits")  # keys of a testbed's data that may change: their number and their source


@dataclass(frozen=True)
class Testbed:
    """Data with known modes, and the settings of counting them."""

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
_NOT_IN_PATTERNS = ("toy-shift",)  # patterns skip it: it can only shift a Gaussian

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
        ("PacDCGAN4", "1000.0 ± 0", "–", ".07 ± .005"),
    ),
}
"""Name, modes, % high quality, KL: Srivastava et al. 2017, Table 1; Lin et al. 2018, Tables 1 and 2."""


@dataclass(frozen=True)
class Trained:
    """One training and the modes counted in its samples."""

    testbed: str
    recipe: str
    seed: int
    images: int
    seconds: float
    run: str
    modes: Modes

    @property
    def reached(self) -> bool:
        """Whether every mode was found (on the grid one may be missing)."""
        return self.modes.found >= TESTBEDS[self.testbed].enough

    @property
    def solved(self) -> bool:
        """Whether every mode was found, and nearly every sample is close to one."""
        quality = self.modes.high_quality
        return self.reached and (quality is None or quality >= _SOLVED_QUALITY)


def run(
    *,
    progress: Progress | None = None,
    recipes: str | list[str] | None = None,
    testbeds: str | list[str] = "ring,grid",
    seeds: int | str = 3,
    samples: int | str | None = None,
    out: str | Path = "runs/bench-modes",
    **overrides: Any,
) -> dict[str, Any]:
    """Trains missing runs, counts modes, and writes ``results.json`` and ``index.html`` into `out`.

    A bench that was interrupted continues: finished trainings are counted again, the others are resumed.

    Args:
        progress: receives the progress of trainings and messages.
        recipes: names, patterns such as toy-r1gan,toy-pac*, or YAML files; default all of the testbed.
        testbeds: ring, grid or stacked, one or several. Stacked takes hours on a CPU.
        seeds: number of seeds, from 0.
        samples: number of samples that are counted; default as in the papers.
        out: the folder.
        **overrides: keys of every recipe, e.g. images=200k or train.threads=1.

    Returns:
        ``page``, ``rows`` (per testbed and recipe: means, errors, intervals, seeds that solved it), ``trainings`` and
        ``published``.

    Raises:
        LimnerError: an unknown testbed, recipe or key, or a folder with trainings of other settings.
    """
    progress, folder = progress or Silent(), user_path(out, "a folder")
    n, n_samples = positive_int("seeds", seeds), None if samples is None else positive_int("samples", samples)
    pairs = [(bed, name) for bed in _testbeds(testbeds) for name in _recipes(bed, recipes)]
    plan = [(bed, seed, _recipe(bed, name, seed, overrides)) for seed in range(n) for bed, name in pairs]
    for bed, seed, planned in plan:  # checked before the first training, which may take hours
        check_same_settings(run_folder(folder, f"{bed}-{planned.name}-{seed}"), planned)
    folder.mkdir(parents=True, exist_ok=True)
    trained: list[Trained] = []
    for bed, seed, planned in plan:
        progress.say(f"bench modes: {planned.name} on {bed}, seed {seed}")
        try:
            run = train(run_folder(folder, f"{bed}-{planned.name}-{seed}"), planned, progress)
        except Interrupted:
            progress.say("bench modes: stopped; the same command goes on from here")
            raise
        trained.append(_count_modes(run, bed, seed, planned, n_samples))
        _write(folder, trained)
    return _write(folder, trained)


# -- settings -----------------------------------------------------------------------------------------------


def _testbeds(names: str | list[str]) -> list[str]:
    selected = split_names("testbeds", names)
    for name in selected:
        if name not in TESTBEDS:
            raise unknown("testbed", name, TESTBEDS)
    return selected


def _recipes(bed: str, names: str | list[str] | None) -> list[str]:
    patterns = [TESTBEDS[bed].recipes] if names is None else split_names("recipes", names)
    matches = [m for p in patterns for m in matching_recipes(p) if m == p or m not in _NOT_IN_PATTERNS]
    return list(dict.fromkeys(matches))


def _recipe(bed: str, name: str, seed: int, overrides: dict[str, Any]) -> Recipe:
    """The recipe on a testbed's data, with its own options if its data are the same, else only their number.

    Raises:
        LimnerError: `overrides` has a key that the recipe lacks, or changes what the bench decides.
    """
    data = recipe.load(name).data
    options = data.kwargs if data.name == TESTBEDS[bed].data else {k: v for k, v in data.kwargs.items() if k == "n"}
    fixed = {"data": {"name": TESTBEDS[bed].data} | options, "train.seed": seed}
    unchanged, changed = recipe.load(name, fixed), recipe.load(name, fixed | overrides)
    if changed.train.get("seed") != seed:
        raise LimnerError("the bench sets the seeds; write seeds=10 for ten of them, and leave train.seed out")
    if without(unchanged.data.to_dict(), _FREE_DATA_KEYS) != without(changed.data.to_dict(), _FREE_DATA_KEYS):
        raise LimnerError(f"the data of testbed {bed} are fixed, except data.n; choose data with testbeds=NAME")
    return changed


# -- trainings -----------------------------------------------------------------------------------------------


def _count_modes(run: Run, bed: str, seed: int, planned: Recipe, samples: int | None) -> Trained:
    """Counts the modes of a finished run on the device where it was trained."""
    device = str(planned.train.get("device")).split(",")[0]
    x = api.load(run.latest, device).sample(samples or TESTBEDS[bed].samples, seed=0)
    if bed == "stacked":
        modes = stacked_modes(x)
    else:
        source = Spec("data", planned.data.name, planned.data.kwargs | {"n": 1}).build()
        modes = point_modes(x.cpu(), source.centres, source.sigma)
    last_line = run.metrics()[-1]
    return Trained(bed, planned.name, seed, last_line["images"], last_line["seconds"], f"runs/{run.path.name}", modes)


# -- results ------------------------------------------------------------------------------------------------


def _rows(trained: list[Trained]) -> Iterator[dict[str, Any]]:
    for bed in TESTBEDS:
        for name in dict.fromkeys(t.recipe for t in trained if t.testbed == bed):
            seeds = [t for t in trained if (t.testbed, t.recipe) == (bed, name)]
            quality = [t.modes.high_quality for t in seeds if t.modes.high_quality is not None]
            kl = [t.modes.kl for t in seeds if t.modes.kl is not None]
            yield {
                "testbed": bed,
                "recipe": name,
                "seeds": len(seeds),
                "reached": sum(t.reached for t in seeds),
                "solved": sum(t.solved for t in seeds),
                "modes": Mean.of(t.modes.found for t in seeds),
                "high_quality": Mean.of(quality) if quality else None,
                "reverse_kl": Mean.of(kl) if kl else None,
                "images": max(t.images for t in seeds),
                "seconds": Mean.of(t.seconds for t in seeds),
            }


def _write(folder: Path, trained: list[Trained]) -> dict[str, Any]:
    rows = list(_rows(trained))
    beds = [bed for bed in TESTBEDS if any(r["testbed"] == bed for r in rows)]
    content = {
        "rows": [{k: asdict(v) if isinstance(v, Mean) else v for k, v in r.items()} for r in rows],
        "trainings": [asdict(t) for t in trained],
        "published": {bed: [dict(zip(_HEAD, row, strict=True)) for row in PUBLISHED[bed]] for bed in beds},
    }
    replace_file(folder / "results.json", (json.dumps(content, indent=1) + "\n").encode())
    sections = [
        _section(folder, bed, [r for r in rows if r["testbed"] == bed], [t for t in trained if t.testbed == bed])
        for bed in beds
    ]
    page = report.write_page(folder / "index.html", "How many modes?", sections, "bench")
    return content | {"page": relative(page)}


_HEAD = ("name", "modes", "high_quality_percent", "reverse_kl")


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """The text of a row: recipe, solved, modes, high quality in %, reverse KL, images, seconds."""
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
    """The table of ``trainings`` in the result of `run`, for a terminal."""
    rows = _rows([Trained(**t | {"modes": Modes(**t["modes"])}) for t in trained])
    head = ("testbed", "recipe", "solved", "modes", "% high quality", "reverse KL", "images", "seconds")
    return "\n".join(aligned([head, *((r["testbed"], *cells(r)) for r in rows)]))


def _section(folder: Path, bed: str, rows: list[dict[str, Any]], trained: list[Trained]) -> Section:
    """The section of a testbed: samples, limner's rows, then the published ones."""
    published = [(name, "published", modes, quality, kl, "–", "–") for name, modes, quality, kl in PUBLISHED[bed]]
    head = ("recipe", "solved", f"modes of {TESTBEDS[bed].known}", "% high quality", "reverse KL", "images", "seconds")
    n = trained[0].modes.n
    ceiling = trained[0].modes.ceiling
    perfect = f"{(TESTBEDS[bed].known - 1) / (2 * n):.4f}"
    return Section(
        f"{bed}: {TESTBEDS[bed].known} modes",
        f"Mean ± standard error over seeds. Solved: at least {TESTBEDS[bed].enough} modes"
        + ("" if ceiling is None else f" and {_SOLVED_QUALITY:.0%} of samples within 3 sigma of one")
        + f". {n:,} samples; a perfect sampler's KL is about {perfect}"
        + ("" if ceiling is None else f" and its share of samples of high quality {ceiling:.1%}")
        + ". The published rows (Srivastava et al. 2017; Lin et al. 2018) come from other nets and budgets:"
        " architecture alone moves these counts by a factor of 20.",
        _sample_figures(folder, [t for t in trained if t.seed == trained[0].seed]),
        Table(head, [*(cells(r) for r in rows), *published]),
    )


def _sample_figures(folder: Path, trained: list[Trained]) -> list[Figure]:
    """The samples of one seed: all point clouds in one figure, or a grid of images for each recipe."""
    runs = [(t, Run(folder / t.run)) for t in trained]
    clouds = {
        f"{t.recipe}: {t.modes.found} of {t.modes.known}": frames[-1][1] for t, r in runs if (frames := r.frames())
    }
    figures = []
    if clouds:
        caption = f"Samples (red) over the data (grey), seed {trained[0].seed}; {_figures.SHOWN} of each."
        figures.append(Figure(_figures.scatter(clouds), caption, "Samples over the data, a panel for each recipe"))
    for t, r in runs:
        if not r.frames() and (sheets := r.samples()):
            caption = f"{t.recipe}, seed {t.seed}: {t.modes.found:,} of {t.modes.known:,} modes."
            figures.append(Figure(sheets[-1][1], caption, f"Samples of {t.recipe}"))
    return figures
