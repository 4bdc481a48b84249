"""Lab 1: the vanilla autoencoder 784-128-64-3-64-128-784.

The lecture prints its layer table and shows that a larger code gives a clearer image. Here the same nets are trained at
six sizes of code, beside PCA, which is the best that a linear encoder and decoder of that size can do.
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
from limner.labs._bench import Bench, check
from limner.labs._layers import Layer, checks, layers, table
from limner.latent import maps
from limner.losses.reconstruction import mse, psnr
from limner.report import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA

IMAGES = 200_000
SIZES = (2, 3, 8, 16, 32, 64)
SHOWN = 3  # the lecture's size

LAYERS = (
    ("Linear", "128", 100_480),
    ("Linear", "64", 8_256),
    ("Linear", "3", 195),
    ("Linear", "64", 256),
    ("Linear", "128", 8_320),
    ("Linear", "784", 101_136),
)
TOTAL, MACS, PRINTED = 218_643, 217_472, "0.43"
FOREIGN = {"digits": "scikit-learn's digits", "mini-dsprites": "mini-dSprites"}


@dataclass(frozen=True)
class Quality:
    """Of reconstructions of held-out images.

    Attributes:
        psnr: mean over images, dB.
        mse: mean over pixels and images, on [-1,1].
        kept: share of the variance around the set's mean image that comes back; below 0 the mean image were better.
    """

    psnr: float
    mse: float
    kept: float


def quality(x_hat: Tensor, x: Tensor) -> Quality:
    """How near reconstructions (N,C,H,W) come to their images."""
    error = float(mse(x_hat, x))
    return Quality(float(psnr(x_hat, x).mean()), error, 1 - error / float((x - x.mean(0)).square().mean()))


def run(bench: Bench) -> None:
    """Trains at every size, then measures and draws."""
    models = {z: bench.train(f"z{z}", "ae-mnist", {"model.z": z}) for z in SIZES}
    _nets(bench, models[SHOWN])
    _sizes(bench, models)
    _codes(bench, models)
    _elsewhere(bench, models)


@torch.inference_mode()
def rebuilt(model: GenerativeModel, x: Tensor) -> Tensor:
    """Reconstructions (N,C,H,W) of images."""
    assert isinstance(model, Reconstructs)
    return reconstruct(model, x)


def _nets(bench: Bench, model: GenerativeModel) -> None:
    found = layers(model, lambda: rebuilt(model, bench.test_set.x[:1]))
    bench.results["macs"] = costs = _costs(found)
    bench.section(
        "The nets",
        "Layer by layer as it ran: 784 pixels become 128, 64 and then three numbers, and the same way back. The"
        " lecture's tool prints 0.43 million mult-adds. It counts every weight once for each place of the output"
        " and once more, which for a linear layer is twice; each weight is multiplied once, so the true number is"
        " 217,472.",
        table=table(found),
        checks=[
            *checks(found, LAYERS),
            check("parameters in all", TOTAL, sum(layer.parameters for layer in found)),
            check("multiply-adds of weights", MACS, costs["true"]),
            check("mult-adds in millions as the lecture prints them", PRINTED, f"{costs['printed'] / 1e6:.2f}"),
        ],
    )


def _costs(found: list[Layer]) -> dict[str, int]:
    return {
        "true": sum(layer.macs for layer in found),
        "printed": sum(layer.printed_macs for layer in found),
    }


def _sizes(bench: Bench, models: dict[int, GenerativeModel]) -> None:
    """Reconstruction against the size of the code, beside PCA."""
    x, train = bench.test_set.x, bench.train_set.x
    ours = {z: quality(rebuilt(model, x), x) for z, model in models.items()}
    linear = {z: quality(maps.project(maps.principal(train, z, bench.seed), x), x) for z in SIZES}
    some = bench.test_set.one_of_each().x
    named = {"input": some} | {f"z = {z}": rebuilt(model, some) for z, model in models.items()}
    named["PCA, 64"] = maps.project(maps.principal(train, SIZES[-1], bench.seed), some)
    bench.results["reconstruction"] = [
        {"z": z, "psnr_db": ours[z].psnr, "mse": ours[z].mse, "pca_psnr_db": linear[z].psnr, "pca_mse": linear[z].mse}
        for z in SIZES
    ]
    bench.section(
        "Reconstruction against the size of the code",
        f"Each size is trained on {bench.images:,} images; all numbers are means over {len(x)} images never trained on."
        " PSNR is taken over the full range of grey values, the squared error on [-1,1]. PCA keeps as many"
        " numbers per image and is fitted on the training images. The lecture's nets narrow to 64 units with ReLU"
        " before the code, so a larger code soon adds little; PCA has no such neck and goes on gaining.",
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
        "What comes back",
        "",
        bench.figure(
            "reconstructions",
            draw.rows(named, scale=3),
            "One held-out image of each class, and what comes back from codes of growing size.",
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
        "An autoencoder is a nonlinear PCA: it does more with the same few numbers",
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
    """Where the classes lie in codes of two and three numbers."""
    some = bench.train_set.spread(3000)
    two, three = _encoded(models[2], some.x), _encoded(models[SHOWN], some.x)
    figure, (left, right) = draw.plots(2, height=4.1)
    draw.classes(left, maps.flat(two), some.y, some.classes, "code of 2 numbers")
    draw.classes(right, maps.flat(three)[:, :2], some.y, some.classes, "code of 3 numbers: the first two")
    bench.section(
        "Where the classes lie",
        "No label was used in training, and still each class has its own region. Nothing makes the regions fill a known"
        " shape, or keeps their scale: that is why codes drawn at random give no digits (Lab 2), and what a variational"
        " autoencoder adds (Lab 3).",
        bench.figure(
            "codes",
            figure,
            f"Codes of {len(some):,} training images, coloured by class; each class is named at its median.",
            "Two scatter charts of codes, in which digits of one class lie together.",
        ),
    )


@torch.inference_mode()
def _encoded(model: GenerativeModel, x: Tensor) -> Tensor:
    assert isinstance(model, Reconstructs)
    return model.encode(x)


def _elsewhere(bench: Bench, models: dict[int, GenerativeModel]) -> None:
    """Data-specific and lossy: images of another kind come back badly."""
    model, z = models[32], 32
    own = maps.principal(bench.train_set.x, z, bench.seed)
    measured = {str(bench.data["name"]): _both(model, own, bench.test_set.x)}
    rows = {f"{bench.data['name']}": bench.test_set.one_of_each().x[:10]}
    rows[f"{bench.data['name']}\nback"] = rebuilt(model, rows[f"{bench.data['name']}"])
    for name in FOREIGN:
        x = bench.pixels("test", {"name": name}, size=28)
        measured[name] = _both(model, own, x)
        some = x[torch.linspace(0, len(x) - 1, len(next(iter(rows.values())))).round().long()]
        rows |= {name: some, f"{name}\nback": rebuilt(model, some)}
    home = next(iter(measured.values()))[0]
    bench.results["other_data"] = {n: {"autoencoder": asdict(a), "pca": asdict(b)} for n, (a, b) in measured.items()}
    bench.section(
        "Data-specific and lossy",
        f"The autoencoder of {z} numbers, given images of a kind that it never saw, scaled to 28×28: digits of 8×8"
        " pixels from other hands, and plain shapes. It answers with something like the digits it knows. A dark"
        " image has a high PSNR whatever is drawn, so the table also gives the share of each set's own variance"
        " that comes back: below zero, the mean image of that set would have been the better answer. PCA fitted on"
        " the same training images is beside it; being linear, it is less bound to its data.",
        bench.figure(
            "other-data",
            draw.rows(rows, scale=3),
            "Inputs and, below each, what comes back.",
            "Rows of images and their reconstructions: digits return well, foreign digits worse, shapes as blurs.",
        ),
        table=Table(
            ("held-out images of", "PSNR, dB", "variance kept", "PCA PSNR, dB", "PCA variance kept"),
            [(name, a.psnr, a.kept, b.psnr, b.kept) for name, (a, b) in measured.items()],
        ),
    )
    foreign = [a for name, (a, _) in measured.items() if name in FOREIGN]
    bench.claim(
        "An autoencoder is data-specific: it compresses only data like its training data",
        f"variance kept: {home.kept:.2f} at home, "
        + " and ".join(f"{q.kept:.2f}" for q in foreign)
        + " on other images",
        home.kept > max(q.kept for q in foreign),
    )
    bench.claim(
        "It is lossy: what comes back is not the image",
        f"{home.psnr:.1f} dB on held-out images at {z} of 784 numbers; a copy has no limit",
        home.psnr < 60,
    )


def _both(model: GenerativeModel, linear: PCA, x: Tensor) -> tuple[Quality, Quality]:
    return quality(rebuilt(model, x), x), quality(maps.project(linear, x), x)
