"""Conversion of weights that others published to limner's models."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from limner.config.published import generators, painters, stylegan, translators
from limner.config.published.layers import Imported, check_state, load_layers, load_state
from limner.config.spec import Spec
from limner.core import checkpoint, weights
from limner.core.durable import replace_file
from limner.core.errors import LimnerError, unknown
from limner.core.model import GenerativeModel
from limner.core.paths import user_path
from limner.core.progress import Progress, Silent

_APPLY, _STYLISE = "apply {0} IN OUT", "stylise IN PAINTING model={0}"
USES = {
    **dict.fromkeys(("pix2pix", "cyclegan", "cut"), _APPLY),
    "fast-style": "stylise IN model={0}",
    **dict.fromkeys(("adain", "wct"), _STYLISE),
    **dict.fromkeys(("dcgan", "r3gan", "stylegan2"), "sample {0} OUT.png"),
    "vgg19": "stylise PHOTO PAINTING weights={0}",
}
"""The command that uses a file, by the kind of its weights."""
KINDS = tuple(USES)
_TRANSLATORS, _DECODERS, _FIXED = (
    ("pix2pix", "cyclegan", "cut"),
    ("adain", "wct"),
    ("dcgan", "r3gan", "stylegan2", "vgg19"),
)
_SIZE, _SIZES = 256, range(8, 4097)


def import_weights(
    kind: str,
    file: str | Path,
    out: str | Path,
    *,
    back: str | Path | None = None,
    part: str | None = None,
    size: int | None = None,
    dropout: float | None = None,
    eval: bool = False,
    vgg: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Converts published weights to a model file.

    Args:
        kind: pix2pix, cyclegan or cut (a generator of the reference repositories, U-Net or ResNet; also FastCUT's);
            fast-style (PyTorch's fast-neural-style); adain or wct (a decoder of VGG-19's maps); dcgan (PyTorch's
            examples); r3gan (the authors' generator without classes); stylegan2 (rosinality's ``.pt``, or a ``.pkl`` of
            NVIDIA's stylegan2-ada-pytorch, of which nothing is executed); or vgg19 (VGG-19 itself, for `weights=`
            and `vgg=`).
        file: the weights, a state dict in a ``.safetensors`` file or one of `torch.save` (``.pth``, ``.model`` …).
        out: the ``.safetensors`` file to write.
        back: for cyclegan, the file of the generator from b to a. Without it the model translates in one direction.
        part: which net, if the file holds several, such as G_ema, which is the default for stylegan2.
        size: side of the images it was trained on, 256 by default; translators and painters take other sizes too.
        dropout: dropout of a translator's generator; by default what the reference's test does: 0.5 where it was
            trained with dropout (U-Nets of pix2pix, ResNets that say so), else 0.
        eval: use the running statistics of batch norm and no dropout, as pix2pix and CycleGAN do with --eval. By
            default batch norm takes the statistics of each picture and dropout stays on, as they do without it.
        vgg: for adain and wct, the file of VGG-19's weights that belong to the decoder, such as vgg_normalised.pth, or
            vgg19 for torchvision's.
        progress: receives notes on what was decided.

    Returns:
        `out`. Discriminators were not published; the model has untrained ones, which matter for further training only.

    Raises:
        LimnerError: the file cannot be read, or does not hold such weights.
    """
    if kind not in KINDS:
        raise unknown("kind of weights", kind, KINDS)
    _check_settings(kind, {"back": back, "dropout": dropout, "eval": eval or None, "vgg": vgg, "size": size})
    out = user_path(out)
    if out.suffix != ".safetensors":
        raise LimnerError(f"cannot write a model to {out.name}; give a file name that ends in .safetensors")
    files = [user_path(f) for f in (file, back) if f is not None]
    if any(f.exists() and out.exists() and f.samefile(out) for f in files):
        raise LimnerError(f"{out.name} would overwrite the weights that it is made of; give another name")
    if kind == "stylegan2":
        return _written(stylegan.stylegan2(files[0].name, weights.read_nets(files[0]), part), files[:1], out, progress)
    read = [(f.name, w.tensors) for f, w in zip(files, weights.read_all(files, part), strict=True)]
    name, tensors = read[0]
    if kind == "vgg19":
        return _write_vgg19(name, tensors, out)
    side = _SIZE if size is None else size
    makers: dict[str, Callable[[], Imported]] = {
        "fast-style": lambda: painters.fast_style(name, tensors, side),
        "dcgan": lambda: generators.dcgan(name, tensors),
        "r3gan": lambda: generators.r3gan(name, tensors),
    }
    if kind in _TRANSLATORS:
        imported = translators.translator(kind, read, side, dropout, eval)
    elif kind in _DECODERS:
        imported = painters.decoder(kind, name, tensors, side, vgg)
    else:
        imported = makers[kind]()
    return _written(imported, files, out, progress)


def _written(imported: Imported, files: list[Path], out: Path, progress: Progress | None) -> Path:
    """Writes the model, and says what the user should know."""
    written = checkpoint.export(_build(imported, [f.name for f in files]), out)
    for note in imported.notes:
        (progress or Silent()).say(note)
    return written


def _check_settings(kind: str, given: dict[str, Any]) -> None:
    """Refuses settings that mean nothing for a kind."""
    for key, kinds in (("back", ("cyclegan",)), ("dropout", _TRANSLATORS), ("eval", _TRANSLATORS), ("vgg", _DECODERS)):
        if given[key] is not None and kind not in kinds:
            raise LimnerError(f"{key} is for {', '.join(kinds)}; leave it out for {kind}")
    if given["size"] is not None and (kind in _FIXED or given["size"] not in _SIZES):
        raise LimnerError(
            f"the size of images of {kind} follows from its weights; leave size out"
            if kind in _FIXED
            else f"size must be {_SIZES[0]} to {_SIZES[-1]} pixels, got {given['size']}"
        )


def _build(imported: Imported, files: list[str]) -> GenerativeModel:
    """The model with its weights, and untrained ones for the nets that were not published."""
    spec = Spec.parse("model", imported.tree).resolve(**imported.facts)
    if imported.states:
        with torch.device("meta"):  # no numbers: a small file may state sizes of a net that no memory holds
            outline = spec.build()
        for net, tensors in imported.states.items():
            check_state(getattr(outline, net), tensors, files[0])
    torch.manual_seed(0)
    model: GenerativeModel = spec.build()
    model.spec = spec
    for (net, layers), file in zip(imported.nets.items(), files):
        load_layers(getattr(model, net), layers, file)
    for net, tensors in imported.states.items():
        load_state(getattr(model, net), tensors)
    return model


def _write_vgg19(name: str, tensors: dict[str, Tensor], out: Path) -> Path:
    """Writes the convolutions of VGG-19 under their published names, if a model can be built with them."""
    content = save({k: t.contiguous() for k, t in tensors.items() if not k.startswith("classifier.")})
    decoder = {"name": "style.Decoder", "layer": "relu1_1"}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "vgg19.safetensors"
        copy.write_bytes(content)
        tree = {"name": "adain", "weights": str(copy), "decoder": decoder}
        try:
            Spec.parse("model", tree).build(shape=(3, 64, 64))
        except LimnerError as error:
            raise LimnerError(f"{name}: {str(error).removeprefix('adain: ')}") from None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, content)
    except OSError as error:
        raise LimnerError(f"cannot write {out}: {error.strerror or error}; choose another path") from None
    return out
