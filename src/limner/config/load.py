"""Loading of models: the constructor call in the header of a file builds the model, then its weights are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from limner.config.bounded import check_fits
from limner.config.spec import Spec
from limner.core.checkpoint import (
    BEST,
    LATEST,
    MODEL,
    WEIGHTS_LIMIT,
    description,
    newest,
    read_pointer,
    read_verified,
    safetensors,
)
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel, load_weights
from limner.core.paths import user_path
from limner.core.records import read_bytes


def load_model(path: str | Path, device: torch.device | str = "cpu") -> GenerativeModel:
    """Loads a model, in evaluation mode.

    Args:
        path: a run folder, a checkpoint folder, ``best`` or ``latest`` beside it, or a ``model.safetensors``. Of a run
            the newest intact checkpoint is loaded; a checkpoint or a file that is named directly must be intact.
        device: the device of the weights.

    Raises:
        LimnerError: the path does not exist, or holds no intact model.
    """
    path = user_path(path, "a run folder")
    if path.name in (BEST, LATEST):
        path = read_pointer(path.parent, path.name) or path
    if not path.exists():
        raise LimnerError(f"there is no {path}; give a run folder, a checkpoint folder or a {MODEL}")
    if (path / "checkpoints").is_dir() or (path / "recipe.yaml").is_file():
        return load_model(newest(path / "checkpoints")[0].path, device)
    content, name = (
        (read_verified(path)[MODEL], MODEL) if path.is_dir() else (read_bytes(path, WEIGHTS_LIMIT), path.name)
    )
    tensors, metadata = safetensors(content, name)
    return build_model(description(metadata, name), tensors).to(device)


def build_model(call: dict[str, Any], weights: dict[str, torch.Tensor]) -> GenerativeModel:
    """Builds a model, in evaluation mode, from its constructor call and its weights.

    Raises:
        LimnerError: the call is not valid, or the weights do not fit.
    """
    spec = Spec.parse("model", call)
    check_fits(spec, weights)
    model: GenerativeModel = spec.build()
    model.spec = spec
    load_weights(model, weights)
    return model.eval()
