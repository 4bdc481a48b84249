"""Style mixing: pictures whose styles are those of A in some layers and those of B in the others.

Karras, Laine and Aila 2019 (arXiv:1812.04948), section 3.1 and figure 3: coarse layers decide pose and shape, fine ones
colours. Which layers decide what in *this* model is measured: of pairs that differ in an attribute, the share of mixes
that a reader reads as B when the layers of one group come from B.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from limner.config.call import checked
from limner.latent import judges
from limner.latent.project import rows_of
from limner.latent.results import Shown, Target, opened
from limner.latent.spaces import LayerStyles, Space
from limner.metrics.extractors.readers import ReadsAttributes
from limner.report import Figure, Section, Table

_NAMES = ("coarse", "middle", "fine")


def groups(layers: int) -> dict[str, list[int]]:
    """The layers of each group, from the coarsest: thirds of all.

    >>> groups(8)
    {'coarse': [0, 1, 2], 'middle': [3, 4, 5], 'fine': [6, 7]}
    """
    parts = torch.arange(layers).tensor_split(3)
    return {name: part.tolist() for name, part in zip(_NAMES, parts, strict=True) if len(part)}


def mixed(a: Tensor, b: Tensor, layers: Sequence[int]) -> Tensor:
    """Styles (B,L,w) of a (B,L,w), with those of b (B,L,w) in some layers."""
    result = a.clone()
    result[:, list(layers)] = b[:, list(layers)]
    return result


def attribution(
    space: Space, a: Tensor, b: Tensor, layers: dict[str, list[int]], reader: ReadsAttributes
) -> dict[str, dict[str, float | None]]:
    """By group and attribute the share of mixes that are read as B, of pairs whose A and B differ; None without any.

    Args:
        space: w+.
        a: styles (N,L,w).
        b: styles (N,L,w).
        layers: the layers of each group.
        reader: reads the pictures.
    """

    def read(styles: Tensor) -> dict[str, Tensor]:
        return {k: v.argmax(1) for k, v in judges.scores(reader, space.images(styles)).items()}

    of_a, of_b = read(a), read(b)
    result: dict[str, dict[str, float | None]] = {}
    for name, part in layers.items():
        found = read(mixed(a, b, part))
        differs = {k: of_a[k] != of_b[k] for k in of_a}
        result[name] = {
            k: float((found[k] == of_b[k])[d].double().mean()) if bool(d.any()) else None for k, d in differs.items()
        }
    return result


@checked
def mix(
    path: str | Path,
    out: str | Path,
    *,
    rows: Annotated[int, Field(ge=1, le=16)] = 3,
    columns: Annotated[int, Field(ge=1, le=16)] = 5,
    proof: Annotated[int, Field(ge=2, le=10_000)] = 128,
    data: str | None = None,
    y: str | int | None = None,
    seed: int = 0,
    page: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    **options: Any,
) -> Shown:
    """Mixes the styles of samples: rows are A, columns are B, and a block for each group of layers that come from B.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``, of a model with styles (StyleGAN).
        out: a folder, for mix.png and mix.json; or one file: a sheet (.png) or a page (.html).
        rows: samples A.
        columns: samples B.
        proof: pairs on which it is measured which layers decide which attribute.
        data: labelled pictures, a folder or a named set, from which a reader learns; by default the run's own.
        y: for conditional models, the label of all samples.
        seed: seed of the samples.
        page: write a page too.
        overwrite: replace files that exist.
        device: auto, cpu, cuda or mps.
        **options: sampling options of the model, such as truncation=0.7, or psi=0.7 of a model with styles.

    Raises:
        LimnerError: there is no such model, it has no styles, or a file exists.
    """
    space = opened(path, LayerStyles.name, device, options, mix)
    assert isinstance(space, LayerStyles)
    target = Target(out, "mix", (".png", ".html"), page=page, overwrite=overwrite)
    layers = groups(space.layers)
    rest = space.rest(rows + columns, y, seed)
    a, b = space.draw(rows + columns, seed, rest).split([rows, columns])
    images_a, images_b, blank = space.images(a), space.images(b), torch.ones(1, *space.shape)
    sheet, names = [], []
    for group, part in layers.items():
        sheet.append(torch.cat([blank, images_b]))
        names += [f"B: {group}", *(f"A {i + 1}" for i in range(rows))]
        for style, image in zip(a, images_a, strict=True):
            both = space.images(mixed(style[None].expand_as(b), b, part))
            sheet.append(torch.cat([image[None], both]))
    title = f"Styles of {space.model.title}, mixed"
    named = ", ".join(f"{name} {part[0]}–{part[-1]}" for name, part in layers.items())
    lines = [f"{title}: {rows} samples A (rows) with {columns} samples B (columns); layers from B: {named}"]
    numbers: dict[str, Any] = {"layers": layers}
    picture = rows_of(sheet, names)
    file = io.BytesIO()
    picture.save(file, "PNG")
    caption = f"Left A, above B. In the blocks B gives, from the top, the layers {named}."
    sections = [Section("Rows A, columns B", lines[0], [Figure(file.getvalue(), caption, caption)])]
    eye = judges.reader(path, space.shape, data, space.model.device)
    if eye is not None:
        pairs = space.draw(2 * proof, seed + 1, space.rest(2 * proof, y, seed + 1))
        table = attribution(space, pairs[:proof], pairs[proof:], layers, eye)
        numbers |= {"reader": eye.key, "proof": proof, "read_as_b": table}
        attributes = list(eye.values)
        cells = [[g, *("–" if v is None else f"{v:.2f}" for v in row.values())] for g, row in table.items()]
        lines += [f"{row[0]}: " + ", ".join(f"{k} {v}" for k, v in zip(attributes, row[1:])) for row in cells]
        text = f"Of {proof} pairs that differ in an attribute as {eye.key} reads it, the share of mixes read as B."
        sections.append(Section("Which layers decide what", text, table=Table(["layers from B", *attributes], cells)))
    target.sheet(picture, f"limner latent mix: {lines[0]}")
    target.article(title, sections)
    shown = Shown(target.written, space.model.title, space.name, numbers, lines)
    target.numbers(shown.document())
    return shown
