"""Lab 4: the first GAN, G 100-256-784 and D 784-256-1, as in the lecture's code.

Adam with 2e-4 and default betas, batches of 64, and as many steps as the lecture's ten epochs of 60,000 digits have.
Its code prints the losses of the last batch of each epoch; means over the epoch are beside them (erratum E20).
"""

from __future__ import annotations

from dataclasses import asdict

from limner.core.model import GenerativeModel, parameters
from limner.labs import _gan_sections as gan_sections
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

_BLOTS = (
    "Ten epochs of this recipe give blots rather than digits, and nearly the same one for every noise vector. The"
    " lecture's own code, run unchanged on all 60,000 digits of MNIST, does the same."
)
_HALF = (
    "The same nets, learning rate, batches, seed and noise, and half as many images; but the first beta of Adam is"
    " 0.5 in place of 0.9. Radford et al. 2016 found that 0.9 makes the training of a GAN oscillate: its momentum"
    " still follows the D of ten steps ago."
)


def run(bench: Bench) -> None:
    """Trains with the lecture's settings, and with one of them changed; then measures and draws."""
    model = gan_sections.train(bench, "lecture", "gan-mnist")
    low_beta = {f"optim.{group}.betas": [0.5, 0.999] for group in "GD"}
    gan_sections.train(bench, "beta-half", "gan-mnist", low_beta, images=max(64, bench.images // 2))
    lecture, half = bench.runs["lecture"], bench.runs["beta-half"]
    _nets(bench, model)
    gan_sections.samples_over_time(bench, lecture, "The lecture's settings", _BLOTS)
    gan_sections.curves(bench, lecture)
    parts = gan_sections.parts(bench, lecture)
    _printed(bench, parts)
    gan_sections.samples_over_time(bench, half, "One setting changed", _HALF)
    parts_half = gan_sections.parts(bench, half)
    _changed(bench, parts[-1], parts_half[-1])
    gan_sections.losses_and_quality(bench, parts_half, "These are numbers of the second training. ")


def _nets(bench: Bench, model: GenerativeModel) -> None:
    groups, sizes = model.groups(), parameters(model)
    image = model.sample(1, seed=bench.seed)
    g = layers(groups["G"], lambda: model.sample(1, seed=bench.seed))
    d = layers(groups["D"], lambda: groups["D"](image))
    bench.section(
        "The generator",
        "From 100 numbers of Gaussian noise to 784 pixels in [-1,1].",
        table=table(g),
        checks=[
            *checks(g, G_LAYERS, "G"),
            check("parameters of G", G_TOTAL, sizes["G"]["trainable"]),
            check("shape of an image", "1×28×28", "×".join(map(str, image.shape[1:]))),
        ],
    )
    bench.section(
        "The discriminator",
        "From 784 pixels to one number. The lecture ends it in a sigmoid; here it returns the logit, and the sigmoid"
        " is part of the loss, where it cannot overflow. The loss is the same: log D(x) + log(1 − D(G(z))) for D, and"
        " −log D(G(z)) for G.",
        table=table(d),
        checks=[*checks(d, D_LAYERS, "D"), check("parameters of D", D_TOTAL, sizes["D"]["trainable"])],
    )


def _printed(bench: Bench, parts: list[gan_sections.Part]) -> None:
    rows = []
    for i, part in enumerate(parts, 1):
        printed = PRINTED[i - 1] if i <= len(PRINTED) else (None, None)
        rows.append((str(i), part.mean_D, part.mean_G, part.last_D, part.last_G, *printed))
    bench.results["lecture"] = [asdict(part) for part in parts]
    bench.section(
        "Ten epochs, as the lecture prints them",
        f"The lecture's epoch is 60,000 images; here each row is a tenth of the training, {parts[0].images:,}"
        " images. It prints the loss of the last batch only, which varies a lot: one batch of 64 says little. The"
        " means over the epoch are better numbers. They do not have to agree with the lecture's, which has more digits"
        " and another seed; their magnitude does.",
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


def _changed(bench: Bench, lecture: gan_sections.Part, half: gan_sections.Part) -> None:
    bench.results["beta"] = {"0.9": asdict(lecture), "0.5": asdict(half)}
    rows = [
        (f"first beta {beta}", p.images, p.mean_D, p.mean_G, p.distance, f"{p.agreement:.1%}", round(p.classes, 1))
        for beta, p in (("0.9, the lecture's", lecture), ("0.5", half))
    ]
    bench.section(
        "The effect of that setting",
        "Losses are means over the last tenth; the other columns are explained below.",
        table=Table(("Adam", "images seen", "loss D", "loss G", "distance", "agreement", "classes"), rows),
    )
    bench.claim(
        "GANs are sensitive to hyper-parameters",
        f"first beta of Adam 0.9: {lecture.classes:.1f} classes generated, distance {lecture.distance:.3f};"
        f" 0.5: {half.classes:.1f} classes, {half.distance:.3f}",
        half.distance < lecture.distance,
    )
