"""Images restored by a model that denoises: no training for the task, only what is known of the image.

===============  ====================================================================================================
method           what is drawn
===============  ====================================================================================================
`inpaint`        what may be in the holes
`upscale`        an image whose means over k×k pixels are these
`colourise`      a colour image of this brightness
`denoise`        the mean of all images that may be under the noise, or one of them
`edit`           an image like this one, after noise (Meng et al. 2022, *SDEdit*, arXiv:2108.01073)
===============  ====================================================================================================

The first three are one method: every estimate of the model is made consistent with what is known (Wang, Yu and Zhang
2022, *DDNM*, arXiv:2212.00490), and is moved along the gradient of what it says of the known part (Song et al. 2023,
*ΠGDM*), without which the unknown part often does not fit: on digits with holes the perceptual distance was .123
with the gradient, .184 without, and .143 with RePaint (arXiv:2201.09865) at twice the time.

A model knows images of one size. `denoise` and `upscale` work at the pixels of an image, in windows of the model's
size. The other methods must see an image as a whole, so it is resized until the model's size just fits into it, and
windows cover what is longer than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.apply.windows import windowed
from limner.core.capabilities import Conditional, Denoises
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.rng import Noise
from limner.data.degradations import Colourise
from limner.samplers import grids, restore
from limner.samplers.guidance import guided

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of red, green and blue
_MOST_STEPS = 1000
_FACTORS = range(2, 17)
_MAD = 0.6745  # median of |N(0, 1)|


@dataclass(frozen=True)
class Restorer:
    """A model that denoises, and how it is asked.

    All methods take and give images (B,C,H,W) in [-1,1]; results are on the CPU. Image i of a seed gets the same noise
    in any batch.

    Args:
        model: in evaluation mode.
        y: for conditional models, the class of the images: one, or one for each.
        steps: evaluations on the way from noise to an image. Raise it for finer results. Lower it for speed.
        guidance: how much stronger than in training the class counts. Raise it if results do not look like the class.
            Lower it if they look alike.
        seed: seed of the noise.
        batch: windows per forward pass. Lower it if memory is short.

    Raises:
        LimnerError: a setting is not possible for this model.
    """

    model: GenerativeModel
    y: Any = None
    steps: int = 20
    guidance: float = 1.0
    seed: int = 0
    batch: int = 32

    def __post_init__(self) -> None:
        name = self.model.spec.name
        if not isinstance(self.model, Denoises):
            raise LimnerError(f"{name} does not denoise; this needs a diffusion or flow-matching model")
        if min(self.model.shape[1:]) < 2:
            raise LimnerError(f"the samples of {name} are points, not images; use limner sample")
        if not isinstance(self.model, Conditional):
            if self.y is not None:
                raise LimnerError(f"{name} is not conditional; leave y out")
            if self.guidance != 1:
                raise LimnerError(f"{name} knows no classes to be guided by; leave guidance out")
        elif self.guidance != 1 and self.y is None:
            raise LimnerError("guidance needs a class; write y=CLASS too, or leave guidance out")
        if not 1 <= self.steps <= _MOST_STEPS:
            raise LimnerError(f"steps={self.steps} is not possible; write 1 to {_MOST_STEPS}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C,H,W) of the images that the model knows."""
        return self._denoises.shape

    def check(
        self,
        task: str,
        *,
        strength: float = 0.5,
        scale: int = 2,
        noise: float | None = None,
        side: int | None = None,
    ) -> None:
        """Checks the settings of a task before any work.

        Raises:
            LimnerError: the model cannot do it, or a setting is not possible.
        """
        if task == "colourise" and self.shape[0] != 3:
            raise LimnerError(f"{self.model.spec.name} was trained on pictures without colours; it cannot colourise")
        if not 0 <= strength <= 1:
            raise LimnerError(f"strength={strength:g} is not possible; write a number from 0 (nothing changes) to 1")
        if scale not in _FACTORS:
            raise LimnerError(f"scale={scale:g} is not possible; write a whole number from 2 to {_FACTORS[-1]}")
        if noise is not None and not 0 < noise <= 1:
            raise LimnerError(f"noise={noise:g} is not possible; write its standard deviation on the [0,1] scale: 0.1")
        least = min(self.shape[1:])
        if side is not None and side < least:
            raise LimnerError(f"side={side} is smaller than the pictures this model knows; write {least} or more")

    @torch.inference_mode()
    def inpaint(self, x: Tensor, mask: Tensor, side: int | None = None) -> Tensor:
        """Fills the holes; everything else stays as it is.

        Args:
            x: images.
            mask: (B,1,H,W), 1 in the holes.
            side: shorter side in pixels at which holes are filled; that of the model by default.
        """
        size = self.working_size((x.shape[2], x.shape[3]), side)
        known, holes = _without_holes(x, mask, size)
        y = self._restored(known, *restore.inpainting(self._to_device(holes)), known.shape)
        return torch.where(mask > 0, _resized(y, (x.shape[2], x.shape[3])), x)

    @torch.inference_mode()
    def edit(self, x: Tensor, strength: float = 0.5, side: int | None = None) -> Tensor:
        """Images like x that the model finds likely, at the `working_size`.

        Args:
            x: images.
            strength: from 0, which changes nothing, to 1, which draws a new image. Raise it for more freedom.
            side: shorter side of the results in pixels; that of the model by default.

        Raises:
            LimnerError: the strength is outside [0,1].
        """
        self.check("edit", strength=strength)
        x = self._to_device(_resized(x, self.working_size((x.shape[2], x.shape[3]), side)))
        y = restore.edit(self._denoiser(len(x)), x, self._sigmas(), strength, self._noise(x.shape))
        return y.clamp(-1, 1).cpu()

    @torch.inference_mode()
    def upscale(self, x: Tensor, scale: int = 2) -> Tensor:
        """Images of `scale` times as many pixels a side, whose means over scale×scale pixels are x.

        Raises:
            LimnerError: the scale is not possible.
        """
        self.check("upscale", scale=scale)
        size = (len(x), x.shape[1], x.shape[2] * scale, x.shape[3] * scale)

        return self._restored(x, *restore.upscaling(scale), size)

    @torch.inference_mode()
    def colourise(self, x: Tensor, side: int | None = None) -> Tensor:
        """Colours (B,3,H,W) for images (B,1 or 3,H,W), whose CIE luminance stays.

        Args:
            x: images; their colours are not looked at.
            side: shorter side in pixels at which colours are found; that of the model by default.

        Raises:
            LimnerError: the model knows no colours.
        """
        self.check("colourise")
        weights = torch.tensor(_LUMA, device=self.model.device).view(1, 3, 1, 1)

        def luma(y: Tensor) -> Tensor:
            return (weights * y).sum(1, keepdim=True)

        task, size = Colourise(), (x.shape[2], x.shape[3])
        small = _resized(x.expand(-1, 3, -1, -1), self.working_size(size, side))
        known = luma(self._to_device(small))
        y = self._restored(known, luma, lambda grey: grey.expand(-1, 3, -1, -1), small.shape)
        return task.finish(task.prepare(x), _resized(y, size))

    @torch.inference_mode()
    def denoise(self, x: Tensor, noise: float, *, mean: bool = True) -> Tensor:
        """Images without their noise.

        Args:
            x: images.
            noise: its standard deviation on the [0,1] scale.
            mean: the mean of all images that may be under the noise: the smallest error, and the smoothest. If false,
                one of them, which is sharper.

        Raises:
            LimnerError: the noise is not possible.
        """
        self.check("denoise", noise=noise)
        model, D = self._denoises, self._denoiser(len(x))
        sigma = min(max(2 * noise, model.sigma_min), model.sigma_max)
        x = self._to_device(x)
        if mean:
            return D(x, sigma).clamp(-1, 1).cpu()
        return restore.denoise(D, x, sigma, grids.flow(self.steps, sigma), self._noise(x.shape)).clamp(-1, 1).cpu()

    def working_size(self, size: tuple[int, int], side: int | None = None) -> tuple[int, int]:
        """(H,W) at which images of a size are worked on as a whole.

        Raises:
            LimnerError: the side is smaller than the model's.
        """
        self.check("", side=side)
        h, w = self.shape[1:]
        ratio = max(h / size[0], w / size[1]) * (1 if side is None else side / min(h, w))
        return max(h, round(size[0] * ratio)), max(w, round(size[1] * ratio))

    @property
    def _denoises(self) -> Denoises:
        assert isinstance(self.model, Denoises)
        return self.model

    def _sigmas(self) -> list[float]:
        return grids.flow(self.steps, self._denoises.sigma_max)

    def _noise(self, shape: torch.Size | tuple[int, ...]) -> Callable[[int], Tensor]:
        noise = Noise(self.seed, shape[0], device=self.model.device)
        return lambda step: noise(step, *shape[1:])

    def _to_device(self, x: Tensor) -> Tensor:
        return x.to(self.model.device)

    def _denoiser(self, n: int) -> Callable[[Tensor, float], Tensor]:
        """The guided denoiser for n images of any size."""
        model, (_, h, w) = self._denoises, self.shape
        labels = null = None
        if isinstance(self.model, Conditional) and self.y is not None:
            labels = self.model.condition.read(self.y, n).to(self.model.device)
            null = self.model.condition.size

        def D(x: Tensor, sigma: float) -> Tensor:
            def net(part: Tensor, of: Tensor) -> Tensor:
                y = None if labels is None else labels[of]
                return guided(model.denoise, y, self.guidance, null=null)(part, sigma)

            return windowed(net, x, (h, w), batch=self.batch)

        return D

    def _restored(self, y: Tensor, A: restore.Map, A_plus: restore.Map, shape: tuple[int, ...]) -> Tensor:
        """Images of a shape (B,C,H,W) with A(x) = y."""
        D, sigmas, noise = self._denoiser(shape[0]), self._sigmas(), self._noise(shape)
        y = A(A_plus(self._to_device(y)))  # of holes, whatever is in them goes
        x = restore.restore(D, y, A, A_plus, sigmas, noise, sigma_data=self._denoises.sigma_data)
        return x.clamp(-1, 1).cpu()


def noise_level(x: Tensor) -> Tensor:
    """The standard deviation (B,) on the [0,1] scale of white noise in images x (B,C,H,W).

    Donoho and Johnstone 1994, *Ideal spatial adaptation by wavelet shrinkage*, section 3.1: the median size of the
    finest diagonal details, of which images have few and noise has as many as of anything. Details of a pixel at the
    end of the scale, where noise is cut off, do not count if enough others are left.

    Raises:
        LimnerError: the images are too small.
    """
    if min(x.shape[2:]) < 2:
        raise LimnerError("a picture of one row has no noise that could be measured; write noise=NUMBER")
    blocks = F.unfold(x.flatten(0, 1)[:, None], 2, stride=2).unflatten(0, (len(x), -1)).transpose(1, 2)  # (B,4,C,N)
    details = ((blocks[:, 0] - blocks[:, 1] - blocks[:, 2] + blocks[:, 3]) / 2).abs().flatten(1)
    inside = (blocks.abs() < 1).all(1).flatten(1)
    levels = [d[i] if int(i.sum()) >= len(d) // 4 else d for d, i in zip(details, inside, strict=True)]
    return torch.stack([level.median() for level in levels]) / _MAD / 2


def _without_holes(x: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images and masks at another size (H,W); a pixel that sees anything of a hole belongs to it, and no other does."""
    if (x.shape[2], x.shape[3]) == size:
        return x, mask
    if size[0] <= x.shape[2] and size[1] <= x.shape[3]:
        known = 1 - mask
        small = F.adaptive_avg_pool2d(x * known, size) / F.adaptive_avg_pool2d(known, size).clamp_min(1e-6)
        return small, F.adaptive_max_pool2d(mask, size)
    reach = 2  # pixels that bicubic interpolation looks at on either side
    return _resized(x, size), F.adaptive_max_pool2d(F.max_pool2d(mask, 2 * reach + 1, 1, reach), size)


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B,C,H,W) at another size (H,W), in [-1,1]."""
    if (x.shape[2], x.shape[3]) == size:
        return x
    return F.interpolate(x, size, mode="bicubic", antialias=True).clamp(-1, 1)
