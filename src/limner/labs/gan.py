"""Lab 4: the first GAN, G 100-256-784 and D 784-256-1, as in the lecture's code.

Adam with 2e-4 and default betas, batches of 64, and as many steps as the lecture's ten epochs of 60,000 digits have.
Its code prints the losses of the last batch of each epoch; means over the epoch are beside them (erratum E20).
"""

from __future__ import annotations

import torch

from limner.core.model import GenerativeModel, parameters
from limner.labs import _adversaries as adversaries
from limner.labs._bench import Bench, check
from limner.labs._layers import checks, layers, table
from limner.report import Table

IMAGES = 600_000

G_LAYERS = (("Linear", "256", 25_856), ("Linear", "784", 201_488))
D_LAYERS = (("Linear", "256", 200_960), ("Linear", "1", 257))
G_TOTAL, D_TOTAL = 227_344, 201_217
PRINTED = (  # losses of D and G at the last batch of each epoch, as the lecture's run printed them
    (1.0971, 0.8736),
    (0.4397, 2.0745),
    (1.3601, 0.8748),
    (0.5082, 1.6825),
    (1.0124, 1.0934),
    (0.9316, 1.0692),
    (0.9583, 1.2154),
    (1.0815, 1.2540),
    (0.9804, 1.1316),
    (0.8182, 1.0831),
)


def work(bench: Bench) -> None:
    """Trains, then measures and draws."""
    model = adversaries.train(bench, "gan", "gan-mnist")
    run = bench.runs["gan"]
    _nets(bench, model)
    adversaries.strip(bench, run)
    adversaries.curves(bench, run)
    found = adversaries.parts(bench, run)
    _printed(bench, found)
    adversaries.not_quality(bench, found)


def _nets(bench: Bench, model: GenerativeModel) -> None:
    groups, sizes = model.groups(), parameters(model)
    made = model.sample(1, seed=bench.seed)
    g = layers(groups["G"], lambda: model.sample(1, seed=bench.seed))
    d = layers(groups["D"], lambda: groups["D"](made))
    bench.section(
        "The generator",
        "From 100 numbers of Gaussian noise to 784 pixels in [-1,1].",
        table=table(g),
        checks=[
            *checks(g, G_LAYERS, "G"),
            check("parameters of G", G_TOTAL, sizes["G"]["trainable"]),
            check("shape of an image", "1×28×28", "×".join(map(str, made.shape[1:]))),
        ],
    )
    bench.section(
        "The discriminator",
        "From 784 pixels to one number. The lecture ends it in a sigmoid; here it gives the logit, and the sigmoid"
        " is part of the loss, where it cannot overflow. The loss is the same: log D(x) + log(1 − D(G(z))) for D,"
        " and −log D(G(z)) for G.",
        table=table(d),
        checks=[*checks(d, D_LAYERS, "D"), check("parameters of D", D_TOTAL, sizes["D"]["trainable"])],
    )


def _printed(bench: Bench, found: list[adversaries.Part]) -> None:
    """Losses of each epoch beside those that the lecture prints."""
    rows = []
    for i, part in enumerate(found, 1):
        theirs = PRINTED[i - 1] if i <= len(PRINTED) else (None, None)
        rows.append((str(i), part.mean_D, part.mean_G, part.last_D, part.last_G, *theirs))
    spread = torch.tensor(PRINTED)
    bench.results["printed"] = {"D": float(spread[:, 0].mean()), "G": float(spread[:, 1].mean())}
    bench.section(
        "Ten epochs, as the lecture prints them",
        f"The lecture's epoch is 60,000 images; here each row is a tenth of the training, {found[0].images:,}"
        " images. It prints the loss of the last batch only, which jumps about: one batch of 64 says little. The"
        " means over the epoch are the better numbers. They need not agree with the lecture's, whose 60,000 digits"
        " D cannot learn by heart as it can these: with few images D stays ahead, its loss is lower and G's higher.",
        table=Table(
            (
                "epoch",
                "D, mean",
                "G, mean",
                "D, last batch",
                "G, last batch",
                "D, lecture's last batch",
                "G, lecture's last batch",
            ),
            rows,
        ),
    )
