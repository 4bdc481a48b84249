"""A conditional GAN: generator and discriminator are told the digit (Mirza and Osindero 2014, arXiv:1411.1784).

The paper's nets are fully connected; those that are counted here are G 110-128-256-512-1024-784 and
D 794-512-512-512-1. The ten numbers beyond noise and pixels are the label. Trained are convolutional ones, which begin
to obey after an eighth of the images. A second training has the same images with shuffled labels: what G then makes of
a label is what it makes of one that D can learn nothing from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limner.config import recipe
from limner.core.batch import to_uint8
from limner.core.model import GenerativeModel, parameters
from limner.core.paths import BUILTIN
from limner.labs import _figures as draw
from limner.labs import _gan_sections as gan_sections
from limner.labs._bench import Bench, check
from limner.labs._layers import layers, table
from limner.metrics.conditions import accuracies, label_effect, shuffled_labels, within_label
from limner.metrics.extractors.readers import SmallReader, reading
from limner.report import Table

IMAGES = 150_000

NOISE, CLASSES, PIXELS = 100, 10, 784
G_LINEAR = (14_080, 32_768, 131_072, 524_288, 803_600)  # 110·128, 128·256, 256·512, 512·1024, and (1024 + 1)·784
D_LINEAR = (407_040, 262_656, 262_656, 513)  # (794 + 1)·512, twice (512 + 1)·512, and 512 + 1
_ROWS = 8  # of the sheet
_SAMPLES = 100  # of each class

_SHEET = (
    "A column for each digit, and one noise vector for each row: it is the same in all columns, so within a row only"
    " the label changes. What stays in a row, such as slant and weight of the stroke, is what the noise says. Sheets"
    " whose images each have noise of their own cannot show that."
)
_BLIND = (
    "The same nets, images, seed and number of steps, but the labels of the training images are shuffled. Now a pair of"
    " an image and a label that do not fit is as real as any other, so D learns nothing from the label, as if it did"
    " not see it, and G is never told to obey. The images may be as good as before: the label is ignored because"
    " nothing rewards it."
)


@dataclass(frozen=True)
class Obedience:
    """What a model makes of the label.

    Attributes:
        accuracy: share of samples that show what was asked for, by a net that learnt from real images.
        chance: the same with the labels shuffled among the samples, the mean over all orders.
        shuffled: the same with one of these orders.
        effect: distance of samples with the same noise and different labels, over that of real images of two classes.
        diversity: distance of samples of one label, over that of real images of one class.
        least: the smallest such ratio of a class.
    """

    accuracy: float
    chance: float
    shuffled: float
    effect: float
    diversity: float
    least: float


def run(bench: Bench) -> None:
    """Trains with true and with shuffled labels, then measures and draws."""
    classes = bench.train_set.classes
    model = gan_sections.train(bench, "labels", "cgan-mnist")
    blind = bench.train("shuffled", "cgan-mnist", {"data": _shuffled(bench)})
    reader = SmallReader.trained(bench.train_set.x, bench.train_set.y[:, None], {"class": classes}, seed=bench.seed)
    ceiling = accuracies(_read(reader, bench.test_set.x), bench.test_set.y[:, None], ["class"])[""].value
    _nets(bench, len(classes))
    sheet = _sheet(model, len(classes), bench.seed)
    _sheets(bench, "sheet", "Rows share their noise, columns the digit", _SHEET, sheet)
    gan_sections.samples_over_time(bench, bench.runs["labels"], "The sheet over time")
    found, counts = _obedience(bench, model, reader)
    _asked(bench, found, counts, ceiling)
    other, _ = _obedience(bench, blind, reader)
    _sheets(bench, "shuffled", "When the label tells D nothing", _BLIND, _sheet(blind, len(classes), bench.seed))
    _compared(bench, {"true labels": found, "shuffled labels": other})
    gan_sections.curves(bench, bench.runs["labels"])


def _shuffled(bench: Bench) -> dict[str, Any]:
    """The training images as a folder, a sub-folder for each class, with their labels shuffled."""
    place = bench.out / "shuffled"
    labels = shuffled_labels(bench.train_set.y, bench.seed)
    for i, (x, k) in enumerate(zip(to_uint8(bench.train_set.x), labels.tolist(), strict=True)):
        file: Path = place / f"{k:02d}" / f"{i:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(x[0].numpy())).save(file)
    return {"name": "folder", "path": str(place), "size": 28, "channels": 1, "split": "all"}


def _nets(bench: Bench, classes: int) -> None:
    facts = bench.dataset("train").facts()
    model: GenerativeModel = recipe.load(f"{BUILTIN}cgan-mlp-mnist").model.build(**facts)
    groups, sizes = model.groups(), parameters(model)
    label = torch.zeros(1, dtype=torch.int64)
    image = model.sample(1, y=label, seed=bench.seed)
    g = layers(groups["G"], lambda: model.sample(1, y=label, seed=bench.seed))
    d = layers(groups["D"], lambda: groups["D"](image, label))
    linear = {name: [layer for layer in net if layer.kind == "Linear"] for name, net in (("G", g), ("D", d))}
    of_label = classes - CLASSES  # other data may have another number of classes
    bench.section(
        "The generator",
        f"{NOISE} numbers of noise and a one-hot vector of {classes} for the label become {PIXELS} pixels in [-1,1]."
        f" The label costs {classes} × 128 weights of the first layer, and nothing else. Before a batch norm, whose"
        " shift does the same, a layer needs no bias.\n\nThese are the nets of cgan-mlp-mnist. The samples below are of"
        " cgan-mnist, whose nets are DCGAN's: the label is ten more numbers of noise for G, and ten more maps, each all"
        " 0 or all 1, for D.",
        table=table(g),
        checks=[
            check("inputs of G: noise and label", NOISE + classes, linear["G"][0].weights // 128),
            *(
                check(f"parameters of G's linear layer {i}", n + (128 * of_label if i == 1 else 0), layer.parameters)
                for i, (n, layer) in enumerate(zip(G_LINEAR, linear["G"], strict=True), 1)
            ),
        ],
    )
    bench.section(
        "The discriminator",
        f"{PIXELS} pixels and the same vector become one logit. D is shown real images with their label, and generated"
        " ones with the label that G was given: an image of another digit is rejected like a bad one.",
        table=table(d),
        checks=[
            check("inputs of D: pixels and label", PIXELS + classes, linear["D"][0].weights // 512),
            *(
                check(f"parameters of D's linear layer {i}", n + (512 * of_label if i == 1 else 0), layer.parameters)
                for i, (n, layer) in enumerate(zip(D_LINEAR, linear["D"], strict=True), 1)
            ),
            check("parameters of D", sum(D_LINEAR) + 512 * of_label, sizes["D"]["trainable"]),
        ],
    )


def _sheet(model: GenerativeModel, classes: int, seed: int) -> Tensor:
    return model.sample(_ROWS * classes, y=torch.arange(classes), columns=classes, seed=seed)


def _sheets(bench: Bench, name: str, title: str, text: str, x: Tensor) -> None:
    classes = bench.train_set.classes
    rows = {f"z {i + 1}": x[i * len(classes) : (i + 1) * len(classes)] for i in range(_ROWS)}
    caption = "Samples: a noise vector for each row, a class for each column."
    alt = "A grid of samples with the classes above the columns and the noise vectors beside the rows"
    figure = bench.figure(name, draw.image_rows(rows, headings=classes), caption, alt)
    bench.section(title, text, figure)


def _read(reader: SmallReader, x: Tensor) -> Tensor:
    return reading(reader.logits(x), reader.values, reader.values)


def _obedience(bench: Bench, model: GenerativeModel, reader: SmallReader) -> tuple[Obedience, Tensor]:
    """The measures, and how often each class was read where each was asked for, (K,K)."""
    classes, test = len(bench.train_set.classes), bench.test_set
    asked = torch.arange(_SAMPLES * classes) % classes
    x = model.sample(len(asked), y=asked, seed=bench.seed)
    read = _read(reader, x)
    test_of = accuracies(read, asked[:, None], ["class"])[""]
    control = accuracies(read, shuffled_labels(asked, bench.seed)[:, None], ["class"])[""]
    pixels = test.x.flatten(1)
    effect = label_effect(_sheet(model, classes, bench.seed).flatten(1), classes, pixels, test.y)
    within = within_label(fake=x.flatten(1), fake_labels=asked, real=pixels, real_labels=test.y)
    counts = torch.bincount(asked * classes + read[:, 0], minlength=classes**2).view(classes, classes)
    found = Obedience(
        test_of.value,
        test_of.chance,
        control.value,
        effect.ratio if effect else 0.0,
        within.ratio if within else 0.0,
        within.least if within else 0.0,
    )
    return found, counts


def _asked(bench: Bench, found: Obedience, counts: Tensor, ceiling: float) -> None:
    classes = bench.train_set.classes
    rows = [
        (name, *row, f"{row[k] / max(sum(row), 1):.0%}") for k, (name, row) in enumerate(zip(classes, counts.tolist()))
    ]
    bench.section(
        "Is it what was asked for?",
        f"A small net learns the classes from the training images ({ceiling:.1%} of held-out images are right), and"
        f" reads {_SAMPLES} samples of each class. {found.accuracy:.1%} are of the class that was asked for. The"
        f" control: with the labels shuffled among the same samples it is {found.shuffled:.1%}, and {found.chance:.1%}"
        " as the mean over all orders. Without that number nobody can tell whether the first one is high.",
        table=Table(("asked for", *(f"read {name}" for name in classes), "right"), rows),
        checks=[
            check("agreement with shuffled labels: 1/K", f"{1 / len(classes):.3f}", f"{found.chance:.3f}"),
        ],
    )


def _compared(bench: Bench, named: dict[str, Obedience]) -> None:
    bench.results["obedience"] = {name: asdict(found) for name, found in named.items()}
    rows = [
        (name, f"{o.accuracy:.1%}", f"{o.chance:.1%}", round(o.effect, 2), round(o.diversity, 2), round(o.least, 2))
        for name, o in named.items()
    ]
    bench.section(
        "The two trainings",
        "Effect: mean distance in pixels of samples that share their noise and differ in the label, over that of real"
        " images of different classes; 0 if the label is ignored. Diversity: the distance of samples of one label over"
        " that of real images of one class; 0 if there is one image for each label, the usual way in which a"
        " conditional GAN fails while it obeys perfectly.",
        table=Table(
            ("trained with", "as asked for", "control", "effect", "diversity", "of the least diverse class"), rows
        ),
    )
    true, shuffled = named["true labels"], named["shuffled labels"]
    bench.claim(
        "A conditional GAN draws the class that one asks for",
        f"{true.accuracy:.1%} of the samples; {shuffled.accuracy:.1%} after a training with shuffled labels",
        true.accuracy > 0.5 and true.accuracy > 3 * shuffled.accuracy,
    )
    bench.claim(
        "It gives several outputs for the same input",
        f"the diversity within a class is {true.diversity:.2f} of that of real images, {true.least:.2f} in the least"
        " diverse class",
        true.diversity > 0.5,
    )
