"""Degradations: what turns any set of pictures into pairs, (degraded, picture), without a second set.

==============  ==================================================  =======================================  ==========
task            source                                              amount                                   classic
==============  ==================================================  =======================================  ==========
``colourise``   luminance, Lab's L (1 channel)                      none                                     grey
``upscale``     made smaller, then larger again by bicubic          factor: 2, 3, 4 …                        bicubic
``inpaint``     holes filled with grey, and the mask (C+1 channels) share of the picture in holes            Telea 2004
``edges``       lines of a drawing, XDoG (1 channel)                width of the lines in pixels             none
``denoise``     Gaussian noise added                                sigma on the [0,1] scale                 median 3×3
``deblur``      Gaussian blur                                       sigma in pixels                          unsharp
``labels``      flat colours: k-means of the picture's own          number of colours                        none
==============  ==================================================  =======================================  ==========

A task is a function of pictures and of keys (`limner.core.rng`), so that what is random about a source is the same
whichever batch, rank or worker makes it. It has the height and width of its target. Pictures are (B,C,H,W) in [-1,1].

XDoG: Winnemöller, Kyprianidis and Olsen 2012, *XDoG: an extended difference-of-Gaussians compendium*; here with the
threshold at 0, which leaves lines alone and no dark areas.
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

_NOISE, _HOLE, _STROKES = 201, 202, 203  # stream ids: no two tasks share a draw
_LLOYD = 6  # rounds of k-means: colours of a photograph hardly move after them

Shape = tuple[int, int, int]


class Degradation:
    """One way to make sources of targets.

    Args:
        amount: how strong, in the task's own unit; its default where it is None.

    Attributes:
        name: how a user calls it.
        usual: the default amount.
        unit: of the amount, for messages.
    """

    name: ClassVar[str]
    usual: ClassVar[float | None] = None
    least: ClassVar[float] = 0.0
    most: ClassVar[float] = math.inf
    unit: ClassVar[str] = ""

    def __init__(self, amount: float | None = None) -> None:
        if amount is not None and self.usual is None:
            raise LimnerError(f"{self.name} has no amount; leave it out")
        if amount is not None and not self.least < amount < self.most:
            raise LimnerError(f"amount={amount:g} is not possible for {self.name}: {self.unit}, such as {self.usual:g}")
        self.amount = self.usual if amount is None else amount

    def to_dict(self) -> dict[str, Any]:
        """Name and amount, as a checkpoint keeps them; `make` takes them back."""
        return {"name": self.name, "amount": self.amount}

    def source(self, shape: Shape) -> Shape:
        """(C',H,W) of the sources of targets of a shape.

        Raises:
            LimnerError: such targets have no sources of this kind.
        """
        return shape

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        """Sources (B,C',H,W) of pictures x (B,C,H,W); keys (B,) int64."""
        raise NotImplementedError

    def prepare(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """A user's picture (B,C,H,W), already degraded by life, as a source (B,C',H',W').

        Args:
            x: the picture.
            mask: (B,1,H,W), 1 where it has a hole; only for `inpaint`.
        """
        return x

    def finish(self, a: Tensor, y: Tensor) -> Tensor:
        """A translation y (B,C,H,W) of sources a, made to agree with what a source already tells for certain."""
        return y

    def classic(self, a: Tensor) -> Tensor | None:
        """What is made of sources a (B,C',H,W) without learning, (B,C,H,W); None where there is no such thing."""
        return None

    def say_classic(self) -> str:
        """The name of the classic way."""
        return ""


class Colourise(Degradation):
    """Luminance to colour, in CIE Lab."""

    name = "colourise"

    def source(self, shape: Shape) -> Shape:
        if shape[0] != 3:
            raise LimnerError(f"colourise learns from colour pictures (3 channels), these have {shape[0]}; channels: 3")
        return (1, *shape[1:])

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        return self.prepare(x)

    def prepare(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return _lab(x if x.shape[1] == 3 else x[:, :1].expand(-1, 3, -1, -1))[:, :1] / 50 - 1

    def finish(self, a: Tensor, y: Tensor) -> Tensor:
        """The colours of y with the luminance of a: only colour was to be invented."""
        return _of_lab(torch.cat([(a + 1) * 50, _lab(y)[:, 1:]], 1))

    def classic(self, a: Tensor) -> Tensor | None:
        return _of_lab(torch.cat([(a + 1) * 50, torch.zeros_like(a), torch.zeros_like(a)], 1))

    def say_classic(self) -> str:
        return "grey"


class Upscale(Degradation):
    """A small picture, enlarged by bicubic interpolation, to a sharp one."""

    name, usual, least, unit = "upscale", 2.0, 1.0, "a whole factor from 2 on"

    def __init__(self, amount: float | None = None) -> None:
        super().__init__(amount)
        if int(self.factor) != self.factor:
            raise LimnerError(f"amount={amount:g} is not possible for upscale: {self.unit}, such as 2 or 4")

    @property
    def factor(self) -> float:
        """How many times larger."""
        return self.amount or 2.0

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        h, w = x.shape[2:]
        small = _resized(x, (-(-h // int(self.factor)), -(-w // int(self.factor))))
        return _resized(small, (h, w))

    def prepare(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return _resized(x, (x.shape[2] * int(self.factor), x.shape[3] * int(self.factor)))

    def classic(self, a: Tensor) -> Tensor | None:
        return a

    def say_classic(self) -> str:
        return "bicubic"


class Inpaint(Degradation):
    """A picture with holes, and the mask of the holes, to a whole one."""

    name, usual, most, unit = "inpaint", 0.25, 0.9, "a share of the picture between 0 and 0.9"

    def source(self, shape: Shape) -> Shape:
        return (shape[0] + 1, *shape[1:])

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        return self.prepare(x, self.holes(keys, (x.shape[2], x.shape[3])))

    def holes(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        """Random holes (B,1,H,W), 1 inside: a rectangle of half to all of the share, and three strokes of a brush."""
        h, w = size
        rows = (torch.arange(h, device=keys.device) + 0.5)[:, None] / h
        columns = (torch.arange(w, device=keys.device) + 0.5)[None] / w
        u = uniform(keys, _HOLE, 4)[:, :, None, None]
        area, aspect = (self.amount or 0.25) * (1 + u[:, 0]) / 2, 4 ** (u[:, 1] - 0.5)
        tall, wide = (area * aspect).sqrt().clamp(max=0.95), (area / aspect).sqrt().clamp(max=0.95)
        top, left = u[:, 2] * (1 - tall), u[:, 3] * (1 - wide)
        inside = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
        ends = uniform(keys, _STROKES, 15).view(-1, 3, 5, 1, 1)
        for y0, x0, y1, x1, thick in (stroke.unbind(1) for stroke in ends.unbind(1)):
            dy, dx = y1 - y0, x1 - x0
            along = (((rows - y0) * dy + (columns - x0) * dx) / (dy * dy + dx * dx).clamp_min(1e-6)).clamp(0, 1)
            far = (rows - y0 - along * dy) ** 2 + (columns - x0 - along * dx) ** 2
            inside |= far < (0.01 + 0.03 * thick) ** 2
        return inside[:, None].float()

    def prepare(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            raise LimnerError(
                "inpaint must know where the holes are; give --mask FILE, white where something is missing"
            )
        return torch.cat([x * (1 - mask), 2 * mask - 1], 1)

    def finish(self, a: Tensor, y: Tensor) -> Tensor:
        """What is no hole stays as it was."""
        return torch.where(a[:, -1:] > 0, y, a[:, :-1])

    def classic(self, a: Tensor) -> Tensor | None:
        """Telea 2004, *An image inpainting technique based on the fast marching method*, by OpenCV."""
        cv2 = opencv()
        pictures, holes = to_uint8(a[:, :-1]).cpu().numpy(), (a[:, -1] > 0).byte().cpu().numpy()
        filled = [
            [cv2.inpaint(plane, hole, 3, cv2.INPAINT_TELEA) for plane in planes]
            for planes, hole in zip(pictures, holes, strict=True)
        ]
        return self.finish(a, to_float(torch.from_numpy(np.array(filled))).to(a.device))

    def say_classic(self) -> str:
        return "Telea's inpainting"


class Edges(Degradation):
    """A drawing of lines to a picture."""

    name, usual, unit = "edges", 0.8, "the width of lines in pixels"
    _WIDER, _TAU, _STEEP = 1.6, 0.99, 40.0  # k, tau and phi of the paper

    def source(self, shape: Shape) -> Shape:
        return (1, *shape[1:])

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        sigma, light = self.amount or 0.8, _grey(x) / 2 + 0.5
        u = _blurred(light, sigma) - self._TAU * _blurred(light, sigma * self._WIDER)
        drawn = torch.where(u > 0, 1.0, 1 + torch.tanh(self._STEEP * u))
        return 2 * drawn - 1

    def prepare(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return _grey(x)


class Denoise(Degradation):
    """A noisy picture to a clean one."""

    name, usual, unit = "denoise", 0.1, "sigma of the noise on the [0,1] scale"

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        u, v = uniform(keys, _NOISE, 2 * x[0].numel()).view(len(x), 2, *x.shape[1:]).unbind(1)
        normal = (-2 * (1 - u).log()).sqrt() * (2 * math.pi * v).cos()  # Box and Muller 1958
        return (x + 2 * (self.amount or 0.1) * normal).clamp(-1, 1)

    def classic(self, a: Tensor) -> Tensor | None:
        return median_blur(a, (3, 3))

    def say_classic(self) -> str:
        return "median filter of 3×3"


class Deblur(Degradation):
    """A blurred picture to a sharp one."""

    name, usual, unit = "deblur", 1.5, "sigma of the blur in pixels"

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        return _blurred(x, self.amount or 1.5)

    def classic(self, a: Tensor) -> Tensor | None:
        sigma = self.amount or 1.5
        return unsharp_mask(a, _window(sigma), (sigma, sigma)).clamp(-1, 1)

    def say_classic(self) -> str:
        return "unsharp mask"


class Labels(Degradation):
    """A map of flat colours to a picture."""

    name, usual, least, most, unit = "labels", 8.0, 1.0, 65.0, "a number of colours from 2 to 64"

    def __call__(self, x: Tensor, keys: Tensor) -> Tensor:
        b, c, h, w = x.shape
        k = int(self.amount or 8)
        pixels = _blurred(x, 1.0).flatten(2).transpose(1, 2)  # (B,HW,C)
        order = pixels.mean(2).argsort(1)
        places = (torch.arange(k, device=x.device) + 0.5) * (h * w) / k
        centres = pixels.gather(1, order[:, places.long(), None].expand(-1, -1, c))  # (B,k,C), from dark to light
        for _ in range(_LLOYD):
            nearest = torch.cdist(pixels, centres).argmin(2)  # (B,HW)
            one_hot = F.one_hot(nearest, k).to(x.dtype)
            counts = one_hot.sum(1)[..., None]
            centres = torch.where(counts > 0, one_hot.transpose(1, 2) @ pixels / counts.clamp_min(1), centres)
        flat = centres.gather(1, torch.cdist(pixels, centres).argmin(2)[..., None].expand(-1, -1, c))
        return flat.transpose(1, 2).reshape(b, c, h, w)


TASKS: dict[str, type[Degradation]] = {t.name: t for t in (Colourise, Upscale, Inpaint, Edges, Denoise, Deblur, Labels)}
NAMES = tuple(TASKS)


def make(name: str, amount: float | None = None) -> Degradation:
    """A task by its name.

    >>> make("upscale", 4).to_dict()
    {'name': 'upscale', 'amount': 4}

    Raises:
        LimnerError: there is no such task, or it has no such amount.
    """
    if name not in TASKS:
        raise unknown("task", name, NAMES)
    return TASKS[name](amount)


def classic(task: Degradation, a: Tensor) -> Tensor | None:
    """What is made of sources without learning, (B,C,H,W) in [-1,1]; None where there is no such thing."""
    return task.classic(a)


def opencv() -> Any:
    """The module cv2.

    Raises:
        LimnerError: the extra that brings it is missing.
    """
    return extra("cv2", "classic", "this needs OpenCV")


def _lab(x: Tensor) -> Tensor:
    """CIE Lab (B,3,H,W) under D65: L in [0,100]."""
    return rgb_to_lab((x + 1) / 2)


def _of_lab(lab: Tensor) -> Tensor:
    return lab_to_rgb(lab).clamp(0, 1) * 2 - 1


def _grey(x: Tensor) -> Tensor:
    """(B,1,H,W) of grey or colour pictures; alpha is not looked at."""
    return rgb_to_grayscale(x[:, :3]) if x.shape[1] >= 3 else x[:, :1]


def _window(sigma: float) -> tuple[int, int]:
    side = 2 * math.ceil(3 * sigma) + 1
    return side, side


def _blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur; pictures smaller than its window have their edges repeated."""
    reach = math.ceil(3 * sigma)
    if min(x.shape[2:]) > reach:
        return gaussian_blur2d(x, _window(sigma), (sigma, sigma))
    padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    return gaussian_blur2d(padded, _window(sigma), (sigma, sigma))[..., reach:-reach, reach:-reach]


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bicubic", antialias=True).clamp(-1, 1)
