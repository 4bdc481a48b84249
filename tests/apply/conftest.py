"""Small models with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from limner.config.spec import Spec
from limner.core import checkpoint


def _saved(path: Path, tree: dict[str, Any], **facts: Any) -> Path:
    torch.manual_seed(0)
    spec = Spec.parse("model", tree).resolve(**facts)
    model = spec.build()
    model.spec = spec
    return checkpoint.export(model, path)


@pytest.fixture(scope="session")
def save_model() -> Callable[..., Path]:
    """Writes the file of a model that translates: `save_model(path, pairing, source channels, kind)`."""

    def save(path: Path, pairing: dict[str, Any] | None = None, source: int = 3, kind: str = "pix2pix") -> Path:
        d = {"name": "patchgan.Discriminator", "width": 4, "patch": 16, "norm": "instance"}
        tree: dict[str, Any] = {
            "name": "pix2pix",
            "G": {"name": "unet.Generator", "width": 4, "depth": 3, "norm": "instance", "dropout": 0.0},
            "D": d | {"name": "patchgan.PairDiscriminator"},
        }
        if kind == "cyclegan":
            g = {"name": "resnet.Generator", "width": 4, "blocks": 1}
            tree = {"name": "cyclegan", "G": g, "F": g, "D_X": d, "D_Y": d}
        return _saved(path, tree, shape=(3, 32, 32), source=(source, 32, 32), pairing=pairing)

    return save


@pytest.fixture(scope="session")
def save_autoencoder() -> Callable[..., Path]:
    """Writes the file of an autoencoder for images of a shape: `save_autoencoder(path, shape)`."""

    def save(path: Path, shape: tuple[int, int, int]) -> Path:
        tree = {"name": "autoencoder", "z": 4, "encoder": {"name": "mlp.Encoder", "widths": [8]},
                "decoder": {"name": "mlp.Decoder", "widths": [8]}}  # fmt: skip
        return _saved(path, tree, shape=shape)

    return save
