"""Where the results of a latent tool go, and the model that it looks into."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from limner.apply import outputs
from limner.apply.metadata import Metadata
from limner.apply.transparency import to_image
from limner.config.call import keywords, read_options
from limner.config.load import load_model
from limner.core.checkpoint import safetensors
from limner.core.device import pick
from limner.core.errors import LimnerError
from limner.core.paths import user_path
from limner.core.records import parse_json, read_bytes
from limner.latent.spaces import Space, fingerprint, space_of, spaces
from limner.report import Section, write_page
from limner.report.animation import loop
from limner.report.explorer import Panel, write_explorer

TENSORS = ".safetensors"
_FILE_LIMIT = 1 << 30
_ENLARGED = 112  # pixels of the shorter side of a loop, at least


@dataclass(frozen=True)
class Shown:
    """What a latent tool made.

    Attributes:
        written: the files.
        model: name of the model.
        space: name of the latent space.
        numbers: what was measured.
        lines: the same in sentences, for the user.
    """

    written: list[Path]
    model: str
    space: str
    numbers: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The same for ``--json``."""
        return {
            "written": [str(path) for path in self.written],
            "model": self.model,
            "space": self.space,
            **self.numbers,
        }

    @property
    def text(self) -> str:
        """What was measured and the files, a line each."""
        return "\n".join([*self.lines, *map(str, self.written)])


def opened(
    path: str | Path,
    space: str | None,
    device: str,
    options: Mapping[str, Any] = MappingProxyType({}),
    tool: Callable[..., Any] | None = None,
) -> Space:
    """A latent space of a trained model of pictures.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        space: its name; the first that the model has by default.
        device: auto, cpu, cuda or mps.
        options: sampling options of the model, as text or as values.
        tool: the function that took them, whose settings an error may name.

    Raises:
        LimnerError: there is no such model, it has no such space or option, or it draws points.
    """
    model = load_model(user_path(path), pick(device)).requires_grad_(False)
    if options:
        read = read_options(model.sampling_options, options)
        model = model.at(**model.checked_options(read, keywords(tool) if tool else ()))
    found = space_of(model, space)
    if found.shape[1:] == (1, 1):
        raise LimnerError(f"{model.title} draws points, and latent tools show pictures; see limner lab flow for points")
    return found


class Target:
    """The files that a tool will write.

    Args:
        out: a folder, for files named after the tool, or one file whose suffix says what it is: a sheet (.png), a loop
            (.webp, .gif), a page (.html) or tensors (.safetensors).
        verb: name of the tool.
        suffixes: what the tool can make.
        page: whether a folder gets a page too.
        overwrite: whether files that exist are replaced.

    Raises:
        LimnerError: the tool does not make such a file, or it exists.
    """

    def __init__(
        self, out: str | Path, verb: str, suffixes: Sequence[str], *, page: bool = False, overwrite: bool = False
    ) -> None:
        target = user_path(out)
        if outputs.is_folder(out):
            wanted = [s for s in suffixes if s != ".gif" and (page or s != ".html")]
            self.files = {suffix: target / f"{verb}{suffix}" for suffix in wanted}
            self.files[".json"] = target / f"{verb}.json"
        else:
            if target.suffix.lower() not in suffixes:
                listed = ", ".join(suffixes)
                raise LimnerError(
                    f"limner latent {verb} does not make {target.name}; give a folder, or a name that ends in {listed}"
                )
            self.files = {target.suffix.lower(): target}
            if page and target.suffix.lower() != ".html":
                self.files[".html"] = target.with_suffix(".html")
        outputs.refuse_existing(self.files.values(), overwrite)
        outputs.sweep(self.files.values())
        self.written: list[Path] = []

    @property
    def has_loop(self) -> bool:
        """Whether a loop is asked for."""
        return bool({".webp", ".gif"} & self.files.keys())

    @property
    def has_page(self) -> bool:
        """Whether a page is asked for."""
        return ".html" in self.files

    def sheet(self, image: Image.Image, description: str) -> None:
        """Writes a sheet, if it is asked for."""
        if ".png" in self.files:
            self.written.append(outputs.write(image, self.files[".png"], Metadata().described(description)))

    def loop(self, frames: Sequence[Image.Image], milliseconds: int) -> None:
        """Writes a loop, if it is asked for, at least 112 pixels wide and high."""
        for suffix in (".webp", ".gif"):
            if suffix in self.files:
                times = -(-_ENLARGED // min(frames[0].size))
                large = [f.resize((f.width * times, f.height * times), Image.Resampling.NEAREST) for f in frames]
                content = loop(large, milliseconds, suffix, quality=90)
                self.written.append(outputs.write_whole(self.files[suffix], content))

    def page(self, title: str, panels: Sequence[Panel], text: str = "") -> None:
        """Writes a page with sliders, if it is asked for."""
        if self.has_page:
            self.files[".html"].parent.mkdir(parents=True, exist_ok=True)
            self.written.append(write_explorer(self.files[".html"], title, panels, text))

    def article(self, title: str, sections: Sequence[Section]) -> None:
        """Writes a page of text, figures and tables, if a page is asked for."""
        if self.has_page:
            self.files[".html"].parent.mkdir(parents=True, exist_ok=True)
            self.written.append(write_page(self.files[".html"], title, sections, kind="latent space"))

    def tensors(self, content: bytes) -> None:
        """Writes a file of tensors, if the tool makes one."""
        if TENSORS in self.files:
            self.written.append(outputs.write_whole(self.files[TENSORS], content))

    def numbers(self, document: Mapping[str, Any]) -> None:
        """Writes what was measured beside the pictures, if the results are a folder."""
        if ".json" in self.files:
            content = json.dumps(document, indent=1, ensure_ascii=False).encode()
            self.written.append(outputs.write_whole(self.files[".json"], content))


def frames(x: Tensor) -> list[Image.Image]:
    """Pictures of images (N,C,H,W) in [-1,1]."""
    return [to_image(image) for image in x]


def pack(tensors: Mapping[str, Tensor], kind: str, space: Space, facts: Mapping[str, Any]) -> bytes:
    """A file of tensors that belong to a model and a space of it; `unpack` reads it."""
    about = {"kind": kind, "model": fingerprint(space.model), "title": space.model.title, "space": space.name, **facts}
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors_bytes(whole, {"latent": json.dumps(about)})


def unpack(
    path: str | Path, kind: str, model: Any, check: Callable[[dict[str, Any], dict[str, Tensor]], bool]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a file of `limner latent`.

    Args:
        path: the file.
        kind: what it holds, such as directions.
        model: the model that it must belong to.
        check: whether facts and tensors are what that kind of file has.

    Raises:
        LimnerError: there is no such file, it is damaged or of another kind, or belongs to another model.
    """
    place = user_path(path)
    if not place.is_file():
        raise LimnerError(f"{path} is no file; make one with: limner latent {kind} RUN OUT")
    tensors, metadata = safetensors(read_bytes(place, _FILE_LIMIT), place.name)
    try:
        about = parse_json(metadata["latent"])
        is_kind = isinstance(about, dict) and about["kind"] == kind
    except (KeyError, ValueError, TypeError):
        is_kind = False
    if not is_kind:
        raise LimnerError(f"{place.name} holds no {kind}; make some with: limner latent {kind} RUN OUT")
    if about.get("model") != fingerprint(model):
        raise LimnerError(
            f"{place.name} belongs to another run, or to this one before it was trained on, and its {kind} mean nothing"
            f" here; make others with: limner latent {kind} RUN OUT"
        )
    try:
        is_whole = check(about, tensors) and about.get("space") in spaces(model)
    except (KeyError, TypeError, ValueError, IndexError):
        is_whole = False
    if not is_whole:
        raise LimnerError(f"{place.name} is damaged: it does not hold what limner writes; make it again")
    return tensors, about
