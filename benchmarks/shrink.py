"""Small recipes as arguments of the command line, on a folder of tiny pictures, for hundreds of trainings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 16  # as in limner.bench.shrink
IMAGES, BATCH, EVERY = 160, 8, 16  # 20 steps, a checkpoint every second one


def pictures(folder: Path) -> Path:
    """A folder of tiny pictures of two classes with held-out ones; which is read quickly."""
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
    from limner.bench.shrink import narrow, write_vgg
    from limner.config import catalogue
    from limner.config import recipe as recipes
    from limner.core.batch import Paired, Styled, Unpaired

    tree = recipes.load(recipe).to_dict()
    takes = catalogue.find("model", tree["model"]["name"]).batch_type
    dark, light = (folder / "train" / k for k in ("dark", "light"))
    settings: dict[str, Any] = {"data": folder, "data.size": SIZE}
    batch = BATCH
    if "n" in tree["data"] and "size" not in tree["data"]:
        settings = {"data.n": 72}
    elif takes is Unpaired:
        settings = {"a": dark, "b": light, "data.size": SIZE, "data.channels": 3}
    elif takes is Paired:
        settings["data.task"] = tree["data"].get("task") or "denoise"
    elif takes is Styled:
        settings = {"data.path": folder, "style": str(light / "00.png"), "data.size": SIZE}
        if tree["model"]["name"] == "style_transfer":  # the picture itself is learnt
            settings["data.path"], batch = dark / "00.png", 1
    if tree["data"].get("condition") == "text":  # the pictures have no captions
        settings["data.condition"] = "labels"
    if "progression" in tree["model"]:  # labels of the recipe's data
        settings["model.progression"] = "null"
    if "weights" in tree["model"]:
        settings["model.weights"] = write_vgg(folder)
    settings |= {
        "train.images": IMAGES * batch // BATCH,
        "train.batch": batch,
        "train.log_images": 3 * batch,
        "train.sample_images": 10 * batch,
        "train.samples": 4,
        "train.checkpoint_images": EVERY * batch // BATCH,
        "train.device": "cpu",
        "train.threads": 1,
    }
    narrow(tree["model"])
    nets = dict(_nets(tree["model"], "model"))
    return [f"{key}={value}" for key, value in (settings | nets).items()]


def _nets(tree: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """What makes a net small, as dotted keys."""
    for key, net in tree.items():
        if isinstance(net, dict) and "name" in net:
            yield from (
                (f"{path}.{key}.{k}", net[k]) for k in ("width", "widths", "patch", "blocks", "layer") if k in net
            )
