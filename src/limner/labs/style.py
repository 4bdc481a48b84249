"""Neural style transfer: what a picture shows, how it is painted, and a picture that has both from different ones.

Gatys, Ecker and Bethge 2016, *Image style transfer using convolutional neural networks*, CVPR (arXiv:1508.06576),
figures 1, 2 and 4; texture synthesis is theirs of 2015 (arXiv:1505.07376). The pixels of a picture are what is trained,
here with the recipes `stylise` and `texture`. The maps F of one layer of VGG-19, N maps with M places each, say what a
picture shows; their Gram matrix G = F Fᵀ says which of them occur together, wherever that is. The lectures have its
loss in three scales (erratum E12): on two maps with four places each of them can be computed by hand.

Weights that end early do: layers are those that they have.
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
from limner.labs._bench import Bench, check
from limner.losses import style as losses
from limner.report import Table
from limner.report.words import public

IMAGES = None  # a picture and a painting, named by settings of its own

MAPS = ((1.0, 2.0, 0.0, 1.0), (0.0, 1.0, 3.0, 1.0))  # F of the picture: N = 2 maps, M = 4 places
STYLE_MAPS = ((2.0, 0.0, 0.0, 2.0), (1.0, 1.0, 1.0, 1.0))  # of the style
GRAM = ((6.0, 3.0), (3.0, 11.0))  # F Fᵀ, by hand
STYLE_GRAM = ((8.0, 4.0), (4.0, 4.0))
BETWEEN = ((4.0, 4.0), (2.0, 5.0))  # the picture's maps times the style's, which a folded batch takes in
BY_HAND = {"gatys": 55 / 256, "places": 55 / 64, "all": 55 / 256}  # E_l; Σ (G − A)² = 4 + 1 + 1 + 49 = 55
MOVED = (3, 0, 2, 1)  # the same places in another order

CONVENTIONS: tuple[losses.Convention, ...] = get_args(losses.Convention)

BETAS = (1, 10, 100, 1000)  # β where α = 1
USUAL = 100  # β of the recipe
_NONE = 1e-9  # β of a reconstruction by content: too little to be seen by a step
_NOISE = 0.3  # standard deviation of the noise that a run begins with


def _there(weights: str) -> str:
    files.vgg19(weights)
    return weights


def _one(name: str) -> str:
    if len(load("styled", path=name, style=name, size=32)) > 1:
        raise LimnerError(f"{Path(name).name} is more than one picture; name a single one")
    return name


Weights = Annotated[str, AfterValidator(_there), Field(validate_default=True)]  # so nothing is written before they load
Picture = Annotated[str, AfterValidator(_one)]


class _Eye(Protocol):
    """VGG-19."""

    layers: list[str]
    normalised: bool

    def normalise(self, pictures: Iterable[Tensor]) -> None: ...

    def __call__(self, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]: ...


class _Frozen(Protocol):
    """What holds it."""

    net: _Eye


class _Painter(Protocol):
    """The model of the recipes."""

    content_layers: list[str]
    style_layers: list[str]
    vgg: _Frozen


@dataclass(frozen=True)
class Scene:
    """What is compared: a photograph, a painting, and the net that looks at them.

    Attributes:
        x: the photograph (1,3,H,W).
        s: the painting (1,3,h,w).
        eye: looks at them; its maps have a mean activation of about one.
        firsts: the first layer of every block that the weights have.
        content_layer: where the recipe compares content.
        options: of every training: weights, pictures, size, iterations.
    """

    x: Tensor
    s: Tensor
    eye: _Eye
    firsts: list[str]
    content_layer: str
    options: Mapping[str, Any]

    @torch.no_grad()
    def maps(self, x: Tensor, name: str) -> Tensor:
        """The maps (1,N,h,w) of one layer."""
        return self.eye(x, [name])[name]

    def gap(self, x: Tensor, y: Tensor, name: str) -> float:
        """How far a layer's maps of x are from those of y: Σ (F − P)² / Σ P²."""
        f, p = self.maps(x, name), self.maps(y, name)
        return float((f - p).square().sum() / p.square().sum())

    def apart(self, x: Tensor, s: Tensor, names: Sequence[str]) -> float:
        """The style loss of x against s: the mean E_l of these layers, in the paper's convention."""
        each = []
        for name in names:
            f, a = self.maps(x, name), self.maps(s, name)
            each.append(losses.style(losses.gram(f), losses.gram(a), _places(f), _places(a)))
        return float(torch.stack(each).mean())


def run(
    bench: Bench,
    *,
    weights: Weights = "vgg19",
    content: Picture = "china",
    style: Picture = "flower",
    size: Annotated[Count, Field(ge=48)] = 128,
    iterations: Annotated[Count, Field(ge=10)] = 150,
) -> None:
    """Computes a toy by hand, then reconstructs by content, by style, and by both.

    Args:
        bench: where.
        weights: file of VGG-19's weights; "vgg19" downloads torchvision's (548 MB, once).
        content: a photograph: a file, or a name that `limner explain photos` lists.
        style: a painting, likewise.
        size: longer side of all pictures.
        iterations: descents of each training.
    """
    bench.own |= {name: public(str(bench.own[name])) for name in ("weights", "content", "style")}
    options = {"weights": weights, "content": content, "style": style, "size": size, "iterations": iterations}
    scene = _scene(options, content, style)
    _by_hand(bench)
    _folded(bench)
    _on_pictures(bench, scene)
    _content(bench, scene)
    _style(bench, _scene(options, style, style))
    _balance(bench, scene, _transfer(bench, scene))


def _scene(options: Mapping[str, Any], content: str, style: str) -> Scene:
    """A pair of pictures, and the net as a training on them has it."""
    still = cast(StyledSet, load("styled", path=content, style=style, size=options["size"]))
    x, s = to_float(still.fetch([0])), to_float(still.styles[0])
    spec = Spec("model", "style_transfer", {"weights": options["weights"]})
    painter = cast(_Painter, spec.resolve(shape=tuple(still.shape)).build())
    vgg = painter.vgg.net
    if not vgg.normalised:
        vgg.normalise([x, s])
    return Scene(x, s, vgg, painter.style_layers, painter.content_layers[0], options)


def _trained(bench: Bench, scene: Scene, label: str, model: Mapping[str, Any], *, often: bool = False) -> Tensor:
    """The picture (1,3,H,W) that a training of the recipe `stylise` ends with; it begins with noise unless told."""
    iterations = scene.options["iterations"]
    changes = {
        "data": _data(scene.options, scene.options["content"]),
        "model.weights": scene.options["weights"],
        "train.log_images": 1 if often else 10,
        "train.sample_images": 1 if often else iterations,
        "train.checkpoint_images": iterations,
    }
    own = {"model.start": "noise"} | {f"model.{k}": v for k, v in model.items()}
    return bench.train(label, "stylise", changes | own, images=iterations).sample(1)


def _data(options: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {"name": "styled", "path": path, "style": options["style"], "size": options["size"]}


# ---- by hand ---------------------------------------------------------------------------------------------------------


def _toy() -> tuple[Tensor, Tensor]:
    """Maps of the picture and of the style, (1,2,2,2)."""
    return tuple(torch.tensor(m, dtype=torch.float64).view(1, 2, 2, 2) for m in (MAPS, STYLE_MAPS))  # type: ignore[return-value]


def energy(f: Tensor, a: Tensor, convention: losses.Convention) -> float:
    """E_l of maps f (1,N,h,w) against those of the style, by the library."""
    g, target = losses.gram(f, convention), losses.gram(a, convention)
    return float(losses.style(g, target, _places(f), _places(a), convention))


def slope(f: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """∂E_l/∂F (1,N,h,w) in the paper's convention: by autograd, and by its eq. 6, (G − A) F / (N² M²), of maps ≥ 0."""
    x = f.clone().requires_grad_()
    loss = losses.style(losses.gram(x), losses.gram(a), _places(f), _places(a))
    (found,) = torch.autograd.grad(loss, x)
    n, m = f.shape[1], _places(f)
    return found, ((losses.gram(f) - losses.gram(a)) @ f.flatten(2)).view_as(f) / (n * m) ** 2


def _by_hand(bench: Bench) -> None:
    f, a = _toy()
    g, target = losses.gram(f)[0], losses.gram(a)[0]
    moved = f.flatten(2)[:, :, list(MOVED)].view_as(f)
    found, equation = slope(f, a)
    shifted = float((losses.gram(moved) - losses.gram(f)).abs().max())
    each = {name: energy(f, a, name) for name in CONVENTIONS}
    bench.results["by_hand"] = {"gram": g.tolist(), "style_gram": target.tolist(), "energy": each}
    figure, axes = draw.plots(5, height=1.75)
    _numbers(axes[0], f.view(2, 4).numpy(), "F, the picture's maps", "place")
    _numbers(axes[1], g.numpy(), "G = F Fᵀ", "map")
    _numbers(axes[2], moved.view(2, 4).numpy(), "F, places shuffled", "place")
    _numbers(axes[3], losses.gram(moved)[0].numpy(), "its G", "map")
    _numbers(axes[4], target.numpy(), "A, the style's", "map")
    rows = [
        (name, scale, loss, f"{value:.6f}")
        for (name, value), (scale, loss) in zip(
            each.items(),
            (
                ("F Fᵀ", "Σ (G − A)² / (4 N² M²) = 55 / (4·4·16)"),
                ("F Fᵀ / M", "mean (G − A)² = 55 / 4² / 4"),
                ("F Fᵀ / (N M)", "mean (G − A)² = 55 / 8² / 4"),
            ),
            strict=True,
        )
    ]
    bench.section(
        "The Gram matrix by hand",
        "A layer makes N maps of a picture, each with M places. Written as rows they are a matrix F, here with N = 2"
        " and M = 4: (1 2 0 1) and (0 1 3 1). The Gram matrix multiplies every two maps place by place and sums:"
        " G₁₁ = 1 + 4 + 0 + 1 = 6, G₁₂ = 0 + 2 + 0 + 1 = 3, G₂₂ = 0 + 1 + 9 + 1 = 11. It knows which maps are"
        " strong, and which are strong at the same places. It does not know which places: shuffle them, the same way in"
        " all maps, and G stays. The style here has the maps (2 0 0 2) and (1 1 1 1), so A₁₁ = 8, A₁₂ = 4, A₂₂ = 4 and"
        " Σ (G − A)² = 4 + 1 + 1 + 49 = 55.\n\n"
        "The lectures divide in three ways (erratum E12): by nothing, with 4 N² M² under the loss, as in the paper; by"
        " M, in TensorFlow's tutorial; by N M, in PyTorch's. The losses are then E, 4 E and 4 E / N². With N = 2 the"
        " first and the last happen to be one number; with the 64 maps of a first layer they are 1,024 times apart. So"
        " a weight of a style means something only beside the convention.",
        bench.figure(
            "toy",
            figure,
            "Maps and Gram matrices. The shuffled maps have the same Gram matrix.",
            "Five small tables of numbers; the second and the fourth are the same.",
        ),
        table=Table(("convention", "G is", "E_l by hand", "E_l by the library"), rows),
        checks=[
            check("G of the toy", _written(GRAM), _written(g.tolist()), g.tolist() == [list(r) for r in GRAM]),
            check(
                "A of the toy",
                _written(STYLE_GRAM),
                _written(target.tolist()),
                target.tolist() == [list(r) for r in STYLE_GRAM],
            ),
            *(
                check(
                    f"E_l of the toy, convention {name}",
                    f"{BY_HAND[name]:.6f}",
                    f"{value:.6f}",
                    abs(value - BY_HAND[name]) < 1e-6,
                )
                for name, value in each.items()
            ),
            check("G after shuffling the places: largest difference", 0.0, shifted),
            check(
                "gradient of E_l: eq. 6 of the paper, (G − A) F / (N² M²), against autograd",
                "below 1e-12",
                float((found - equation).abs().max()),
                float((found - equation).abs().max()) < 1e-12,
            ),
        ],
    )


def folded(x: Tensor) -> Tensor:
    """What PyTorch's tutorial takes for the Gram matrix of a batch (B,N,h,w): one of B N rows, divided by B N M."""
    rows = x.flatten(2).flatten(0, 1)
    return rows @ rows.T / x.numel()


def _folded(bench: Bench) -> None:
    """Erratum E12, the half that is wrong."""
    f, a = _toy()
    batch, wanted = torch.cat([f, a]), torch.cat([a, a])
    mixed, each = folded(batch), losses.gram(batch, "all")
    between = (mixed[:2, 2:] * batch.numel()).tolist()
    right = sum(energy(x[None], y[None], "all") for x, y in zip(batch, wanted, strict=True)) / 2
    wrong = float((folded(batch) - folded(wanted)).square().mean())
    bench.results["folded"] = {"per_picture": right, "folded": wrong}
    figure, axes = draw.plots(3, height=2.3)
    _numbers(axes[0], (mixed * batch.numel()).numpy(), "folded: rows of both", "map of either")
    _numbers(axes[1], losses.gram(batch)[0].numpy(), "by itself: the picture", "map")
    _numbers(axes[2], losses.gram(batch)[1].numpy(), "by itself: the style", "map")
    bench.section(
        "A batch is not one picture",
        "PyTorch's tutorial folds the batch into the rows of F. For one picture, as there, nothing is wrong. For two"
        " the matrix has four rows, and two of its four blocks are products of maps of different pictures, place by"
        " place: of the picture and the style of the toy, (4 4) and (2 5). Such a loss asks each picture to agree with"
        " its neighbour in the batch. It is not the mean of the two losses: for the picture and the style against the"
        " style twice, the mean is 55/512, and folding gives 97/4096, of which 42 of the 97 come from mixed pairs."
        " Here every picture has a matrix of its own.",
        bench.figure(
            "folded",
            figure,
            "The Gram matrix of a folded batch, and those of its two pictures: they are the blocks of its diagonal.",
            "A table of four by four numbers beside two of two by two.",
        ),
        checks=[
            check("products of maps of different pictures", _written(BETWEEN), _written(between)),
            check("Gram matrices of a batch of two, by the library", "2 of 2×2", "{} of {}×{}".format(*each.shape)),
            check("loss, mean of the pictures", f"{55 / 512:.6f}", f"{right:.6f}", abs(right - 55 / 512) < 1e-6),
            check("loss, folded", f"{97 / 4096:.6f}", f"{wrong:.6f}", abs(wrong - 97 / 4096) < 1e-6),
        ],
    )


def _on_pictures(bench: Bench, scene: Scene) -> None:
    """The same on maps of real pictures."""
    name = scene.firsts[0]
    pictures = {"the painting": scene.s, "the painting, moved": moved(scene.s), "the photograph": scene.x}
    maps = {k: scene.maps(x, name) for k, x in pictures.items()}
    grams = {k: losses.gram(f, "places")[0] for k, f in maps.items()}
    a = grams["the painting"]
    far = {k: float((g - a).norm() / a.norm()) for k, g in grams.items()}
    n = a.shape[0]
    ours = {c: energy(maps["the photograph"], maps["the painting"], c) for c in CONVENTIONS}
    ratios = {c: ours[c] / ours["gatys"] for c in ("places", "all")}
    gap = scene.gap(moved(scene.s), scene.s, name)
    bench.results["on_pictures"] = {"layer": name, "relative_distance": far, "ratios": ratios, "gap_moved": gap}
    figure, axes = draw.plots(3, height=2.75)
    order = a.diagonal().argsort(descending=True)
    top = float(a.max())
    for ax, (title, g) in zip(axes, grams.items(), strict=True):
        _map(ax, g[order][:, order].sqrt().numpy(), title, math.sqrt(top))
    bench.section(
        "The same on pictures",
        f"The Gram matrices that {name} of VGG-19 makes, divided by M. Moved, which means that the painting is cut in"
        " four and the quarters change places, it shows something else at every place, and its Gram matrix is nearly"
        f" what it was: {far['the painting, moved']:.1%} off (what is left comes from the new seams), where that of"
        f" the photograph is {far['the photograph']:.0%} off.",
        bench.figure(
            "grams",
            draw.beside({k: _tall(x) for k, x in pictures.items()}),
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
        "The Gram matrix knows what occurs together, not where",
        f"with its quarters exchanged the painting's maps of {name} differ by {gap:.0%} of their squares, its Gram"
        f" matrix by {far['the painting, moved']:.1%}; the photograph's by {far['the photograph']:.0%}",
        far["the painting, moved"] < far["the photograph"] / 3,
    )


# ---- content ---------------------------------------------------------------------------------------------------------


def _content(bench: Bench, scene: Scene) -> None:
    """The photograph from noise, by the maps of one layer at a time."""
    noise = _noise(scene.x, bench.seed)
    found = {
        name: _trained(
            bench,
            scene,
            f"content-{name}",
            {"content_layers": [name], "style_layers": [name], "content_weight": 1.0, "style_weight": _NONE},
        )
        for name in scene.firsts
    }
    psnrs = {name: psnr(y, scene.x) for name, y in found.items()}
    left = {name: scene.gap(y, scene.x, name) / scene.gap(noise, scene.x, name) for name, y in found.items()}
    bench.results["content"] = {"psnr": psnrs, "left": left}
    rows = []
    for name, y in found.items():
        _, n, h, w = scene.maps(y, name).shape
        rows.append(
            (name, f"{n} of {h}×{w}", f"{n * h * w / scene.x.numel():.3g}", f"{psnrs[name]:.1f}", f"{left[name]:.2%}")
        )
    bench.section(
        "Content: what a layer knows of a photograph",
        "From noise, the pixels descend until one layer's maps are those of the photograph: ½ Σ (F − P)², eq. 1. What"
        " comes back is what the layer knows. The first layers know every pixel. Deeper ones pool: they know what is"
        " there, and no longer its exact colours and edges. That is why content is compared deep in the net"
        f" ({scene.content_layer} with these weights): the picture may change where that does not change what it"
        " shows.",
        bench.figure(
            "content",
            draw.rows({"": torch.cat([scene.x, *found.values()])}, 2, ["photograph", *found]),
            f"The photograph, and what {scene.options['iterations']} descents from noise find by one layer each.",
            "A photograph and its reconstructions, rougher from left to right.",
        ),
        table=Table(
            (
                "layer",
                "maps",
                "numbers per pixel value",
                "PSNR to the photograph, dB",
                "of the noise's content loss left",
            ),
            rows,
        ),
    )
    falls = list(psnrs.values())
    bench.claim(
        "The deeper the layer, the fewer of the photograph's pixels come back",
        "PSNR " + ", ".join(f"{v:.1f} dB by {n}" for n, v in psnrs.items()),
        all(a > b for a, b in pairwise(falls)),
    )
    bench.claim(
        "The pixels are lost, the content is not: the maps of the deepest layer come back",
        f"{left[scene.firsts[-1]]:.1%} of the noise's content loss is left at {scene.firsts[-1]}",
        left[scene.firsts[-1]] < 0.1,
    )


# ---- style -----------------------------------------------------------------------------------------------------------


def _style(bench: Bench, scene: Scene) -> None:
    """The painting from noise, by the Gram matrices of more and more layers."""
    noise, names = _noise(scene.x, bench.seed), scene.firsts
    found: dict[str, Tensor] = {}
    iterations = scene.options["iterations"]
    for k in range(1, len(names) + 1):
        changes = {
            "data": _data(scene.options, scene.options["style"]),
            "model.weights": scene.options["weights"],
            "model.style_layers": names[:k],
            "train.sample_images": iterations,
            "train.checkpoint_images": iterations,
        }
        made = bench.train(f"style-{names[k - 1]}", "texture", changes, images=iterations).sample(1)
        found["+ " * (k > 1) + names[k - 1]] = made
    whole, start = [scene.apart(y, scene.s, names) for y in found.values()], scene.apart(noise, scene.s, names)
    own = [
        scene.apart(noise, scene.s, names[:k]) / scene.apart(y, scene.s, names[:k])
        for k, y in enumerate(found.values(), 1)
    ]
    other, deep = scene.gap(moved(scene.s), scene.s, names[-1]), names[-1]
    far = [scene.gap(y, scene.s, deep) / other for y in found.values()]
    bench.results["style"] = {
        "of": list(found),
        "falls_by": own,
        "all_layers": whole,
        "noise": start,
        "content_gap": far,
        "gap_moved": other,
    }
    rows = [
        (name, f"{by:,.0f}", f"{w:.3g}", f"{gap:.2f}") for name, by, w, gap in zip(found, own, whole, far, strict=True)
    ]
    bench.section(
        "Style: what a Gram matrix knows of a painting",
        "The same with Gram matrices instead of maps, of the first layer alone, of the first two, and so on: eq. 4 and"
        " 5. This is texture synthesis. The first layer gives the colours; each further one gives larger strokes. Where"
        " anything was is lost: measured by the maps of the deepest layer, the texture is about as far from the"
        " painting as the painting is from itself with its quarters exchanged, which is 1 in the table.",
        bench.figure(
            "style",
            draw.rows({"": torch.cat([scene.s, *found.values()])}, 2, ["painting", *found]),
            f"The painting, and what {iterations} descents from noise find by its Gram matrices.",
            "A painting, and textures with its colours and with strokes that grow from left to right.",
        ),
        table=Table(
            (
                "Gram matrices of",
                "their loss fell by a factor of",
                f"over all {len(names)} layers (noise {start:.3g})",
                f"distance of {deep}'s maps",
            ),
            rows,
        ),
    )
    bench.claim(
        "From noise, descent finds pictures with the painting's Gram matrices: the style loss falls a hundredfold",
        "by factors of " + ", ".join(f"{v:,.0f}" for v in own),
        min(own) >= 100,
    )
    bench.claim(
        "The place is lost: the texture is at least half as far from the painting as its exchanged quarters",
        f"{far[-1]:.2f} times as far at {deep}, with all {len(names)} layers",
        far[-1] >= 0.5,
    )
    bench.claim(
        "Each further layer brings something that those before it have not",
        "loss over all layers " + ", ".join(f"{v:.3g}" for v in whole),
        all(b < a for a, b in pairwise(whole)),
    )


# ---- both ------------------------------------------------------------------------------------------------------------


def _transfer(bench: Bench, scene: Scene) -> Tensor:
    """From noise and from the photograph; gives what came of noise."""
    starts = {"noise": "from noise", "content": "from the photograph"}
    found = {start: _trained(bench, scene, f"from-{start}", {"start": start}, often=True) for start in starts}
    runs = {start: bench.runs[f"from-{start}"] for start in starts}
    moments = _moments(scene.options["iterations"])
    strips = {starts[k]: torch.cat([_seen(run, at) for at in moments]) for k, run in runs.items()}
    figure, axes = draw.plots(3, height=2.7)
    for ax, key, title in zip(
        axes,
        ("loss/picture", "term/content", "term/style"),
        ("α content + β style", "content", "style"),
        strict=True,
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
        "the photograph, quarters exchanged": moved(scene.x),
        "made from noise": found["noise"],
        "made from the photograph": found["content"],
    }
    far = {k: (scene.gap(y, scene.x, layer), scene.apart(y, scene.s, names)) for k, y in compared.items()}
    final = {k: _total(scene, y, USUAL) for k, y in found.items()}
    bench.results["transfer"] = {"far": {k: list(v) for k, v in far.items()}, "final": final, "moments": moments}
    bench.section(
        "Both at once",
        f"Content at {layer}, style at {', '.join(names)}, α content + β style with α = 1 and β = {USUAL}, L-BFGS,"
        f" {scene.options['iterations']} descents of the pixels. The paper begins with noise, the tutorials with the"
        " photograph: there the content loss starts at zero and has to rise so that the style loss can fall.",
        bench.figure(
            "pair",
            draw.beside(
                {"what is shown": _tall(scene.x), "how it is painted": _tall(scene.s), "both": _tall(found["content"])}
            ),
            "The photograph, the painting, and the photograph in the painting's style (begun with the photograph).",
            "Three pictures.",
        ),
        bench.figure(
            "losses",
            figure,
            "The loss and its two terms without their weights, all axes logarithmic.",
            "Three panels of two curves.",
        ),
        table=Table(
            (
                "picture",
                f"distance to the photograph's maps of {layer}",
                "style loss to the painting",
            ),
            [(k, f"{c:.3f}", f"{s:.3g}") for k, (c, s) in far.items()],
        ),
    )
    bench.section(
        "From noise to a painting",
        "What the same trainings looked like on the way. From noise the colours come first, then the strokes, and the"
        " photograph appears in them; from the photograph, paint spreads over it.",
        bench.figure(
            "strip",
            draw.rows(strips, 1 if len(moments) > 5 else 2, [str(m) for m in moments]),
            "After so many iterations.",
            "Two rows of pictures: noise that becomes a painting, and a photograph that becomes one.",
        ),
    )
    photo, out = far["the photograph"][1], far["made from noise"]
    exchanged = far["the photograph, quarters exchanged"][0]
    bench.claim(
        "One picture can have the content of one and the style of another",
        f"made from noise it is {out[0] / exchanged:.0%} as far from the photograph's content as the photograph with"
        f" its quarters exchanged, and has {out[1] / photo:.1%} of the photograph's style loss",
        out[0] < 0.75 * exchanged and out[1] < 0.1 * photo,
    )
    low, high = sorted(final.values())
    bench.claim(
        "Where it begins hardly matters for how far it gets: both losses end within half of each other",
        f"{final['noise']:.3g} from noise, {final['content']:.3g} from the photograph",
        high <= 1.5 * low,
    )
    return found["noise"]


def _total(scene: Scene, y: Tensor, beta: float) -> float:
    """What a training minimises: α ½ mean (F − P)² + β Σ w_l E_l, with α = 1."""
    f, p = (scene.maps(v, scene.content_layer) for v in (y, scene.x))
    return float((f - p).square().mean() / 2) + beta * scene.apart(y, scene.s, scene.firsts)


def _balance(bench: Bench, scene: Scene, usual: Tensor) -> None:
    """More paint, less picture."""
    found = {
        beta: usual if beta == USUAL else _trained(bench, scene, f"beta-{beta}", {"style_weight": float(beta)})
        for beta in BETAS
    }
    content = {b: scene.gap(y, scene.x, scene.content_layer) for b, y in found.items()}
    style = {b: scene.apart(y, scene.s, scene.firsts) for b, y in found.items()}
    bench.results["balance"] = {"beta": list(BETAS), "content": list(content.values()), "style": list(style.values())}
    bench.section(
        "How much of each",
        "The ratio α/β decides, as in the paper's figure 4. Content and style cannot both be met: each step towards"
        " one is paid for by the other. Which of these is best is a matter of taste and not of a loss.",
        bench.figure(
            "balance",
            draw.rows(
                {"": torch.cat(list(found.values()))}, 2, [f"α/β = 1/{b:,}" if b > 1 else "α/β = 1" for b in BETAS]
            ),
            "From noise, with the same number of iterations: more and more weight on style.",
            "Four pictures: a photograph at the left, mere paint at the right.",
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


def moved(x: Tensor) -> Tensor:
    """A picture (1,3,H,W) with its quarters exchanged: rolled by half its height and width."""
    return x.roll((x.shape[2] // 2, x.shape[3] // 2), (2, 3))


def psnr(x: Tensor, y: Tensor) -> float:
    """Peak signal-to-noise ratio of pictures in [-1,1], in decibels: 10 log10 (2² / mean (x − y)²)."""
    return 10 * math.log10(4 / max(float((x - y).double().square().mean()), 1e-12))


def _noise(x: Tensor, seed: int) -> Tensor:
    """A picture of noise such as trainings begin with."""
    return (_NOISE * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))).clamp(-1, 1)


def _places(f: Tensor) -> int:
    return f.shape[2] * f.shape[3]


def _moments(iterations: int) -> list[int]:
    """Iterations for a strip, evenly spaced on a logarithmic axis: eight of them at most.

    >>> _moments(150)
    [1, 2, 4, 9, 18, 36, 73, 150]
    """
    return sorted({round(iterations ** (k / 7)) for k in range(8)})


def _seen(run: Run, iteration: int) -> Tensor:
    """The picture (1,3,H,W) in [-1,1] that a run saved after an iteration."""
    with Image.open(dict(run.samples())[iteration]) as image:
        return to_float(torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)[None])


def _tall(x: Tensor, height: int = 340) -> Image.Image:
    """A picture (1,3,H,W) at one height, to stand beside others."""
    image = make_grid(x, 1)
    return image.resize((round(image.width * height / image.height), height), Image.Resampling.LANCZOS)


_INKS = LinearSegmentedColormap.from_list("ink", ["#ffffff", draw.COLOURS[0]])


def _numbers(ax: Axes, values: NDArray[np.float64], title: str, across: str) -> None:
    """A small matrix as numbers on squares that are darker for larger ones."""
    _map(ax, values, title, 1.6 * float(values.max()))
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, f"{value:g}", ha="center", va="center", fontsize=9, color=draw.INK)
    ax.set_xlabel(across, fontsize=8, color=draw.SOFT)


def _map(ax: Axes, values: NDArray[np.float64], title: str, top: float) -> None:
    ax.imshow(values, cmap=_INKS, vmin=0, vmax=top)
    ax.set_title(title, fontsize=8.5, loc="left", color=draw.INK)
    ax.grid(False)
    draw.unmarked(ax)


def _written(rows: Sequence[Sequence[float]]) -> str:
    """A matrix in one line.

    >>> _written([[6, 3], [3, 11]])
    '(6 3; 3 11)'
    """
    return "(" + "; ".join(" ".join(f"{v:g}" for v in row) for row in rows) + ")"
