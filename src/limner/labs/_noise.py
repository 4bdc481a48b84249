"""The diffusion lab without a net: the forward process, and the way back where the best denoiser is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from matplotlib.axes import Axes
from torch import Tensor

from limner.core.rng import seed_of
from limner.labs import _figures as draw
from limner.labs._bench import Bench, check, check_close
from limner.labs._mixture import UDL, Mixture
from limner.report import Check
from limner.samplers import grids, steps

T = 1000  # steps of the forward process, as in Ho et al. 2020
SHOWN = (0, 50, 100, 200, 300, 450, 600, 800, 1000)  # of them
ORDER_STEPS = (16, 32, 64, 128, 256, 512, 1024)
BOOK_T, BOOK_BETA = 100, 0.01511  # of the notebooks of Prince 2023, chapter 18
_LOW, _HIGH = 1e-4, 80.0  # noise levels between which orders are measured
_POINTS = 20_000


# ---- the forward process ---------------------------------------------------------------------------------------------


def linear_betas(n: int = T, scaled: bool = True) -> list[float]:
    """β_1 … β_n of Ho et al. 2020, section 4: evenly spaced from 1e-4 to 0.02, times 1000/n if `scaled`."""
    scale = 1000 / n if scaled else 1.0
    return [scale * (1e-4 + (0.02 - 1e-4) * i / (n - 1)) for i in range(n)]


def cosine_alphas(n: int = T) -> list[float]:
    """ᾱ_1 … ᾱ_n of Nichol and Dhariwal 2021 (arXiv:2102.09672, eq. 17), β at most 0.999."""
    f = [math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(n + 1)]
    return products([min(1 - b / a, 0.999) for a, b in pairwise(f)])


def products(betas: Sequence[float]) -> list[float]:
    """ᾱ_1 … ᾱ_T: ᾱ_t = (1 − β_1) … (1 − β_t)."""
    result, product = [], 1.0
    for beta in betas:
        product *= 1 - beta
        result.append(product)
    return result


def forward(bench: Bench) -> None:
    """Adds a section on the forward process: pictures, the signal-to-noise ratio, and its numbers."""
    betas = linear_betas()
    alphas = [1.0, *products(betas)]  # ᾱ_0 = 1: no noise
    x0 = bench.train_set.first_of_each_class().x[[0, 3 % len(bench.train_set.y.unique()), -1]]
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(bench.seed))
    columns = [math.sqrt(alphas[t]) * x0 + math.sqrt(1 - alphas[t]) * eps for t in SHOWN]  # eq. 4
    shades = [column / (1 + math.sqrt(1 - alphas[t])) for column, t in zip(columns, SHOWN, strict=True)]
    strip = torch.stack(shades, 1).clamp(-1, 1)  # (3,columns,1,28,28)
    figure, (left, right) = draw.plots(2, height=2.9)
    times = [i / T for i in range(1, T + 1)]
    curves = {"linear β": products(betas), "cosine": cosine_alphas()}
    snr = {name: (times, [a / (1 - a) for a in values]) for name, values in curves.items()}
    inner = times[:-1]
    snr["straight line"] = (inner, [((1 - t) / t) ** 2 for t in inner])
    draw.curves(left, snr, xlabel="t / T", title="signal-to-noise ratio ᾱ/(1 − ᾱ)")
    left.set_yscale("log")
    left.set_ylim(1e-6, 1e6)
    left.axhline(1, color=draw.SOFT, linewidth=0.8, linestyle=":")
    weights = {name: (times, [math.sqrt(a) for a in values]) for name, values in curves.items()}
    weights["straight line"] = (times, [1 - t for t in times])
    draw.curves(right, weights, xlabel="t / T", title="weight √ᾱ of the image")
    bench.results["forward"] = {"sqrt_alpha_T": {n: math.sqrt(v[-1]) for n, v in curves.items()}}
    bench.section(
        "Noise, a little at a time",
        "Each of T = 1000 steps shrinks an image a little and adds a little noise: x_t = √(1 − β_t) x_{t−1} + √β_t"
        " ε. Normal noise on normal noise is normal noise, so all steps up to t are one jump: x_t = √ᾱ_t x_0 + √(1"
        " − ᾱ_t) ε, where ᾱ_t is the product of all 1 − β. No net is in it, and nothing is learnt. A net learns the"
        " way back.\n\nDivided by √ᾱ_t, the image keeps its scale and only the noise grows: x̄ = x_0 + σε with σ ="
        " √(1 − ᾱ_t)/√ᾱ_t. In this coordinate all diffusion models are one, and so is flow matching, whose x_t lies"
        " on a straight line from the image to the noise. They differ in how many steps they spend at which σ, and"
        " in how they weigh its loss.",
        bench.figure(
            "forward",
            draw.image_rows({" " * i: x for i, x in enumerate(strip)}, 3, headings=[f"t = {t}" for t in SHOWN]),
            "Three digits on their way to noise with the linear β of Ho et al. 2020. The noise of a row is one draw"
            " throughout, which gets heavier. Greys are halved where there is much noise, to show it.",
            "Three rows of a digit that disappears in noise from left to right.",
        ),
        bench.figure(
            "snr",
            figure,
            "How much of the image is left. Dotted: as much signal as noise, for pixels of variance 1.",
            "Two charts over t: the ratio falls from a million to nearly zero in three ways; the weight falls from"
            " 1 to 0.",
        ),
        checks=_forward_checks(bench, betas, alphas),
    )


def _forward_checks(bench: Bench, betas: list[float], alphas: list[float]) -> list[Check]:
    mean, variance, worst = 1.0, 0.0, 0.0
    for t, beta in enumerate(betas, 1):  # moments of x_t given x_0 = 1, a step at a time
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        worst = max(worst, abs(variance - (1 - alphas[t])), abs(mean - math.sqrt(alphas[t])))
    generator = torch.Generator().manual_seed(seed_of(bench.seed, 1))
    x, middle = torch.ones(_POINTS), T // 4
    for beta in betas[:middle]:
        x = math.sqrt(1 - beta) * x + math.sqrt(beta) * torch.randn(_POINTS, generator=generator)
    cosine, short = cosine_alphas(), products(linear_betas(400, scaled=False))
    sigma = [math.sqrt((1 - a) / a) for a in (alphas[1], alphas[-1])]
    left = math.sqrt(alphas[-1])
    return [
        check("a thousand steps against one jump: largest error of mean and variance", "below 1e-12", f"{worst:.1g}",
              worst < 1e-12),
        check_close(f"{_POINTS:,} pixels of value 1 after {middle} drawn steps: mean", math.sqrt(alphas[middle]),
                    float(x.mean()), 0.03, 3),
        check_close("their variance", 1 - alphas[middle], float(x.var()), 0.03, 3),
        check("√ᾱ_T, linear: what is left of the image at the end", "0.0064, below 0.02", f"{left:.4f}",
              abs(left - 0.0064) < 5e-5 and left < 0.02),
        check("√ᾱ_T, cosine", "4.9e-05", f"{math.sqrt(cosine[-1]):.1e}", abs(math.sqrt(cosine[-1]) - 4.9e-5) < 1e-6),
        check("√ᾱ_T, the same β with T = 400: the noise does not win", "0.132", f"{math.sqrt(short[-1]):.3f}"),
        check("σ of the first and of the last step", "0.0100 and 157.4", f"{sigma[0]:.4f} and {sigma[1]:.1f}"),
    ]  # fmt: skip


# ---- the best denoiser on a line -------------------------------------------------------------------------------------


def exact(mixture: Mixture, x: Tensor, sigma: float) -> Tensor:
    """Where the probability-flow ODE takes x (N,) from noise of standard deviation sigma: to the same quantile."""
    return mixture.quantile(mixture.cdf(x, sigma))


def order(sampler: steps.Sampler, mixture: Mixture = UDL) -> tuple[list[float], float]:
    """Mean errors of a sampler on a line for each number of `ORDER_STEPS`, and how often they halve per doubling."""
    u = (torch.arange(32, dtype=torch.float64) + 0.5) / 32
    x = mixture.quantile(u, _HIGH)
    target, errors = exact(mixture, x, _HIGH), []
    for n in ORDER_STEPS:
        y = sampler(mixture.denoise, x, grids.karras(n, low=_LOW, high=_HIGH))
        errors.append(float((y - target).abs().mean()))
    return errors, math.log2(errors[0] / errors[-1]) / (len(errors) - 1)


def ddim(mixture: Mixture, z: Tensor, alphas: Sequence[float]) -> Tensor:
    """DDIM as in its paper (Song, Meng and Ermon 2021, arXiv:2010.02502, eq. 12 with σ_t = 0): z at ᾱ_T to ᾱ = 1."""
    for alpha, lower in pairwise(alphas):
        x0 = mixture.denoise(z / math.sqrt(alpha), math.sqrt((1 - alpha) / alpha))
        eps = (z - math.sqrt(alpha) * x0) / math.sqrt(1 - alpha)
        z = math.sqrt(lower) * x0 + math.sqrt(1 - lower) * eps
    return z


SOLVERS: dict[str, tuple[steps.Sampler, float]] = {
    "Euler, which is DDIM": (steps.euler, 0.95),
    "Heun": (steps.heun, 1.95),
    "DPM-Solver++ 2M": (steps.dpm2m, 1.95),
}
"""Samplers, and the least order that each has to reach."""


def line(bench: Bench) -> None:
    """Adds sections on the way back where the best denoiser is known, and on the notebooks' indices."""
    orders = {name: order(sampler) for name, (sampler, _) in SOLVERS.items()}
    figure, (left, right) = draw.plots(2, height=3.4)
    _paths(left)
    curves = {name: (ORDER_STEPS, errors) for name, (errors, _) in orders.items()}
    draw.curves(
        right, curves, xlabel="steps", title="mean error of the end point", ticks=ORDER_STEPS, log=True, marker="o"
    )
    right.set_yscale("log")
    bench.results["orders"] = {name: {"errors": e, "order": k} for name, (e, k) in orders.items()}
    alphas = [*products(linear_betas())[::-20], 1.0]
    z = torch.randn(200, generator=torch.Generator().manual_seed(bench.seed), dtype=torch.float64)
    sigmas = [math.sqrt((1 - a) / a) for a in alphas]
    by_euler = steps.euler(UDL.denoise, z / math.sqrt(alphas[0]), sigmas)
    apart = float((ddim(UDL, z, alphas) - by_euler).abs().max())
    bench.section(
        "The way back, where the best denoiser is known",
        "A net that is trained to guess the image from its noisy version by least squares learns the mean of all"
        " images that it could have been: D(x̄, σ) = E[x_0 | x̄]. For a mixture of normal distributions on a line"
        " that is a formula, so everything after the net can be checked without one. (x̄ − D)/σ is the direction of"
        " the noise, and dx̄/dσ = (x̄ − D)/σ is an ordinary differential equation that takes the noise at σ = 80 to"
        " data at σ = 0 (Song et al. 2021, arXiv:2011.13456; Karras et al. 2022, arXiv:2206.00364). On a line its"
        " paths never cross: each point keeps its rank, and that is the exact solution.\n\nA sampler is a way to"
        " take few steps along these paths. Euler's method goes straight on; its error halves with twice the steps."
        " Heun's looks twice per step and DPM-Solver++ remembers the last D: their errors are quartered. So a"
        " better sampler needs a fraction of the evaluations, and nothing has to be trained again.",
        bench.figure(
            "line",
            figure,
            "Left, the density from pure noise (left edge) to the data (right edge), and paths of the equation at equal"
            " ranks. Right, the error of three samplers against the exact end points.",
            "Left, a density that splits from one hump into four, with paths that never cross. Right, three falling"
            " lines.",
        ),
        checks=[
            check("DDIM as its paper writes it against Euler's method in σ: largest difference", "below 1e-10",
                  f"{apart:.1g}", apart < 1e-10),
            *(check(f"order of {name}", f"above {SOLVERS[name][1]}", f"{k:.2f}", k > SOLVERS[name][1])
              for name, (_, k) in orders.items()),
        ],
    )  # fmt: skip
    _indices(bench)


def _paths(ax: Axes) -> None:
    """Draws the density at each noise level, from noise to data, and paths of the probability flow."""
    t = torch.linspace(0.999, 0, 160, dtype=torch.float64)  # σ = t/(1 − t); drawn at the scale x̄·(1 − t)
    extent, rows = 3.2, 240
    y = torch.linspace(-extent, extent, rows, dtype=torch.float64)
    ranks = (torch.arange(9, dtype=torch.float64) + 0.5) / 9
    columns, lines = [], []
    for value in t.tolist():
        alpha, sigma = _unit_scale(value)
        columns.append(UDL.density(y / alpha, sigma) / alpha)
        lines.append(alpha * UDL.quantile(ranks, sigma))
    image = torch.stack(columns, 1)
    image = image / image.max(0).values.clamp(min=1e-9) * image.max(0).values.sqrt()  # the noise is wide and low
    draw.heat_map(ax, image.numpy(), (0, 1, -extent, extent), "from noise to data", top=0.9)
    at = (1 - t).tolist()
    for path in torch.stack(lines, 1):
        ax.plot(at, path.tolist(), color=draw.COLOURS[1], linewidth=0.8)
    ax.set_xticks([0, 0.5, 1], ["σ = ∞", "σ = 1", "σ = 0"])


def _unit_scale(t: float) -> tuple[float, float]:
    """α and σ at t, with α² (1 + σ²) = 1, so that what is drawn keeps its width."""
    sigma = t / (1 - t)
    return 1 / math.sqrt(1 + sigma**2), sigma


# ---- indices ---------------------------------------------------------------------------------------------------------


def book_samples(n: int, seed: int, *, shift: int = 0, noisy_end: bool = False) -> Tensor:
    """Samples (n,) of Algorithm 18.2 of Prince 2023 with the best net, on its data, its T and its β.

    Args:
        n: number of points.
        seed: seed of the noise.
        shift: how many steps too early the noise of the net's training was counted.
        noisy_end: whether the last step adds noise.
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, generator=generator, dtype=torch.float64)
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)  # D is read from a table, as the notebooks do
    for t in range(BOOK_T, 0, -1):
        alpha, learnt = (1 - BOOK_BETA) ** t, (1 - BOOK_BETA) ** (t - shift)
        eps = torch.zeros_like(z)  # the best guess where there was no noise
        if learnt < 1:
            x0 = UDL.denoise(grid / math.sqrt(learnt), math.sqrt((1 - learnt) / learnt))
            table = (grid - math.sqrt(learnt) * x0) / math.sqrt(1 - learnt)
            place = (z + 8) * (len(grid) - 1) / 16
            left = place.long().clamp(0, len(grid) - 2)
            eps = torch.lerp(table[left], table[left + 1], place - left)
        z = (z - BOOK_BETA / math.sqrt(1 - alpha) * eps) / math.sqrt(1 - BOOK_BETA)
        if t > 1 or noisy_end:
            z = z + math.sqrt(BOOK_BETA) * torch.randn(n, generator=generator, dtype=torch.float64)
    return z


def distance(mixture: Mixture, x: Tensor) -> float:
    """The Wasserstein distance of points (N,) from the mixture: how far a point has to move on average."""
    grid = torch.linspace(float(x.min()) - 1, float(x.max()) + 1, 8001, dtype=x.dtype)
    share = torch.searchsorted(x.sort().values, grid, right=True) / len(x)
    return float(torch.trapezoid((share - mixture.cdf(grid)).abs(), grid))


def _indices(bench: Bench) -> None:
    n = 5 * _POINTS
    variants: dict[str, Callable[[], Tensor]] = {
        "right indices": lambda: book_samples(n, bench.seed),
        "trained one step early": lambda: book_samples(n, bench.seed, shift=1),
        "and noise at the end": lambda: book_samples(n, bench.seed, shift=1, noisy_end=True),
    }
    figure, axes = draw.plots(3, height=2.6, shared=True)
    x = torch.linspace(-2.6, 2.6, 401, dtype=torch.float64)
    curve, found = (x.numpy(), UDL.density(x).numpy()), {}
    for ax, (name, samples) in zip(axes, variants.items(), strict=True):
        points = samples()
        found[name] = distance(UDL, points)
        draw.histogram(ax, points.numpy(), curve, f"{name}: {found[name]:.3f}")
    left = math.sqrt((1 - BOOK_BETA) ** BOOK_T)
    bench.results["indices"] = found | {"sqrt_alpha_T": left}
    bench.section(
        "An index too early",
        "The notebooks of the book that a lecture follows (Prince 2023, chapter 18, notebooks 18.3 and 18.4) train"
        " the net of step t on noise of step t − 1, so that the first net sees none at all; and their test for the"
        " last step is always true, so that noise is added to the finished sample. Here the nets are perfect, so"
        f" what is wrong is the indices alone. A third fault stays in all panels: {BOOK_T} steps with β ="
        f" {BOOK_BETA} leave √ᾱ_T = {left:.2f} of the data, and starting from N(0, 1) denies it.",
        bench.figure(
            "indices",
            figure,
            f"Blue, {n:,} samples; red, the density of the data; the number is how far a sample has to move on"
            " average.",
            "Three histograms against a density with four humps: the narrow ones melt more in each panel.",
        ),
        checks=[check("√ᾱ_T of the notebooks", "0.467", f"{left:.3f}")],
    )
    right, early, noisy = found.values()
    bench.claim(
        "A net that is trained with the noise of the step before, and noise in the last step, both make samples"
        " worse (E22)",
        f"distance {right:.3f} with right indices, {early:.3f} one step early, {noisy:.3f} with noise at the end too",
        right < early < noisy,
    )
