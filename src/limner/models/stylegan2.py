"""StyleGAN2: noise becomes a vector w, and w chooses the style of each layer of an image.

Karras, Laine, Aittala, Hellsten, Lehtinen and Aila 2020, *Analyzing and improving the image quality of StyleGAN*,
arXiv:1912.04958, with the generator's styles, their mixing and their truncation of Karras, Laine and Aila 2019,
*A style-based generator architecture for generative adversarial networks*, arXiv:1812.04948.

    repeat
        x ~ data;  w = f(z), w' = f(z'), z, z' ~ N(0, I)
        with probability `mixing` the layers from a random one on get w'
        descend for D  softplus(-D(x)) + softplus(D(G(w)))
                       and at every 16th step  16 γ/2 ||grad D(x)||²                         (R1, lazily)
        descend for G  softplus(-D(G(w)))
                       and at every 4th step   4 · 2 (||J_w^T y|| - a)²,  y ~ N(0, I)        (path length)
                       where a is the moving mean of ||J_w^T y||, on half a batch

Images are drawn with the moving average of G's weights. Truncation moves styles towards their mean: w̄ + ψ (w − w̄).

Departures: a penalty is part of the update of its step; the authors take a second step with Adam's constants adjusted.
The layer from which styles are mixed is drawn for each image, as the paper says; the authors' code draws one for a
batch. The mean a is a constant in the penalty. It begins at the first length; from 0, as in the authors' code, the
penalty would shorten all lengths at first. With labels (Karras et al. 2020, arXiv:2006.06676, the authors' code)
generated images get those of the real ones, and truncation moves to the mean of the label.

With stylegan.Generator, whose layers are normalised by AdaIN, ``path_weight: 0``, ``r1_every: 1`` and a D without
residuals the step is that of StyleGAN.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from limner.core import dist
from limner.core.adversarial import AdversarialModel, adversarial_logs, mean_sign
from limner.core.condition import required
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.core.rng import Noise
from limner.losses.adversarial import nonsaturating
from limner.losses.penalties import Through, path_lengths, r1
from limner.nets.augment import Identity, Transform
from limner.nets.protocols import Critic, StyleGenerator

_W_RATE = 0.005  # of the moving mean of w, for each step
_PATH_RATE = 0.01  # of the moving mean of path lengths, for each penalty
_DRAWS = 512  # of z, for the mean style of a label


class StyleGAN2(AdversarialModel):
    """Style-based generator and discriminator, with R1 and path length regularisation.

    Args:
        G: net from noise (B,z) to styles and from styles to images, such as stylegan2.Generator.
        D: net from images to logits (B,), such as stylegan2.Discriminator.
        gamma: γ, weight of R1. The authors' rule is 0.0002 · pixels / batch, such as 0.013 for 32×32 and a batch of 16.
            Raise it if samples collapse or losses swing; lower it if images stay blurred.
        r1_every: steps from one R1 to the next; its weight grows in proportion. Raise it for speed; lower it if losses
            jump.
        path_weight: weight of the path length penalty; 0 leaves it out, as the authors do for small images. Raise it
            for a smoother w; lower it if images lack variety.
        path_every: steps from one path length penalty to the next. Raise it for speed.
        mixing: share of the images with the styles of two z. Raise it if styles of different layers are to be
            independent; 0 leaves it out, which gives slightly better images of small sets.
        transform: applied to real and generated images before D, such as augment.ADA, for small sets; none by default.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
        condition: names of the classes or attributes; filled from the data.
    """

    objective = nonsaturating
    static = True
    G: StyleGenerator
    D: Critic
    path_mean: Tensor
    path_steps: Tensor

    def __init__(
        self,
        G: StyleGenerator,
        D: Critic,
        gamma: float = 1.0,
        r1_every: int = 16,
        path_weight: float = 2.0,
        path_every: int = 4,
        mixing: float = 0.9,
        transform: Transform | None = None,
        *,
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if gamma <= 0 or path_weight < 0:
            raise ValueError(f"gamma must be positive and path_weight not negative, got {gamma:g} and {path_weight:g}")
        if r1_every < 1 or path_every < 1:
            raise ValueError(f"r1_every and path_every are numbers of steps, got {r1_every} and {path_every}")
        if not 0 <= mixing <= 1:
            raise ValueError(f"mixing is a share of the images, from 0 to 1; got {mixing:g}")
        if bool(G.classes) != bool(D.classes):
            raise ValueError("one net is told the label and the other is not; write the same conditional for G and D")
        if G.classes:
            self.condition = required(condition, classes)
        self.G, self.D, self.prior = G, D, Prior("normal", G.z)
        self.gamma, self.r1_every, self.mixing = gamma, r1_every, mixing
        self.path_weight, self.path_every = path_weight, path_every
        self.transform = transform or Identity()
        self.register_buffer("path_mean", torch.zeros(()))  # a, and the number of penalties in it
        self.register_buffer("path_steps", torch.zeros(()))

    def phase(self, data: Data) -> tuple[bool, bool]:
        """Whether the next step has R1, and whether it has the path length penalty."""
        k = data.position // data.batch
        return k % self.r1_every == 0, bool(self.path_weight) and k % self.path_every == 0

    def step(self, data: Data, update: Update) -> Logs:
        with_r1, with_path = self.phase(data)
        x, y = next(data)  # (B,C,H,W) in [-1,1], labels (B,…)
        y = y if self.G.classes else None
        with torch.no_grad():
            fake = self.generate(self.draw_styles(len(x), y, data), data)
        real_logits, fake_logits = self.D(self.transform(x), y), self.D(self.transform(fake), y)
        loss_D = nonsaturating.d(real_logits, fake_logits)
        R1 = self.r1_every * r1(Through(self.transform, self.D.bind(y)), x) if with_r1 else 0 * loss_D
        update("D", loss_D + self.gamma * R1)
        self.transform.observe(mean_sign(real_logits), data.batch)
        ws = self.draw_styles(len(x), y, data)
        self.follow_mean(ws)
        loss_G = nonsaturating.g(self.D(self.transform(self.generate(ws, data)), y), None)
        path = self.path_every * self.path_penalty(len(x) // 2 or 1, y, data) if with_path else 0 * loss_G
        update("G", loss_G + self.path_weight * path)
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits, r1=R1, path=path)

    def draw_styles(self, n: int, y: Tensor | None, data: Data) -> Tensor:
        """Styles (n,L,w) of a training step; those of a share `mixing` of the images come from two z."""
        ws = self.G.styles(self.prior.batch(n, data), y)
        if not self.mixing:
            return ws
        other, layers = self.G.styles(self.prior.batch(n, data), y), self.G.L
        cut = 1 + (data.rand(n) * (layers - 1)).long()  # 1 … L-1: the first layer of the other z
        cut = torch.where(data.rand(n) < self.mixing, cut, layers)
        own = torch.arange(layers, device=ws.device) < cut[:, None]  # (n,L)
        return torch.where(own[:, :, None], ws, other)

    def generate(self, ws: Tensor, data: Data) -> Tensor:
        """Images (n,C,H,W) of styles (n,L,w) with new noise."""
        return self.G.synthesis(ws, data.randn(len(ws), self.G.noise.total))

    @torch.no_grad()
    def follow_mean(self, ws: Tensor) -> None:
        """Moves the mean of w, which truncation uses, towards that of styles (n,L,w)."""
        mean = ws[:, 0].detach().float().mean(0)  # the first layer is never one of the other z
        dist.average_([mean])
        self.G.w_mean.lerp_(mean, _W_RATE)

    def path_penalty(self, n: int, y: Tensor | None, data: Data) -> Tensor:
        """The mean of (‖J_wᵀ y‖ − a)² over n images; moves a."""
        ws = self.draw_styles(n, None if y is None else y[:n], data)
        images = self.generate(ws, data)
        lengths = path_lengths(images, ws, data.randn(*images.shape))
        mean = lengths.detach().mean()
        dist.average_([mean])
        self.path_steps += 1
        self.path_mean.lerp_(mean, _PATH_RATE / (1 - (1 - _PATH_RATE) ** self.path_steps))
        return (lengths - self.path_mean).square().mean()

    def styles(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Styles (B,L,w) of noise (B,z) and labels (B,…)."""
        return self.G.styles(z, y)

    def synthesise(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of styles (B,L,w) and noise (B,N) or (1,N).

        By default with the fixed noise, or with none if this is a model of ``at(noise_maps="none")``.
        """
        if noise is None and self.options.get("noise_maps") == "none":
            noise = torch.zeros_like(self.G.noise.fixed)
        return self.G.synthesis(ws, noise).float().clamp(-1, 1)

    @torch.no_grad()
    def mean_style(self, y: Tensor | None = None) -> Tensor:
        """The moving mean of w in training as (1,L,w); for labels (B,…) the mean over 512 z for each, (B,L,w)."""
        if y is None:
            return self.G.w_mean.expand(1, self.G.L, -1)
        known, index = y.unique(dim=0, return_inverse=True)
        z = torch.randn(_DRAWS, self.G.z, generator=torch.Generator().manual_seed(0)).to(y.device)
        means = [self.G.mapping(z, label.expand(_DRAWS, *label.shape)).mean(0) for label in known]
        return torch.stack(means)[index][:, None].expand(-1, self.G.L, -1)

    def modulations(self) -> list[Tensor]:
        """The linear map (channels,w) by which each convolution takes its style; those of images are left out."""
        return [m.detach() for m in self.G.modulations()]

    def truncated_styles(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Styles (B,L,w) of noise (B,z) and labels (B,…), truncated as by `at`."""
        psi, layers = (self.options.get(name, default) for name, default in (("psi", 1.0), ("psi_layers", None)))
        return self.truncate(self.styles(z, y), y, psi, layers)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of noise (B,z) and labels (B,…), with the fixed noise; truncated as by `at`."""
        return self.synthesise(self.truncated_styles(z, y))

    def truncate(self, ws: Tensor, y: Tensor | None, psi: float, layers: int | None = None) -> Tensor:
        """Styles (B,L,w) moved towards their mean, w̄ + ψ (w − w̄), in the first `layers` layers or in all.

        Karras et al. 2019, appendix B, with the mean for each of the labels y (B,…), if there are any.
        """
        if psi == 1:
            return ws
        truncated = torch.lerp(self.mean_style(y).to(ws.dtype).expand_as(ws), ws, psi)
        inside = torch.arange(self.G.L, device=ws.device) < (layers or self.G.L)
        return torch.where(inside[:, None], truncated, ws)

    def draw(
        self,
        n: int,
        y: Tensor | None,
        noise: Noise,
        *,
        psi: Annotated[float, Field(ge=-2, le=2)] = 1.0,
        psi_layers: Annotated[int, Field(ge=1)] | None = None,
        noise_maps: Literal["random", "fixed", "none"] = "random",
        **options: object,
    ) -> Tensor:
        """Draws samples (n,C,H,W).

        Args:
            n: number of images.
            y: labels (n,…) of a conditional model, else None.
            noise: the source of all noise.
            psi: ψ of the truncation of styles, w̄ + ψ (w − w̄), with the mean w̄ of all, or of the label. Lower it for
                more typical and less varied images: 0 gives the mean image, a negative number opposite images.
            psi_layers: number of layers, from the coarsest, whose styles are truncated; all by default. Lower it to
                keep the variety of colours and details.
            noise_maps: noise of each image, the same noise for all images, or none, which shows what the noise adds.
            **options: none.
        """
        ws = self.truncate(self.styles(noise(0, self.G.z), y), y, psi, psi_layers)
        if noise_maps == "random":
            return self.synthesise(ws, noise(1, self.G.noise.total))
        fixed = self.G.noise.fixed
        return self.synthesise(ws, fixed if noise_maps == "fixed" else torch.zeros_like(fixed))
