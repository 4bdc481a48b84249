"""Style transfer in one pass and in any style: means and deviations of maps are exchanged, and painted.

Huang and Belongie 2017, *Arbitrary style transfer in real-time with adaptive instance normalization*, arXiv:1703.06868,
eq. 8 to 13.

    repeat
        x ~ photographs;  s ~ paintings
        t = AdaIN(F(x), F(s))                           F: VGG-19 up to one layer, which never changes
        y = g(t)
        descend for g   ‖F(y) - t‖² + λ Σ_l ‖μ(φ_l(y)) - μ(φ_l(s))‖² + ‖σ(φ_l(y)) - σ(φ_l(s))‖²
    in use  y = g((1 - strength) F(x) + strength t)

Norms are means over their elements here, so that λ means the same for any layers. The perceptual net is needed in use,
too, and its weights are no part of a checkpoint: the Spec names their file.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limner.core import weights as files
from limner.core.batch import Unpaired
from limner.core.inference import stylised
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.previews import Grid, rows_of
from limner.losses.style import adain, moments
from limner.nets.frozen import Frozen
from limner.nets.style import Decoder
from limner.nets.vgg import VGG19


class AdaIN(GenerativeModel):
    """A decoder that paints what the statistics of a style make of a picture's maps.

    Args:
        decoder: net from maps of its `layer` to pictures (B,3,H,W) in [-1,1].
        weights: file of VGG-19's weights; "vgg19" downloads torchvision's.
        style_weight: λ. Raise it for more paint.
        shape: (C,H,W) of a picture; filled from the data.
    """

    ema_groups = ("decoder",)
    static = True
    batch_type: type = Unpaired
    preview_facts = {"rows": "pictures, styles, pictures painted"}
    usage = "limner stylise PHOTO PAINTING model=RUN"

    def __init__(
        self, decoder: Decoder, weights: str = "vgg19", style_weight: float = 10.0, *, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        if shape[0] != 3:
            raise ValueError(f"style is transferred between colour pictures (3 channels), these have {shape[0]}")
        if style_weight < 0:
            raise ValueError(f"style_weight must not be negative, got {style_weight:g}")
        self.decoder, self.style_weight, self.layer = decoder, style_weight, decoder.layer
        self.vgg = Frozen(VGG19(files.vgg19(weights), padding="reflect"))
        names = self.vgg.net.layers
        if self.layer not in names:
            raise ValueError(f"these weights end at {names[-1]}, before {self.layer}; set decoder.layer")
        self.layers = [n for n in names[: names.index(self.layer) + 1] if n.startswith("relu") and n.endswith("_1")]
        self.shape = shape

    def groups(self) -> dict[str, nn.Module]:
        return {"decoder": self.decoder}

    def step(self, data: Data, update: Update) -> Logs:
        x, s = next(data)  # (B,3,H,W) in [-1,1] each
        with torch.no_grad():
            styles = self.maps(s)
            t = adain(self.maps(x)[self.layer], styles[self.layer])
        maps = self.maps(self.decoder(t))
        content = (maps[self.layer] - t).square().mean()
        style = torch.zeros((), device=x.device)
        for n in self.layers:
            (mean, std), (mean_s, std_s) = moments(maps[n]), moments(styles[n])
            style = style + (mean - mean_s).square().mean() + (std - std_s).square().mean()
        loss = content + self.style_weight * style
        update("decoder", loss)
        return {"loss/decoder": loss, "term/content": content, "term/style": style}

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """Maps of the first layer of each block down to the decoder's."""
        return {n: m.float() for n, m in self.vgg(x, self.layers).items()}

    def preview(self, batch: Unpaired, n: int, seed: int) -> dict[str, Grid]:
        """Content images, styles, and the first in the style of the second."""
        painted = stylised(self, batch.a, [self.encode_features(batch.b)])
        return {"samples": rows_of(batch.a, batch.b, painted)}

    def encode_features(self, x: Tensor) -> Tensor:
        """Maps (B,N,h,w) of the decoder's layer."""
        return self.maps(x)[self.layer]

    def transfer_statistics(self, maps: Tensor, style: Tensor) -> Tensor:
        """t, maps with the means and deviations of the style's."""
        return adain(maps, style)

    def decode_features(self, maps: Tensor) -> Tensor:
        """g, pictures (B,3,H,W) of maps."""
        painted: Tensor = self.decoder(maps)
        return painted
