"""Stacked MNIST, whose 1,000 modes are combinations of three digits and can be counted."""

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
def stacked_mnist(  # noqa: D417 - see Options
    digits: Literal["mnist-5k", "mnist"] = "mnist-5k", n: Count = 128_000, seed: int = 0, *, options: Options
) -> Dataset:
    """1,000 classes of 28×28 RGB: three random digits, one a channel; class 257 has a red 2, a green 5, a blue 7.

    Metz et al. 2017 (arXiv:1611.02163), section 3.3.1; counted as in PacGAN (Lin et al. 2018, arXiv:1712.04086).
    Held-out images are stacked from held-out digits.

    Args:
        digits: the set of the digits: "mnist-5k" (4,500 for training, without a download) or "mnist" (60,000).
        n: number of training images; the test split has a tenth of them.
        seed: seed of the random choice of digits.
    """
    import numpy as np

    from limner.data.datasets import from_arrays

    if n < 1:
        raise LimnerError(f"n: {n} leaves no image; write 1 or more")
    splits = {"train": ["train"], "test": ["test"], "all": ["train", "test"]}[options.split]
    images, labels = [], []
    for split in splits:
        single: Any = SOURCES[digits](split=split)
        pixels, y = single.pixels[:, 0].numpy(), single.labels.numpy()
        count = n if split == "train" else max(1, n // 10)
        indices = np.random.default_rng([seed, split == "test"]).integers(len(pixels), size=(count, 3))
        images.append(pixels[indices].transpose(0, 2, 3, 1))  # a view: (count,28,28,3)
        labels.append(y[indices] @ np.array([100, 10, 1]))
    test = np.repeat([split == "test" for split in splits], [len(part) for part in images])
    classes = [f"{k:03d}" for k in range(1000)]
    stacked = images[0] if len(images) == 1 else np.concatenate(images)
    return from_arrays("stacked-mnist", Arrays(stacked, np.concatenate(labels), classes, test), options)
