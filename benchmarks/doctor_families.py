"""The doctor on trainings of every family that were made to fail, and on healthy ones: what it says of each.

    python benchmarks/doctor_families.py --out runs/doctor                 trains what is missing, and prints the table
    python benchmarks/doctor_families.py --out runs/doctor --only vae      the cases whose name begins so
    python benchmarks/doctor_families.py --out runs/doctor --report        the table of what is there

A case is a recipe, settings that spoil it, and the checks that must fail; a healthy one has none. Trainings are short,
examined seven times, and neither scored nor reported, so all cases take about 20 minutes of one processor. A check
that fails beside those that must, is counted as a false alarm on healthy trainings only: a failure may show in several.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limner import api
from limner.bench.shrink import noise_images, write_vgg
from limner.config import recipe as recipes
from limner.core.device import pick
from limner.core.errors import LimnerError
from limner.core.run import Run
from limner.core.train import fit
from limner.doctor.diagnosis import diagnose
from limner.doctor.watch import Watch


@dataclass(frozen=True)
class Case:
    """A training and what must be found.

    Attributes:
        recipe: a shipped recipe.
        steps: its length.
        settings: what is changed in the recipe.
        fails: checks of which each must fail; none for a healthy training.
    """

    recipe: str
    steps: int
    settings: dict[str, Any] = field(default_factory=dict)
    fails: tuple[str, ...] = ()


SMALL = {"data.size": 16, "G.width": 12, "D.width": 12, "D.patch": 16, "data.path": "mnist-5k"}
UNPAIRED: dict[str, Any] = {
    "data": {"name": "domains", "a": "mnist-5k", "b": "digits", "size": 16, "channels": 1},
    **{f"{net}.width": 8 for net in ("G", "F", "D_X", "D_Y")},
    **{f"{net}.blocks": 1 for net in ("G", "F")},
    **{f"{net}.patch": 16 for net in ("D_X", "D_Y")},
}


def styled() -> dict[str, Any]:
    """A picture of noise, a style of noise, and a small net with random weights."""
    folder = noise_images()
    picture, style = folder / "0.png", folder / "1.png"
    data = {"name": "styled", "path": str(picture), "style": [str(style)], "size": 24}
    return {"data": data, "model.weights": str(write_vgg(folder))}


CASES: dict[str, Case] = {
    "vae-healthy": Case("vae-mnist", 1050),
    "vae-cond-healthy": Case("cvae-mnist", 1050),
    "vae-beta-100": Case("vae-mnist", 1050, {"model.beta": 100}, ("posterior_collapse", "kl_vanishing")),
    "vae-cond-beta-100": Case("cvae-mnist", 1050, {"model.beta": 100}, ("posterior_collapse", "kl_vanishing")),
    "vae-lr-x300": Case("vae-mnist", 1050, {"optim.VAE.lr": 0.3}, ("not_reconstructing",)),
    "vae-100-images": Case("vae-mnist", 1500, {"data.limit": 128}, ("tiny_set", "reconstruction_overfit")),
    "ae-healthy": Case("ae-mnist", 1050),
    "ae-deep-healthy": Case("deep-ae-mnist", 1050),
    "ae-sparse-healthy": Case("sparse-ae-mnist", 1050),
    "ae-overcomplete": Case("overcomplete-ae-mnist", 2100, {}, ("copying_input",)),
    "ae-lr-x100": Case("ae-mnist", 1050, {"optim.AE.lr": 0.1}, ("not_reconstructing",)),
    "ae-sparse-dead": Case(
        "sparse-ae-mnist", 1050, {"model.penalty": "l1", "model.weight": 1.0}, ("dead_units", "not_reconstructing")
    ),
    "ae-100-images": Case("ae-mnist", 2100, {"data.limit": 100, "model.z": 32}, ("tiny_set", "reconstruction_overfit")),
    "flow-toy-healthy": Case("realnvp-toy", 600),
    "flow-spline-healthy": Case("spline-flow-toy", 600),
    "flow-lr-x1000": Case(
        "realnvp-toy", 600, {"optim.F.lr": 3.0, "optim.F.clip": None}, ("exploding_scales", "not_invertible")
    ),
    "flow-300-points": Case("realnvp-toy", 1500, {"data.n": 300}, ("likelihood_overfit",)),
    "diffusion-ddpm-healthy": Case("ddpm-toy", 900),
    "diffusion-edm-healthy": Case("edm-toy", 900),
    "diffusion-flow-healthy": Case("rectified-flow-toy", 900),
    "diffusion-mean-flow-healthy": Case("mean-flow-toy", 900),
    "diffusion-lr-tiny": Case("ddpm-toy", 900, {"optim.F.lr": 1e-8}, ("not_denoising",)),
    "diffusion-lr-x500": Case("ddpm-toy", 900, {"optim.F.lr": 1.0}, ("not_denoising",)),
    "diffusion-wide-data": Case("edm-toy", 900, {"data.radius": 300, "data.sigma": 3}, ("wrong_range",)),
    "diffusion-image-healthy": Case("rectified-flow-small-mnist", 437),
    "style-healthy": Case("stylise", 100),
    "style-lr-tiny": Case("stylise", 100, {"optim.picture": {"name": "adam", "lr": 1e-7}}, ("no_descent",)),
    "style-lr-x100": Case("stylise", 100, {"optim.picture": {"name": "adam", "lr": 5.0}}, ("saturated",)),
    "translation-healthy": Case("denoise", 700, SMALL),
    "translation-critic-wins": Case("denoise", 700, SMALL | {"optim.G.lr": 1e-8}, ("discriminator_wins",)),
    "translation-unpaired-healthy": Case("cyclegan-emoji", 500, UNPAIRED),
    "translation-identity": Case("cyclegan-emoji", 500, UNPAIRED | {"model.identity": 1000}, ("untranslated",)),
}


def trained(name: str, case: Case, out: Path) -> Run:
    """The run of a case, trained now if it is not there."""
    if (out / name / "checkpoints" / "latest").exists():
        return Run(out / name)
    tree = recipes.load(case.recipe).to_dict()
    settings = styled() | case.settings if tree["model"]["name"] == "style_transfer" else case.settings
    batch = tree["train"]["batch"]
    quiet = {"threads": 1, "device": "cpu", "samples": 4, "sample_images": 10**9, "checkpoint_images": 10**9}
    length = {"images": case.steps * batch, "doctor_images": max(1, case.steps // 7) * batch}
    prepared = api.prepare(recipes.load(case.recipe, settings | quiet | length))
    run = Run.create(recipes.record(prepared.recipe), out / name)
    run.lock()
    watch = Watch(prepared.recipe.to_dict(), prepared.dataset, prepared.heldout)
    start = time.process_time()
    try:
        fit(
            prepared.options,
            prepared.model,
            prepared.dataset,
            prepared.optimisers,
            run,
            device=pick("cpu"),
            heldout=prepared.heldout,
            examiner=watch,
        )
    except LimnerError as error:
        print(f"{name}: {error}", flush=True)
    finally:
        run.unlock()
    print(f"{name}: {time.process_time() - start:.0f} s", flush=True)
    return run


def row(name: str, case: Case, out: Path) -> tuple[str, bool]:
    """A line of the table, and whether the case is as it must be."""
    try:
        findings = diagnose(out / name).findings
    except LimnerError as error:
        return f"| {name} | {error} | | |", False
    said = {state: [f.check for f in findings if f.state == state] for state in ("fail", "watch", "error")}
    good = set(case.fails) <= set(said["fail"]) if case.fails else not said["fail"]
    wanted = ", ".join(case.fails) or "none"
    cells = [name, wanted, *(", ".join(said[state]) for state in ("fail", "watch")), "yes" if good else "**no**"]
    return f"| {' | '.join(cells)} |", good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/doctor"))
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of the names of cases")
    parser.add_argument("--report", action="store_true", help="train nothing")
    chosen = parser.parse_args()
    cases = {name: case for name, case in CASES.items() if name.startswith(tuple(chosen.only))}
    if not chosen.report:
        for name, case in cases.items():
            try:
                trained(name, case, chosen.out)
            except LimnerError as error:
                print(f"{name}: {error}", flush=True)
    lines = [row(name, case, chosen.out) for name, case in cases.items() if (chosen.out / name).exists()]
    print("| case | must fail | fails | watched | as it must be |\n|---|---|---|---|---|")
    print("\n".join(line for line, _ in lines))
    healthy = [good for (_, good), case in zip(lines, cases.values(), strict=False) if not case.fails]
    print(f"\n{sum(good for _, good in lines)} of {len(lines)} as they must be; false alarms on {healthy.count(False)}")


if __name__ == "__main__":
    main()
