"""Stacked MNIST: a thousand modes that can be counted, because each is three digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from limner.core.errors import LimnerError
from limner.core.units import Count
from limner.data.arrays import Arrays
from limner.data.options import Options
from limner.data.registry import SOURCES, source

if TYPE_CHECKING:
    from limner.core.batch import Dataset


@source("stacked-mnist")
def stacked_mnist(  # noqa: D417 - Options says it
    digits: Literal["mnist-5k", "mnist"] = "mnist-5k", n: Count = 128_000, seed: int = 0, *, options: Options
) -> Dataset:
    """1,000 classes of 28×28 RGB: three random digits, one a channel; class 257 has a red 2, a green 5, a blue 7.

    Metz et al. 2017 (arXiv:1611.02163), section 3.3.1; counted as in PacGAN (Lin et al. 2018, arXiv:1712.04086).
    Held-out images are stacked from held-out digits.

    Args:
        digits: where the digits come from: "mnist-5k" (4,500 of them, embedded) or "mnist" (60,000, a download).
        n: number of training images; the test split has a tenth of them.
        seed: decides which digits are stacked.
    """
    import numpy as np

    from limner.data.datasets import from_arrays

    if n < 1:
        raise LimnerError(f"n: {n} leaves no image; write 1 or more")
    halves = {"train": ["train"], "test": ["test"], "all": ["train", "test"]}[options.split]
    images, labels = [], []
    for half in halves:
        source_: Any = SOURCES[digits](split=half)
        pixels, y = source_.pixels[:, 0].numpy(), source_.labels.numpy()
        count = n if half == "train" else max(1, n // 10)
        chosen = np.random.default_rng([seed, half == "test"]).integers(len(pixels), size=(count, 3))
        images.append(pixels[chosen].transpose(0, 2, 3, 1))  # a view: (count,28,28,3)
        labels.append(y[chosen] @ np.array([100, 10, 1]))
    test = np.repeat([half == "test" for half in halves], [len(part) for part in images])
    names = [f"{k:03d}" for k in range(1000)]
    whole = images[0] if len(images) == 1 else np.concatenate(images)
    return from_arrays("stacked-mnist", Arrays(whole, np.concatenate(labels), names, test), options)
