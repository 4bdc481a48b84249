"""Lab 3: the variational autoencoder, whose latent space can be sampled and interpolated.

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
from limner.labs import _realism as realism
from limner.labs._bench import Bench, check, decode, encode
from limner.labs.conv_ae import random_codes
from limner.latent import maps, walk
from limner.losses.divergence import kl_normal
from limner.report import Table

IMAGES = 250_000
PRINTED_MINIMUM, PRINTED_SIGMA = -0.153, 0.7071  # minimum of the lecture's formula
SIDE = 20  # images on a side of the manifold


def run(bench: Bench) -> None:
    """Trains with two and with twenty latent numbers, and with classes; then measures and draws."""
    _kl(bench)
    plane = bench.train("z2", "vae-mnist", {"model.z": 2})
    model = bench.train("z20", "vae-mnist")
    _manifold(bench, plane)
    _class_map(bench, plane)
    _bounds(bench, model)
    _prior_samples(bench, model)
    _interpolations(bench, model)
    _classes(bench)


# ---- the formula -----------------------------------------------------------------------------------------------------


def printed_kl(mu: Tensor, sigma: Tensor) -> Tensor:
    """The lecture's formula per dimension, sigma^2 + mu^2 - log sigma - 1, which is not a divergence (erratum E1)."""
    return sigma.square() + mu.square() - sigma.log() - 1


def _kl(bench: Bench) -> None:
    generator = torch.Generator().manual_seed(bench.seed)
    mu, logvar = torch.randn(2, 1000, 20, dtype=torch.float64, generator=generator)
    reference = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1)
    error = float((kl_normal(mu, logvar) - reference).abs().max())
    sigma = torch.linspace(0.2, 2, 18_001, dtype=torch.float64)
    printed, correct = printed_kl(torch.zeros(()), sigma), kl_normal(torch.zeros(18_001, 1), 2 * sigma.log()[:, None])
    argmin = int(printed.argmin())
    figure, (ax,) = draw.plots(1, height=2.7)
    every_100th = slice(None, None, 100)
    lines = {"KL(N(0, σ²) ‖ N(0, 1))": correct, "as the lecture prints it": printed}
    series = {name: (sigma[every_100th].tolist(), y[every_100th].tolist()) for name, y in lines.items()}
    draw.curves(ax, series, xlabel="σ, where μ = 0", title="nats per dimension")
    bench.section(
        "The KL",
        "The lecture prints Σ σ² + μ² − log σ − 1: the factor ½ is missing, and the logarithm is of σ where it should"
        " be of σ². Its minimum is below zero, at σ = 0.7071, so it would pull the posterior to a wrong width. It also"
        " asks to minimise −KL + E log p(x|z), which is the bound to maximise. The correct form is ½ Σ (σ² + μ² − 1 −"
        " log σ²), zero only for N(0, 1).",
        bench.figure(
            "kl",
            figure,
            "The divergence touches zero at σ = 1. The printed formula goes below it.",
            "Two curves over sigma; one has its minimum 0 at 1, the other −0.153 at 0.7071.",
        ),
        checks=[
            check(
                "limner's KL against torch.distributions: largest difference in nats",
                "below 1e-10",
                error,
                error < 1e-10,
            ),
            check(
                "minimum of the printed formula per dimension",
                PRINTED_MINIMUM,
                round(float(printed[argmin]), 3),
                math.isclose(float(printed[argmin]), PRINTED_MINIMUM, abs_tol=5e-4),
            ),
            check(
                "the σ where it lies",
                PRINTED_SIGMA,
                round(float(sigma[argmin]), 4),
                math.isclose(float(sigma[argmin]), PRINTED_SIGMA, abs_tol=2e-4),
            ),
        ],
    )


# ---- two latent numbers ----------------------------------------------------------------------------------------------


def _manifold(bench: Bench, model: GenerativeModel) -> None:
    assert isinstance(model, Reconstructs)
    bench.section(
        "The manifold",
        "With two latent numbers the whole space can be drawn. From left to right z1 grows, from bottom to top z2,"
        " in equal steps of probability: the inverse normal distribution function of an even grid, as in Kingma and"
        " Welling, figure 4. Every image represents the same share of the prior, and there are no gaps.",
        bench.figure(
            "manifold",
            draw.image_grid(walk.manifold(model, SIDE), SIDE, scale=2, gap=0),
            f"Mean images at {SIDE}×{SIDE} codes: change z1 to the right, z2 upwards.",
            "A grid of digits that turn smoothly into one another.",
        ),
    )


def _class_map(bench: Bench, model: GenerativeModel) -> None:
    subset = bench.train_set.evenly_spaced(3000)
    z = encode(model, subset.x)
    figure, (ax,) = draw.plots(1, height=5.2, width=8)
    draw.scatter_classes(ax, maps.flat(z), subset.y, subset.classes, "posterior means: z1 to the right, z2 upwards")
    ax.set_aspect("equal")
    std = [round(float(s), 2) for s in z.std(0)]
    bench.results["latent_std_of_means"] = std
    bench.section(
        "Where the classes lie",
        "The KL draws the codes towards the prior, so the classes lie side by side around the origin. The codes of the"
        " autoencoder of Lab 1 have no such scale.",
        bench.figure(
            "space",
            figure,
            f"Posterior means of {len(subset):,} training images; their standard deviations are {std[0]} and {std[1]}.",
            "A scatter chart of classes around the origin, within about three units.",
        ),
    )


# ---- likelihood, samples, walks --------------------------------------------------------------------------------------


def _bounds(bench: Bench, model: GenerativeModel) -> None:
    examples = bench.test_set.first_of_each_class().x
    reconstructions = decode(model, encode(model, examples))
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
            draw.image_rows({"held-out": examples, "reconstructed": reconstructions}, scale=3),
            "Held-out images, and the mean images of their codes of 20 numbers.",
            "Two rows of digits; the second a little smoother.",
        ),
        table=Table(("latent numbers", "ELBO, nats", "standard error", "IWAE-50, nats", "standard error"), rows),
    )


def _prior_samples(bench: Bench, model: GenerativeModel) -> None:
    n = min(500, len(bench.train_set) // 2)
    order = torch.randperm(len(bench.train_set), generator=torch.Generator().manual_seed(bench.seed))[:n]
    x = bench.train_set.x[order]
    conv_ae = bench.train("conv-ae", "conv-ae-mnist", images=max(64, bench.images // 2))
    decoded = decode(conv_ae, random_codes(encode(conv_ae, bench.train_set.x), n, bench.seed))
    sampled = model.sample(n, seed=bench.seed)
    rows = {
        "autoencoder, random codes": realism.measure_realism(
            bench.train_set, decoded, decode(conv_ae, encode(conv_ae, x)), bench.seed
        ),
        "VAE, samples": realism.measure_realism(bench.train_set, sampled, decode(model, encode(model, x)), bench.seed),
        "held-out images": realism.measure_realism(bench.train_set, bench.test_set.x),
    }
    bench.results["random"] = {name: v.to_dict() for name, v in rows.items()}
    images = {"images": x[:100], "autoencoder, random codes": decoded[:100], "VAE, samples": sampled[:100]}
    bench.section(
        "Samples of the prior",
        "Left, training images. In the middle, what the convolutional autoencoder of Lab 2 decodes from Gaussian codes"
        " with the mean and standard deviation of its own. Right, what the VAE decodes from N(0, I), the prior that"
        f" its codes were trained to fill.\n\n{realism.EXPLANATION}",
        bench.figure(
            "samples",
            draw.side_by_side({name: draw.image_grid(batch, 10) for name, batch in images.items()}),
            "As many random images from each model, not selected.",
            "Three grids: digits, blots, and soft digits.",
        ),
        table=realism.table(rows),
    )
    vae, autoencoder = rows["VAE, samples"], rows["autoencoder, random codes"]
    bench.claim(
        "A random noise from N(0, 1) can generate a realistic image through the decoder",
        f"neighbours agree {vae.agreement:.0%} (autoencoder {autoencoder.agreement:.0%}, images"
        f" {rows['held-out images'].agreement:.0%}); told apart from reconstructions {vae.told_apart or 0:.0%} of the"
        f" time (autoencoder {autoencoder.told_apart or 0:.0%})",
        vae.agreement > autoencoder.agreement and (vae.told_apart or 1) < (autoencoder.told_apart or 1),
    )


def _interpolations(bench: Bench, model: GenerativeModel) -> None:
    assert isinstance(model, Reconstructs)
    examples = bench.test_set.first_of_each_class()
    z, std = encode(model, examples.x), encode(model, bench.train_set.x).std(0)
    values = torch.linspace(-3, 3, 11)
    by_std = std.argsort(descending=True)
    dimensions = [*by_std[:6].tolist(), int(by_std[-1])]
    start = z[len(z) // 2]
    rows = {f"z{d + 1}, deviation {std[d]:.2f}": walk.traverse(model, start, d, values) for d in dimensions}
    bench.results["active_numbers"] = int((std > 0.1).sum())
    bench.section(
        "One number at a time",
        "One of the 20 numbers goes from −3 to 3, the others are fixed. The six numbers whose posterior means have the"
        " largest standard deviations over the training images come first; the last row has the smallest. Where the"
        f" deviation is near zero the decoder ignores the number: {bench.results['active_numbers']} of {len(std)} have"
        " one above 0.1.",
        bench.figure(
            "traversal",
            draw.image_rows(rows, scale=2, headings=[f"{v:+.1f}" for v in values.tolist()]),
            "Each row changes one latent number of the same code.",
            "Rows of one digit that changes shape, slant or thickness from left to right.",
        ),
    )
    pairs = [(z[a], z[b]) for a, b in ((0, -1), (1, len(z) // 2), (2 % len(z), 3 % len(z)))]
    walks = {f"walk {i}": decode(model, walk.slerp(a, b, 11)) for i, (a, b) in enumerate(pairs, 1)}
    bench.section(
        "From one image to another",
        "",
        bench.figure(
            "interpolation",
            draw.image_rows(walks, scale=2),
            "Between the codes of two held-out images along an arc (slerp): each step is an image in its own right.",
            "Rows of digits that turn from one into another.",
        ),
    )


def _classes(bench: Bench) -> None:
    model = bench.train("conditional", "cvae-mnist", {"model.z": 2})
    classes = bench.train_set.y.unique()[:10]
    size = encode(model, bench.train_set.x[:1], bench.train_set.y[:1]).shape[1]
    z = torch.randn(10, size, generator=torch.Generator().manual_seed(bench.seed))
    rows = {bench.train_set.classes[c]: decode(model, z, torch.full((10,), c)) for c in classes.tolist()}
    requested = classes[torch.arange(500) % len(classes)]
    generated = (
        realism.neighbour_labels(bench.train_set, model.sample(500, y=requested, seed=bench.seed)).mode(1).values
    )
    bench.results["class_obeyed"] = share = float((generated == requested).float().mean())
    bench.section(
        "Samples of a requested class",
        "Encoder and decoder of the conditional VAE receive the class as input, so the code has to hold only the style;"
        " here it has two numbers. Each column has one code drawn from N(0, I), each row is one class: slant and"
        " thickness stay the same down a column. With a larger code the samples belong to the requested class less"
        f" often.\n\nOf 500 samples, {share:.0%} have mostly neighbours of the requested class among their ten nearest"
        f" training images; guessing would give {1 / len(classes):.0%}.",
        bench.figure(
            "conditional",
            draw.image_rows(rows, scale=2),
            "A row for each class, the same ten codes in every row.",
            "A grid of digits: each row one digit, each column one handwriting.",
        ),
    )
