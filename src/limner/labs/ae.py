"""Lab 1: the vanilla autoencoder 784-128-64-3-64-128-784.

The lecture prints its layer table and shows that a larger code gives a clearer image. Here the same nets are trained
with six sizes of the code, beside PCA, which is the best linear encoder and decoder of each size.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from limner.core.capabilities import Reconstructs
from limner.core.inference import reconstruct
from limner.core.model import GenerativeModel
from limner.labs import _figures as draw
from limner.labs._bench import Bench, check, encode, spaced_indices
from limner.labs._layers import checks, layers, table
from limner.latent import maps
from limner.losses.reconstruction import mse, psnr
from limner.report import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA

IMAGES = 200_000
SIZES = (2, 3, 8, 16, 32, 64)
LECTURE_SIZE = 3

LAYERS = (
    ("Linear", "128", 100_480),
    ("Linear", "64", 8_256),
    ("Linear", "3", 195),
    ("Linear", "64", 256),
    ("Linear", "128", 8_320),
    ("Linear", "784", 101_136),
)
TOTAL, MACS, PRINTED = 218_643, 217_472, "0.43"
OTHER_DATA = ("digits", "mini-dsprites")


@dataclass(frozen=True)
class Quality:
    """Quality of reconstructions of held-out images.

    Attributes:
        psnr: mean over images, dB.
        mse: mean over pixels and images, on [-1,1].
        kept: explained share of the variance around the set's mean image; below 0, the mean image would be better.
    """

    psnr: float
    mse: float
    kept: float


def quality(x_hat: Tensor, x: Tensor) -> Quality:
    """Compares reconstructions (N,C,H,W) with their images."""
    error = float(mse(x_hat, x))
    return Quality(float(psnr(x_hat, x).mean()), error, 1 - error / float((x - x.mean(0)).square().mean()))


def run(bench: Bench) -> None:
    """Trains with every size of the code, then measures and draws."""
    models = {z: bench.train(f"z{z}", "ae-mnist", {"model.z": z}) for z in SIZES}
    _nets(bench, models[LECTURE_SIZE])
    _sizes(bench, models)
    _codes(bench, models)
    _other_data(bench, models)


@torch.inference_mode()
def reconstruct_images(model: GenerativeModel, x: Tensor) -> Tensor:
    """Reconstructions (N,C,H,W) of images."""
    assert isinstance(model, Reconstructs)
    return reconstruct(model, x)


def _nets(bench: Bench, model: GenerativeModel) -> None:
    measured = layers(model, lambda: reconstruct_images(model, bench.test_set.x[:1]))
    costs = {"true": sum(m.macs for m in measured), "printed": sum(m.printed_macs for m in measured)}
    bench.results["macs"] = costs
    bench.section(
        "The nets",
        "The layers as measured: 784 pixels become 128, 64 and then three numbers, and back again in mirror order. The"
        " lecture's tool prints 0.43 million mult-adds. It counts every weight once for each position of the output"
        " and once more, which for a linear layer is twice; each weight is multiplied once, so the true number is"
        " 217,472.",
        table=table(measured),
        checks=[
            *checks(measured, LAYERS),
            check("parameters in all", TOTAL, sum(layer.parameters for layer in measured)),
            check("multiply-adds of weights", MACS, costs["true"]),
            check("mult-adds in millions as the lecture prints them", PRINTED, f"{costs['printed'] / 1e6:.2f}"),
        ],
    )


def _sizes(bench: Bench, models: dict[int, GenerativeModel]) -> None:
    x, train = bench.test_set.x, bench.train_set.x
    ours = {z: quality(reconstruct_images(model, x), x) for z, model in models.items()}
    linear = {z: quality(maps.project(maps.principal(train, z, bench.seed), x), x) for z in SIZES}
    examples = bench.test_set.first_of_each_class().x
    named = {"input": examples} | {f"z = {z}": reconstruct_images(model, examples) for z, model in models.items()}
    named["PCA, 64"] = maps.project(maps.principal(train, SIZES[-1], bench.seed), examples)
    bench.results["reconstruction"] = [
        {"z": z, "psnr_db": ours[z].psnr, "mse": ours[z].mse, "pca_psnr_db": linear[z].psnr, "pca_mse": linear[z].mse}
        for z in SIZES
    ]
    bench.section(
        "Reconstruction against the size of the code",
        f"Each size is trained on {bench.images:,} images; all numbers are means over {len(x)} images never trained on."
        " PSNR is taken over the full range of grey values, the squared error on [-1,1]. PCA keeps as many"
        " numbers per image and is fitted on the training images. The lecture's nets narrow to 64 units with ReLU"
        " before the code, so a larger code soon adds little; PCA has no such bottleneck and keeps improving.",
        bench.figure(
            "sizes",
            _size_curves(ours, linear),
            "Held-out reconstruction against the numbers in the code (logarithmic), beside PCA at the same size.",
            "Two charts: PSNR rises and squared error falls as the code grows, for the autoencoder and for PCA.",
        ),
        table=Table(
            ("code", "autoencoder PSNR, dB", "PCA PSNR, dB", "autoencoder MSE", "PCA MSE"),
            [(str(z), ours[z].psnr, linear[z].psnr, ours[z].mse, linear[z].mse) for z in SIZES],
        ),
    )
    bench.section(
        "Reconstructions",
        "",
        bench.figure(
            "reconstructions",
            draw.image_rows(named, scale=3),
            "One held-out image of each class, and its reconstructions from codes of growing size.",
            "Rows of digits: the inputs, then reconstructions from codes of 2, 3, 8, 16, 32 and 64 numbers, then PCA.",
        ),
    )
    low, high = ours[SIZES[0]], ours[32]
    bench.claim(
        "A larger latent_dim gives a clearer reconstructed image",
        f"PSNR {low.psnr:.1f} dB with 2 numbers, {ours[3].psnr:.1f} with 3, {high.psnr:.1f} with 32",
        high.psnr > ours[3].psnr > low.psnr,
    )
    bench.claim(
        "An autoencoder is a nonlinear PCA: it reconstructs better from as many numbers",
        f"3 numbers: {ours[3].psnr:.1f} dB against {linear[3].psnr:.1f} dB of PCA",
        ours[3].psnr > linear[3].psnr,
    )


def _size_curves(ours: dict[int, Quality], linear: dict[int, Quality]) -> Figure:
    figure, (left, right) = draw.plots(2)
    for ax, title, pick in ((left, "PSNR, dB", "psnr"), (right, "mean squared error", "mse")):
        series = {
            name: (list(SIZES), [getattr(of[z], pick) for z in SIZES])
            for name, of in (("autoencoder", ours), ("PCA", linear))
        }
        draw.curves(ax, series, xlabel="numbers in the code", title=title, ticks=SIZES, log=True, marker="o")
    return figure


def _codes(bench: Bench, models: dict[int, GenerativeModel]) -> None:
    subset = bench.train_set.evenly_spaced(3000)
    two, three = encode(models[2], subset.x), encode(models[LECTURE_SIZE], subset.x)
    figure, (left, right) = draw.plots(2, height=4.1)
    draw.scatter_classes(left, maps.flat(two), subset.y, subset.classes, "code of 2 numbers")
    draw.scatter_classes(right, maps.flat(three)[:, :2], subset.y, subset.classes, "code of 3 numbers: the first two")
    bench.section(
        "Where the classes lie",
        "No label was used in training, and still each class has its own region. Nothing fixes the shape or the"
        " scale of the regions: that is why codes drawn at random decode to no digits (Lab 2), and what a variational"
        " autoencoder adds (Lab 3).",
        bench.figure(
            "codes",
            figure,
            f"Codes of {len(subset):,} training images, coloured by class; each class is named at its median.",
            "Two scatter charts of codes, in which digits of one class lie together.",
        ),
    )


def _other_data(bench: Bench, models: dict[int, GenerativeModel]) -> None:
    model, z, home = models[32], 32, str(bench.data["name"])
    pca = maps.principal(bench.train_set.x, z, bench.seed)
    examples = bench.test_set.first_of_each_class().x[:10]
    n, measured = len(examples), {home: _both(model, pca, bench.test_set.x)}
    rows = {home: examples, f"{home}\nreconstructed": reconstruct_images(model, examples)}
    for name in OTHER_DATA:
        x = bench.pixels("test", {"name": name}, size=28)
        measured[name] = _both(model, pca, x)
        examples = x[spaced_indices(len(x), n)]
        rows |= {name: examples, f"{name}\nreconstructed": reconstruct_images(model, examples)}
    on_test_set = measured[home][0]
    bench.results["other_data"] = {n: {"autoencoder": asdict(a), "pca": asdict(b)} for n, (a, b) in measured.items()}
    bench.section(
        "Data-specific and lossy",
        f"The autoencoder of {z} numbers, given images of a kind that it was not trained on, scaled to 28×28: digits of"
        " 8×8 pixels by other writers, and plain shapes. It returns something like the digits it knows. A dark image"
        " has a high PSNR whatever is reconstructed, so the table also gives the explained share of each set's own"
        " variance: below zero, the mean image of that set would have been better. PCA fitted on the same training"
        " images is beside it; as it is linear, it depends less on its training data.",
        bench.figure(
            "other-data",
            draw.image_rows(rows, scale=3),
            "Inputs and, below each, its reconstruction.",
            "Rows of images and their reconstructions: digits are reconstructed well, other digits worse, shapes as"
            " blurs.",
        ),
        table=Table(
            ("held-out images of", "PSNR, dB", "variance explained", "PCA PSNR, dB", "PCA variance explained"),
            [(name, a.psnr, a.kept, b.psnr, b.kept) for name, (a, b) in measured.items()],
        ),
    )
    elsewhere = [a for name, (a, _) in measured.items() if name in OTHER_DATA]
    bench.claim(
        "An autoencoder is data-specific: it compresses only data like its training data",
        f"variance explained: {on_test_set.kept:.2f} on its own data, "
        + " and ".join(f"{q.kept:.2f}" for q in elsewhere)
        + " on other images",
        on_test_set.kept > max(q.kept for q in elsewhere),
    )
    bench.claim(
        "It is lossy: the reconstruction is not the image",
        f"{on_test_set.psnr:.1f} dB on held-out images at {z} of 784 numbers; an exact copy has infinitely many",
        on_test_set.psnr < 60,
    )


def _both(model: GenerativeModel, linear: PCA, x: Tensor) -> tuple[Quality, Quality]:
    return quality(reconstruct_images(model, x), x), quality(maps.project(linear, x), x)
