"""What models of style transfer in one pass share: a trained decoder that paints the feature maps of a frozen net."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from limner.core.batch import Unpaired
from limner.core.inference import stylised
from limner.core.model import GenerativeModel
from limner.core.previews import Grid, rows_of

OddSizes = Literal["repeat", "keep"]


class StylisationModel(GenerativeModel):
    """A decoder of feature maps. A subclass adds its `step` and its `transfer_statistics`.

    Attributes:
        decoder: net from feature maps to images.
        layer: the layer of `vgg` whose feature maps the decoder takes.
        multiple: the sides of an image are made multiples of so many pixels, by repeating its edge.
        vgg: frozen perceptual net, called with images and names of layers; it gives the feature maps by name.
    """

    ema_groups = ("decoder",)
    static = True
    batch_type: type = Unpaired
    preview_facts: Mapping[str, str] = {"rows": "images, styles, stylised images"}
    usage = "limner stylise PHOTO PAINTING model=RUN"

    decoder: nn.Module
    layer: str
    multiple: int
    vgg: Callable[..., Any]

    def groups(self) -> dict[str, nn.Module]:
        return {"decoder": self.decoder}

    def preview(self, batch: Unpaired, n: int, seed: int) -> dict[str, Grid]:
        """Content images, style images, and the first in the style of the second."""
        return {"samples": rows_of(batch.a, batch.b, stylised(self, batch.a, [self.encode_features(batch.b)]))}

    def encode_features(self, x: Tensor) -> Tensor:
        """F, feature maps (B,N,h,w) of images (B,3,H,W) in [-1,1] at the decoder's layer."""
        maps: Tensor = self.vgg(x, [self.layer])[self.layer]
        return maps.float()

    def transfer_statistics(self, maps: Tensor, style: Tensor) -> Tensor:
        """t, maps (B,N,h,w) with the statistics of a style's maps (B or 1,N,h',w')."""
        raise NotImplementedError

    def decode_features(self, maps: Tensor) -> Tensor:
        """g, images (B,3,H,W) of maps (B,N,h,w)."""
        images: Tensor = self.decoder(maps)
        return images
