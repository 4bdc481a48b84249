"""Neural style transfer: the content of one picture in the style of another.

Gatys, Ecker and Bethge 2016, *Image style transfer using convolutional neural networks*, CVPR (arXiv:1508.06576),
figures 1, 2 and 4; texture synthesis is theirs of 2015 (arXiv:1505.07376). The trained parameters are the
pixels of a picture, here with the recipes `stylise` and `texture`. The maps F of one layer of VGG-19, N maps with M
positions each, represent the content of a picture; their Gram matrix G = F Fᵀ says which maps are active together,
wherever that is. The lectures give its loss in three scales (erratum E12): for two maps with four positions each of
them can be computed by hand.

Weights that end at an early layer are enough: the lab compares the layers that they have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Protocol, cast, get_args

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, Field
from torch import Tensor

from limner.config.spec import Spec
from limner.core import weights as files
from limner.core.batch import to_float
from limner.core.errors import LimnerError
from limner.core.grid import make_grid
from limner.core.run import Run
from limner.core.units import Count
from limner.data import load
from limner.data.datasets import StyledSet
from limner.labs import _figures as draw
from limner.labs._bench import Bench, check, check_close
from limner.losses import style as losses
from limner.report import Table
from limner.report.words import public

IMAGES = None  # it uses a picture and a painting, named by settings of its own

MAPS = ((1.0, 2.0, 0.0, 1.0), (0.0, 1.0, 3.0, 1.0))  # F of the picture: N = 2 maps, M = 4 positions
STYLE_MAPS = ((2.0, 0.0, 0.0, 2.0), (1.0, 1.0, 1.0, 1.0))  # of the style
GRAM = ((6.0, 3.0), (3.0, 11.0))  # F Fᵀ, by hand
STYLE_GRAM = ((8.0, 4.0), (4.0, 4.0))
BETWEEN = ((4.0, 4.0), (2.0, 5.0))  # the picture's maps times the style's, which a folded batch includes
BY_HAND = {"gatys": 55 / 256, "places": 55 / 64, "all": 55 / 256}  # E_l; Σ (G − A)² = 4 + 1 + 1 + 49 = 55
SHUFFLED = (3, 0, 2, 1)  # the same positions in another order

CONVENTIONS: tuple[losses.Convention, ...] = get_args(losses.Convention)

BETAS = (1, 10, 100, 1000)  # β where α = 1
DEFAULT_BETA = 100  # β of the recipe
_NEGLIGIBLE = 1e-9  # β of a reconstruction by content: too small to affect a step
_NOISE_STD = 0.3  # standard deviation of the noise that a run starts from


def _check_weights(weights: str) -> str:
    files.vgg19(weights)
    return weights


def _check_single(name: str) -> str:
    if len(load("styled", path=name, style=name, size=32)) > 1:
        raise LimnerError(f"{Path(name).name} holds more than one picture; name a single one")
    return name


# the default is checked too, before anything is written
Weights = Annotated[str, AfterValidator(_check_weights), Field(validate_default=True)]
Picture = Annotated[str, AfterValidator(_check_single)]


class _VGG(Protocol):
    layers: list[str]
    normalised: bool

    def normalise(self, pictures: Iterable[Tensor]) -> None: ...

    def __call__(self, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]: ...


class _FrozenNet(Protocol):
    """The wrapper that keeps VGG-19 out of the model's parameters."""

    net: _VGG


class _StyleModel(Protocol):
    content_layers: list[str]
    style_layers: list[str]
    vgg: _FrozenNet


@dataclass(frozen=True)
class Scene:
    """A photograph, a painting, and the net whose maps are compared.

    Attributes:
        x: the photograph (1,3,H,W).
        s: the painting (1,3,h,w).
        vgg: VGG-19, normalised to a mean activation of about one.
        firsts: the first layer of each block that the weights have.
        content_layer: the layer in which the recipe compares content.
        options: weights, pictures, size and iterations of every training.
    """

    x: Tensor
    s: Tensor
    vgg: _VGG
    firsts: list[str]
    content_layer: str
    options: Mapping[str, Any]

    @torch.no_grad()
    def maps(self, x: Tensor, name: str) -> Tensor:
        """The maps (1,N,h,w) of one layer."""
        return self.vgg(x, [name])[name]

    def content_distance(self, x: Tensor, y: Tensor, name: str) -> float:
        """Relative squared distance of a layer's maps of x and y: Σ (F − P)² / Σ P²."""
        f, p = self.maps(x, name), self.maps(y, name)
        return float((f - p).square().sum() / p.square().sum())

    def style_distance(self, x: Tensor, s: Tensor, names: Sequence[str]) -> float:
        """The style loss of x against s: the mean E_l of these layers, in the paper's convention."""
        pairs = [(self.maps(x, name), self.maps(s, name)) for name in names]
        return float(torch.stack([_layer_loss(f, a) for f, a in pairs]).mean())


def run(
    bench: Bench,
    *,
    weights: Weights = "vgg19",
    content: Picture = "china",
    style: Picture = "flower",
    size: Annotated[Count, Field(ge=48)] = 128,
    iterations: Annotated[Count, Field(ge=10)] = 150,
) -> None:
    """Computes an example by hand, then reconstructs pictures from content, from style, and from both.

    Args:
        bench: collects the results.
        weights: file of VGG-19's weights; "vgg19" downloads torchvision's (548 MB, once).
        content: a photograph: a file, or a name that `limner explain photos` lists.
        style: a painting, likewise.
        size: longer side of all pictures.
        iterations: optimiser steps of each training.
    """
    bench.options |= {name: public(str(bench.options[name])) for name in ("weights", "content", "style")}
    options = {"weights": weights, "content": content, "style": style, "size": size, "iterations": iterations}
    scene = _scene(options, content, style)
    _by_hand(bench)
    _folded(bench)
    _gram_on_pictures(bench, scene)
    _content(bench, scene)
    _style(bench, _scene(options, style, style))
    _balance(bench, scene, _transfer(bench, scene))


def _scene(options: Mapping[str, Any], content: str, style: str) -> Scene:
    """Loads a pair of pictures, and VGG-19 as a training on them normalises it."""
    dataset = cast(StyledSet, load("styled", path=content, style=style, size=options["size"]))
    x, s = to_float(dataset.fetch([0])), to_float(dataset.styles[0])
    spec = Spec("model", "style_transfer", {"weights": options["weights"]})
    model = cast(_StyleModel, spec.resolve(shape=tuple(dataset.shape)).build())
    vgg = model.vgg.net
    if not vgg.normalised:
        vgg.normalise([x, s])
    return Scene(x, s, vgg, model.style_layers, model.content_layers[0], options)


def _train_picture(
    bench: Bench, scene: Scene, label: str, model: Mapping[str, Any], *, every_iteration: bool = False
) -> Tensor:
    """Trains the recipe `stylise`, by default from noise, and returns its picture (1,3,H,W)."""
    iterations = scene.options["iterations"]
    changes = {
        "data": _data(scene.options, scene.options["content"]),
        "model.weights": scene.options["weights"],
        "train.log_images": 1 if every_iteration else 10,
        "train.sample_images": 1 if every_iteration else iterations,
        "train.checkpoint_images": iterations,
    }
    model_changes = {"model.start": "noise"} | {f"model.{k}": v for k, v in model.items()}
    return bench.train(label, "stylise", changes | model_changes, images=iterations).sample(1)


def _data(options: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {"name": "styled", "path": path, "style": options["style"], "size": options["size"]}


# ---- by hand ---------------------------------------------------------------------------------------------------------


def _example_maps() -> tuple[Tensor, Tensor]:
    """Maps of the picture and of the style, (1,2,2,2)."""
    return tuple(torch.tensor(m, dtype=torch.float64).view(1, 2, 2, 2) for m in (MAPS, STYLE_MAPS))  # type: ignore[return-value]


def energy(f: Tensor, a: Tensor, convention: losses.Convention) -> float:
    """E_l of maps f (1,N,h,w) against those of the style, computed by the library."""
    return float(_layer_loss(f, a, convention))


def _layer_loss(f: Tensor, a: Tensor, convention: losses.Convention = "gatys") -> Tensor:
    g, target = losses.gram(f, convention), losses.gram(a, convention)
    return losses.style(g, target, _positions(f), _positions(a), convention)


def gradient(f: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """∂E_l/∂F (1,N,h,w) in the paper's convention: by autograd, and by its eq. 6, (G − A) F / (N² M²), of maps ≥ 0."""
    x = f.clone().requires_grad_()
    (by_autograd,) = torch.autograd.grad(_layer_loss(x, a), x)
    n, m = f.shape[1], _positions(f)
    return by_autograd, ((losses.gram(f) - losses.gram(a)) @ f.flatten(2)).view_as(f) / (n * m) ** 2


def _by_hand(bench: Bench) -> None:
    f, a = _example_maps()
    g, target = losses.gram(f)[0], losses.gram(a)[0]
    shuffled = f.flatten(2)[:, :, list(SHUFFLED)].view_as(f)
    by_autograd, equation = gradient(f, a)
    difference = float((losses.gram(shuffled) - losses.gram(f)).abs().max())
    error = float((by_autograd - equation).abs().max())
    each = {name: energy(f, a, name) for name in CONVENTIONS}
    bench.results["by_hand"] = {"gram": g.tolist(), "style_gram": target.tolist(), "energy": each}
    figure, axes = draw.plots(5, height=1.75)
    _draw_matrix(axes[0], f.view(2, 4).numpy(), "F, the picture's maps", "position")
    _draw_matrix(axes[1], g.numpy(), "G = F Fᵀ", "map")
    _draw_matrix(axes[2], shuffled.view(2, 4).numpy(), "F, shuffled", "position")
    _draw_matrix(axes[3], losses.gram(shuffled)[0].numpy(), "its G", "map")
    _draw_matrix(axes[4], target.numpy(), "A, the style's", "map")
    formulas = (
        ("F Fᵀ", "Σ (G − A)² / (4 N² M²) = 55 / (4·4·16)"),
        ("F Fᵀ / M", "mean (G − A)² = 55 / 4² / 4"),
        ("F Fᵀ / (N M)", "mean (G − A)² = 55 / 8² / 4"),
    )
    rows = [(n, *formula, f"{e:.6f}") for (n, e), formula in zip(each.items(), formulas, strict=True)]
    bench.section(
        "The Gram matrix by hand",
        "A layer computes N maps of a picture, each with M positions. Written as rows they are a matrix F, here with N"
        " = 2 and M = 4: (1 2 0 1) and (0 1 3 1). The Gram matrix has the scalar product of every two maps: G₁₁ = 1 +"
        " 4 + 0 + 1 = 6, G₁₂ = 0 + 2 + 0 + 1 = 3, G₂₂ = 0 + 1 + 9 + 1 = 11. It tells which maps are strong, and which"
        " are strong at the same positions. It does not tell which positions: if they are shuffled in the same way in"
        " all maps, G does not change. The style here has the maps (2 0 0 2) and (1 1 1 1), so A₁₁ = 8, A₁₂ = 4, A₂₂ ="
        " 4 and Σ (G − A)² = 4 + 1 + 1 + 49 = 55.\n\nThe lectures scale it in three ways (erratum E12): by nothing,"
        " with 4 N² M² under the loss, as in the paper; by M, in TensorFlow's tutorial; by N M, in PyTorch's. The"
        " losses are then E, 4 E and 4 E / N². With N = 2 the first and the last happen to be equal; with the 64 maps"
        " of a first layer their ratio is 1,024. So the weight of a style has a meaning only together with the"
        " convention.",
        bench.figure(
            "toy",
            figure,
            "Maps and Gram matrices. The shuffled maps have the same Gram matrix.",
            "Five small tables of numbers; the second and the fourth are the same.",
        ),
        table=Table(("convention", "G is", "E_l by hand", "E_l by the library"), rows),
        checks=[
            *(
                check(f"{name} of the example", _matrix_text(e), _matrix_text(m), m == [list(row) for row in e])
                for name, e, m in (("G", GRAM, g.tolist()), ("A", STYLE_GRAM, target.tolist()))
            ),
            *(
                check_close(f"E_l of the example, convention {name}", BY_HAND[name], value, 1e-6)
                for name, value in each.items()
            ),
            check("G after shuffling the positions: largest difference", 0.0, difference),
            check(
                "gradient of E_l: eq. 6 of the paper, (G − A) F / (N² M²), against autograd",
                "below 1e-12",
                error,
                error < 1e-12,
            ),
        ],
    )


def folded(x: Tensor) -> Tensor:
    """The matrix that PyTorch's tutorial computes of a batch (B,N,h,w): B N rows, divided by B N M."""
    rows = x.flatten(2).flatten(0, 1)
    return rows @ rows.T / x.numel()


def _folded(bench: Bench) -> None:
    f, a = _example_maps()
    batch, target = torch.cat([f, a]), torch.cat([a, a])
    mixed, each = folded(batch), losses.gram(batch, "all")
    cross_products = (mixed[:2, 2:] * batch.numel()).tolist()
    mean_loss = sum(energy(x[None], y[None], "all") for x, y in zip(batch, target, strict=True)) / 2
    folded_loss = float((folded(batch) - folded(target)).square().mean())
    bench.results["folded"] = {"per_picture": mean_loss, "folded": folded_loss}
    figure, axes = draw.plots(3, height=2.3)
    _draw_matrix(axes[0], (mixed * batch.numel()).numpy(), "folded: rows of both", "map of either")
    _draw_matrix(axes[1], losses.gram(batch)[0].numpy(), "separate: the picture", "map")
    _draw_matrix(axes[2], losses.gram(batch)[1].numpy(), "separate: the style", "map")
    bench.section(
        "A batch is not one picture",
        "PyTorch's tutorial folds the batch into the rows of F. For one picture, as there, this is correct. For two"
        " the matrix has four rows, and two of its four blocks are products of maps of different pictures: of the"
        " picture and the style of the example, (4 4) and (2 5). Such a loss asks each picture to agree with its"
        " neighbour in the batch. It is not the mean of the two losses: for the picture and the style against the"
        " style twice, the mean is 55/512, and folding gives 97/4096, of which 42 of the 97 come from mixed pairs."
        " In limner every picture has a matrix of its own.",
        bench.figure(
            "folded",
            figure,
            "The Gram matrix of a folded batch, and those of its two pictures: they are the blocks of its diagonal.",
            "A table of four by four numbers beside two of two by two.",
        ),
        checks=[
            check("products of maps of different pictures", _matrix_text(BETWEEN), _matrix_text(cross_products)),
            check("Gram matrices of a batch of two, by the library", "2 of 2×2", "{} of {}×{}".format(*each.shape)),
            check_close("loss, mean of the pictures", 55 / 512, mean_loss, 1e-6),
            check_close("loss, folded", 97 / 4096, folded_loss, 1e-6),
        ],
    )


def _gram_on_pictures(bench: Bench, scene: Scene) -> None:
    name = scene.firsts[0]
    pictures = {"the painting": scene.s, "the painting, moved": swap_quarters(scene.s), "the photograph": scene.x}
    maps = {k: scene.maps(x, name) for k, x in pictures.items()}
    grams = {k: losses.gram(f, "places")[0] for k, f in maps.items()}
    a = grams["the painting"]
    distances = {k: float((g - a).norm() / a.norm()) for k, g in grams.items()}
    n = a.shape[0]
    energies = {c: energy(maps["the photograph"], maps["the painting"], c) for c in CONVENTIONS}
    ratios = {c: energies[c] / energies["gatys"] for c in ("places", "all")}
    moved_distance = scene.content_distance(swap_quarters(scene.s), scene.s, name)
    bench.results["on_pictures"] = {
        "layer": name,
        "relative_distance": distances,
        "ratios": ratios,
        "gap_moved": moved_distance,
    }
    figure, axes = draw.plots(3, height=2.75)
    order = a.diagonal().argsort(descending=True)
    top = float(a.max())
    for ax, (title, g) in zip(axes, grams.items(), strict=True):
        _draw_heat_map(ax, g[order][:, order].sqrt().numpy(), title, math.sqrt(top))
    bench.section(
        "The same on pictures",
        f"The Gram matrices that {name} of VGG-19 makes, divided by M. “Moved” means that the quarters of the painting"
        " are exchanged. Then it shows something else at every position, but its Gram matrix hardly changes: by"
        f" {distances['the painting, moved']:.1%}, because of the new seams. That of the photograph differs by"
        f" {distances['the photograph']:.0%}.",
        bench.figure(
            "grams",
            draw.side_by_side({k: _image_of_height(x) for k, x in pictures.items()}),
            "The pictures.",
            "A painting, the same with its quarters exchanged, and a photograph.",
        ),
        bench.figure(
            "gram-matrices",
            figure,
            f"Their Gram matrices: {n} maps against {n}, the painting's strongest first, darker for larger (roots).",
            "Three square maps of grey; the first two cannot be told apart.",
        ),
        checks=[
            check(f"E_places / E_gatys on {name}", "4.0000", f"{ratios['places']:.4f}"),
            check(f"E_all / E_gatys on {name}, 4 / {n}²", f"{4 / n**2:.3e}", f"{ratios['all']:.3e}"),
        ],
    )
    bench.claim(
        "The Gram matrix tells what occurs together, not where",
        f"with its quarters exchanged the painting's maps of {name} differ by {moved_distance:.0%} of their squares,"
        f" its Gram matrix by {distances['the painting, moved']:.1%}; the photograph's by"
        f" {distances['the photograph']:.0%}",
        distances["the painting, moved"] < distances["the photograph"] / 3,
    )


# ---- content ---------------------------------------------------------------------------------------------------------


def _content(bench: Bench, scene: Scene) -> None:
    noise = _noise(scene.x, bench.seed)
    pictures = {
        name: _train_picture(
            bench,
            scene,
            f"content-{name}",
            {"content_layers": [name], "style_layers": [name], "content_weight": 1.0, "style_weight": _NEGLIGIBLE},
        )
        for name in scene.firsts
    }
    psnrs = {name: psnr(y, scene.x) for name, y in pictures.items()}
    remaining = {
        name: scene.content_distance(y, scene.x, name) / scene.content_distance(noise, scene.x, name)
        for name, y in pictures.items()
    }
    bench.results["content"] = {"psnr": psnrs, "left": remaining}
    rows = []
    for name, y in pictures.items():
        _, n, h, w = scene.maps(y, name).shape
        rows.append(
            (
                name,
                f"{n} of {h}×{w}",
                f"{n * h * w / scene.x.numel():.3g}",
                f"{psnrs[name]:.1f}",
                f"{remaining[name]:.2%}",
            )
        )
    bench.section(
        "Content: the information of a layer about a photograph",
        "From noise, the pixels are optimised until one layer's maps are those of the photograph: ½ Σ (F − P)², eq. 1."
        " The result shows what the layer represents: the first layers every pixel, deeper ones, after pooling, the"
        " objects without their exact colours and edges. That is why content is compared deep in the net"
        f" ({scene.content_layer} with these weights): the picture may then change without a change of its content.",
        bench.figure(
            "content",
            draw.image_rows({"": torch.cat([scene.x, *pictures.values()])}, 2, ["photograph", *pictures]),
            f"The photograph, and what {scene.options['iterations']} iterations from noise find by one layer each.",
            "A photograph and its reconstructions, rougher from left to right.",
        ),
        table=Table(
            (
                "layer",
                "maps",
                "numbers per pixel value",
                "PSNR to the photograph, dB",
                "remaining share of the noise's content loss",
            ),
            rows,
        ),
    )
    psnr_values = list(psnrs.values())
    bench.claim(
        "The deeper the layer, the less exact are the pixels of the photograph",
        "PSNR " + ", ".join(f"{v:.1f} dB by {n}" for n, v in psnrs.items()),
        all(a > b for a, b in pairwise(psnr_values)),
    )
    bench.claim(
        "The pixels are lost, the content is not: the maps of the deepest layer are reconstructed",
        f"{remaining[scene.firsts[-1]]:.1%} of the noise's content loss remains at {scene.firsts[-1]}",
        remaining[scene.firsts[-1]] < 0.1,
    )


# ---- style -----------------------------------------------------------------------------------------------------------


def _style(bench: Bench, scene: Scene) -> None:
    noise, names = _noise(scene.x, bench.seed), scene.firsts
    textures: dict[str, Tensor] = {}
    iterations = scene.options["iterations"]
    for k in range(1, len(names) + 1):
        changes = {
            "data": _data(scene.options, scene.options["style"]),
            "model.weights": scene.options["weights"],
            "model.style_layers": names[:k],
            "train.sample_images": iterations,
            "train.checkpoint_images": iterations,
        }
        texture = bench.train(f"style-{names[k - 1]}", "texture", changes, images=iterations).sample(1)
        textures["+ " * (k > 1) + names[k - 1]] = texture
    all_layers, noise_loss = (
        [scene.style_distance(y, scene.s, names) for y in textures.values()],
        scene.style_distance(noise, scene.s, names),
    )
    reductions = [
        scene.style_distance(noise, scene.s, names[:k]) / scene.style_distance(y, scene.s, names[:k])
        for k, y in enumerate(textures.values(), 1)
    ]
    moved_distance, deepest = scene.content_distance(swap_quarters(scene.s), scene.s, names[-1]), names[-1]
    distances = [scene.content_distance(y, scene.s, deepest) / moved_distance for y in textures.values()]
    bench.results["style"] = {
        "of": list(textures),
        "falls_by": reductions,
        "all_layers": all_layers,
        "noise": noise_loss,
        "content_gap": distances,
        "gap_moved": moved_distance,
    }
    rows = [
        (name, f"{by:,.0f}", f"{w:.3g}", f"{gap:.2f}")
        for name, by, w, gap in zip(textures, reductions, all_layers, distances, strict=True)
    ]
    bench.section(
        "Style: the information of Gram matrices about a painting",
        "The same with Gram matrices instead of maps, of the first layer alone, of the first two, and so on: eq. 4 and"
        " 5. This is texture synthesis. The first layer gives the colours; each further one gives larger strokes. The"
        " positions are lost: measured by the maps of the deepest layer, the texture is about as far from the painting"
        " as the painting with its quarters exchanged, whose distance is 1 in the table.",
        bench.figure(
            "style",
            draw.image_rows({"": torch.cat([scene.s, *textures.values()])}, 2, ["painting", *textures]),
            f"The painting, and what {iterations} iterations from noise find by its Gram matrices.",
            "A painting, and textures with its colours and with strokes that grow from left to right.",
        ),
        table=Table(
            (
                "Gram matrices of",
                "their loss fell by a factor of",
                f"over all {len(names)} layers (noise {noise_loss:.3g})",
                f"distance of {deepest}'s maps",
            ),
            rows,
        ),
    )
    bench.claim(
        "From noise, optimisation finds pictures with the painting's Gram matrices: the style loss falls a hundredfold",
        "by factors of " + ", ".join(f"{v:,.0f}" for v in reductions),
        min(reductions) >= 100,
    )
    bench.claim(
        "The positions are lost: the texture is at least half as far from the painting as its exchanged quarters",
        f"{distances[-1]:.2f} times as far at {deepest}, with all {len(names)} layers",
        distances[-1] >= 0.5,
    )
    bench.claim(
        "Each further layer adds information",
        "loss over all layers " + ", ".join(f"{v:.3g}" for v in all_layers),
        all(b < a for a, b in pairwise(all_layers)),
    )


# ---- both ------------------------------------------------------------------------------------------------------------


def _transfer(bench: Bench, scene: Scene) -> Tensor:
    """Transfers the style from noise and from the photograph, and returns the picture made from noise."""
    starts = {"noise": "from noise", "content": "from the photograph"}
    pictures = {
        start: _train_picture(bench, scene, f"from-{start}", {"start": start}, every_iteration=True) for start in starts
    }
    runs = {start: bench.runs[f"from-{start}"] for start in starts}
    iterations = _log_spaced(scene.options["iterations"])
    strips = {starts[k]: torch.cat([_saved_image(run, at) for at in iterations]) for k, run in runs.items()}
    figure, axes = draw.plots(3, height=2.7)
    for ax, key, title in zip(
        axes, ("loss/picture", "term/content", "term/style"), ("α content + β style", "content", "style"), strict=True
    ):
        lines = {k: [(m["images"], m[key]) for m in run.metrics() if m.get(key)] for k, run in runs.items()}
        draw.curves(
            ax,
            {starts[k]: cast(draw.Curve, tuple(zip(*points, strict=True))) for k, points in lines.items()},
            xlabel="iterations",
            title=title,
            log=True,
        )
        ax.set_yscale("log")
    names, layer = scene.firsts, scene.content_layer
    noise = _noise(scene.x, bench.seed)
    compared = {
        "noise": noise,
        "the photograph": scene.x,
        "the photograph, quarters exchanged": swap_quarters(scene.x),
        "made from noise": pictures["noise"],
        "made from the photograph": pictures["content"],
    }
    distances = {
        k: (scene.content_distance(y, scene.x, layer), scene.style_distance(y, scene.s, names))
        for k, y in compared.items()
    }
    final = {k: _total(scene, y, DEFAULT_BETA) for k, y in pictures.items()}
    bench.results["transfer"] = {
        "far": {k: list(v) for k, v in distances.items()},
        "final": final,
        "moments": iterations,
    }
    bench.section(
        "Both at once",
        f"Content at {layer}, style at {', '.join(names)}, α content + β style with α = 1 and β = {DEFAULT_BETA},"
        f" L-BFGS, {scene.options['iterations']} iterations. The paper starts from noise, the tutorials from the"
        " photograph: there the content loss starts at zero and has to rise so that the style loss can fall.",
        bench.figure(
            "pair",
            draw.side_by_side(
                {
                    "content": _image_of_height(scene.x),
                    "style": _image_of_height(scene.s),
                    "both": _image_of_height(pictures["content"]),
                }
            ),
            "The photograph, the painting, and the photograph in the painting's style (started from the photograph).",
            "Three pictures.",
        ),
        bench.figure(
            "losses",
            figure,
            "The loss and its two terms without their weights, all axes logarithmic.",
            "Three panels of two curves.",
        ),
        table=Table(
            ("picture", f"distance to the photograph's maps of {layer}", "style loss to the painting"),
            [(k, f"{c:.3f}", f"{s:.3g}") for k, (c, s) in distances.items()],
        ),
    )
    bench.section(
        "From noise to a painting",
        "Grids of the same trainings over time. From noise the colours come first, then the strokes, and the"
        " photograph appears in them; from the photograph, the strokes spread over it.",
        bench.figure(
            "strip",
            draw.image_rows(strips, 1 if len(iterations) > 5 else 2, [str(m) for m in iterations]),
            "Pictures by the number of iterations.",
            "Two rows of pictures: noise that becomes a painting, and a photograph that becomes one.",
        ),
    )
    photograph_loss, from_noise = distances["the photograph"][1], distances["made from noise"]
    swapped_distance = distances["the photograph, quarters exchanged"][0]
    bench.claim(
        "A picture can have the content of one picture and the style of another",
        f"made from noise it is {from_noise[0] / swapped_distance:.0%} as far from the photograph's content as the"
        f" photograph with its quarters exchanged, and has {from_noise[1] / photograph_loss:.1%} of the photograph's"
        " style loss",
        from_noise[0] < 0.75 * swapped_distance and from_noise[1] < 0.1 * photograph_loss,
    )
    low, high = sorted(final.values())
    bench.claim(
        "The start hardly matters for the result: the larger final loss is at most one and a half times the smaller",
        f"{final['noise']:.3g} from noise, {final['content']:.3g} from the photograph",
        high <= 1.5 * low,
    )
    return pictures["noise"]


def _total(scene: Scene, y: Tensor, beta: float) -> float:
    """The loss of a training: α ½ mean (F − P)² + β Σ w_l E_l, with α = 1."""
    f, p = (scene.maps(v, scene.content_layer) for v in (y, scene.x))
    return float((f - p).square().mean() / 2) + beta * scene.style_distance(y, scene.s, scene.firsts)


def _balance(bench: Bench, scene: Scene, default: Tensor) -> None:
    pictures = {
        beta: default
        if beta == DEFAULT_BETA
        else _train_picture(bench, scene, f"beta-{beta}", {"style_weight": float(beta)})
        for beta in BETAS
    }
    content = {b: scene.content_distance(y, scene.x, scene.content_layer) for b, y in pictures.items()}
    style = {b: scene.style_distance(y, scene.s, scene.firsts) for b, y in pictures.items()}
    bench.results["balance"] = {"beta": list(BETAS), "content": list(content.values()), "style": list(style.values())}
    bench.section(
        "The ratio of content and style",
        "The ratio α/β decides, as in the paper's figure 4. Content and style cannot both be matched: a gain in"
        " one is a loss in the other. Which ratio is best is a matter of taste and not of a loss.",
        bench.figure(
            "balance",
            draw.image_rows(
                {"": torch.cat(list(pictures.values()))}, 2, [f"α/β = 1/{b:,}" if b > 1 else "α/β = 1" for b in BETAS]
            ),
            "From noise, with the same number of iterations: more and more weight on style.",
            "Four pictures: a photograph at the left, only strokes at the right.",
        ),
        table=Table(
            ("α/β", f"distance to the photograph's maps of {scene.content_layer}", "style loss to the painting"),
            [(f"1/{b:,}", f"{content[b]:.3f}", f"{style[b]:.3g}") for b in BETAS],
        ),
    )
    bench.claim(
        "As β grows, the style loss falls and the distance to the content rises, at every step",
        f"style loss {', '.join(f'{v:.2g}' for v in style.values())}; distance"
        f" {', '.join(f'{v:.3f}' for v in content.values())}",
        all(a > b for a, b in pairwise(style.values())) and all(a < b for a, b in pairwise(content.values())),
    )


# ---- pictures --------------------------------------------------------------------------------------------------------


def swap_quarters(x: Tensor) -> Tensor:
    """A picture (1,3,H,W) with its quarters exchanged: rolled by half its height and width."""
    return x.roll((x.shape[2] // 2, x.shape[3] // 2), (2, 3))


def psnr(x: Tensor, y: Tensor) -> float:
    """Peak signal-to-noise ratio of pictures in [-1,1], in decibels: 10 log10 (2² / mean (x − y)²)."""
    return 10 * math.log10(4 / max(float((x - y).double().square().mean()), 1e-12))


def _noise(x: Tensor, seed: int) -> Tensor:
    """A picture of noise like the one that trainings start from."""
    return (_NOISE_STD * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))).clamp(-1, 1)


def _positions(f: Tensor) -> int:
    return f.shape[2] * f.shape[3]


def _log_spaced(iterations: int) -> list[int]:
    """At most eight numbers of iterations, evenly spaced on a logarithmic axis.

    >>> _log_spaced(150)
    [1, 2, 4, 9, 18, 36, 73, 150]
    """
    return sorted({round(iterations ** (k / 7)) for k in range(8)})


def _saved_image(run: Run, iteration: int) -> Tensor:
    """The picture (1,3,H,W) in [-1,1] that a run saved after an iteration."""
    with Image.open(dict(run.samples())[iteration]) as image:
        return to_float(torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)[None])


def _image_of_height(x: Tensor, height: int = 340) -> Image.Image:
    """A picture (1,3,H,W) as an image of the given height."""
    image = make_grid(x, 1)
    return image.resize((round(image.width * height / image.height), height), Image.Resampling.LANCZOS)


_INKS = LinearSegmentedColormap.from_list("ink", ["#ffffff", draw.COLOURS[0]])


def _draw_matrix(ax: Axes, values: NDArray[np.float64], title: str, across: str) -> None:
    """Draws a small matrix as numbers on squares, darker for larger values."""
    _draw_heat_map(ax, values, title, 1.6 * float(values.max()))
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, f"{value:g}", ha="center", va="center", fontsize=9, color=draw.INK)
    ax.set_xlabel(across, fontsize=8, color=draw.SOFT)


def _draw_heat_map(ax: Axes, values: NDArray[np.float64], title: str, top: float) -> None:
    ax.imshow(values, cmap=_INKS, vmin=0, vmax=top)
    ax.set_title(title, fontsize=8.5, loc="left", color=draw.INK)
    ax.grid(False)
    draw.hide_axes(ax)


def _matrix_text(rows: Sequence[Sequence[float]]) -> str:
    """A matrix as one line of text.

    >>> _matrix_text([[6, 3], [3, 11]])
    '(6 3; 3 11)'
    """
    return "(" + "; ".join(" ".join(f"{v:g}" for v in row) for row in rows) + ")"
