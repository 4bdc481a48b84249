"""Lab 5: the generator of TensorFlow's DCGAN tutorial, which the lecture prints.

Noise of 100 numbers becomes a map of 7×7×256, and transposed convolutions make it 7×7×128, 14×14×64 and 28×28×1. The
discriminator is also the tutorial's. The recipe's optimiser is that of Radford et al. 2016, its batch size 32: with the
tutorial's own (Adam 1e-4 and default betas) hardly a digit is legible after as many images.
"""

from __future__ import annotations

import torch

from limner.core.capabilities import Decodes
from limner.core.model import GenerativeModel, parameters
from limner.labs import _figures as draw
from limner.labs import _gan_sections as gan_sections
from limner.labs._bench import Bench, check
from limner.labs._layers import layers, table
from limner.latent.walk import slerp

IMAGES = 25_600

SHAPES = ("7×7×256", "7×7×128", "14×14×64", "28×28×1")
TRAINABLE, STATISTICS, TOTAL = 2_305_472, 25_472, 2_330_944
NOISE = 100
BATCH = 32  # of the recipe


def run(bench: Bench) -> None:
    """Trains, then measures and draws."""
    model = gan_sections.train(bench, "dcgan", "dcgan-mnist")
    run = bench.runs["dcgan"]
    _nets(bench, model)
    gan_sections.samples_over_time(bench, run)
    _samples(bench, model)
    gan_sections.curves(bench, run)
    gan_sections.losses_and_quality(bench, gan_sections.parts(bench, run))
    _interpolations(bench, model)


def _nets(bench: Bench, model: GenerativeModel) -> None:
    measured = layers(model.groups()["G"], lambda: model.sample(1, seed=bench.seed))
    maps = [layer.shape for layer in measured if layer.kind in ("Unflatten", "ConvTranspose2d")]
    sizes = parameters(model)["G"]
    bench.section(
        "The generator",
        "TensorFlow writes a map as height × width × channels; the table has channels first. Its 5×5 kernels with"
        ' "same" padding and stride 2 give exactly twice the size. The summary counts the running statistics of'
        " batch norm as parameters that are not trained.",
        table=table(measured),
        checks=[
            *(
                check(f"map {i}, as height × width × channels", expected, f"{h}×{w}×{c}")
                for i, (expected, (c, h, w)) in enumerate(zip(SHAPES, maps), 1)
            ),
            check("trainable parameters of G", TRAINABLE, sizes["trainable"]),
            check("statistics of its batch norm", STATISTICS, sizes["buffers"]),
            check("in all", TOTAL, sizes["total"] + sizes["buffers"]),
        ],
    )


def _samples(bench: Bench, model: GenerativeModel) -> None:
    real_images = bench.train_set.evenly_spaced(100).x
    grids = {"generated, not selected": draw.image_grid(model.sample(100, seed=bench.seed + 1), 10)}
    grids["real"] = draw.image_grid(
        real_images[torch.randperm(len(real_images), generator=torch.Generator().manual_seed(0))], 10
    )
    bench.section(
        "Generated and real",
        f"After {bench.images:,} images, which is {bench.images // BATCH:,} steps of {BATCH}; the tutorial trains"
        " for about 11,700 steps of 256. So that digits appear this soon, the optimiser is that of Radford et al."
        " 2016 (Adam 2e-4, first beta 0.5). A larger budget sharpens them: limner lab dcgan"
        f" images={10 * bench.images}, best on a GPU.",
        bench.figure(
            "samples",
            draw.side_by_side(grids),
            "Samples from the moving average of the weights, beside real images.",
            "Two grids: generated digits and real ones.",
        ),
    )


@torch.inference_mode()
def _interpolations(bench: Bench, model: GenerativeModel) -> None:
    assert isinstance(model, Decodes)
    noise = torch.randn(8, NOISE, generator=torch.Generator().manual_seed(bench.seed))
    rows = {f"walk {i + 1}": model.decode(slerp(noise[2 * i], noise[2 * i + 1], 11)) for i in range(4)}
    bench.section(
        "Between two noise vectors",
        "Along an arc from one Gaussian vector to another (slerp), which stays in the shell where such vectors lie. If"
        " no step is a jump, the generator has not merely stored images.",
        bench.figure(
            "interpolation",
            draw.image_rows(rows, scale=2),
            "Eleven steps between two noise vectors, four times.",
            "Rows of digits that turn from one into another.",
        ),
    )
