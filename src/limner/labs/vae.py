"""Lab 3: the variational autoencoder, whose latent space can be sampled and walked through.

The lecture shows the manifold of digits as z1 and z2 change and says that noise now decodes to realistic images. Its
formula of the KL is wrong (errata E1 to E3): the right one is compared with `torch.distributions`. The nets are those
of Kingma and Welling 2013, as the lecture gives none.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from limner.core.capabilities import Reconstructs
from limner.core.model import GenerativeModel
from limner.labs import _figures as draw
from limner.labs import _judge as judge
from limner.labs._bench import Bench, check
from limner.labs.conv_ae import random_codes
from limner.latent import maps, walk
from limner.losses.divergence import kl_normal
from limner.report import Table

IMAGES = 250_000
PRINTED_MINIMUM, PRINTED_SIGMA = -0.153, 0.7071  # of the lecture's formula
SIDE = 20  # of the manifold


def run(bench: Bench) -> None:
    """Trains with two and with twenty latent numbers, and with classes; then measures and draws."""
    _kl(bench)
    plane = bench.train("z2", "vae-mnist", {"model.z": 2})
    model = bench.train("z20", "vae-mnist")
    _manifold(bench, plane)
    _space(bench, plane)
    _bounds(bench, model)
    _random(bench, model)
    _walks(bench, model)
    _classes(bench)


# ---- the formula -----------------------------------------------------------------------------------------------------


def printed_kl(mu: Tensor, sigma: Tensor) -> Tensor:
    """What the lecture prints, per dimension: sigma^2 + mu^2 - log sigma - 1. It is no divergence (erratum E1)."""
    return sigma.square() + mu.square() - sigma.log() - 1


def _kl(bench: Bench) -> None:
    generator = torch.Generator().manual_seed(bench.seed)
    mu, logvar = torch.randn(2, 1000, 20, dtype=torch.float64, generator=generator)
    theirs = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1)
    error = float((kl_normal(mu, logvar) - theirs).abs().max())
    sigma = torch.linspace(0.2, 2, 18_001, dtype=torch.float64)
    printed, right = printed_kl(torch.zeros(()), sigma), kl_normal(torch.zeros(18_001, 1), 2 * sigma.log()[:, None])
    low = int(printed.argmin())
    figure, (ax,) = draw.plots(1, height=2.7)
    thin = slice(None, None, 100)
    lines = {"KL(N(0, σ²) ‖ N(0, 1))": right, "as the lecture prints it": printed}
    series = {name: (sigma[thin].tolist(), y[thin].tolist()) for name, y in lines.items()}
    draw.curves(ax, series, xlabel="σ, where μ = 0", title="nats per dimension")
    bench.section(
        "The KL",
        "The lecture prints Σ σ² + μ² − log σ − 1: the half is missing, and the logarithm is of σ where it should"
        " be of σ². Its minimum is below zero, at σ = 0.7071, so it would pull the posterior to the wrong width. It"
        " also asks to minimise −KL + E log p(x|z), which is the bound to maximise. The right form is ½ Σ (σ² + μ²"
        " − 1 − log σ²), zero for N(0, 1) alone.",
        bench.figure(
            "kl",
            figure,
            "The divergence touches zero at σ = 1. The printed formula goes below it.",
            "Two curves over sigma; one has its minimum 0 at 1, the other −0.153 at 0.7071.",
        ),
        checks=[
            check(
                "our KL against torch.distributions: largest difference in nats", "below 1e-10", error, error < 1e-10
            ),
            check(
                "minimum of the printed formula per dimension",
                PRINTED_MINIMUM,
                round(float(printed[low]), 3),
                math.isclose(float(printed[low]), PRINTED_MINIMUM, abs_tol=5e-4),
            ),
            check(
                "the σ where it lies",
                PRINTED_SIGMA,
                round(float(sigma[low]), 4),
                math.isclose(float(sigma[low]), PRINTED_SIGMA, abs_tol=2e-4),
            ),
        ],
    )


# ---- two latent numbers ----------------------------------------------------------------------------------------------


@torch.inference_mode()
def _encode(model: GenerativeModel, x: Tensor, y: Tensor | None = None) -> Tensor:
    assert isinstance(model, Reconstructs)
    return model.encode(x, y)


@torch.inference_mode()
def _decode(model: GenerativeModel, z: Tensor, y: Tensor | None = None) -> Tensor:
    assert isinstance(model, Reconstructs)
    return model.decode(z, y)


def _manifold(bench: Bench, model: GenerativeModel) -> None:
    assert isinstance(model, Reconstructs)
    bench.section(
        "The manifold",
        "With two latent numbers the whole space can be drawn. From left to right z1 grows, from bottom to top z2,"
        " in equal steps of probability: the inverse normal distribution function of an even grid, as in Kingma and"
        " Welling, figure 4. Every picture stands for the same share of the prior, and there are no holes.",
        bench.figure(
            "manifold",
            draw.tiles(walk.manifold(model, SIDE), SIDE, scale=2, gap=0),
            f"Mean images at {SIDE}×{SIDE} codes: change z1 to the right, z2 upwards.",
            "A grid of digits that turn smoothly into one another.",
        ),
    )


def _space(bench: Bench, model: GenerativeModel) -> None:
    some = bench.train_set.spread(3000)
    z = _encode(model, some.x)
    figure, (ax,) = draw.plots(1, height=5.2, width=8)
    draw.classes(ax, maps.flat(z), some.y, some.classes, "posterior means: z1 to the right, z2 upwards")
    ax.set_aspect("equal")
    spread = [round(float(s), 2) for s in z.std(0)]
    bench.results["latent_std_of_means"] = spread
    bench.section(
        "Where the classes lie",
        "The KL draws the codes together to fill the prior, so the classes lie side by side around the origin. Compare"
        " the autoencoder of Lab 1, whose codes have no such scale.",
        bench.figure(
            "space",
            figure,
            f"Posterior means of {len(some):,} training images; their standard deviations are {spread[0]} and"
            f" {spread[1]}.",
            "A scatter chart of classes around the origin, within about three units.",
        ),
    )


# ---- likelihood, samples, walks --------------------------------------------------------------------------------------


def _bounds(bench: Bench, model: GenerativeModel) -> None:
    some = bench.test_set.one_of_each().x
    back = _decode(model, _encode(model, some))
    rows: list[tuple[str, float, str, float, str]] = []
    for label, z in (("z2", 2), ("z20", 20)):
        scores = bench.runs[label].read_json("scores.json")
        elbo, iwae = scores["elbo_nats"], scores["iwae50_nats"]
        rows.append((f"{z}", elbo["value"], f"± {elbo['error']:.2g}", iwae["value"], f"± {iwae['error']:.2g}"))
        bench.results[f"bounds_{label}"] = {k: s["value"] for k, s in scores.items()}
    bench.section(
        "Reconstructions, and two bounds of the likelihood",
        "A VAE maximises a lower bound of the likelihood, not the likelihood. The ELBO is the bound it is trained"
        " on; the importance-weighted bound with 50 draws (Burda et al. 2015) lies between it and log p(x). Both"
        " are in nats per held-out image, with grey values taken as probabilities of white: comparable among"
        " Bernoulli models of the same pixels only.",
        bench.figure(
            "reconstructions",
            draw.rows({"held-out": some, "back": back}, scale=3),
            "Held-out images, and the mean images of their codes of 20 numbers.",
            "Two rows of digits; the second a little smoother.",
        ),
        table=Table(("latent numbers", "ELBO, nats", "standard error", "IWAE-50, nats", "standard error"), rows),
    )


def _random(bench: Bench, model: GenerativeModel) -> None:
    """Samples beside what Lab 2's autoencoder makes of random codes."""
    n = min(500, len(bench.train_set) // 2)
    order = torch.randperm(len(bench.train_set), generator=torch.Generator().manual_seed(bench.seed))[:n]
    x = bench.train_set.x[order]
    ae = bench.train("conv-ae", "conv-ae-mnist", images=max(64, bench.images // 2))
    false = _decode(ae, random_codes(_encode(ae, bench.train_set.x), n, bench.seed))
    sampled = model.sample(n, seed=bench.seed)
    rows = {
        "autoencoder, random codes": judge.verdict(bench.train_set, false, _decode(ae, _encode(ae, x)), bench.seed),
        "VAE, samples": judge.verdict(bench.train_set, sampled, _decode(model, _encode(model, x)), bench.seed),
        "held-out images": judge.verdict(bench.train_set, bench.test_set.x),
    }
    bench.results["random"] = {name: vars(v) for name, v in rows.items()}
    shown = {"images": x[:100], "autoencoder, random codes": false[:100], "VAE, samples": sampled[:100]}
    bench.section(
        "Samples of the prior",
        "Left, training images. In the middle, what the convolutional autoencoder of Lab 2 decodes from Gaussian codes"
        " with the mean and spread of its own. Right, what the VAE decodes from N(0, I), the prior that its codes were"
        f" trained to fill.\n\n{judge.EXPLAINED}",
        bench.figure(
            "samples",
            draw.beside({name: draw.tiles(part, 10) for name, part in shown.items()}),
            "The same number of random images from both models. Both are drawn without choosing.",
            "Three grids: digits, blots, and soft digits.",
        ),
        table=judge.table(rows),
    )
    ours, theirs = rows["VAE, samples"], rows["autoencoder, random codes"]
    bench.claim(
        "A random noise from N(0, 1) can generate a realistic image through the decoder",
        f"neighbours agree {ours.agreement:.0%} (autoencoder {theirs.agreement:.0%}, images"
        f" {rows['held-out images'].agreement:.0%}); told from reconstructions {ours.told or 0:.0%} of the time"
        f" (autoencoder {theirs.told or 0:.0%})",
        ours.agreement > theirs.agreement and (ours.told or 1) < (theirs.told or 1),
    )


def _walks(bench: Bench, model: GenerativeModel) -> None:
    """One number at a time, and from one image to another."""
    assert isinstance(model, Reconstructs)
    some = bench.test_set.one_of_each()
    z, spread = _encode(model, some.x), _encode(model, bench.train_set.x).std(0)
    values = torch.linspace(-3, 3, 11)
    wide = spread.argsort(descending=True)
    chosen = [*wide[:6].tolist(), int(wide[-1])]
    start = z[len(z) // 2]
    rows = {f"z{d + 1}, spread {spread[d]:.2f}": walk.traverse(model, start, d, values) for d in chosen}
    bench.results["active_numbers"] = int((spread > 0.1).sum())
    bench.section(
        "One number at a time",
        "One of the 20 numbers goes from −3 to 3, the others stay. The six numbers whose posterior means spread"
        " most over the training images come first; the last row is the number that spreads least. Where the spread"
        f" is near zero the decoder has learnt to ignore the number: {bench.results['active_numbers']} of"
        f" {len(spread)} have a spread above 0.1.",
        bench.figure(
            "traversal",
            draw.rows(rows, scale=2, heads=[f"{v:+.1f}" for v in values.tolist()]),
            "Each row changes one latent number of the same code.",
            "Rows of one digit that changes shape, slant or thickness from left to right.",
        ),
    )
    ends = [(z[a], z[b]) for a, b in ((0, -1), (1, len(z) // 2), (2 % len(z), 3 % len(z)))]
    arcs = {f"walk {i}": _decode(model, walk.slerp(a, b, 11)) for i, (a, b) in enumerate(ends, 1)}
    bench.section(
        "From one image to another",
        "",
        bench.figure(
            "interpolation",
            draw.rows(arcs, scale=2),
            "Between the codes of two held-out images along an arc (slerp): each step is an image in its own right.",
            "Rows of digits that turn from one into another.",
        ),
    )


def _classes(bench: Bench) -> None:
    """The conditional VAE: style in z, the class in y."""
    model = bench.train("conditional", "cvae-mnist", {"model.z": 2})
    classes = bench.train_set.y.unique()[:10]
    size = _encode(model, bench.train_set.x[:1], bench.train_set.y[:1]).shape[1]
    z = torch.randn(10, size, generator=torch.Generator().manual_seed(bench.seed))
    rows = {bench.train_set.classes[c]: _decode(model, z, torch.full((10,), c)) for c in classes.tolist()}
    asked = classes[torch.arange(500) % len(classes)]
    found = judge.neighbour_labels(bench.train_set, model.sample(500, y=asked, seed=bench.seed)).mode(1).values
    bench.results["class_obeyed"] = obeyed = float((found == asked).float().mean())
    bench.section(
        "A class for the asking",
        "The conditional VAE tells encoder and decoder which class it is, so the code is left to carry the style;"
        " here it has two numbers. Each column has one code drawn from N(0, I), each row asks for one class: slant"
        " and thickness go down a column. A larger code leaves the class less to say, and is obeyed less"
        f" often.\n\nOf 500 samples, {obeyed:.0%} have mostly neighbours of the class that was asked for among their"
        f" ten nearest training images; guessing would give {1 / len(classes):.0%}.",
        bench.figure(
            "conditional",
            draw.rows(rows, scale=2),
            "A row for each class, the same ten codes in every row.",
            "A grid of digits: each row one digit, each column one handwriting.",
        ),
    )
