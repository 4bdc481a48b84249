"""Lab 2: the convolutional autoencoder, whose code is a map of 64×2×2.

The lecture prints its layer table, maps the codes with t-SNE, and decodes random codes, which give no digits. Here two
scores measure the images of random codes, and the codes are used: a linear probe, nearest images, anomaly detection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from limner.core.capabilities import ScoresSamples
from limner.core.model import GenerativeModel
from limner.labs import _figures as draw
from limner.labs import _realism as realism
from limner.labs._bench import Bench, check, decode, encode, spaced_indices
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
VARIANTS: dict[tuple[str, str], dict[str, Any]] = {  # pooling of the encoder, upsampling of the decoder
    ("max", "transposed"): {},
    ("average", "transposed"): {"model.encoder.pool": "average"},
    ("max", "nearest"): {"model.decoder": _NEAREST},
    ("average", "nearest"): {"model.encoder.pool": "average", "model.decoder": _NEAREST},
}
LEFT_OUT = 10  # at most so many classes are left out in turn


def run(bench: Bench) -> None:
    """Trains the lecture's net and its variants, then measures and draws."""
    model = bench.train("max-transposed", "conv-ae-mnist")
    codes = Codes(encode(model, bench.train_set.x), encode(model, bench.test_set.x))
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


def _nets(bench: Bench, model: GenerativeModel) -> None:
    measured = layers(model, lambda: decode(model, encode(model, bench.test_set.x[:1])))
    costs = {
        "true": sum(layer.macs for layer in measured),
        "on_input": sum(layer.macs_on_input for layer in measured),
        "printed": sum(layer.printed_macs for layer in measured),
    }
    bench.results["macs"] = costs
    bench.section(
        "The nets",
        "The lecture gives sizes and no strides; only those of the recipe give its shapes. The tool that printed 3.64"
        " million mult-adds counts every weight once for each position of the output and once more. Without that extra"
        " one it is 3,585,664. A transposed convolution really multiplies at each position of its input, not of its"
        " output: counted in this way, one image costs 602,816.",
        table=table(measured),
        checks=[
            *checks(measured, LAYERS),
            check("parameters in all", TOTAL, sum(layer.parameters for layer in measured)),
            check("multiply-adds of weights, at each output position", MACS, costs["true"]),
            check("the same, transposed ones at each input position", MACS_ON_INPUT, costs["on_input"]),
            check("mult-adds in millions as the lecture prints them", PRINTED, f"{costs['printed'] / 1e6:.2f}"),
        ],
    )


def _maps(bench: Bench, codes: Codes) -> None:
    indices = spaced_indices(len(codes.train), 1500)
    z, y = codes.train[indices], bench.train_set.y[indices]
    names = bench.train_set.classes
    figure, (flat, pooled, pca) = draw.plots(3, height=3.3, width=10)
    draw.scatter_classes(flat, maps.tsne(z, seed=bench.seed), y, names, "t-SNE of all 256 numbers")
    draw.scatter_classes(pooled, maps.tsne(maps.pooled(z), seed=bench.seed), y, names, "t-SNE of 64 channel means")
    draw.scatter_classes(pca, maps.pca(z), y, names, "PCA of all 256 numbers")
    for ax in (flat, pooled):
        draw.hide_axes(ax)
    bench.section(
        "A map of the codes",
        'The slide maps a "64-dimensional vector", but this code is 64×2×2, which is 256 numbers. Both readings are'
        " shown: all 256, and the mean of each of the 64 channels. In a t-SNE map only neighbourhoods have a meaning;"
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
    n = min(500, len(codes.train) // 2)
    decoded = decode(model, random_codes(codes.train, n, bench.seed))
    order = torch.randperm(len(codes.train), generator=torch.Generator().manual_seed(bench.seed))[:n]
    reconstructions = decode(model, codes.train[order])
    real_images = bench.train_set
    rows: dict[str, realism.Realism] = {
        "held-out images": realism.measure_realism(real_images, bench.test_set.x),
        "their reconstructions": realism.measure_realism(real_images, decode(model, codes.test)),
        "random codes, decoded": realism.measure_realism(real_images, decoded, reconstructions, bench.seed),
    }
    bench.results["random_codes"] = {name: v.to_dict() for name, v in rows.items()}
    grids = {
        "images": draw.image_grid(bench.train_set.x[order[:100]], 10),
        "reconstructions": draw.image_grid(reconstructions[:100], 10),
        "random codes": draw.image_grid(decoded[:100], 10),
    }
    bench.section(
        "Random codes give no digits",
        "The lecture draws every number of a code from a Gaussian with the mean and standard deviation of this number"
        " over the training images, and decodes. (Its code makes a list with an entry of 100 draws for each number;"
        " the entries have to be joined and turned before they are 100 codes.) The numbers of real codes depend on"
        f" each other, and drawn independently they fall where no digit lies.\n\n{realism.EXPLANATION}",
        bench.figure(
            "random-codes",
            draw.side_by_side(grids),
            "100 training images, their reconstructions, and the images of 100 random codes.",
            "Three grids: digits, slightly blurred digits, and blots that only resemble strokes.",
        ),
        table=realism.table(rows),
    )
    random, reconstructed = rows["random codes, decoded"], rows["their reconstructions"]
    bench.claim(
        "Simply using random vectors cannot generate realistic images",
        f"neighbours agree {random.agreement:.0%} on random ones, {reconstructed.agreement:.0%} on reconstructions;"
        f" told apart from reconstructions {random.told_apart or 0:.0%} of the time",
        random.agreement < reconstructed.agreement and (random.told_apart or 0) > 0.75,
    )


def random_codes(codes: Tensor, n: int, seed: int) -> Tensor:
    """Codes (n,…) whose numbers are independent Gaussians with their means and standard deviations over codes (N,…)."""
    table = codes.flatten(1)
    eps = torch.randn(n, table.shape[1], generator=torch.Generator().manual_seed(seed))
    return (table.mean(0) + table.std(0) * eps).view(n, *codes.shape[1:])


def _variants(bench: Bench, lecture: GenerativeModel) -> None:
    x, examples = bench.test_set.x, bench.test_set.first_of_each_class().x
    rows, image_rows = [], {"input": examples}
    for (pool, up), change in VARIANTS.items():
        model = bench.train(f"{pool}-{up}", "conv-ae-mnist", change) if change else lecture
        error = float(psnr(decode(model, encode(model, x)), x).mean())
        size = sum(p.numel() for p in model.parameters())
        rows.append((f"{pool} pooling, {up}", size, error))
        image_rows[f"{pool},\n{up}"] = decode(model, encode(model, examples))
    bench.results["variants"] = [{"variant": n, "parameters": p, "psnr_db": e} for n, p, e in rows]
    bench.section(
        "Pooling and upsampling",
        "Max pooling keeps the largest activation of each 2×2 window, average pooling the mean. In the decoder a"
        " transposed convolution learns how to upsample; the alternative repeats each pixel, convolves, and"
        f" normalises over the batch. All four have a code of 64×2×2 and see {bench.images:,} images.",
        bench.figure(
            "variants",
            draw.image_rows(image_rows, scale=3),
            "Held-out images and their reconstructions by each variant.",
            "Rows of digits: the inputs, then the reconstructions of the four variants.",
        ),
        table=Table(("variant", "parameters", "held-out PSNR, dB"), rows),
    )


def _features(bench: Bench, codes: Codes) -> None:
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
        "A logistic regression is trained on features of the training images and tested on held-out ones: how well"
        " a linear classifier finds the class. The autoencoder was trained without classes.",
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
    train, test = bench.train_set, bench.test_set
    k = min(8, len(train))
    shares = {}
    for name, train_features, test_features in (("codes", codes.train, codes.test), ("pixels", train.x, test.x)):
        _, indices = nearest(train_features, test_features, k)
        shares[name] = float((train.y[indices] == test.y[:, None]).float().mean())
    queries = [int((test.y == c).nonzero()[0, 0]) for c in test.y.unique()][:6]
    _, indices = nearest(codes.train, codes.test[queries], k)
    grid = torch.cat([torch.cat([test.x[i : i + 1], train.x[neighbours]]) for i, neighbours in zip(queries, indices)])
    rows = {test.classes[int(test.y[i])]: part for i, part in zip(queries, grid.split(k + 1))}
    bench.results["nearest"] = shares
    bench.section(
        "Similar images",
        f"For each held-out image the {k} training images with the nearest codes: the lecture's grouping of similar"
        f" images. {shares['codes']:.1%} of them are of the image's own class; by distance of pixels it is"
        f" {shares['pixels']:.1%}.",
        bench.figure(
            "nearest",
            draw.image_rows(rows, scale=3, headings=["image", *(f"{i}" for i in range(1, k + 1))]),
            "Left, a held-out image; then the training images with the nearest codes, nearest first.",
            "Rows of similar digits.",
        ),
    )


def _anomalies(bench: Bench) -> None:
    test, aurocs = bench.test_set, {}
    for c, name in list(enumerate(test.classes))[:LEFT_OUT]:
        is_left_out = test.y == c
        if is_left_out.any() and not is_left_out.all():
            model = _train_without(bench, name)
            assert isinstance(model, ScoresSamples)
            with torch.inference_mode():
                aurocs[name] = auroc(model.score_samples(test.x), is_left_out)
    bench.results["anomaly_auroc"] = aurocs
    figure, (ax,) = draw.plots(1, height=2.8)
    draw.bars(ax, aurocs, title="AUROC of the class that was left out", chance=0.5)
    mean, hardest = sum(aurocs.values()) / len(aurocs), min(aurocs, key=lambda name: aurocs[name])
    bench.section(
        "Anomalies",
        "An image unlike the training images should be reconstructed badly, so the squared error can flag it. Here one"
        f" class is left out of a short training ({_short_budget(bench):,} images), and its held-out images have to be"
        " told from those of the other classes by that error alone. AUROC is the probability that an image of the"
        " unknown class has the larger error than one of a known class: 0.5 is guessing. Below it, the unknown class"
        " is easier to reconstruct than the others: a stroke with little ink, such as a 1, is reconstructed well"
        " though none was in the training set. A reconstruction error measures how complex an image is as much as how"
        " strange.",
        bench.figure(
            "anomalies",
            figure,
            f"Mean over the classes {mean:.2f}; the line is guessing.",
            f"A bar for each class that was left out; the lowest is that of {hardest}, {aurocs[hardest]:.2f}.",
        ),
    )


def _short_budget(bench: Bench) -> int:
    return max(64, bench.images // 5)


def _train_without(bench: Bench, name: str) -> GenerativeModel:
    """A short training without one class; it saves few grids of samples, as the page shows none of them."""
    budget = _short_budget(bench)
    return bench.train(
        f"without-{name.replace('/', '-')}",
        "conv-ae-mnist",
        {"sample_images": budget, "checkpoint_images": budget},
        images=budget,
        without=[name],
    )
