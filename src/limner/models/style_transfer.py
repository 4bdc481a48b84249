"""Neural style transfer by optimisation: the parameters are the pixels of one image.

Gatys, Ecker and Bethge 2016, *Image style transfer using convolutional neural networks*, CVPR (arXiv:1508.06576), eq. 1
to 7; with style alone it is texture synthesis (Gatys et al. 2015, arXiv:1505.07376).

    x = the content image, a style, or noise
    P = feature maps of the content;  A_l = Gram matrices of the style, once
    repeat
        F = feature maps of x;  G_l = Gram matrices of x
        descend for x   α ½ mean (F - P)² + β Σ_l w_l E_l,   E_l = 1/(4 N² M²) Σ (G_l - A_l)²
        x = x clamped to [-1, 1]

The paper sums the content loss over all positions of a layer; here it is their mean, as the style loss is divided by
M², so that α and β mean the same at any size. Total variation, several styles and masks are additions of later work
(the last two: Gatys et al. 2017, arXiv:1611.07865). Weights of layers are shares of 1.

A large image is processed in tiles: their Gram matrices are summed, and their feature maps are computed again in the
backward pass, so that memory holds those of one tile. The loss is that of the whole image, so there are no seams.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from limner.core import weights as files
from limner.core.batch import Styled
from limner.core.errors import LimnerError
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.previews import Grid
from limner.core.rng import Noise
from limner.core.units import shares
from limner.losses.style import Convention, gram, scale_gram, total_variation
from limner.losses.style import style as style_loss
from limner.nets.frozen import Frozen
from limner.nets.vgg import VGG19, Tile, stride, tiles

_SMALLEST_TILE = 64
_NORMALISED_AT = 512  # pixels of the longer side of images whose mean activations are measured


class StyleTransfer(GenerativeModel):
    """An image with the content of one image and the style of others.

    Args:
        weights: file of VGG-19's weights; "vgg19" downloads torchvision's (548 MB, once). Weights that are not
            normalised are scaled to mean activations of one over content and styles (Gatys et al. 2016, section 2).
        content_weight: α. Raise it if the content is lost; 0 is texture synthesis.
        style_weight: β. Raise it for more of the style; lower it if the content is lost.
        content_layers: where content is compared; deeper layers keep objects and lose textures. By default relu4_2.
        style_layers: where style is compared; deeper layers take larger strokes. By default the first of each block.
        layer_weights: w_l, a share for each style layer; equal by default.
        style_shares: a share for each style; equal by default.
        convention: scale of the Gram matrices and the style loss: gatys, places or all (`limner.losses.style`).
        smoothness: weight of total variation. Raise it if the image is grainy; lower it if it is smeared.
        start: initial x: content, style (the first one), noise, or the image that the data name as `first`.
        pooling: max as VGG-19 was trained, or average for smoother results, as the paper recommends.
        tile: images of more than tile² pixels are processed in tiles of about this side, which takes up to twice as
            long. Lower it if memory is short; raise it for speed.
        shape: (C,H,W) of the image; filled from the data.
    """

    batch_type: type = Styled
    preview_facts: Mapping[str, str] = {"learnt": "the picture"}

    def __init__(
        self,
        weights: str = "vgg19",
        content_weight: float = 1.0,
        style_weight: float = 100.0,
        content_layers: list[str] | None = None,
        style_layers: list[str] | None = None,
        layer_weights: list[float] | None = None,
        style_shares: list[float] | None = None,
        convention: Convention = "gatys",
        smoothness: float = 0.0,
        start: Literal["content", "style", "noise", "first"] = "content",
        pooling: Literal["max", "average"] = "max",
        tile: int = 1024,
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        if shape[0] != 3:
            raise ValueError(f"style is transferred between colour images (3 channels), these have {shape[0]}")
        if min(content_weight, style_weight, smoothness) < 0 or content_weight + style_weight == 0:
            raise ValueError(
                "content_weight, style_weight and smoothness must not be negative, and one of the first two positive"
            )
        if tile < _SMALLEST_TILE:
            raise ValueError(f"tile={tile} is too small; use {_SMALLEST_TILE} or more")
        self.vgg = Frozen(VGG19(files.vgg19(weights), pooling, "reflect"))
        names = self.vgg.net.layers
        self.style_layers = style_layers or [n for n in names if n.startswith("relu") and n.endswith("_1")]
        self.content_layers = content_layers or ["relu4_2" if "relu4_2" in names else names[-1]]
        self.layer_weights = shares(layer_weights, len(self.style_layers), "layer_weights")
        self.content_weight, self.style_weight, self.smoothness = content_weight, style_weight, smoothness
        self.style_shares, self.convention, self.start = style_shares, convention, start
        self.tile = tile
        self.vgg.net.check(self._layers(), shape[1:])
        self.picture = Picture(shape)
        self._terms: dict[str, Tensor] = {}
        self._targets: tuple[dict[str, Tensor], list[dict[str, tuple[Tensor, int]]]] | None = None

    def _layers(self) -> list[str]:
        """Names of all layers that the loss needs."""
        content_layers = self.content_layers if self.content_weight else []
        return [*content_layers, *(self.style_layers if self.style_weight else [])]

    def groups(self) -> dict[str, nn.Module]:
        return {"picture": self.picture}

    def check_batch(self, n: int) -> None:
        """Refuses batches of more than the one image."""
        if n != 1:
            raise ValueError(f"style transfer optimises one image, not a batch of {n}; use 1")

    def step(self, data: Data, update: Update) -> Logs:
        batch: Styled = next(data)
        self._initialise(batch, data)
        terms = dict(self._terms)  # of the last evaluation: L-BFGS evaluates no loss once it has converged

        def loss() -> Tensor:
            self.picture.clamp()  # a line search has moved it
            terms.update(self.terms(self.picture(), batch.masks))
            return self._weighted_sum(terms)

        update("picture", loss)
        self.picture.clamp()
        self._terms = {k: v.detach() for k, v in terms.items()}
        return {"loss/picture": self._weighted_sum(self._terms)} | self._terms

    def _initialise(self, batch: Styled, data: Data) -> None:
        """Computes the targets, in each process once, and the initial image, in each training once."""
        if self._targets is None:
            if not self.vgg.net.normalised:
                images = [_limit_side(x, _NORMALISED_AT) for x in (batch.x, *batch.styles)]
                self.vgg.on(batch.x.device).normalise(images)
            self._targets = self._compute_targets(batch)
        if not self.picture.initialised:
            noise = data.randn(*batch.x.shape) * 0.3
            x = {"content": batch.x, "style": batch.styles[0], "noise": noise, "first": batch.first}[self.start]
            if x is None:
                raise LimnerError("start=first needs an initial picture; name it with data.first=FILE")
            self.picture.initialise(x)

    def _weighted_sum(self, terms: Mapping[str, Tensor]) -> Tensor:
        return (
            self.content_weight * terms["term/content"]
            + self.style_weight * terms["term/style"]
            + self.smoothness * terms["term/variation"]
        )

    def terms(self, x: Tensor, masks: tuple[Tensor | None, ...]) -> dict[str, Tensor]:
        """Content, style and variation of an image x (1,3,H,W), each without its weight."""
        assert self._targets is not None
        content_targets, style_targets = self._targets
        content = style = torch.zeros((), device=x.device)
        resized = {id(m): None if m is None else self._resize_mask(m) for m in masks}
        grams, squares = self._sum_tiles(x, resized, content_targets)
        for name, square in squares.items():
            content = content + square / content_targets[name].numel() / 2
        style_shares = shares(self.style_shares, len(style_targets), "style_shares")
        for share, target, mask in zip(style_shares, style_targets, masks, strict=True):
            weights = resized[id(mask)]
            for layer_weight, (name, (A, M_style)) in zip(self.layer_weights, target.items(), strict=False):
                M = float(_positions(x, name)) if weights is None else weights[name].sum()
                G = scale_gram(grams[id(mask)][name], M, self.convention)
                style = style + share * layer_weight * style_loss(G, A, M, M_style, self.convention)
        variation = total_variation(x if self.smoothness else x.detach())
        return {"term/content": content, "term/style": style, "term/variation": variation}

    def _sum_tiles(
        self, x: Tensor, masks: Mapping[int, dict[str, Tensor] | None], contents: dict[str, Tensor]
    ) -> tuple[dict[int, dict[str, Tensor]], dict[str, Tensor]]:
        """Sums over all tiles of x: F_ik F_jk of the style layers for each mask, and (F - P)² of the content layers."""
        styles = self.style_layers if self.style_weight else []

        def sums_of(crop: Tensor, tile: Tile) -> list[Tensor]:
            maps = {k: v[tile.inner(k)].float() for k, v in self.vgg(crop, [*contents, *styles]).items()}
            grams = [
                gram(maps[n], mask=None if mask is None else mask[n][tile.outer(n)])
                for mask in masks.values()
                for n in styles
            ]
            return grams + [(maps[n] - p[tile.outer(n)]).square().sum() for n, p in contents.items()]

        all_tiles = self._tiles(x)
        totals: list[Tensor] = []
        for tile in all_tiles:
            crop = x[tile.crop]
            if len(all_tiles) > 1 and torch.is_grad_enabled():
                sums = checkpoint(sums_of, crop, tile, use_reentrant=False, preserve_rng_state=False)
            else:
                sums = sums_of(crop, tile)
            totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
        values = iter(totals)
        return {k: {n: next(values) for n in styles} for k in masks}, {n: next(values) for n in contents}

    def _tiles(self, x: Tensor) -> list[Tile]:
        return tiles((x.shape[2], x.shape[3]), self.tile, self._layers())

    def _resize_mask(self, mask: Tensor) -> dict[str, Tensor]:
        """A mask (1,1,H,W) at the size of every style layer's maps."""
        h, w = mask.shape[2:]
        sizes = {n: (h // stride(n), w // stride(n)) for n in self.style_layers}
        return {n: nn.functional.interpolate(mask, size, mode="area") for n, size in sizes.items()}

    @torch.no_grad()
    def _compute_targets(self, batch: Styled) -> tuple[dict[str, Tensor], list[dict[str, tuple[Tensor, int]]]]:
        """P by layer, and for every style A_l by layer with its number of positions."""
        contents: dict[str, Tensor] = {}
        for tile in self._tiles(batch.x) if self.content_weight else []:
            for n, maps in self.vgg(batch.x[tile.crop], self.content_layers).items():
                h, w = (v // stride(n) for v in tile.size)
                whole = contents.setdefault(n, torch.empty(1, maps.shape[1], h, w, device=maps.device))
                whole[tile.outer(n)] = maps[tile.inner(n)]
        styles = []
        for s in batch.styles:
            M = {n: _positions(s, n) for n in self.style_layers}
            grams = self._sum_tiles(s, {0: None}, {})[0][0]
            styles.append({n: (scale_gram(g, M[n], self.convention), M[n]) for n, g in grams.items()})
        return contents, styles

    def preview(self, batch: Styled, n: int, seed: int) -> dict[str, Grid]:
        """The image, once it is initialised."""
        return {"samples": Grid(self.sample(1))} if self.picture.initialised else {}

    def draw(self, n: int, y: Tensor | None, noise: Noise, **options: Any) -> Tensor:
        """The current image, n times: (n,3,H,W)."""
        return self.picture.x.detach().clamp(-1, 1).expand(n, -1, -1, -1)


class _ProjectedGradient(torch.autograd.Function):
    """The identity; its backward pass drops gradients whose descent would leave [-1,1] at a pixel on the bound.

    Otherwise a line search expects a descent that clamping undoes, and stops too early.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        outward = ((x >= 1) & (gradient < 0)) | ((x <= -1) & (gradient > 0))
        return gradient.masked_fill(outward, 0.0)


class Picture(nn.Module):
    """The pixels that are optimised."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(1, *shape))
        self.initialised = False

    def forward(self) -> Tensor:
        """The image (1,3,H,W) for a loss."""
        x: Tensor = _ProjectedGradient.apply(self.x)  # type: ignore[no-untyped-call]
        return x

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Copies an image (1,3,h,w), resized if its size is another one."""
        if x.shape != self.x.shape:
            x = nn.functional.interpolate(x, self.x.shape[2:], mode="bicubic", antialias=True)
        self.x.copy_(x)
        self.initialised = True

    @torch.no_grad()
    def clamp(self) -> None:
        """Clamps every pixel to [-1,1], so that values outside cannot lower the loss."""
        self.x.clamp_(-1, 1)

    def get_extra_state(self) -> Tensor:
        """Whether it is initialised, for the checkpoint."""
        return torch.tensor(self.initialised)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores whether it is initialised."""
        self.initialised = bool(state)


def _positions(x: Tensor, name: str) -> int:
    """M, the number of positions of a layer's maps of x (1,3,H,W)."""
    return (x.shape[2] // stride(name)) * (x.shape[3] // stride(name))


def _limit_side(x: Tensor, side: int) -> Tensor:
    """An image (1,3,H,W), downsampled if its longer side has more than `side` pixels."""
    scale = side / max(x.shape[2:])
    if scale >= 1:
        return x
    return nn.functional.interpolate(x, scale_factor=scale, mode="bilinear", antialias=True)
