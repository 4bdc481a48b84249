"""Style transfer in one pass, in any style, without training on styles: maps are whitened, then coloured.

Li, Fang, Yang, Wang, Lu and Yang 2017, *Universal style transfer via feature transforms*, arXiv:1705.08086, eq. 1 to 4.

    repeat
        x ~ pictures of any kind
        y = g(F(x))                                     F: VGG-19 up to one layer, which never changes
        descend for g   ‖y - x‖² + λ ‖F(y) - F(x)‖²
    in use  t = E_s D_s^½ E_sᵀ E_c D_c^-½ E_cᵀ (F(x) - mean) + mean_s
            y = g((1 - strength) F(x) + strength t)

The decoder learns to turn maps back into the picture they came from, and never sees a style. `adain` exchanges the mean
and deviation of every map; this exchanges their covariances, too, and so takes more of the paint. Norms are means over
their elements here. The paper goes through five layers, from deep to shallow, each with a decoder; here it is one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limner.core import weights as files
from limner.core.batch import Unpaired
from limner.core.inference import stylised
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.previews import Grid, rows_of
from limner.losses.style import coloured
from limner.nets.frozen import Frozen
from limner.nets.style import Decoder
from limner.nets.vgg import VGG19


class WCT(GenerativeModel):
    """A decoder that paints maps whose covariance is that of a style.

    Args:
        decoder: net from maps of its `layer` to pictures (B,3,H,W) in [-1,1].
        weights: file of VGG-19's weights; "vgg19" downloads torchvision's.
        feature_weight: λ. Raise it if pictures lack detail.
        shape: (C,H,W) of a picture; filled from the data.
    """

    ema_groups = ("decoder",)
    static = True
    batch_type: type = Unpaired
    preview_facts = {"rows": "pictures, styles, pictures painted"}
    usage = "limner stylise PHOTO PAINTING model=RUN"

    def __init__(
        self, decoder: Decoder, weights: str = "vgg19", feature_weight: float = 1.0, *, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        if shape[0] != 3:
            raise ValueError(f"style is transferred between colour pictures (3 channels), these have {shape[0]}")
        if feature_weight < 0:
            raise ValueError(f"feature_weight must not be negative, got {feature_weight:g}")
        self.decoder, self.feature_weight, self.layer = decoder, feature_weight, decoder.layer
        self.vgg = Frozen(VGG19(files.vgg19(weights), padding="reflect"))
        self.vgg.net.check([self.layer], shape[1:])
        self.shape = shape

    def groups(self) -> dict[str, nn.Module]:
        return {"decoder": self.decoder}

    def step(self, data: Data, update: Update) -> Logs:
        x = torch.cat(next(data))  # (2B,3,H,W) in [-1,1]: photographs and paintings alike
        with torch.no_grad():
            maps = self.encode_features(x)
        y = self.decoder(maps)
        pixels, features = (y - x).square().mean(), (self.encode_features(y) - maps).square().mean()
        loss = pixels + self.feature_weight * features
        update("decoder", loss)
        return {"loss/decoder": loss, "term/pixels": pixels, "term/features": features}

    def preview(self, batch: Unpaired, n: int, seed: int) -> dict[str, Grid]:
        """Content images, styles, and the first in the style of the second."""
        painted = stylised(self, batch.a, [self.encode_features(batch.b)])
        return {"samples": rows_of(batch.a, batch.b, painted)}

    def encode_features(self, x: Tensor) -> Tensor:
        """F, maps (B,N,h,w) of the decoder's layer."""
        maps: Tensor = self.vgg(x, [self.layer])[self.layer]
        return maps.float()

    def transfer_statistics(self, maps: Tensor, style: Tensor) -> Tensor:
        """t, maps with the means and covariances of the style's."""
        return coloured(maps, style)

    def decode_features(self, maps: Tensor) -> Tensor:
        """g, pictures (B,3,H,W) of maps."""
        painted: Tensor = self.decoder(maps)
        return painted
