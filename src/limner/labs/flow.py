"""Normalising flows: a net that can be inverted, whose change of volume is a number, gives exact densities.

Dinh, Sohl-Dickstein and Bengio 2017 (arXiv:1605.08803); Prince 2023, *Understanding Deep Learning*, chapter 16. The
lectures name flows as models that assign a probability to each image. The lab begins with one number, where everything
can be drawn, goes on to points in the plane, whose density is known, and ends with digits: bits per dimension, samples
at temperatures, and what a likelihood says about an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from limner.core.capabilities import HasLogProb, Reconstructs
from limner.core.model import GenerativeModel
from limner.core.rng import seed_of
from limner.labs import _figures as draw
from limner.labs._bench import Bench, check, check_close, decode, encode
from limner.latent import walk
from limner.losses.dequantise import bits_per_dim, uniform
from limner.report import Check, Table

IMAGES = 20_000

TOYS = {"RealNVP": "realnvp-toy", "spline flow": "spline-flow-toy"}
POINTS = 20  # points of the toy set for each image of the training on digits
MODES, SIGMA = 8, 0.1  # of the ring, whose radius is 1
DIGITS = "realnvp-mnist"
NET: dict[str, Any] = {}  # changes of this recipe
TEMPERATURES = (0.7, 0.8, 0.9, 1.0, 1.1)
_EXTENT, _SIDE = 1.6, 161  # the part of the plane that is drawn, and points along its side
_SCORED = 500  # images whose likelihood is measured


def run(bench: Bench) -> None:
    """Draws the change of variables; then trains on points and on digits, measures and draws."""
    _line(bench)
    data = {"name": "ring", "sigma": SIGMA, "n": 100_000}
    toys = {
        name: bench.train(recipe, recipe, {"data": data}, images=POINTS * bench.images) for name, recipe in TOYS.items()
    }
    _plane(bench, toys)
    _layers(bench, next(iter(toys.values())))
    model = bench.train("digits", DIGITS, NET)
    _digits(bench, model)
    _likelihoods(bench, model)


# ---- one number ------------------------------------------------------------------------------------------------------


def bent(z: Tensor) -> Tensor:
    """A flow of one number: x = f(z) = z + 1.2 tanh 2z, which grows everywhere."""
    return z + 1.2 * (2 * z).tanh()


def slope(z: Tensor) -> Tensor:
    """f'(z) of `bent`."""
    return 1 + 2.4 / (2 * z).cosh().square()


def normal_density(z: Tensor) -> Tensor:
    """The density of N(0, 1) at z."""
    return (-z.square() / 2).exp() / math.sqrt(2 * math.pi)


def _line(bench: Bench) -> None:
    z = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    x, density = bent(z), normal_density(z) / slope(z)
    integral, without = float(torch.trapezoid(density, x)), float(torch.trapezoid(normal_density(z), x))
    drawn = bent(torch.randn(200_000, generator=torch.Generator().manual_seed(bench.seed), dtype=torch.float64))
    inside = (x > -1) & (x < 1)
    share, expected = float((drawn.abs() < 1).double().mean()), float(torch.trapezoid(density * inside, x))
    figure, (left, right) = draw.plots(2, height=3.4)
    _transport(left)
    kept = (x > -4) & (x < 4)
    draw.histogram(right, drawn[drawn.abs() < 4].numpy(), (x[kept][::40].numpy(), density[kept][::40].numpy()),
                   "density of x: a histogram, and the formula")  # fmt: skip
    bench.section(
        "One number",
        "Take z from N(0, 1) and x = f(z) with any f that grows. As many points as lie between z and z + dz lie"
        " between f(z) and f(z) + f'(z) dz, so where f is steep the points get spread out: p(x) = p(z) / |f'(z)|."
        " That is the change of variables, and all that a flow needs: draw z and compute f for a sample; compute"
        " f⁻¹ and the slope for the density. The factor is what keeps the integral at 1; without it the number is"
        " no density.\n\nIn more dimensions the slope is the determinant of the Jacobian matrix, which costs D³ in"
        " general. So a flow is a chain of layers that each change only a part of the numbers, by a scale and a"
        " shift that the rest decides: their matrix is triangular, and the log-determinant is a sum.",
        bench.figure(
            "line",
            figure,
            "Left, the map: equal shares of the noise (at the left edge) go to equal shares of the data (at the"
            " bottom). Right, 200,000 samples and the formula.",
            "Left, a steep S-shaped curve with lines from one axis to the other. Right, a density with two humps.",
        ),
        checks=[
            check_close("integral of p(z)/|f'(z)| over x", 1, integral, 1e-6),
            check_close("integral without the factor: the mean slope, no density", float(torch.trapezoid(
                normal_density(z) * slope(z), z)), without, 1e-6),
            check_close("share of 200,000 samples in [-1,1] against the integral", expected, share, 0.005, 3),
        ],
    )  # fmt: skip


def _transport(ax: Axes) -> None:
    """The curve x = f(z), the densities along both axes, and lines that carry equal shares from one to the other."""
    z = torch.linspace(-2.6, 2.6, 301, dtype=torch.float64)
    x = bent(z)
    ax.plot(x.tolist(), z.tolist(), color=draw.INK, linewidth=1.2)
    u = (torch.arange(1, 16, dtype=torch.float64)) / 16
    for k in torch.special.ndtri(u).tolist():
        end = float(bent(torch.tensor(k, dtype=torch.float64)))
        ax.plot([-4.6, end, end], [k, k, -3.4], color=draw.COLOURS[3], linewidth=0.5)
    ax.fill_betweenx(
        z.tolist(), -4.6, (-4.6 + 2.2 * normal_density(z)).tolist(), color=draw.COLOURS[0], alpha=0.3, linewidth=0
    )
    density = normal_density(z) / slope(z)
    ax.fill_between(x.tolist(), -3.4, (-3.4 + 3.2 * density).tolist(), color=draw.COLOURS[1], alpha=0.3, linewidth=0)
    ax.set_xlim(-4.6, 4.2)
    ax.set_ylim(-3.4, 2.7)
    ax.set_xlabel("x = f(z)")
    ax.set_ylabel("z")
    ax.set_title("the map", loc="left", fontsize=9.5)


# ---- points in the plane ---------------------------------------------------------------------------------------------


def ring_log_density(x: Tensor) -> Tensor:
    """The log density (N,) in nats of the ring at points x (N,2)."""
    angle = 2 * math.pi * torch.arange(MODES, dtype=x.dtype) / MODES
    centres = torch.stack([angle.cos(), angle.sin()], 1)
    squares = (x[:, None] - centres).square().sum(2)
    return (-squares / (2 * SIGMA**2)).logsumexp(1) - math.log(MODES * 2 * math.pi * SIGMA**2)


def plane() -> Tensor:
    """A grid of points (N,2) over the drawn part of the plane, rows upwards."""
    line = torch.linspace(-_EXTENT, _EXTENT, _SIDE)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


@torch.inference_mode()
def log_density(model: HasLogProb, x: Tensor) -> Tensor:
    """The model's log density (N,) in nats at points x (N,D)."""
    return model.log_prob(x[:, :, None, None].float()).double()


def _plane(bench: Bench, toys: Mapping[str, GenerativeModel]) -> None:
    grid = plane()
    test = bench.pixels("test", {"name": "ring", "sigma": SIGMA, "n": 100_000}, 5000)[:, :, 0, 0]
    truth = ring_log_density(test.double())
    cell = (2 * _EXTENT / (_SIDE - 1)) ** 2
    figure, axes = draw.plots(1 + len(toys), height=9.2 / (1 + len(toys)))
    extent = (-_EXTENT, _EXTENT, -_EXTENT, _EXTENT)
    maps = {"the truth": ring_log_density(grid.double())}
    rows, checks = [], []
    for name, model in toys.items():
        assert isinstance(model, HasLogProb)
        maps[name] = log_density(model, grid)
        found = log_density(model, test)
        gap, error = float((truth - found).mean()), float((truth - found).std()) / math.sqrt(len(test))
        mass = float(maps[name].exp().sum()) * cell
        bench.results[f"toy_{name}"] = {"gap": gap, "error": error, "mass": mass}
        rows.append((name, f"{-float(found.mean()):.3f}", f"{-float(truth.mean()):.3f}", f"{gap:.3f} ± {error:.3f}"))
        checks += [
            check_close(f"{name}: integral of its density over the plane drawn", 1, mass, 0.02, 3),
            *_net_checks(name, model, test[:32]),
        ]
    for ax, (name, values) in zip(axes, maps.items(), strict=True):
        draw.heat_map(ax, values.exp().view(_SIDE, _SIDE).numpy(), extent, name, top=0.8)
        draw.hide_axes(ax)
        ax.set_aspect("equal")
    bench.section(
        "Points in the plane",
        f"Eight normal distributions on a circle, with the standard deviation {SIGMA:g}, and flows that saw"
        f" {POINTS * bench.images:,} points of them. Here the true density is known, so the"
        " flows can be judged in nats: the mean log density of new points, less that of the truth, is minus the KL"
        " divergence. RealNVP bends the plane by scales and shifts of one coordinate at a time, and cannot tear it:"
        " thin bridges stay between the humps. A spline flow bends each coordinate by a curve with many knots"
        " (Durkan et al. 2019, arXiv:1906.04032).",
        bench.figure(
            "density",
            figure,
            "Densities on one scale for each: the truth, and the flows.",
            "Maps of eight blots on a circle; the flows' have faint bridges between them.",
        ),
        table=Table(("flow", "−log p of new points, nats", "of the truth", "gap"), rows),
        checks=checks,
    )
    for name in toys:
        gap = bench.results[f"toy_{name}"]["gap"]
        bench.claim(f"{name} learns a density in the plane: its gap to the truth is below 0.15 nats", f"{gap:.3f} nats",
                    gap < 0.15)  # fmt: skip


def _net_checks(name: str, model: GenerativeModel, points: Tensor) -> list[Check]:
    """Log-determinant against autograd's Jacobian, the sum of its layers, and the way there and back, in float64."""
    F = model.groups()["F"].double()
    x = points.double()[:, :, None, None]
    with torch.no_grad():
        z, logdet = F(x)
        back = float((F.inverse(z) - x).abs().max())  # type: ignore[operator]
        parts = sum(d for _, _, d in layers(F, x))
    jacobians = torch.func.vmap(torch.func.jacrev(lambda p: F(p[None])[0][0]))(x)  # (N,D,D,1,1)
    expected = torch.linalg.slogdet(jacobians.detach().flatten(2))[1]
    error, rest = float((logdet - expected).abs().max()), float((logdet - parts).std())
    F.float()
    return [
        check(f"{name}: log-determinant against autograd's Jacobian, largest difference", "below 1e-8", f"{error:.1g}",
              error < 1e-8),
        check(f"{name}: the sum over its layers against the whole, but for a constant of fixed maps", "below 1e-10",
              f"{rest:.1g}", rest < 1e-10),
        check(f"{name}: there and back, largest difference", "below 1e-8", f"{back:.1g}", back < 1e-8),
    ]  # fmt: skip


def layers(F: nn.Module, x: Tensor) -> list[tuple[str, Tensor, Tensor]]:
    """The innermost invertible layers of a flow in their order: name of the type, output, and log|det| (B,)."""
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []

    def record(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], Tensor):
            seen.append((module, output[0].detach(), output[1].detach().expand(len(x))))

    hooks = [m.register_forward_hook(record) for m in F.modules() if m is not F]
    try:
        F(x)
    finally:
        for hook in hooks:
            hook.remove()
    modules = [m for m, _, _ in seen]
    inner = [s for s in seen if not any(m is not s[0] and m in set(s[0].modules()) for m in modules)]
    return [(type(m).__name__.strip("_"), out, logdet) for m, out, logdet in inner]


@torch.no_grad()
def _layers(bench: Bench, model: GenerativeModel) -> None:
    data = {"name": "ring", "sigma": SIGMA, "n": 100_000}
    dataset = bench.dataset("test", data)
    x = bench.pixels("test", data, 1500)
    labels = dataset.labels
    assert labels is not None
    y = labels[torch.linspace(0, len(dataset) - 1, min(1500, len(dataset))).round().long()]
    found = layers(model.groups()["F"], x)
    states = [("data", x), *((f"after {i}: {name}", out) for i, (name, out, _) in enumerate(found, 1))]
    chosen = [states[round(i * (len(states) - 1) / 7)] for i in range(8)]
    figure, axes = draw.plots(4, rows=2, height=2.15)
    for ax, (name, points) in zip(axes, chosen, strict=True):
        flat = points.flatten(1)
        ax.scatter(flat[:, 0], flat[:, 1], s=2.5, c=[draw.COLOURS[int(c) % 10] for c in y], alpha=0.7, linewidths=0)
        limit = 1.5 if name == "data" else 3.6
        ax.set_xlim(-limit, limit)
        ax.set_ylim(-limit, limit)
        ax.set_aspect("equal")
        draw.hide_axes(ax)
        ax.set_title(name, loc="left", fontsize=8.5)
    rows = [
        (f"{i}", name, f"{float(d.mean()):+.3f}", f"{float(d.std()):.3f}") for i, (name, _, d) in enumerate(found, 1)
    ]
    total = torch.stack([d for _, _, d in found]).sum(0)
    bench.results["layers"] = [{"layer": n, "mean": float(d.mean()), "std": float(d.std())} for n, _, d in found]
    bench.section(
        "Layer by layer",
        "The points of the data on their way to the base, with the colour of their hump. Each coupling keeps one"
        " coordinate and moves the other; together they pull the eight humps into one round cloud. In the other"
        " direction the same layers tear the cloud apart, almost. The table has the log-determinant of each layer:"
        " how much it widens (above 0) or narrows the space at the points of the data. A layer whose numbers stay"
        " at 0 does nothing, and one that dominates is a sign of an unstable training.",
        bench.figure(
            "layers",
            figure,
            "New points of the ring after some of the layers; the last panel is the base, where they should be N(0,"
            " I).",
            "Eight scatter charts: eight humps of different colours that are bent into one disc.",
        ),
        table=Table(("layer", "type", "mean log|det|, nats", "deviation over points"),
                    [*rows, ("all", "", f"{float(total.mean()):+.3f}", f"{float(total.std()):.3f}")]),
    )  # fmt: skip


# ---- digits ----------------------------------------------------------------------------------------------------------


def dequantised(x: Tensor, seed: int) -> Tensor:
    """Images (N,C,H,W) in [-1,1] as a flow is trained on them: grey levels blurred by noise of their width."""
    levels = (127.5 * (x + 1)).round().clamp(0, 255) / 127.5 - 1
    return uniform(levels, torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)))


@torch.inference_mode()
def bits(model: HasLogProb, x: Tensor, seed: int) -> Tensor:
    """Bits per dimension (N,) of images (N,C,H,W) in [-1,1], dequantised with one draw of noise."""
    log_p = torch.cat([model.log_prob(part) for part in dequantised(x, seed).split(100)])
    return bits_per_dim(log_p, x[0].numel())


def _digits(bench: Bench, model: GenerativeModel) -> None:
    assert isinstance(model, HasLogProb)
    assert isinstance(model, Reconstructs)
    held, trained = bench.test_set.evenly_spaced(_SCORED), bench.train_set.evenly_spaced(_SCORED)
    score, score_trained = (bits(model, s.x, bench.seed) for s in (held, trained))
    mean, error = float(score.mean()), float(score.std()) / math.sqrt(len(score))
    examples = bench.test_set.first_of_each_class()
    z = encode(model, examples.x)
    back = float((decode(model, z) - examples.x).abs().max())
    dims = held.x[0].numel()
    flat = float(bits_per_dim(torch.tensor(-dims * math.log(2 + 2 / 255), dtype=torch.float64), dims))
    rows = {f"temperature {t:g}": model.at(temperature=t).sample(10, seed=bench.seed) for t in TEMPERATURES}
    codes = encode(model, dequantised(held.x, bench.seed))
    bench.results["digits"] = {
        "bits_per_dim": mean, "error": error, "training": float(score_trained.mean()), "code_std": float(codes.std()),
    }  # fmt: skip
    bench.section(
        "Digits",
        "The same layers with small convolutional nets, on 28×28 pixels. The code of an image has as many numbers as"
        " the image. Nothing is lost on the way, so an image is decoded exactly. The likelihood is exact too, of images"
        " whose grey levels are blurred by noise of their width; divided by 784 and log 2 it is bits per dimension,"
        " what an ideal compressor would need for a pixel. A uniform guess needs 8.\n\nA temperature scales the"
        " noise. At 1 the samples are those of the model. Below, each number of the code stays nearer to the middle of"
        " its distribution, which for most pixels of digits is black: strokes get thin and vanish. (In flows of"
        " photographs low temperatures make images smoother: Kingma and Dhariwal 2018, arXiv:1807.03039.) All rows have"
        " the same noise.",
        bench.figure(
            "temperatures",
            draw.image_rows(rows, scale=2),
            "Samples of the flow at five temperatures, from the same noise.",
            "Rows of digits, from thin and nearly black to bold and broken.",
        ),
        table=Table(("images", "bits per dimension"), [
            ("held out", f"{mean:.3f} ± {error:.3f}"),
            ("training", f"{float(score_trained.mean()):.3f}"),
            ("uniform guess", f"{flat:.3f}"),
            ("RealNVP of FFJORD's table, all of MNIST", "1.06"),
        ]),
        checks=[
            check_close("bits per dimension of the uniform density", 8, flat, 1e-9, 6),
            check("an image decoded from its code: largest difference", "below 0.01", f"{back:.1g}", back < 0.01),
        ],
    )  # fmt: skip
    walks = {
        f"walk {i}": decode(model, walk.slerp(z[a], z[b], 11))
        for i, (a, b) in enumerate(((0, -1), (1, len(z) // 2)), 1)
    }
    figure, (left, right) = draw.plots(2, height=2.8)
    normal = torch.linspace(-4, 4, 201)
    draw.histogram(
        left,
        codes.flatten().clamp(-4, 4).numpy(),
        (normal.numpy(), normal_density(normal).numpy()),
        "all numbers of held-out codes",
    )
    norms = codes.norm(dim=1).numpy()
    expected = torch.linspace(0.5, 1.6, 201) * math.sqrt(dims)
    spread = (-((expected - math.sqrt(dims)) ** 2)).exp() / math.sqrt(math.pi)
    draw.histogram(right, norms, (expected.numpy(), spread.numpy()), "their norms, and those of N(0, I)")
    bench.section(
        "Codes of digits",
        "If the flow is perfect, codes of dequantised images are N(0, I): all their numbers together, and their norms,"
        " which for 784 independent numbers lie within a few of 28. A small flow makes the first nearly true and the"
        " second less so. The arcs between two codes stay at the norms of codes, and their images show what the space"
        " between them holds.",
        bench.figure(
            "codes",
            figure,
            "Left, the numbers of the codes of held-out images; right, the norms of these codes. Red: N(0, I).",
            "Two histograms against curves: the left one agrees, the right one is wider than its narrow curve.",
        ),
        bench.figure(
            "walks",
            draw.image_rows(walks, scale=2),
            "Between the codes of two held-out images along an arc. The ends are exact.",
            "Rows that begin and end with clean digits and have broken ones between.",
        ),
    )
    bench.claim(
        "A flow assigns a probability to each image, exactly: held-out digits need fewer bits than a uniform guess",
        f"{mean:.2f} ± {error:.2f} bits per dimension, 8 for a guess; {float(score_trained.mean()):.2f} on training"
        " images",
        mean + 2 * error < 8,
    )


def _likelihoods(bench: Bench, model: GenerativeModel) -> None:
    assert isinstance(model, HasLogProb)
    x = bench.test_set.evenly_spaced(_SCORED).x
    generator = torch.Generator().manual_seed(seed_of(bench.seed, 3))
    n = len(x)
    mixed = torch.stack([i.flatten()[torch.randperm(i.numel(), generator=generator)].view_as(i) for i in x[:100]])
    kinds: dict[str, Callable[[], Tensor]] = {
        "held-out digits": lambda: x,
        "the model's samples": lambda: model.sample(min(n, 100), seed=bench.seed),
        "digits upside down": lambda: x.flip(2),
        "digits of half contrast": lambda: (x + 1) / 2 - 1,
        "black images": lambda: torch.full_like(x[:100], -1.0),
        "black digits on white": lambda: -x,
        "pixels of digits, shuffled": lambda: mixed,
        "noise": lambda: 2 * torch.rand(x[:100].shape, generator=generator) - 1,
    }
    images = {name: make() for name, make in kinds.items()}
    scores = {name: bits(model, batch, bench.seed) for name, batch in images.items()}
    bench.results["likelihoods"] = {name: float(s.mean()) for name, s in scores.items()}
    real = scores["held-out digits"]
    rows = [
        (name, f"{float(s.mean()):.2f}", f"{float((s < real.median()).double().mean()):.0%}")
        for name, s in scores.items()
    ]
    black, flipped = scores["black images"], scores["digits upside down"]
    bench.section(
        "What a likelihood says about an image",
        "A lecture says: if an image gets a high likelihood, it likely came from the training distribution; if a low"
        " one, it probably did not. The second half is right: noise and shuffled pixels need many bits. The first is"
        " not (Nalisnick et al. 2019, arXiv:1810.09136): simple images are easy to compress whatever was trained on, so"
        " a black image gets a higher density than any digit, and digits upside down hardly a lower one than digits. A"
        " density is not a probability of being of the kind: in 784 dimensions almost all of the mass lies where the"
        " density is far from its highest.",
        bench.figure(
            "kinds",
            draw.image_rows({name: _eight(batch) for name, batch in images.items()}, scale=2),
            "Eight of each kind of images.",
            "Rows of digits, samples, digits upside down, pale and inverted digits, black squares and noise.",
        ),
        table=Table(("images", "bits per dimension", "share below the median of held-out digits"), rows),
    )
    bench.claim(
        "A low likelihood means that an image probably did not come from the training distribution",
        f"noise {float(scores['noise'].mean()):.2f} bits, shuffled pixels"
        f" {float(scores['pixels of digits, shuffled'].mean()):.2f}, held-out digits {float(real.mean()):.2f}",
        float(scores["noise"].min()) > float(real.max()),
    )
    bench.claim(
        "A high likelihood means that it likely did",
        f"black images {float(black.mean()):.2f} bits, lower than {float((real > black.max()).double().mean()):.0%} of"
        f" held-out digits; digits upside down {float(flipped.mean()):.2f}, digits {float(real.mean()):.2f}",
        float(black.mean()) > float(real.mean()),
    )


def _eight(x: Tensor) -> Tensor:
    """Eight evenly spaced images of x (N,C,H,W)."""
    return x[torch.linspace(0, len(x) - 1, 8).round().long()]
