"""Neural style transfer by optimisation: the pixels of one picture are what is learnt.

Gatys, Ecker and Bethge 2016, *Image style transfer using convolutional neural networks*, CVPR (arXiv:1508.06576), eq. 1
to 7; with style alone it is texture synthesis (Gatys et al. 2015, arXiv:1505.07376).

    x = the content picture, a style, or noise
    P = maps of the content;  A_l = Gram matrices of the style, once
    repeat
        F = maps of x;  G_l = Gram matrices of x
        descend for x   α ½ mean (F - P)² + β Σ_l w_l E_l,   E_l = 1/(4 N² M²) Σ (G_l - A_l)²
        x = x clamped to what can be shown

The paper sums the content loss over all places of a layer; here it is their mean, as the style loss is divided by M²,
so that α and β mean the same at any size. Total variation, several styles and masks are additions of later work (the
last two: Gatys et al. 2017, arXiv:1611.07865). Weights of layers are shares of 1.

A large picture is looked at in tiles: their Gram matrices are summed, and their maps are made again on the way back, so
that memory holds those of one tile. The loss is that of the whole picture, so there are no seams.
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
from limner.core.units import shares
from limner.losses.style import Convention, gram, scaled, total_variation
from limner.losses.style import style as style_loss
from limner.nets.frozen import Frozen
from limner.nets.vgg import VGG19, Tile, stride, tiles

_LEAST_TILE = 64
_NORMALISED_AT = 512  # pixels of the longer side of pictures whose mean activations are measured


class StyleTransfer(GenerativeModel):
    """A picture with the content of one and the style of others.

    Args:
        weights: file of VGG-19's weights; "vgg19" downloads torchvision's (548 MB, once). Weights that are not
            normalised are scaled to mean activations of one over the pictures at hand (Gatys et al. 2016, section 2).
        content_weight: α. Raise it if the content is lost; 0 leaves style alone, which is texture synthesis.
        style_weight: β. Raise it for more paint and less picture.
        content_layers: where content is compared; deeper layers keep what is shown and forget how it looked.
        style_layers: where style is compared; deeper layers take larger strokes. By default the first of every block.
        layer_weights: w_l, a share for each style layer; equal by default.
        style_shares: a share for each style; equal by default.
        convention: scale of the Gram matrices and the style loss: gatys, places or all (`limner.losses.style`).
        smoothness: weight of total variation. Raise it if the picture is grainy.
        start: what x is at first: content, style (the first one), noise, or the picture that the data name as `first`.
        pooling: max as the net was trained, average for smoother results (the paper's advice).
        tile: pictures of more than tile² pixels are looked at in tiles of about this side, which takes up to twice as
            long and leaves no seams. Lower it if memory is short.
        shape: (C,H,W) of the picture; filled from the data.
    """

    batch_type: type = Styled
    preview_facts = {"learnt": "the picture"}

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
            raise ValueError(f"style is transferred between colour pictures (3 channels), these have {shape[0]}")
        if min(content_weight, style_weight, smoothness) < 0 or content_weight + style_weight == 0:
            raise ValueError(
                "content_weight, style_weight and smoothness must not be negative, nor both of the first 0"
            )
        if tile < _LEAST_TILE:
            raise ValueError(f"tile={tile} is too small; take {_LEAST_TILE} or more")
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
        contents = self.content_layers if self.content_weight else []
        return [*contents, *(self.style_layers if self.style_weight else [])]

    def groups(self) -> dict[str, nn.Module]:
        return {"picture": self.picture}

    def check_batch(self, n: int) -> None:
        """Refuses batches of more than the one picture there is."""
        if n != 1:
            raise ValueError(f"style transfer works on one picture, not on batches of {n}; use 1")

    def step(self, data: Data, update: Update) -> Logs:
        still: Styled = next(data)
        if self._targets is None:
            if not self.vgg.net.normalised:
                self.vgg.on(still.x.device).normalise([_at_most(x, _NORMALISED_AT) for x in (still.x, *still.styles)])
            self._targets = self._looked_at(still)
        if not self.picture.begun:
            noise = data.randn(*still.x.shape) * 0.3
            first = {"content": still.x, "style": still.styles[0], "noise": noise, "first": still.first}[self.start]
            if first is None:
                raise LimnerError("start=first needs a picture to begin with; name it with data.first=FILE")
            self.picture.begin(first)
        terms = dict(self._terms)  # of the last look: a search that has come to rest looks no more

        def loss() -> Tensor:
            self.picture.clamp()  # a line search has moved it
            terms.update(self.terms(self.picture(), still.masks))
            return (
                self.content_weight * terms["term/content"]
                + self.style_weight * terms["term/style"]
                + self.smoothness * terms["term/variation"]
            )

        update("picture", loss)
        self.picture.clamp()
        self._terms = terms = {k: v.detach() for k, v in terms.items()}
        total = self.content_weight * terms["term/content"] + self.style_weight * terms["term/style"]
        return {"loss/picture": total + self.smoothness * terms["term/variation"]} | terms

    def terms(self, x: Tensor, masks: tuple[Tensor | None, ...]) -> dict[str, Tensor]:
        """Content, style and variation of a picture x (1,3,H,W), each without its weight."""
        assert self._targets is not None
        contents, styles = self._targets
        content = style = torch.zeros((), device=x.device)
        areas = {id(m): None if m is None else self._areas(m) for m in masks}
        grams, squares = self._summed(x, areas, contents)
        for name, square in squares.items():
            content = content + square / contents[name].numel() / 2
        parts = shares(self.style_shares, len(styles), "style_shares")
        for share, target, mask in zip(parts, styles, masks, strict=True):
            area = areas[id(mask)]
            for weight, (name, (wanted, n)) in zip(self.layer_weights, target.items(), strict=False):
                m = float(_places(x, name)) if area is None else area[name].sum()
                own = scaled(grams[id(mask)][name], m, self.convention)
                style = style + share * weight * style_loss(own, wanted, m, n, self.convention)
        variation = total_variation(x if self.smoothness else x.detach())
        return {"term/content": content, "term/style": style, "term/variation": variation}

    def _summed(
        self, x: Tensor, areas: Mapping[int, dict[str, Tensor] | None], contents: dict[str, Tensor]
    ) -> tuple[dict[int, dict[str, Tensor]], dict[str, Tensor]]:
        """Sums over all tiles of x: F_ik F_jk of the style layers for each area, and (F - P)² of the content layers."""
        styles = self.style_layers if self.style_weight else []

        def part(seen: Tensor, tile: Tile) -> list[Tensor]:
            maps = {k: v[tile.within(k)].float() for k, v in self.vgg(seen, [*contents, *styles]).items()}
            grams = [
                gram(maps[n], mask=None if area is None else area[n][tile.of(n)])
                for area in areas.values()
                for n in styles
            ]
            return grams + [(maps[n] - p[tile.of(n)]).square().sum() for n, p in contents.items()]

        cover = self._tiles(x)
        sums: list[Tensor] | None = None
        for tile in cover:
            seen = x[tile.seen]
            if len(cover) > 1 and torch.is_grad_enabled():
                found = checkpoint(part, seen, tile, use_reentrant=False, preserve_rng_state=False)
            else:
                found = part(seen, tile)
            sums = found if sums is None else [a + b for a, b in zip(sums, found, strict=True)]
        assert sums is not None
        each = iter(sums)
        return {k: {n: next(each) for n in styles} for k in areas}, {n: next(each) for n in contents}

    def _tiles(self, x: Tensor) -> list[Tile]:
        return tiles((x.shape[2], x.shape[3]), self.tile, self._layers())

    def _areas(self, mask: Tensor) -> dict[str, Tensor]:
        """A mask (1,1,H,W) at the size of every style layer's maps."""
        h, w = mask.shape[2:]
        sizes = {n: (h // stride(n), w // stride(n)) for n in self.style_layers}
        return {n: nn.functional.interpolate(mask, size, mode="area") for n, size in sizes.items()}

    @torch.no_grad()
    def _looked_at(self, still: Styled) -> tuple[dict[str, Tensor], list[dict[str, tuple[Tensor, int]]]]:
        """Maps of the content, and Gram matrices of every style with the number of their places."""
        contents: dict[str, Tensor] = {}
        for tile in self._tiles(still.x) if self.content_weight else []:
            for n, maps in self.vgg(still.x[tile.seen], self.content_layers).items():
                h, w = (v // stride(n) for v in tile.size)
                whole = contents.setdefault(n, torch.empty(1, maps.shape[1], h, w, device=maps.device))
                whole[tile.of(n)] = maps[tile.within(n)]
        styles = []
        for s in still.styles:
            grams = self._summed(s, {0: None}, {})[0][0]
            styles.append({n: (scaled(g, _places(s, n), self.convention), _places(s, n)) for n, g in grams.items()})
        return contents, styles

    def preview(self, batch: Styled, n: int, seed: int) -> dict[str, Grid]:
        """The picture, once there is a first one."""
        return {"samples": Grid(self.sample(1))} if self.picture.begun else {}

    def draw(self, n: int, y: Tensor | None, generator: torch.Generator, **options: Any) -> Tensor:
        """The picture as it is now, (n,3,H,W): there is only one."""
        return self.picture.x.detach().clamp(-1, 1).expand(n, -1, -1, -1)


class _Shown(torch.autograd.Function):
    """A picture as it is; on the way back a pixel that is as dark or light as can be shown is not asked to be more so.

    Without this a line search is promised a descent that clamping takes back, and comes to rest too early.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        out = ((x >= 1) & (gradient < 0)) | ((x <= -1) & (gradient > 0))
        return gradient.masked_fill(out, 0.0)


class Picture(nn.Module):
    """The pixels that are learnt."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(1, *shape))
        self.begun = False

    def forward(self) -> Tensor:
        """The picture (1,3,H,W) for a loss."""
        shown: Tensor = _Shown.apply(self.x)  # type: ignore[no-untyped-call]
        return shown

    def begin(self, x: Tensor) -> None:
        """Puts a first picture in; one of another size is made to fit."""
        if x.shape != self.x.shape:
            x = nn.functional.interpolate(x, self.x.shape[2:], mode="bicubic", antialias=True)
        with torch.no_grad():
            self.x.copy_(x)
        self.begun = True

    @torch.no_grad()
    def clamp(self) -> None:
        """Brings every pixel back into [-1,1]: what lies beyond cannot be shown, so it must not lower the loss."""
        self.x.clamp_(-1, 1)

    def get_extra_state(self) -> Tensor:
        """Whether there was a first picture."""
        return torch.tensor(self.begun)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores what `get_extra_state` gave."""
        self.begun = bool(state)


def _places(x: Tensor, name: str) -> int:
    """How many places a layer's maps of x (1,3,H,W) have."""
    return (x.shape[2] // stride(name)) * (x.shape[3] // stride(name))


def _at_most(x: Tensor, side: int) -> Tensor:
    """A picture (1,3,H,W), made smaller where its longer side has more pixels than `side`."""
    scale = side / max(x.shape[2:])
    if scale >= 1:
        return x
    return nn.functional.interpolate(x, scale_factor=scale, mode="bilinear", antialias=True)
