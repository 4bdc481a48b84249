"""WCT: style transfer in one pass and in any style, by whitening and colouring feature maps.

Li, Fang, Yang, Wang, Lu and Yang 2017, *Universal style transfer via feature transforms*, arXiv:1705.08086, eq. 1 to 4.

    repeat
        x ~ images of any kind
        y = g(F(x))                                     F: VGG-19 up to one layer, frozen
        descend for g   ‖y - x‖² + λ ‖F(y) - F(x)‖²
    in use  t = E_s D_s^½ E_sᵀ E_c D_c^-½ E_cᵀ (F(x) - mean) + mean_s
            y = g((1 - strength) F(x) + strength t)

The decoder learns to invert F and is not trained on styles. `adain` exchanges the mean and deviation of every map; WCT
exchanges their covariances as well and so transfers more of the style.

Departures: norms are means over their elements. The paper goes through five layers, from deep to shallow, each with a
decoder; here there is one layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core import weights as files
from limner.core.model import Data, Logs, Update
from limner.core.stylisation import OddSizes, StylisationModel
from limner.losses.style import whiten_and_colour
from limner.nets.frozen import Frozen
from limner.nets.style import Decoder
from limner.nets.vgg import VGG19, stride


class WCT(StylisationModel):
    """A decoder of feature maps that have the means and covariances of a style.

    Args:
        decoder: net from maps of its `layer` to images (B,3,H,W) in [-1,1].
        weights: file of VGG-19's weights; "vgg19" downloads torchvision's.
        feature_weight: λ. Raise it if images lack detail; lower it if colours drift.
        odd_sizes: sides that the decoder's layer does not divide: "repeat" repeats the edge first; "keep" lets the maps
            round up, as the nets of published decoders do. Both crop the result.
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(
        self,
        decoder: Decoder,
        weights: str = "vgg19",
        feature_weight: float = 1.0,
        odd_sizes: OddSizes = "repeat",
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        if shape[0] != 3:
            raise ValueError(f"style is transferred between colour images (3 channels), these have {shape[0]}")
        if feature_weight < 0:
            raise ValueError(f"feature_weight must not be negative, got {feature_weight:g}")
        self.decoder, self.feature_weight, self.layer = decoder, feature_weight, decoder.layer
        self.multiple = max(8, stride(self.layer)) if odd_sizes == "repeat" else 1
        vgg = VGG19(files.vgg19(weights), padding="reflect", odd_sizes="cut" if odd_sizes == "repeat" else "keep")
        vgg.check([self.layer], shape[1:])
        self.vgg, self.shape = Frozen(vgg), shape

    def step(self, data: Data, update: Update) -> Logs:
        x = torch.cat(next(data))  # (2B,3,H,W) in [-1,1]: photographs and paintings alike
        with torch.no_grad():
            maps = self.encode_features(x)
        y = self.decoder(maps)
        pixels, features = (y - x).square().mean(), (self.encode_features(y) - maps).square().mean()
        loss = pixels + self.feature_weight * features
        update("decoder", loss)
        return {"loss/decoder": loss, "term/pixels": pixels, "term/features": features}

    def transfer_statistics(self, maps: Tensor, style: Tensor) -> Tensor:
        """t, maps with the means and covariances of the style's."""
        return whiten_and_colour(maps, style)
