"""Lab 2: the convolutional autoencoder, whose code is a map of 64×2×2.

The lecture prints its layer table, maps the codes with t-SNE, and decodes random codes, which give no digits. Here the
random codes are judged by number, and the codes are put to use: a linear probe, nearest images, anomalies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from limner.core.capabilities import Reconstructs, ScoresSamples
from limner.core.model import GenerativeModel
from limner.labs import _figures as draw
from limner.labs import _judge as judge
from limner.labs._bench import Bench, check
from limner.labs._layers import checks, layers, table
from limner.latent import maps
from limner.latent.neighbours import nearest
from limner.losses.reconstruction import psnr
from limner.metrics.anomaly import auroc
from limner.metrics.probe import linear_probe
from limner.report import Table

IMAGES = 100_000

LAYERS = (
    ("Conv2d", "32×10×10", 320),
    ("MaxPool2d", "32×5×5", 0),
    ("Conv2d", "64×3×3", 18_496),
    ("MaxPool2d", "64×2×2", 0),
    ("ConvTranspose2d", "32×5×5", 18_464),
    ("ConvTranspose2d", "16×15×15", 12_816),
    ("ConvTranspose2d", "1×28×28", 65),
)
TOTAL, MACS, MACS_ON_INPUT, PRINTED = 50_161, 3_585_664, 602_816, "3.64"
_NEAREST = {"name": "conv.NearestDecoder"}
VARIANTS: dict[tuple[str, str], dict[str, Any]] = {  # how the map shrinks, how it grows again
    ("max", "transposed"): {},
    ("average", "transposed"): {"model.encoder.pool": "average"},
    ("max", "nearest"): {"model.decoder": _NEAREST},
    ("average", "nearest"): {"model.encoder.pool": "average", "model.decoder": _NEAREST},
}
LEFT_OUT = 10  # classes at most that are left out in turn


def run(bench: Bench) -> None:
    """Trains the lecture's net and its variants, then measures and draws."""
    model = bench.train("max-transposed", "conv-ae-mnist")
    codes = Codes(_encode(model, bench.train_set.x), _encode(model, bench.test_set.x))
    _nets(bench, model)
    _maps(bench, codes)
    _random_codes(bench, model, codes)
    _variants(bench, model)
    _features(bench, codes)
    _neighbours(bench, codes)
    _anomalies(bench)


@dataclass(frozen=True)
class Codes:
    """Codes (N,64,2,2) of the training images and of the held-out ones."""

    train: Tensor
    test: Tensor


@torch.inference_mode()
def _encode(model: GenerativeModel, x: Tensor) -> Tensor:
    assert isinstance(model, Reconstructs)
    return model.encode(x)


@torch.inference_mode()
def _decode(model: GenerativeModel, z: Tensor) -> Tensor:
    assert isinstance(model, Reconstructs)
    return model.decode(z)


def _nets(bench: Bench, model: GenerativeModel) -> None:
    found = layers(model, lambda: _decode(model, _encode(model, bench.test_set.x[:1])))
    costs = {
        "true": sum(layer.macs for layer in found),
        "on_input": sum(layer.macs_on_input for layer in found),
        "printed": sum(layer.printed_macs for layer in found),
    }
    bench.results["macs"] = costs
    bench.section(
        "The nets",
        "The lecture gives sizes and no strides; those of the recipe are the only ones that give its shapes. The"
        " tool that printed 3.64 million mult-adds counts every weight once for each place of the output and once"
        " more. Without that extra one it is 3,585,664. A transposed convolution really multiplies at each place of"
        " its input, not of its output: so counted, one image costs 602,816.",
        table=table(found),
        checks=[
            *checks(found, LAYERS),
            check("parameters in all", TOTAL, sum(layer.parameters for layer in found)),
            check("multiply-adds of weights, at each output place", MACS, costs["true"]),
            check("the same, transposed ones at each input place", MACS_ON_INPUT, costs["on_input"]),
            check("mult-adds in millions as the lecture prints them", PRINTED, f"{costs['printed'] / 1e6:.2f}"),
        ],
    )


def _maps(bench: Bench, codes: Codes) -> None:
    """t-SNE and PCA maps of the codes, flat and pooled."""
    keep = torch.linspace(0, len(codes.train) - 1, min(1500, len(codes.train))).round().long()
    z, y = codes.train[keep], bench.train_set.y[keep]
    names = bench.train_set.classes
    figure, (whole, means, linear) = draw.plots(3, height=3.3, width=10)
    draw.classes(whole, maps.tsne(z, seed=bench.seed), y, names, "t-SNE of all 256 numbers")
    draw.classes(means, maps.tsne(maps.pooled(z), seed=bench.seed), y, names, "t-SNE of 64 channel means")
    draw.classes(linear, maps.pca(z), y, names, "PCA of all 256 numbers")
    for ax in (whole, means):
        draw.unmarked(ax)
    bench.section(
        "A map of the codes",
        'The slide maps a "64-dimensional vector", but this code is 64×2×2, which is 256 numbers. Both readings are'
        " here: all 256, and the mean of each of the 64 channels. In a t-SNE map only neighbourhoods mean something;"
        " distances between groups and their sizes do not. PCA keeps true distances, but only along two of 256"
        " directions.",
        bench.figure(
            "maps",
            figure,
            f"Codes of {len(z):,} training images; colours and names are their classes, which the autoencoder never"
            " saw.",
            "Three scatter charts: in the t-SNE maps digits of one class form groups, in the PCA map they overlap.",
        ),
    )


def _random_codes(bench: Bench, model: GenerativeModel, codes: Codes) -> None:
    """The lecture's random vectors, decoded, and two numbers that say they are no digits."""
    n = min(500, len(codes.train) // 2)
    fake = _decode(model, random_codes(codes.train, n, bench.seed))
    order = torch.randperm(len(codes.train), generator=torch.Generator().manual_seed(bench.seed))[:n]
    back = _decode(model, codes.train[order])
    reals = bench.train_set
    rows: dict[str, judge.Verdict] = {
        "held-out images": judge.verdict(reals, bench.test_set.x),
        "their reconstructions": judge.verdict(reals, _decode(model, codes.test)),
        "random codes, decoded": judge.verdict(reals, fake, back, bench.seed),
    }
    bench.results["random_codes"] = {name: vars(v) for name, v in rows.items()}
    shown = {
        "images": draw.tiles(bench.train_set.x[order[:100]], 10),
        "reconstructions": draw.tiles(back[:100], 10),
        "random codes": draw.tiles(fake[:100], 10),
    }
    bench.section(
        "Random codes give no digits",
        "The lecture draws every number of a code from a Gaussian with the mean and the spread that this number has"
        " over the training images, and decodes. (Its code makes a list with an entry of 100 draws for each number;"
        " the entries have to be joined and turned before they are 100 codes.) The numbers of real codes depend on"
        f" each other, and drawn one by one they land where no digit lies.\n\n{judge.EXPLAINED}",
        bench.figure(
            "random-codes",
            draw.beside(shown),
            "100 training images, what comes back from their codes, and what comes from 100 random codes.",
            "Three grids: digits, slightly blurred digits, and blots that only resemble strokes.",
        ),
        table=judge.table(rows),
    )
    false, true = rows["random codes, decoded"], rows["their reconstructions"]
    bench.claim(
        "Simply using random vectors cannot generate realistic images",
        f"neighbours agree {false.agreement:.0%} on random ones, {true.agreement:.0%} on reconstructions;"
        f" told apart from reconstructions {false.told or 0:.0%} of the time",
        false.agreement < true.agreement and (false.told or 0) > 0.75,
    )


def random_codes(codes: Tensor, n: int, seed: int) -> Tensor:
    """Codes (n,…) whose every number is drawn on its own, with that number's mean and spread over codes (N,…)."""
    table = codes.flatten(1)
    eps = torch.randn(n, table.shape[1], generator=torch.Generator().manual_seed(seed))
    return (table.mean(0) + table.std(0) * eps).view(n, *codes.shape[1:])


def _variants(bench: Bench, lecture: GenerativeModel) -> None:
    """Max or average pooling down, transposed convolutions or nearest neighbours up."""
    x, some = bench.test_set.x, bench.test_set.one_of_each().x
    rows, shown = [], {"input": some}
    for (pool, up), change in VARIANTS.items():
        model = bench.train(f"{pool}-{up}", "conv-ae-mnist", change) if change else lecture
        error = float(psnr(_decode(model, _encode(model, x)), x).mean())
        size = sum(p.numel() for p in model.parameters())
        rows.append((f"{pool} pooling, {up}", size, error))
        shown[f"{pool},\n{up}"] = _decode(model, _encode(model, some))
    bench.results["variants"] = [{"variant": n, "parameters": p, "psnr_db": e} for n, p, e in rows]
    bench.section(
        "Pooling down, scaling up",
        "Max pooling keeps the strongest answer of each 2×2 window, average pooling their mean. Going up, a"
        " transposed convolution learns how to spread a pixel; the other way repeats each pixel, convolves, and"
        f" normalises over the batch. All four have a code of 64×2×2 and see {bench.images:,} images.",
        bench.figure(
            "variants",
            draw.rows(shown, scale=3),
            "Held-out images and what comes back from each variant.",
            "Rows of digits: the inputs, then the reconstructions of the four variants.",
        ),
        table=Table(("variant", "parameters", "held-out PSNR, dB"), rows),
    )


def _features(bench: Bench, codes: Codes) -> None:
    """A linear probe on codes, on PCA of the same size, and on pixels."""
    train, test = bench.train_set, bench.test_set
    rows = [
        ("code, all numbers", codes.train[0].numel(), _probe(bench, codes.train, codes.test)),
        ("code, mean of each channel", codes.train.shape[1], _probe(bench, *_pooled(codes))),
    ]
    for dims in (codes.train[0].numel(), codes.train.shape[1]):
        if dims <= len(train):
            fitted = maps.principal(train.x, dims, bench.seed)
            a, b = (torch.from_numpy(fitted.transform(maps.flat(x))) for x in (train.x, test.x))
            rows.append(("PCA of the pixels", dims, _probe(bench, a, b)))
    rows.append(("pixels", train.x[0].numel(), _probe(bench, train.x, test.x)))
    bench.results["linear_probe"] = [{"features": n, "numbers": d, "accuracy": a} for n, d, a in rows]
    bench.section(
        "Codes as features",
        "A logistic regression is trained on features of the training images and judged on held-out ones: how much"
        " of the class can be read off by a straight cut. The autoencoder never saw a class.",
        table=Table(("features", "numbers", "accuracy of a linear probe"), rows),
    )
    accuracy = {(n, d): a for n, d, a in rows}
    ours = accuracy["code, all numbers", codes.train[0].numel()]
    best = max(a for (n, _), a in accuracy.items() if "code" not in n)
    bench.claim(
        "An autoencoder makes features for a classifier",
        f"accuracy {ours:.3f} on codes, at best {best:.3f} on pixels and on PCA of them",
        ours > best,
    )


def _pooled(codes: Codes) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(maps.pooled(codes.train)), torch.from_numpy(maps.pooled(codes.test))


def _probe(bench: Bench, train: Tensor, test: Tensor) -> float:
    return linear_probe(train, bench.train_set.y, test, bench.test_set.y)


def _neighbours(bench: Bench, codes: Codes) -> None:
    """Which training images are nearest to a held-out one, by code and by pixels."""
    train, test = bench.train_set, bench.test_set
    k = min(8, len(train))
    shares = {}
    for name, known, asked in (("codes", codes.train, codes.test), ("pixels", train.x, test.x)):
        _, found = nearest(known, asked, k)
        shares[name] = float((train.y[found] == test.y[:, None]).float().mean())
    places = [int((test.y == c).nonzero()[0, 0]) for c in test.y.unique()][:6]
    _, found = nearest(codes.train, codes.test[places], k)
    grid = torch.cat([torch.cat([test.x[i : i + 1], train.x[own]]) for i, own in zip(places, found)])
    named = {test.classes[int(test.y[i])]: part for i, part in zip(places, grid.split(k + 1))}
    bench.results["nearest"] = shares
    bench.section(
        "Images that are alike",
        f"For each held-out image the {k} training images with the nearest codes: the lecture's grouping of similar"
        f" images at work. {shares['codes']:.1%} of them are of the image's own class; by distance of pixels it is"
        f" {shares['pixels']:.1%}.",
        bench.figure(
            "nearest",
            draw.rows(named, scale=3, heads=["image", *(f"{i}" for i in range(1, k + 1))]),
            "Left, a held-out image; then the training images with the nearest codes, nearest first.",
            "Rows of digits that look alike.",
        ),
    )


def _anomalies(bench: Bench) -> None:
    """Each class in turn is kept out of training: do its images come back worse?"""
    test, found = bench.test_set, {}
    for c, name in list(enumerate(test.classes))[:LEFT_OUT]:
        odd = test.y == c
        if odd.any() and not odd.all():
            model = _without(bench, name)
            assert isinstance(model, ScoresSamples)
            with torch.inference_mode():
                found[name] = auroc(model.score_samples(test.x), odd)
    bench.results["anomaly_auroc"] = found
    figure, (ax,) = draw.plots(1, height=2.8)
    draw.bars(ax, found, title="AUROC of the class that was left out", chance=0.5)
    mean, hardest = sum(found.values()) / len(found), min(found, key=lambda name: found[name])
    bench.section(
        "Anomalies",
        "What was never learnt should come back badly, so the squared error of its reconstruction can flag it. Here"
        f" one class is left out of a short training ({_share(bench):,} images), and its held-out images have to be"
        " told from those of the others by that error alone. AUROC is the probability that an image of the unknown"
        " class has the larger error than one of a known class: 0.5 is chance. Below it, the unknown class is"
        " easier to draw than those learnt: a stroke with little ink, such as a 1, comes back well though none was"
        " ever seen. A reconstruction error measures how complex an image is as much as how strange.",
        bench.figure(
            "anomalies",
            figure,
            f"Mean over the classes {mean:.2f}; the line is chance.",
            f"A bar for each class that was left out; the lowest is that of {hardest}, {found[hardest]:.2f}.",
        ),
    )


def _share(bench: Bench) -> int:
    return max(64, bench.images // 5)


def _without(bench: Bench, name: str) -> GenerativeModel:
    """A short training that never sees one class; few pictures, as nobody will look at them."""
    share = _share(bench)
    return bench.train(
        f"without-{name.replace('/', '-')}",
        "conv-ae-mnist",
        {"sample_images": share, "checkpoint_images": share},
        images=share,
        without=[name],
    )
