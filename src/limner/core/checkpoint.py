"""Checkpoints that are either complete or absent, and whose damage is detected.

A checkpoint is a folder of plain files::

    00012800/model.safetensors    weights for use (averaged, if training averages), the model's Spec in the header
             trainer.safetensors  raw weights, optimiser moments, running means of the log
             state.json           position and everything that is not a tensor
             MANIFEST.json        sha256 and size of the other three

A checkpoint is written to a temporary folder beside its final name, flushed to disk and renamed; then the file
``latest`` is replaced in the same way. So every folder without a leading dot is complete at all times. Sizes and hashes
are checked *before* a file is parsed, and no code of a file is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from limner.core.durable import replace_file, sweep, sync_folder, temporary_name, write_durably
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.records import is_count, is_duration, is_number, is_position, parse_json, read_bytes, record

FORMAT = 1
MODEL, TRAINER, STATE, MANIFEST = "model.safetensors", "trainer.safetensors", "state.json", "MANIFEST.json"
LATEST, BEST = "latest", "best"
_HEADER_LIMIT = 1 << 20
WEIGHTS_LIMIT = 1 << 40  # bytes


class DamagedCheckpoint(LimnerError):
    """A file of a checkpoint is missing, cut short or changed."""


class OtherFormat(LimnerError):
    """A checkpoint that another version of limner wrote, or whose manifest says so."""


_STATE = record(
    {"images": is_count},
    dict.fromkeys(("steps", "logged_images", "rollbacks"), is_count)
    | dict.fromkeys(("seconds", "logged_seconds"), is_duration)
    | {
        "env": lambda value: isinstance(value, dict),
        "data": lambda value: isinstance(value, str),
        "planned": lambda value: isinstance(value, bool),
        "rules": lambda value: is_count(value) and value in (1, 2),
        "best": lambda value: value == {} or record({"images": is_count, "score": is_number}, {})(value),
    },
)
"""``state.json``, without the trainer's part."""


@dataclass(frozen=True)
class Checkpoint:
    """The verified content of a checkpoint folder.

    Attributes:
        path: the folder.
        model: the weights to use, by name.
        description: the constructor call of the model.
        trainer: what a resumed training needs: raw weights, optimiser moments, running means.
        state: the position and everything else that is not a tensor.
    """

    path: Path
    model: dict[str, Tensor]
    description: dict[str, Any]
    trainer: dict[str, Any]
    state: dict[str, Any]


def pack(tree: Any, prefix: str = "") -> tuple[dict[str, Tensor], Any]:
    """Splits nested dicts and lists into flat tensors and a JSON skeleton that names them.

    >>> import torch
    >>> tensors, skeleton = pack({"a": [torch.ones(1), 2]})
    >>> list(tensors), skeleton
    (['a.0'], {'a': [{'$tensor': 'a.0'}, 2]})
    """
    tensors: dict[str, Tensor] = {}

    def walk(node: Any, path: str) -> Any:
        if isinstance(node, Tensor):
            tensors[path] = node.detach()
            return {"$tensor": path}
        if isinstance(node, Mapping):
            return {str(k): walk(v, f"{path}.{k}" if path else str(k)) for k, v in node.items()}
        if isinstance(node, (list, tuple)):
            return [walk(v, f"{path}.{i}" if path else str(i)) for i, v in enumerate(node)]
        return node

    return tensors, walk(tree, prefix)


def unpack(tensors: Mapping[str, Tensor], skeleton: Any) -> Any:
    """The inverse of `pack`."""
    if isinstance(skeleton, Mapping):
        if set(skeleton) == {"$tensor"}:
            return tensors[skeleton["$tensor"]]
        return {k: unpack(tensors, v) for k, v in skeleton.items()}
    if isinstance(skeleton, list):
        return [unpack(tensors, v) for v in skeleton]
    return skeleton


def write(folder: Path, model: GenerativeModel, trainer: Any, state: Mapping[str, Any]) -> Path:
    """Writes a complete checkpoint, or none at all, makes it the latest, and returns `folder`.

    Args:
        folder: the new folder, ``…/checkpoints/00012800``.
        model: the model to use; its Spec is written to the header.
        trainer: nested dicts and lists of tensors and plain values.
        state: plain values.

    Raises:
        LimnerError: the disk is full or not writable. Earlier checkpoints are unchanged.
    """
    tensors, skeleton = pack(trainer)
    files = {
        MODEL: _model_bytes(model),
        TRAINER: safetensors_bytes(_storable(tensors)),
        STATE: json.dumps({"format": FORMAT, **state, "trainer": skeleton}).encode(),
    }
    manifest = {n: {"sha256": hashlib.sha256(b).hexdigest(), "bytes": len(b)} for n, b in files.items()}
    files[MANIFEST] = json.dumps({"format": FORMAT, "files": manifest}, indent=1).encode()
    temporary = temporary_name(folder)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, content in files.items():
            write_durably(temporary / name, content)
        sync_folder(temporary)
        if folder.exists():  # a second checkpoint at the same image, or a damaged one
            hidden = folder.with_name(f".{folder.name}.old")  # so that its name never means a part of it
            shutil.rmtree(hidden, ignore_errors=True)
            folder.replace(hidden)
        temporary.replace(folder)
        sync_folder(folder.parent)
        write_pointer(folder.parent, LATEST, folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise LimnerError(
            f"cannot write checkpoint {folder.name}: {error.strerror or error}; free some space or choose another"
            " out=DIR; earlier checkpoints are unchanged"
        ) from error
    return folder


def export(model: GenerativeModel, path: Path) -> Path:
    """Writes the model to one file, with its Spec in the header; `limner.load` reads it.

    Raises:
        LimnerError: the file cannot be written, or its name does not end in ``.safetensors``.
    """
    if path.suffix != ".safetensors":
        raise LimnerError(f"cannot export a model to {path.name}; give a file name that ends in .safetensors")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, _model_bytes(model))
    except OSError as error:
        raise LimnerError(f"cannot write {path}: {error.strerror or error}; choose another path") from None
    return path


def write_pointer(root: Path, name: str, folder: Path) -> None:
    """Writes the name of a checkpoint folder to the file `latest` or `best`."""
    replace_file(root / name, folder.name.encode())


def mark_best(root: Path, images: float | None) -> None:
    """Makes the checkpoint at `images` the best one, or none if it is missing; a kill may have left another."""
    folder = None if images is None else root / f"{int(images):08d}"
    if folder is None or folder not in folders(root):
        (root / BEST).unlink(missing_ok=True)
    elif read_pointer(root, BEST) != folder:
        write_pointer(root, BEST, folder)


def read_pointer(root: Path, name: str) -> Path | None:
    """The checkpoint folder that the file `latest` or `best` names; None if the file or the folder is missing."""
    try:
        folder = root / (root / name).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return folder if folder in folders(root) else None


def _model_bytes(model: GenerativeModel) -> bytes:
    return safetensors_bytes(_storable(model.state_dict()), {"spec": json.dumps(model.spec.to_dict())})


def _storable(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {k: v.detach().to("cpu").contiguous() for k, v in tensors.items()}


def read_verified(folder: Path) -> dict[str, bytes]:
    """The bytes of a checkpoint's files, whose sizes and hashes agree with the manifest.

    Raises:
        DamagedCheckpoint: a file is missing or differs.
        OtherFormat: another version of limner wrote the checkpoint.
    """
    try:
        manifest = parse_json(read_bytes(folder / MANIFEST))
        version = manifest["format"]
        facts = {n: (f["bytes"], f["sha256"]) for n, f in manifest["files"].items()}
    except (LimnerError, ValueError, KeyError, TypeError, AttributeError):
        raise DamagedCheckpoint(f"checkpoint {folder.name} is damaged: its MANIFEST.json cannot be read") from None
    if version != FORMAT:
        raise OtherFormat(
            f"checkpoint {folder.name} has format {version}, this limner reads format {FORMAT};"
            " use the limner that wrote it"
        )
    if set(facts) != {MODEL, TRAINER, STATE}:
        raise DamagedCheckpoint(f"checkpoint {folder.name} is damaged: its MANIFEST.json lists other files")
    files = {}
    for name, (size, sha256) in facts.items():
        try:
            content = read_bytes(folder / name, limit=WEIGHTS_LIMIT)
        except LimnerError:
            raise DamagedCheckpoint(f"checkpoint {folder.name} is damaged: {name} is missing") from None
        if len(content) != size:
            raise DamagedCheckpoint(
                f"checkpoint {folder.name} is damaged: {name} has {len(content)} bytes instead of {size}"
            )
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DamagedCheckpoint(f"checkpoint {folder.name} is damaged: {name} has changed since it was written")
        files[name] = content
    return files


def read(folder: Path) -> Checkpoint:
    """Reads and verifies one checkpoint folder.

    Raises:
        DamagedCheckpoint: a file is missing, cut short or changed.
        LimnerError: the checkpoint has another format, or it holds no limner model.
    """
    files = read_verified(folder)
    tensors, metadata = safetensors(files[MODEL], f"{folder.name}/{MODEL}")
    saved, _ = safetensors(files[TRAINER], f"{folder.name}/{TRAINER}")
    try:
        state = parse_json(files[STATE])
        trainer = unpack(saved, state.pop("trainer"))
    except (ValueError, KeyError, TypeError, AttributeError):
        state = trainer = None
    if not (_STATE(state) and isinstance(trainer, dict)) or (
        is_position(folder.name) and state["images"] != int(folder.name)
    ):
        raise DamagedCheckpoint(f"checkpoint {folder.name} is damaged: its {STATE} is not what limner writes")
    return Checkpoint(folder, tensors, description(metadata, folder.name), trainer, state)


def safetensors(content: bytes, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, whose header is checked first.

    The header must be JSON of at most 1 MiB without duplicate keys, with at most 10,000 tensors, and it must account
    for every byte of the file exactly once.

    Raises:
        DamagedCheckpoint: `content` is no such file.
    """
    damaged = DamagedCheckpoint(f"{name} is not a safetensors file that limner reads; it is damaged or of another type")
    if len(content) < 8:
        raise damaged
    (length,) = struct.unpack("<Q", content[:8])
    if length > _HEADER_LIMIT or 8 + length > len(content):
        raise damaged
    try:
        header = parse_json(content[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        spans = sorted((start, end) for start, end in (t["data_offsets"] for t in header.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged from None
    ends = [0, *(end for _, end in spans)]
    if len(spans) > 10_000 or [start for start, _ in spans] != ends[:-1] or ends[-1] != len(content) - 8 - length:
        raise damaged
    try:
        return parse_safetensors(content), metadata
    except (SafetensorError, ValueError, KeyError) as error:
        raise damaged from error


def description(metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    """The constructor call of a model, from the header of its file.

    Raises:
        LimnerError: the file holds no limner model.
        DamagedCheckpoint: the header cannot be read.
    """
    if "spec" not in metadata:
        raise LimnerError(f"{name} holds no limner model; give a run folder, a checkpoint folder or its {MODEL}")
    try:
        call = parse_json(metadata["spec"])
    except ValueError:
        call = None
    if not isinstance(call, dict):
        raise DamagedCheckpoint(f"{name} is damaged: the model's description in the header is not JSON")
    return call


def folders(root: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    if not root.is_dir():
        return []
    return sorted((p for p in root.iterdir() if is_position(p.name) and p.is_dir()), key=lambda p: int(p.name))


def newest(root: Path) -> tuple[Checkpoint, list[str]]:
    """The newest intact checkpoint, and the problems of newer ones.

    Raises:
        LimnerError: there is no intact checkpoint.
    """
    problems: list[str] = []
    for folder in reversed(folders(root)):
        try:
            return read(folder), problems
        except (DamagedCheckpoint, OtherFormat) as error:  # a flipped bit can change the format in a manifest
            problems.append(str(error))
    reason = f": {problems[0]}" if problems else ""
    raise LimnerError(f"there is no usable checkpoint in {root.parent.name}{reason}; train again")


def prune(root: Path, keep: int, milestones: int) -> list[Path]:
    """Deletes all but the best, the `keep` newest, and those at multiples of `milestones` images (0: none).

    A checkpoint that an interruption wrote counts only while it is the newest of all, and the newest planned one stays
    beside it. So an interrupted training keeps the same checkpoints as another, and can go back to the same ones.
    """
    saved = folders(root)
    planned = [p for p in saved if _is_planned(p)]
    counted = [p for p in saved if p == saved[-1] or p in planned]
    milestone = [p for p in saved if milestones and int(p.name) and int(p.name) % milestones == 0]
    spared = {read_pointer(root, BEST), *counted[-keep:], *planned[-1:], *milestone}
    expired = [p for p in saved if p not in spared]
    _delete(expired)
    sweep([root])
    return expired


def rewind(root: Path, folder: Path) -> None:
    """Makes a checkpoint the newest one: deletes those after it, the newest first."""
    write_pointer(root, LATEST, folder)
    _delete(p for p in reversed(folders(root)) if int(p.name) > int(folder.name))


def _delete(expired: Iterable[Path]) -> None:
    for folder in expired:
        hidden = folder.with_name(f".{folder.name}.old")
        folder.replace(hidden)  # so that a half-deleted folder never looks like a checkpoint
        shutil.rmtree(hidden)


def _is_planned(folder: Path) -> bool:
    """Whether an uninterrupted training would have written a checkpoint here, as its state says."""
    try:
        return parse_json((folder / STATE).read_bytes())["planned"] is not False
    except (OSError, ValueError, KeyError, TypeError):  # an older version wrote it, or it is damaged
        return True
