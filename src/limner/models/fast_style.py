"""Fast style transfer: a feed-forward net that renders any image in the one style that it was trained on.

Johnson, Alahi and Fei-Fei 2016, *Perceptual losses for real-time style transfer and super-resolution*,
arXiv:1603.08155, eq. 2 to 5.

    A_l = Gram matrices of the style, once
    repeat
        x ~ photographs;  y = T(x)
        descend for T   α ½ mean (F(y) - F(x))² + β Σ_l w_l E_l(G_l(y), A_l) + γ TV(y)

F is one layer of VGG-19, frozen; G_l, E_l and the weights are those of Gatys et al. (`style_transfer`). They optimise
the pixels of one image; here a net learns to minimise the same losses for any image in one pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limner.core import weights as files
from limner.core.batch import Styled
from limner.core.errors import LimnerError
from limner.core.inference import translated
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.previews import Grid, rows_of
from limner.losses.style import gram, total_variation
from limner.losses.style import style as style_loss
from limner.nets.frozen import Frozen
from limner.nets.vgg import VGG19


class FastStyle(GenerativeModel):
    """An image-to-image net for one style.

    Args:
        T: net from images (B,3,H,W) to images of the same size, in [-1,1].
        weights: file of VGG-19's weights; "vgg19" downloads torchvision's. Used in training only.
        content_weight: α. Raise it if the content is lost; lower it for more paint.
        style_weight: β. Raise it for more paint; lower it if the content is lost.
        smoothness: γ, weight of total variation. Raise it if images are grainy; lower it if they are smeared.
        content_layers: where content is compared; relu3_1 by default, or the deepest one if the weights end before it.
        style_layers: where style is compared; by default the first layer of each of the first four blocks.
        shape: (C,H,W) of an image; filled from the data.
    """

    ema_groups = ("T",)
    static = True
    batch_type: type = Styled
    preview_facts: Mapping[str, str] = {"rows": "images, stylised images"}
    domains: tuple[str, ...] = ("b",)
    pairing: dict[str, Any] | None = None

    def __init__(
        self,
        T: nn.Module,
        weights: str = "vgg19",
        content_weight: float = 1.0,
        style_weight: float = 30.0,
        smoothness: float = 0.1,
        content_layers: list[str] | None = None,
        style_layers: list[str] | None = None,
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        if shape[0] != 3:
            raise ValueError(f"style is transferred to colour images (3 channels), these have {shape[0]}")
        if min(content_weight, style_weight, smoothness) < 0:
            raise ValueError("content_weight, style_weight and smoothness must not be negative")
        self.T, self.weights = T, weights
        self.content_weight, self.style_weight, self.smoothness = content_weight, style_weight, smoothness
        self.content_layers, self.style_layers = content_layers, style_layers
        self.shape = self.source = shape
        self._targets: tuple[Frozen[VGG19], dict[str, tuple[Tensor, int]]] | None = None

    def groups(self) -> dict[str, nn.Module]:
        return {"T": self.T}

    def step(self, data: Data, update: Update) -> Logs:
        batch: Styled = next(data)
        y = self.T(batch.x)
        content, style = self.perceptual_losses(y, batch)
        variation = total_variation(y)
        loss = self.content_weight * content + self.style_weight * style + self.smoothness * variation
        update("T", loss)
        return {"loss/T": loss, "term/content": content, "term/style": style, "term/variation": variation}

    def perceptual_losses(self, y: Tensor, batch: Styled) -> tuple[Tensor, Tensor]:
        """Content loss and style loss of results y (B,3,H,W) of the images of a batch."""
        vgg, targets = self.targets(batch)
        layers = self.content_layers or ["relu3_1" if "relu3_1" in vgg.net.layers else vgg.net.layers[-1]]
        with torch.no_grad():
            content_maps = vgg(batch.x, layers)
        maps = {n: m.float() for n, m in vgg(y, [*layers, *targets]).items()}
        content = style = torch.zeros((), device=y.device)
        for n in layers:
            content = content + (maps[n] - content_maps[n].float()).square().mean() / 2
        for n, (target, positions) in targets.items():
            n_positions = maps[n].shape[2] * maps[n].shape[3]
            style = style + style_loss(gram(maps[n]), target, n_positions, positions) / len(targets)
        return content, style

    @torch.no_grad()
    def targets(self, batch: Styled) -> tuple[Frozen[VGG19], dict[str, tuple[Tensor, int]]]:
        """The perceptual net, and by layer A_l of the style with the number of its positions; computed once."""
        if self._targets is None:
            if len(batch.styles) > 1:
                raise LimnerError("fast_style learns one style; name one, or train adain, which transfers any style")
            vgg = Frozen(VGG19(files.vgg19(self.weights), padding="reflect"))
            if not vgg.net.normalised:
                vgg.on(batch.x.device).normalise([batch.styles[0]])
            first = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
            layers = self.style_layers or [n for n in vgg.net.layers if n in first]
            maps = {n: m.float() for n, m in vgg(batch.styles[0], layers).items()}
            self._targets = vgg, {n: (gram(m), m.shape[2] * m.shape[3]) for n, m in maps.items()}
        return self._targets

    def preview(self, batch: Styled, n: int, seed: int) -> dict[str, Grid]:
        """Content images, and the same images in the style."""
        return {"samples": rows_of(batch.x, translated(self, batch.x, seed=seed))}

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        """Images (B,3,H,W) in [-1,1] in the style, of any height and width; those of a linear T are cut off there."""
        images: Tensor = self.T(x)
        return images.clamp(-1, 1)
