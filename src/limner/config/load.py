"""Loading of models: the constructor call in the header of a file builds the model, then its weights are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from limner.config.bounded import check_fits
from limner.config.spec import Spec
from limner.core.capabilities import Conditional
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
from limner.core.condition import from_header
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel, load_weights
from limner.core.paths import user_path
from limner.core.records import read_bytes
from limner.data.texts import vectors as vectors  # its text encoder becomes known, so that models read captions


def load_model(path: str | Path, device: torch.device | str = "cpu") -> GenerativeModel:
    """Loads a model, in evaluation mode.

    Args:
        path: a run folder, a checkpoint folder, ``best`` or ``latest`` beside it, or a ``model.safetensors``. Of a run
            the newest intact checkpoint is loaded; a checkpoint or a file that is named directly must be intact.
        device: the device of the weights.

    Raises:
        LimnerError: the path does not exist, or holds no intact model.
    """
    tensors, call = _read(path)
    return build_model(call, tensors).to(device)


def init_weights(model: GenerativeModel, path: str | Path) -> None:
    """Replaces the weights of a new model by those of a trained one, whose training may have been another.

    Args:
        model: the model; each of its weights must be in the file, with its shape.
        path: as for `load_model`.

    Raises:
        LimnerError: there is no intact model, its weights do not fit, or it learnt other classes or attributes.
    """
    tensors, call = _read(path)
    _refuse_other_labels(model, call, path)
    weights = model.state_dict()
    for name, value in weights.items():
        if name not in tensors or tensors[name].shape != value.shape:
            has = f"has {tuple(tensors[name].shape)} where" if name in tensors else "has no such weights;"
            raise LimnerError(
                f"train.init={path}: its {call['name']} {has} {name} {tuple(value.shape)} is needed; give a run of the"
                " same nets, image size and classes"
            )
    load_weights(model, {name: tensors[name] for name in weights})


def _refuse_other_labels(model: GenerativeModel, call: dict[str, Any], path: str | Path) -> None:
    """Refuses weights that were told other labels: the same numbers of them would mean other things."""
    header = call.get("condition")
    if header is None or not isinstance(model, Conditional):
        return
    try:
        before = {feature: list(values) for feature, values in from_header(header).values.items()}
    except ValueError as error:
        raise LimnerError(f"train.init={path}: {error}") from None
    now = {feature: list(values) for feature, values in model.condition.values.items()}
    if before != now:
        had, has = (_listed(values) for values in (before, now))
        raise LimnerError(f"train.init={path}: it learnt {had}, and the data have {has}; give a run of the same labels")


def _listed(values: dict[str, list[str]]) -> str:
    """The values of each feature, shortened."""
    if not values:
        return "captions"
    texts = [f"{feature} ({', '.join(v[:3])}{', …' * (len(v) > 3)})" for feature, v in list(values.items())[:3]]
    return ", ".join(texts) + ", …" * (len(values) > 3)


def _read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights of a model, and the constructor call that describes it."""
    path = user_path(path, "a run folder")
    if path.name in (BEST, LATEST):
        path = read_pointer(path.parent, path.name) or path
    if not path.exists():
        raise LimnerError(f"there is no {path}; give a run folder, a checkpoint folder or a {MODEL}")
    if (path / "checkpoints").is_dir() or (path / "recipe.yaml").is_file():
        return _read(newest(path / "checkpoints")[0].path)
    content, name = (
        (read_verified(path)[MODEL], MODEL) if path.is_dir() else (read_bytes(path, WEIGHTS_LIMIT), path.name)
    )
    tensors, metadata = safetensors(content, name)
    return tensors, description(metadata, name)


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
