"""Degradations make pairs (degraded image, image) of any set of images.

==============  ==================================================  =======================================  ==========
``task``        source                                              amount                                   classic
==============  ==================================================  =======================================  ==========
``colourise``   luminance, Lab's L (1 channel)                      none                                     grey
``upscale``     made smaller, then larger again by bicubic          factor: 2, 3, 4 …                        bicubic
``inpaint``     holes filled with grey, and the mask (C+1 channels) share of the image in holes              Telea 2004
``edges``       lines of a drawing, XDoG (1 channel)                width of the lines in pixels             none
``denoise``     Gaussian noise added                                sigma on the [0,1] scale                 median 3×3
``deblur``      Gaussian blur                                       sigma in pixels                          unsharp
``labels``      flat colours: k-means of the image's pixels         number of colours                        none
==============  ==================================================  =======================================  ==========

A degradation is a function of images and of keys (`limner.core.rng`). What is random depends on the key alone, not on
the batch, the rank or the worker. A source has the height and width of its target. Images are (B,C,H,W) in [-1,1].

XDoG: Winnemöller, Kyprianidis and Olsen 2012, *XDoG: an extended difference-of-Gaussians compendium*; here its
threshold is 0, so it draws lines and no dark areas.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from kornia.color import lab_to_rgb, rgb_to_grayscale, rgb_to_lab
from kornia.filters import gaussian_blur2d, median_blur, unsharp_mask
from torch import Tensor
from torch.nn import functional as F

from limner.core.batch import to_float, to_uint8
from limner.core.errors import LimnerError, extra, unknown
from limner.core.rng import uniform

_NOISE, _HOLE, _STROKES = 201, 202, 203  # stream ids: no two degradations share random numbers
_GAMUT, _GAMUT_STEPS = 1e-3, 12  # a quarter of a level; halvings of the chroma
_KMEANS_STEPS = 6  # the colours of a photograph hardly change after these

Shape = tuple[int, int, int]


class Degradation:
    """Base class of degradations, which make the source of a pair from its target.

    Args:
        amount: the strength, in the unit of the degradation; None means its default.

    Attributes:
        name: the name in recipes.
        default: the default amount; None where there is no amount.
        lower: the amount must be above this.
        upper: the amount must be below this.
        unit: what the amount is, for error messages.
        classic_name: the name of the classical method; "" where there is none.
    """

    name: ClassVar[str]
    default: ClassVar[float | None] = None
    lower: ClassVar[float] = 0.0
    upper: ClassVar[float] = math.inf
    unit: ClassVar[str] = ""
    classic_name: ClassVar[str] = ""

    def __init__(self, amount: float | None = None) -> None:
        if amount is not None and self.default is None:
            raise LimnerError(f"task {self.name} has no amount; leave amount out")
        if amount is not None and not self.lower < amount < self.upper:
            raise LimnerError(
                f"amount={amount:g} does not fit {self.name}: write {self.unit}, such as {self.default:g}"
            )
        self.amount = self.default if amount is None else amount

    @property
    def strength(self) -> float:
        """The amount, for the degradations that have one."""
        assert self.amount is not None
        return self.amount

    def to_dict(self) -> dict[str, Any]:
        """Name and amount, as checkpoints store them; `make(**…)` builds the same degradation."""
        return {"name": self.name, "amount": self.amount}

    def source(self, shape: Shape) -> Shape:
        """The shape (C',H,W) of sources whose targets have `shape`.

        Raises:
            LimnerError: targets of this shape cannot be degraded so.
        """
        return shape

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        """Sources (B,C',H,W) of images x (B,C,H,W) in [-1,1]; keys (B,) int64."""
        raise NotImplementedError

    def prepare(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Makes a source (B,C',H',W') of images that are already degraded, such as a user's pictures.

        Args:
            x: (B,C,H,W) in [-1,1].
            mask: (B,1,H,W), 1 in the holes; only for `inpaint`.
        """
        return x

    def finish(self, a: Tensor, y: Tensor) -> Tensor:
        """Replaces what sources a determine exactly in their translations y (B,C,H,W)."""
        return y

    def classic(self, a: Tensor) -> Tensor | None:
        """The result (B,C,H,W) of the classical method on sources a (B,C',H,W); None where there is none."""
        return None


class Colourise(Degradation):
    """Luminance to colour, in CIE Lab."""

    name, classic_name = "colourise", "grey"

    def source(self, shape: Shape) -> Shape:
        if shape[0] != 3:
            raise LimnerError(f"colourise needs colour pictures, and these have {shape[0]} channels; set channels to 3")
        return (1, *shape[1:])

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        return self.prepare(x)

    def prepare(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return _lab(x if x.shape[1] == 3 else x[:, :1].expand(-1, 3, -1, -1))[:, :1] / 50 - 1

    def finish(self, a: Tensor, y: Tensor) -> Tensor:
        """The colours of y with the luminance of a; colours that sRGB does not have are made paler."""
        return _from_lab(_in_gamut(torch.cat([(a + 1) * 50, _lab(y)[:, 1:]], 1)))

    def classic(self, a: Tensor) -> Tensor | None:
        return _from_lab(torch.cat([(a + 1) * 50, torch.zeros_like(a), torch.zeros_like(a)], 1))


class Upscale(Degradation):
    """A small image, enlarged by bicubic interpolation, to a sharp one."""

    name, default, lower, unit, classic_name = "upscale", 2.0, 1.0, "a whole factor from 2 on", "bicubic"

    def __init__(self, amount: float | None = None) -> None:
        super().__init__(amount)
        self.factor = int(self.strength)
        if self.amount != self.factor:
            raise LimnerError(f"amount={amount:g} does not fit upscale: write {self.unit}, such as 2 or 4")

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        h, w = x.shape[2:]
        return _resize(_resize(x, (-(-h // self.factor), -(-w // self.factor))), (h, w))

    def prepare(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return _resize(x, (x.shape[2] * self.factor, x.shape[3] * self.factor))

    def classic(self, a: Tensor) -> Tensor | None:
        return a


class Inpaint(Degradation):
    """An image with holes, and the mask of the holes, to a whole one."""

    name, default, upper, unit = "inpaint", 0.25, 0.9, "a share of the image between 0 and 0.9"
    classic_name = "Telea's inpainting"

    def source(self, shape: Shape) -> Shape:
        return (shape[0] + 1, *shape[1:])

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        return self.prepare(x, self.holes(keys, (x.shape[2], x.shape[3])))

    def holes(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        """Random holes (B,1,H,W), 1 inside: a rectangle of half to all of the amount, and three brush strokes."""
        h, w = size
        rows = (torch.arange(h, device=keys.device) + 0.5)[:, None] / h
        columns = (torch.arange(w, device=keys.device) + 0.5)[None] / w
        u = uniform(keys, _HOLE, 4)[:, :, None, None]
        area, aspect = self.strength * (1 + u[:, 0]) / 2, 4 ** (u[:, 1] - 0.5)
        height, width = (area * aspect).sqrt().clamp(max=0.95), (area / aspect).sqrt().clamp(max=0.95)
        top, left = u[:, 2] * (1 - height), u[:, 3] * (1 - width)
        inside = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
        strokes = uniform(keys, _STROKES, 15).view(-1, 3, 5, 1, 1)
        for y0, x0, y1, x1, thickness in (stroke.unbind(1) for stroke in strokes.unbind(1)):
            dy, dx = y1 - y0, x1 - x0
            t = (((rows - y0) * dy + (columns - x0) * dx) / (dy * dy + dx * dx).clamp_min(1e-6)).clamp(0, 1)
            squared_distance = (rows - y0 - t * dy) ** 2 + (columns - x0 - t * dx) ** 2
            inside |= squared_distance < (0.01 + 0.03 * thickness) ** 2
        return inside[:, None].float()

    def prepare(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            raise LimnerError("inpaint needs to know the holes; give --mask FILE, an image that is white in the holes")
        return torch.cat([x * (1 - mask), 2 * mask - 1], 1)

    def finish(self, a: Tensor, y: Tensor) -> Tensor:
        """The pixels of a outside the holes, and those of y inside."""
        return torch.where(a[:, -1:] > 0, y, a[:, :-1])

    def classic(self, a: Tensor) -> Tensor | None:
        """Telea 2004, *An image inpainting technique based on the fast marching method*, as OpenCV implements it."""
        cv2 = opencv()
        images, holes = to_uint8(a[:, :-1]).cpu().numpy(), (a[:, -1] > 0).byte().cpu().numpy()
        filled = [
            [cv2.inpaint(plane, hole, 3, cv2.INPAINT_TELEA) for plane in planes]
            for planes, hole in zip(images, holes, strict=True)
        ]
        return self.finish(a, to_float(torch.from_numpy(np.array(filled))).to(a.device))


class Edges(Degradation):
    """A line drawing to an image."""

    name, default, unit = "edges", 0.8, "the width of lines in pixels"
    _K, _TAU, _PHI = 1.6, 0.99, 40.0  # the constants of the paper

    def source(self, shape: Shape) -> Shape:
        return (1, *shape[1:])

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        sigma, grey = self.strength, _grey(x) / 2 + 0.5
        u = _blur(grey, sigma) - self._TAU * _blur(grey, sigma * self._K)
        return 2 * torch.where(u > 0, 1.0, 1 + torch.tanh(self._PHI * u)) - 1

    def prepare(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return _grey(x)


class Denoise(Degradation):
    """A noisy image to a clean one."""

    name, default, unit, classic_name = "denoise", 0.1, "sigma of the noise on the [0,1] scale", "median filter of 3×3"

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        u, v = uniform(keys, _NOISE, 2 * x[0].numel()).view(len(x), 2, *x.shape[1:]).unbind(1)
        normal = (-2 * (1 - u).log()).sqrt() * (2 * math.pi * v).cos()  # Box and Muller 1958
        return (x + 2 * self.strength * normal).clamp(-1, 1)

    def classic(self, a: Tensor) -> Tensor | None:
        return median_blur(a, (3, 3))


class Deblur(Degradation):
    """A blurred image to a sharp one."""

    name, default, unit, classic_name = "deblur", 1.5, "sigma of the blur in pixels", "unsharp mask"

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        return _blur(x, self.strength)

    def classic(self, a: Tensor) -> Tensor | None:
        sigma = self.strength
        return unsharp_mask(a, _kernel_size(sigma), (sigma, sigma)).clamp(-1, 1)


class Labels(Degradation):
    """A map of flat colours to an image."""

    name, default, lower, upper, unit = "labels", 8.0, 1.0, 65.0, "a number of colours from 2 to 64"

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        b, c, h, w = x.shape
        k = int(self.strength)
        pixels = _blur(x, 1.0).flatten(2).transpose(1, 2)  # (B,HW,C)
        order = pixels.mean(2).argsort(1)
        positions = (torch.arange(k, device=x.device) + 0.5) * (h * w) / k
        centres = pixels.gather(
            1, order[:, positions.long(), None].expand(-1, -1, c)
        )  # (B,k,C), starting from quantiles of brightness
        for _ in range(_KMEANS_STEPS):
            nearest = torch.cdist(pixels, centres).argmin(2)  # (B,HW)
            one_hot = F.one_hot(nearest, k).to(x.dtype)
            counts = one_hot.sum(1)[..., None]
            centres = torch.where(counts > 0, one_hot.transpose(1, 2) @ pixels / counts.clamp_min(1), centres)
        flattened = centres.gather(1, torch.cdist(pixels, centres).argmin(2)[..., None].expand(-1, -1, c))
        return flattened.transpose(1, 2).reshape(b, c, h, w)


DEGRADATIONS: dict[str, type[Degradation]] = {
    d.name: d for d in (Colourise, Upscale, Inpaint, Edges, Denoise, Deblur, Labels)
}
NAMES = tuple(DEGRADATIONS)


def make(name: str, amount: float | None = None) -> Degradation:
    """Builds a degradation by its name.

    >>> make("upscale", 4).to_dict()
    {'name': 'upscale', 'amount': 4}

    Raises:
        LimnerError: there is no such degradation, or the amount is not possible.
    """
    if name not in DEGRADATIONS:
        raise unknown("task", name, NAMES)
    return DEGRADATIONS[name](amount)


def transfer_lightness(y: Tensor, x: Tensor) -> Tensor:
    """Images with the lightness of y and the colours of x, (B,3,H,W) in [-1,1] both, clipped to sRGB."""
    return _from_lab(torch.cat([_lab(y)[:, :1], _lab(x)[:, 1:]], 1))


def opencv() -> Any:
    """The module cv2.

    Raises:
        LimnerError: OpenCV is not installed.
    """
    return extra("cv2", "classic", "this needs OpenCV")


def _lab(x: Tensor) -> Tensor:
    """CIE Lab (B,3,H,W) under D65: L in [0,100]."""
    return rgb_to_lab((x + 1) / 2)


def _from_lab(lab: Tensor) -> Tensor:
    return lab_to_rgb(lab).clamp(0, 1) * 2 - 1


def _in_gamut(lab: Tensor) -> Tensor:
    """The same colours (B,3,H,W); those outside of sRGB lose as much chroma as they must, and no luminance."""
    outside = _overflow(lab) > _GAMUT
    if not bool(outside.any()):
        return lab
    far = lab.movedim(1, -1)[outside].T[None, :, :, None]  # (1,3,K,1)
    low, high = torch.zeros_like(far[:, :1]), torch.ones_like(far[:, :1])
    for _ in range(_GAMUT_STEPS):
        middle = (low + high) / 2
        fits = (_overflow(torch.cat([far[:, :1], far[:, 1:] * middle], 1)) <= _GAMUT)[:, None]
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    paler = torch.cat([far[:, :1], far[:, 1:] * low], 1)
    result = lab.movedim(1, -1).clone()
    result[outside] = paler[0, :, :, 0].T
    return result.movedim(-1, 1)


def _overflow(lab: Tensor) -> Tensor:
    """How far colours (B,3,H,W) lie outside of sRGB, (B,H,W), on the [0,1] scale."""
    rgb = lab_to_rgb(lab, clip=False)
    return torch.maximum(rgb - 1, -rgb).amax(1)


def _grey(x: Tensor) -> Tensor:
    """(B,1,H,W) of grey or colour images; alpha is ignored."""
    return rgb_to_grayscale(x[:, :3]) if x.shape[1] >= 3 else x[:, :1]


def _kernel_size(sigma: float) -> tuple[int, int]:
    side = 2 * math.ceil(3 * sigma) + 1
    return side, side


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur; the edges of images that are smaller than the kernel are repeated."""
    radius = math.ceil(3 * sigma)
    if min(x.shape[2:]) > radius:
        return gaussian_blur2d(x, _kernel_size(sigma), (sigma, sigma))
    padded = F.pad(x, (radius, radius, radius, radius), mode="replicate")
    return gaussian_blur2d(padded, _kernel_size(sigma), (sigma, sigma))[..., radius:-radius, radius:-radius]


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bicubic", antialias=True).clamp(-1, 1)
