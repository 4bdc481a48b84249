"""Recipes made small: every family, whole but tiny, so that it can be trained hundreds of times in a minute or two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 16  # the least that every shipped net takes
IMAGES, BATCH, EVERY = 160, 8, 16  # 20 steps, a checkpoint every second one


def pictures(folder: Path) -> Path:
    """A folder of tiny pictures of two classes with held-out ones; reading it costs next to nothing."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 32), ("test", 4)):
        for label in ("dark", "light"):
            (folder / split / label).mkdir(parents=True)
            for i in range(n):
                grey = rng.integers(0, 128, (SIZE, SIZE), dtype=np.uint8) + (128 if label == "light" else 0)
                Image.fromarray(grey.astype(np.uint8)).save(folder / split / label / f"{i:02d}.png")
    return folder


def words(recipe: str, folder: Path) -> list[str]:
    """The ``key=value`` words that shrink a shipped recipe to 20 steps on the pictures."""
    from limner.core import recipe as recipes

    tree = recipes.load(recipe).to_dict()
    points = "n" in tree["data"] and "size" not in tree["data"]
    settings = ({"data.n": 72} if points else {"data": folder, "data.size": SIZE}) | {
        "train.images": IMAGES,
        "train.batch": BATCH,
        "train.log_images": 24,
        "train.sample_images": 80,
        "train.samples": 4,
        "train.checkpoint_images": EVERY,
        "train.device": "cpu",
        "train.threads": 1,
    }
    nets = dict(_nets(tree["model"], "model"))
    return [f"{key}={value}" for key, value in (settings | nets).items()]


def _nets(tree: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, net in tree.items():
        if not isinstance(net, dict) or "name" not in net:
            continue
        kind = net["name"].partition(".")[0]
        if kind in ("dcgan", "pacgan", "progressive", "r3gan") and not net["name"].startswith("dcgan.TF"):
            yield f"{path}.{key}.width", 8
        if kind == "mlp" and net.get("widths"):
            yield f"{path}.{key}.widths", [min(w, 32) for w in net["widths"]]
