"""Models from their files: the constructor call in the header, then the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from limner.config.spec import Spec
from limner.core.checkpoint import BEST, LATEST, MODEL, description, newest, pointed, safetensors, verified
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel, load_weights


def load_model(path: str | Path, device: torch.device | str = "cpu") -> GenerativeModel:
    """Rebuilds a model from a run folder, a checkpoint (its folder, or ``best`` beside it), or a ``model.safetensors``.

    The model is in evaluation mode. A damaged latest checkpoint of a run is stepped over, with a warning in the
    log; a folder or file named directly must be whole.

    Raises:
        LimnerError: there is no such thing, or it is damaged.
    """
    path = Path(path)
    if path.name in (BEST, LATEST):
        path = pointed(path.parent, path.name) or path
    if not path.exists():
        raise LimnerError(f"there is no {path}; give a run folder, a checkpoint folder or a {MODEL}")
    if (path / "checkpoints").is_dir():
        return load_model(newest(path / "checkpoints")[0].path, device)
    content, name = (verified(path)[MODEL], MODEL) if path.is_dir() else (path.read_bytes(), path.name)
    tensors, metadata = safetensors(content, name)
    return build_model(description(metadata, name), tensors).to(device)


def build_model(call: dict[str, Any], weights: dict[str, torch.Tensor]) -> GenerativeModel:
    """A model in evaluation mode, of its description and its weights.

    Raises:
        LimnerError: the description is of no model, or the weights do not fit.
    """
    spec = Spec.parse("model", call)
    model: GenerativeModel = spec.build()
    model.spec = spec
    load_weights(model, weights)
    return model.eval()
