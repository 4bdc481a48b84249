"""AdaIN: style transfer in one pass and in any style, by exchanging means and deviations of feature maps.

Huang and Belongie 2017, *Arbitrary style transfer in real-time with adaptive instance normalization*, arXiv:1703.06868,
eq. 8 to 13.

    repeat
        x ~ photographs;  s ~ paintings
        t = AdaIN(F(x), F(s))                           F: VGG-19 up to one layer, frozen
        y = g(t)
        descend for g   ‖F(y) - t‖² + λ Σ_l ‖μ(φ_l(y)) - μ(φ_l(s))‖² + ‖σ(φ_l(y)) - σ(φ_l(s))‖²
    in use  y = g((1 - strength) F(x) + strength t)

Departure: norms are means over their elements, so that λ means the same for any layers. Stylising needs VGG-19 as well;
its weights are not in the checkpoint: the Spec names their file.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core import weights as files
from limner.core.model import Data, Logs, Update
from limner.core.stylisation import OddSizes, StylisationModel
from limner.losses.style import adain, moments
from limner.nets.frozen import Frozen
from limner.nets.style import Decoder
from limner.nets.vgg import VGG19, stride


class AdaIN(StylisationModel):
    """A decoder of feature maps that have the means and standard deviations of a style.

    Args:
        decoder: net from maps of its `layer` to images (B,3,H,W) in [-1,1].
        weights: file of VGG-19's weights; "vgg19" downloads torchvision's.
        style_weight: λ. Raise it for more paint; lower it if the content is lost.
        odd_sizes: sides that the decoder's layer does not divide: "repeat" repeats the edge first; "keep" lets the maps
            round up, as the nets of published decoders do. Both crop the result.
        unbiased: in use, divide variances by one position less, as pytorch-AdaIN does. It matters for small images.
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(
        self,
        decoder: Decoder,
        weights: str = "vgg19",
        style_weight: float = 10.0,
        odd_sizes: OddSizes = "repeat",
        unbiased: bool = False,
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        if shape[0] != 3:
            raise ValueError(f"style is transferred between colour images (3 channels), these have {shape[0]}")
        if style_weight < 0:
            raise ValueError(f"style_weight must not be negative, got {style_weight:g}")
        self.decoder, self.style_weight, self.layer = decoder, style_weight, decoder.layer
        self.unbiased = unbiased
        self.multiple = max(8, stride(self.layer)) if odd_sizes == "repeat" else 1
        vgg = VGG19(files.vgg19(weights), padding="reflect", odd_sizes="cut" if odd_sizes == "repeat" else "keep")
        vgg.check([self.layer], shape[1:])
        self.vgg, self.shape = Frozen(vgg), shape
        names = vgg.layers[: vgg.layers.index(self.layer) + 1]
        self.layers = [n for n in names if n.startswith("relu") and n.endswith("_1")]

    def step(self, data: Data, update: Update) -> Logs:
        x, s = next(data)  # (B,3,H,W) in [-1,1] each
        with torch.no_grad():
            style_maps = self.maps(s)
            t = adain(self.encode_features(x), style_maps[self.layer])
        maps = self.maps(self.decoder(t))
        content = (maps[self.layer] - t).square().mean()
        style = torch.zeros((), device=x.device)
        for n in self.layers:
            (mean, std), (mean_s, std_s) = moments(maps[n]), moments(style_maps[n])
            style = style + (mean - mean_s).square().mean() + (std - std_s).square().mean()
        loss = content + self.style_weight * style
        update("decoder", loss)
        return {"loss/decoder": loss, "term/content": content, "term/style": style}

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """φ, maps of the first layer of each block up to the decoder's layer."""
        return {n: m.float() for n, m in self.vgg(x, self.layers).items()}

    def transfer_statistics(self, maps: Tensor, style: Tensor) -> Tensor:
        """t, maps with the means and standard deviations of the style's."""
        return adain(maps, style, correction=int(self.unbiased))
