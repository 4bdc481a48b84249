"""The nets of StyleGAN2: a generator whose convolutions are scaled by styles, and a residual discriminator.

Karras, Laine, Aittala, Hellsten, Lehtinen and Aila 2020, *Analyzing and improving the image quality of StyleGAN*,
arXiv:1912.04958, sections 2 and 4, with the equalised learning rate and the mapping net of StyleGAN (Karras et al.
2019, arXiv:1812.04948).

A style s = A(w), one number for each input channel i, scales the weights of a convolution, which are then normalised
for each output channel o ("demodulation", eq. 1 and 3):

    w'_oik = s_i w_oik        w''_oik = w'_oik / sqrt(sum_ik w'_oik² + 1e-8)

The weights then differ between the images of a batch, and public code computes a convolution of one group per image.
Here scales are applied to the maps before and after one ordinary convolution, which is the same:

    y_o = d_o · conv(s ⊙ x, w)_o        d_o = rsqrt(sum_i s_i² sum_k w_oik² + 1e-8)

Noise and bias come after d, then LeakyReLU 0.2 times √2. Each size adds its image to the upsampled image of the sizes
below ("skip" generator); the discriminator is residual. Maps are resampled with the filter (1,3,3,1). Outputs are
linear.

Departures: images may have any shape of 8 pixels or more, so the learnt constant has 4 to 8 pixels on its shorter side,
rounded up: G crops its output and D pads its input with zeros. Channels double from `width` towards the smallest map,
up to `widest`, as in the paper's table. The factor √2 of the LeakyReLU is part of the layer before, which is the same.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.nets import _labels as labels
from limner.nets import protocols
from limner.nets._critic import Critic, Minibatch, minibatch_features
from limner.nets._equalised import Conv, Linear
from limner.nets._layers import Binomial, doubled_widths, doublings
from limner.nets._style import SLOPE, Mapping, NoiseMaps

_KIND = "stylegan2"


class _ModulatedConv(nn.Module):
    """A convolution that takes a style as well, in the activation form (eq. 1 to 3), with a bias.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel, odd.
        up: whether the map is upsampled by 2.
        demodulate: whether outputs are normalised; if not, weights are scaled by 1/√(fan in).
        gain: factor of the output.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, up: bool = False, demodulate: bool = True, gain: float = sqrt(2)
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)
        self.up = Binomial() if up else None
        self.demodulate, self.gain = demodulate, gain

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Maps (B,outputs,H,W), or of twice the size, of maps (B,inputs,H,W) and styles s (B,inputs)."""
        w = self.weight
        if not self.demodulate:
            s = self.gain / sqrt(prod(w.shape[1:])) * s
        x = x * s.to(x.dtype)[:, :, None, None]
        if self.up is None:
            h = F.conv2d(x, w, padding=w.shape[2] // 2)
        else:
            h = self.up.blur(F.conv_transpose2d(x, w.transpose(0, 1), stride=2), 1, gain=4)
        bias = self.gain * self.bias[:, None, None]
        return torch.addcmul(bias.to(h.dtype), h, self.norms(s).to(h.dtype)) if self.demodulate else h + bias

    def norms(self, s: Tensor) -> Tensor:
        """The factors gain · d (B,outputs,1,1) of the outputs, for styles s (B,inputs)."""
        with torch.autocast(s.device.type, enabled=False):
            energy = self.weight.square().sum((2, 3))  # (outputs,inputs)
            d = (s.to(energy.dtype).square() @ energy.T + 1e-8).rsqrt()
            return self.gain * d[:, :, None, None]


class _StyledLayer(nn.Module):
    """A modulated convolution with its style, noise and LeakyReLU.

    Args:
        inputs: channels in.
        outputs: channels out.
        w: size of w.
        up: whether the map is upsampled by 2.
        noise: whether the strength of noise is learnt; else it stays 0.
    """

    def __init__(self, inputs: int, outputs: int, w: int, up: bool = False, noise: bool = True) -> None:
        super().__init__()
        self.affine, self.conv = Linear(w, inputs, bias=1.0), _ModulatedConv(inputs, outputs, 3, up)
        self.strength = nn.Parameter(torch.zeros(()), requires_grad=noise)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """Maps (B,outputs,H,W) of maps (B,inputs,…), w (B,w) and noise (B,1,H,W)."""
        h = self.conv(x, self.affine(w))
        return F.leaky_relu(h + (self.conv.gain * self.strength * noise).to(h.dtype), SLOPE)


class _Picture(nn.Module):
    """The image of a map: a modulated 1×1 convolution without demodulation.

    Args:
        inputs: channels in.
        channels: channels of the image.
        w: size of w.
    """

    def __init__(self, inputs: int, channels: int, w: int) -> None:
        super().__init__()
        self.affine = Linear(w, inputs, bias=1.0)
        self.conv = _ModulatedConv(inputs, channels, 1, demodulate=False, gain=1.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Images (B,C,H,W) of maps (B,inputs,H,W) and w (B,w)."""
        image: Tensor = self.conv(x, self.affine(w))
        return image


class Generator(protocols.StyleGenerator):
    """Noise (B,z) -> w (B,w) -> styles of all layers -> images (B,C,H,W).

    Args:
        z: size of the noise vector (512 in the paper).
        w: size of w (512 in the paper).
        width: channels of the largest map; they double at each step towards the smallest. Raise it if images lack
            detail; lower it for speed and memory.
        widest: largest number of channels (512 in the paper). Lower it for speed and memory.
        mapping: layers of the mapping net from z to w (8 in the paper, 2 in the authors' settings for small images).
            Lower it if training is not stable.
        noise_inputs: whether layers add noise, of a strength that is learnt. Leave it out for pictures of flat colours,
            such as drawings, where there is nothing for it to draw and short trainings end in specks.
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
        n, base = doublings(shape, _KIND)
        classes = labels.one_hot_size(conditional, classes)
        super().__init__(z, w, 2 * n + 2, Mapping(z, w, mapping, classes), classes)
        widths = doubled_widths(width, widest, n)[::-1]
        self.size = shape[1:]
        self.constant = nn.Parameter(torch.empty(1, widths[0], *base))
        nn.init.normal_(self.constant)
        self.layers, self.pictures = nn.ModuleList(), nn.ModuleList()
        self.layers.append(_StyledLayer(widths[0], widths[0], w, noise=noise_inputs))
        self.pictures.append(_Picture(widths[0], shape[0], w))
        for a, b in pairwise(widths):
            self.layers.append(_StyledLayer(a, b, w, up=True, noise=noise_inputs))
            self.layers.append(_StyledLayer(b, b, w, noise=noise_inputs))
            self.pictures.append(_Picture(b, shape[0], w))
        h0, w0 = base
        self.noise = NoiseMaps([(h0 << (k + 1) // 2, w0 << (k + 1) // 2) for k in range(2 * n + 1)])
        self.resample = Binomial()

    def synthesis(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of styles (B,L,w) and noise (B,N), which is the fixed one if there is none."""
        styles, maps = ws.unbind(1), self.noise(noise)
        h = self.layers[0](self.constant.expand(len(ws), -1, -1, -1), styles[0], maps[0])
        image: Tensor = self.pictures[0](h, styles[1])
        for k in range(1, len(self.layers), 2):
            h = self.layers[k](h, styles[k], maps[k])
            h = self.layers[k + 1](h, styles[k + 1], maps[k + 1])
            image = self.resample.upsample(image) + self.pictures[k // 2 + 1](h, styles[k + 2])
        height, width = self.size
        return image[..., :height, :width]


class _Block(nn.Module):
    """Two 3×3 convolutions, the second of stride 2; residual with a 1×1 convolution.

    Args:
        inputs: channels in.
        outputs: channels out.
        residual: whether there is a skip connection.
    """

    def __init__(self, inputs: int, outputs: int, residual: bool) -> None:
        super().__init__()
        self.conv0 = Conv(inputs, inputs, 3, gain=sqrt(2), padding=1)
        # The sum of both branches is divided by √2: LeakyReLU is homogeneous, so the factor may stand before it.
        self.conv1 = Conv(inputs, outputs, 3, gain=1.0 if residual else sqrt(2), stride=2)
        self.skip = Conv(inputs, outputs, 1, gain=sqrt(0.5), bias=False) if residual else None
        self.resample = Binomial()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B,outputs,H/2,W/2) of maps (B,inputs,H,W)."""
        h = F.leaky_relu(self.conv0(x), SLOPE)
        h = F.leaky_relu(self.conv1(self.resample.blur(h, 2)), SLOPE)
        return h if self.skip is None else h + self.skip(self.resample.downsample(x))


class _Match(labels.Labelled):
    """The last layer of a conditional discriminator: f(x,y) = ⟨φ(x), m(y)⟩/√F, with m a mapping net.

    A projection discriminator (Miyato and Koyama 2018, arXiv:1802.05637) without the term that ignores the label
    (Karras et al. 2020, arXiv:2006.06676, the authors' code).

    Args:
        inputs: numbers of an image.
        features: F.
        mapping: layers of m.
        classes: length of the labels' vectors.
    """

    def __init__(self, inputs: int, features: int, mapping: int, classes: int) -> None:
        super().__init__()
        self.head, self.mapping = Linear(inputs, features), Mapping(0, features, mapping, classes)
        self.features = features

    def forward(self, h: Tensor, y: Tensor | None) -> Tensor:
        """Logits (B,) of numbers (B,inputs) and labels (B,…)."""
        logits: Tensor = (self.head(h) * self.mapping(None, y)).sum(1) / sqrt(self.features)
        return logits


class Discriminator(Critic):
    """Images (B,C,H,W) -> logits (B,): residual blocks, features of the batch, a convolution and two linear layers.

    Args:
        width: channels of the largest map; they double at each step towards the smallest. Raise it if D cannot tell
            good samples from bad ones; lower it for speed and memory.
        widest: largest number of channels (512 in the paper). Lower it for speed and memory.
        residual: whether blocks have a skip connection, as in StyleGAN2; the D of StyleGAN has none.
        minibatch: features of the batch: "std" as in the paper, one number for how much images differ;
            "discrimination", how close each is to the others (Salimans et al. 2016); or "none".
        mapping: layers of the net that maps labels, of a conditional D.
        conditional: whether D is told the label and judges whether the image fits it. Needs labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
    """

    def __init__(
        self,
        width: int = 32,
        widest: int = 512,
        residual: bool = True,
        minibatch: Minibatch = "std",
        mapping: int = 2,
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__()
        n, (h, w) = doublings(shape, _KIND)
        self.classes = labels.one_hot_size(conditional, classes)
        widths = doubled_widths(width, widest, n)
        excess = (0, (w << n) - shape[2], 0, (h << n) - shape[1])
        c = widths[-1]
        features, extra = minibatch_features(minibatch, c * h * w)
        self.net = nn.Sequential(
            *([nn.ZeroPad2d(excess)] if any(excess) else []),
            Conv(shape[0], width, 1, gain=sqrt(2)),
            nn.LeakyReLU(SLOPE),
            *(_Block(a, b, residual) for a, b in pairwise(widths)),
            *features,
            Conv(c + extra, c, 3, gain=sqrt(2), padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Flatten(),
            Linear(c * h * w, c, gain=sqrt(2)),
            nn.LeakyReLU(SLOPE),
            _Match(c, c, mapping, self.classes) if self.classes else Linear(c, 1),
        )
