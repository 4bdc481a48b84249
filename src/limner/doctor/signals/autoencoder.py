"""Signals of an autoencoder of any kind: what becomes of an image that is encoded and decoded.

* ``code/error``: mean squared error of reconstructed training images, as a share of the variance of their pixels; the
  mean image alone has 1.
* ``code/held``: the same of held-out images; what it is above ``code/error`` was learnt by heart.
* ``code/noise``: the same of noise that has each pixel from another training image, so that pixels have the values that
  they have in images and do not belong together. No small code can hold it, so an error near 0 means that the net
  copies whatever it is shown.
* ``code/dead``: share of the numbers of a code that are alike for all images; not of a posterior, which has its own.
* ``code/sharpness``: variance of the Laplacian of reconstructions over that of the images: below 1 is blur.

Flows and diffusion models reconstruct as well, but by inversion, and have signals of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.batch import to_float
from limner.core.capabilities import Conditional, Denoises, HasLogProb, HasPosterior, Reconstructs
from limner.core.inference import reconstruct
from limner.core.model import GenerativeModel
from limner.doctor.ground import Ground
from limner.doctor.signals.examination import Examination
from limner.metrics.quality import sharpness

_IMAGES = 128
_ALIKE = 1e-4  # of the largest range of a number of the code
_SEED = 1_000_037


def applies(model: GenerativeModel) -> bool:
    """Whether a model encodes and decodes, and not by inverting itself."""
    return isinstance(model, Reconstructs) and not isinstance(model, HasLogProb | Denoises)


@torch.inference_mode()
def measure(model: GenerativeModel, ground: Ground) -> Examination:
    """The signals of codes and reconstructions."""
    assert isinstance(model, Reconstructs)
    conditional = isinstance(model, Conditional)

    def side(of: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor, Tensor | None]:
        x, y = of
        y = y if conditional else None
        return x, reconstruct(model, x, y).float(), y

    x, again, y = side(ground.real.batch(_IMAGES, model.device))
    total = float(to_float(ground.real.images).float().var(0).mean())
    signals = {"code/error": _error(x, again) / total if total else 0.0}
    if ground.held is not None:
        signals["code/held"] = _error(*side(ground.held.batch(_IMAGES, model.device))[:2]) / total if total else 0.0
    noise = mixed_pixels(x)
    signals["code/noise"] = _error(noise, reconstruct(model, noise, y)) / total if total else 0.0
    if not isinstance(model, HasPosterior):
        z = model.encode(x, y).flatten(1).float()
        ranges = z.amax(0) - z.amin(0)
        signals["code/dead"] = float((ranges <= _ALIKE * ranges.max()).float().mean())
    if ground.sharpness is not None:
        signals["code/sharpness"] = sharpness(again.nan_to_num().clamp(-1, 1)) / ground.sharpness
    return Examination(signals)


def mixed_pixels(x: Tensor) -> Tensor:
    """Images (B,C,H,W) of which each pixel, with its channels, comes from an image drawn at random; always the same."""
    generator = torch.Generator().manual_seed(_SEED)
    order = torch.rand(len(x), x[0, 0].numel(), generator=generator).argsort(0).to(x.device)
    return x.flatten(2).gather(0, order[:, None].expand(-1, x.shape[1], -1)).view_as(x)


def _error(x: Tensor, y: Tensor) -> float:
    return float((x - y).square().mean())
