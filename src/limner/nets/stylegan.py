"""The generator of StyleGAN: styles enter by adaptive instance normalisation.

Karras, Laine and Aila 2019, *A style-based generator architecture for generative adversarial networks*,
arXiv:1812.04948, section 2 and figure 1b. After each convolution, noise is added and every map x_i is normalised; its
style, a linear function of w, gives the new standard deviation and mean (eq. 1):

    AdaIN(x_i, y) = y_s,i (x_i − μ(x_i)) / σ(x_i) + y_b,i

The sizes of the maps relative to each other are lost, and G draws "droplets" to keep them, for which StyleGAN2 gave
this up. The discriminator is ``stylegan2.Discriminator`` with ``residual: false``.

Departures: as in `stylegan2`, images may have any shape of 8 pixels or more. Maps are smoothed by the filter (1,3,3,1)
as they are upsampled, before the convolution, where the authors' code has it after. The net does not grow, as
StyleGAN2's does not.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.nets import _labels as labels
from limner.nets import protocols
from limner.nets._equalised import Conv, Linear
from limner.nets._layers import Binomial, doubled_widths, doublings
from limner.nets._style import SLOPE, Mapping, NoiseMaps


class _StyledLayer(nn.Module):
    """A convolution, or none for the constant, then noise, LeakyReLU and AdaIN.

    Args:
        inputs: channels in; 0 leaves out the convolution.
        outputs: channels out.
        w: size of w.
        up: whether the map is upsampled by 2 first.
        noise: whether the strengths of noise are learnt; else they stay 0.
    """

    def __init__(self, inputs: int, outputs: int, w: int, up: bool = False, noise: bool = True) -> None:
        super().__init__()
        self.resample = Binomial() if up else None
        self.conv = Conv(inputs, outputs, 3, padding=1) if inputs else None
        self.strength = nn.Parameter(torch.zeros(outputs, 1, 1), requires_grad=noise)
        self.affine = Linear(w, 2 * outputs)
        with torch.no_grad():
            self.affine.bias[:outputs] = 1  # the standard deviations y_s

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """Maps (B,outputs,H,W) of maps (B,inputs,…), w (B,w) and noise (B,1,H,W)."""
        h = x if self.resample is None else self.resample.upsample(x)
        h = h if self.conv is None else self.conv(h)
        h = F.leaky_relu(h + (self.strength * noise).to(h.dtype), SLOPE)
        scale, shift = self.affine(w)[:, :, None, None].chunk(2, 1)
        return scale * F.instance_norm(h, eps=1e-8) + shift


class Generator(protocols.StyleGenerator):
    """Noise (B,z) -> w (B,w) -> styles of all layers -> images (B,C,H,W).

    Args:
        z: size of the noise vector (512 in the paper).
        w: size of w (512 in the paper).
        width: channels of the largest map; they double at each step towards the smallest. Raise it if images lack
            detail; lower it for speed and memory.
        widest: largest number of channels (512 in the paper). Lower it for speed and memory.
        mapping: layers of the mapping net from z to w (8 in the paper). Lower it if training is not stable.
        noise_inputs: whether layers add noise, of a strength that is learnt. Leave it out for pictures of flat colours,
            such as drawings, where there is nothing for it to draw.
        conditional: whether the label is an input of the mapping net. Needs labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
    """

    def __init__(
        self,
        z: int = 512,
        w: int = 512,
        width: int = 32,
        widest: int = 512,
        mapping: int = 8,
        noise_inputs: bool = True,
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        n, base = doublings(shape, "stylegan")
        classes = labels.one_hot_size(conditional, classes)
        super().__init__(z, w, 2 * n + 2, Mapping(z, w, mapping, classes), classes)
        widths = doubled_widths(width, widest, n)[::-1]
        self.size = shape[1:]
        self.constant = nn.Parameter(torch.ones(1, widths[0], *base))
        self.layers = nn.ModuleList()
        for a, b in [(0, widths[0]), *pairwise(widths)]:
            self.layers.append(_StyledLayer(a, b, w, up=a > 0, noise=noise_inputs))
            self.layers.append(_StyledLayer(b, b, w, noise=noise_inputs))
        self.noise = NoiseMaps([(base[0] << k // 2, base[1] << k // 2) for k in range(2 * n + 2)])
        self.picture = Conv(widths[-1], shape[0], 1)

    def synthesis(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        h = self.constant.expand(len(ws), -1, -1, -1)
        for layer, style, maps in zip(self.layers, ws.unbind(1), self.noise(noise), strict=True):
            h = layer(h, style, maps)
        height, width = self.size
        image: Tensor = self.picture(h)
        return image[..., :height, :width]
