"""Small versions of the shipped recipes, so that a test of all of them takes minutes on any machine."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from limner.config import catalogue
from limner.config import recipe as recipes
from limner.config.recipe import Recipe
from limner.config.spec import arguments
from limner.core.batch import Paired, Styled, Unpaired

SIZE = 16  # pixels of a side: the minimum of all shipped nets
BATCH = 8
_N = 64
_NARROW = ("denoiser", "pacgan", "progressive", "r3gan")  # kinds of nets whose `width` may be left out of a recipe


def shrunk(name: str, **train: object) -> Recipe:
    """A shipped recipe on 64 small digits, or 64 points of its toy, with narrow nets, for twenty steps.

    Nothing is downloaded: pairs and domains consist of digits, styles are images of noise, and VGG-19 has three layers
    with random weights.

    Args:
        name: name of a shipped recipe.
        train: settings of its training section in place of these.
    """
    tree = recipes.load(name).to_dict()
    tree["data"] = _data(tree)
    if "weights" in tree["model"]:
        tree["model"]["weights"] = str(write_vgg(noise_images()))
    n = 1 if learns_one_image(tree) else BATCH
    tree["train"] |= {"batch": n, "images": 20 * n, "log_images": 3 * n, "samples": 4, "sample_images": 10 * n}
    tree["train"] |= {"checkpoint_images": 1_000_000, "device": "cpu", "threads": 1, **train}
    tree["model"].pop("progression", None)  # labels of the recipe's data
    if "sampling" in arguments("model", tree["model"]["name"]):
        tree["model"]["sampling"] = {**(tree["model"].get("sampling") or {}), "steps": 2}
    if tree["train"].get("precision") == "bf16":
        tree["train"]["precision"] = "bf16-emulated"  # twenty steps are quick anywhere
    narrow(tree["model"])
    return recipes.load(tree)


def _data(tree: dict[str, Any]) -> dict[str, Any]:
    data, batch_type = tree["data"], _model(tree).batch_type
    if "n" in data and "size" not in data:
        return {**data, "n": _N}
    small = {"size": SIZE, "limit": _N}
    if batch_type is Paired:
        return {"name": "pairs", "path": "mnist-5k", "task": data.get("task", "denoise"), "channels": 3, **small}
    if batch_type is Unpaired:
        return {"name": "domains", "a": "mnist-5k", "b": "digits", "channels": 3, **small}
    if batch_type is Styled:
        picture, style = (str(noise_images() / f"{k}.png") for k in (0, 1))
        if learns_one_image(tree):
            return {"name": "styled", "path": picture, "style": [style], "size": SIZE}
        return {"name": "styled", "path": "mnist-5k", "style": [style], **small}
    return {"name": "mnist-5k", **small}


def _model(tree: dict[str, Any]) -> Any:
    return catalogue.find("model", tree["model"]["name"])


def learns_one_image(tree: dict[str, Any]) -> bool:
    """Whether the model learns the pixels of one picture, so that a batch is one."""
    model = _model(tree)
    return model.batch_type is Styled and not hasattr(model, "translate")


def narrow(model: dict[str, Any]) -> None:
    """Makes the nets of a recipe's model small, in place."""
    for net in (v for v in model.values() if isinstance(v, dict) and "name" in v):
        kind = net["name"].partition(".")[0]
        if kind in _NARROW or "width" in net:
            net["width"] = 8
        if kind == "patchgan":
            net["patch"] = 16
        if net["name"] == "style.Decoder":
            net["layer"] = "relu2_1"
        if kind == "resnet":
            net["blocks"] = 1
        if kind == "glow":
            net["steps"] = 2
        if net["name"] in ("stylegan.Generator", "stylegan2.Generator"):
            net |= {"z": 16, "w": 16}
        if kind == "mlp" and net.get("widths"):
            net["widths"] = [min(w, 32) for w in net["widths"]]


@cache
def noise_images() -> Path:
    """A folder with two small images of noise, ``0.png`` and ``1.png``; each process has its own."""
    import numpy as np
    from PIL import Image

    folder, rng = Path(tempfile.mkdtemp(prefix="limner-small-")), np.random.default_rng(0)
    for k in (0, 1):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    return folder


def write_vgg(folder: Path) -> Path:
    """Writes the first three convolutions of a VGG-19 with random weights into `folder`, and returns the file."""
    import torch
    from safetensors.torch import save_file

    path = folder / "vgg.safetensors"
    if not path.exists():
        g = torch.Generator().manual_seed(0)
        tensors = {}
        for n, a, b in (("1_1", 3, 64), ("1_2", 64, 64), ("2_1", 64, 128)):
            tensors[f"conv{n}.weight"] = torch.randn(b, a, 3, 3, generator=g) * (2 / (9 * a)) ** 0.5
            tensors[f"conv{n}.bias"] = torch.zeros(b)
        save_file(tensors, path)
    return path
