"""Image transforms before D, of real *and* generated images; they are differentiable, so that G learns through them.

A discriminator overfits a small set of images. Transforming real and generated images alike makes the set larger for
it, and as long as the transform keeps different distributions different, G still has to match the untransformed one.

`DiffAugment`: Zhao, Liu, Lin, Zhu and Han 2020, *Differentiable augmentation for data-efficient GAN training*,
arXiv:2006.10738. `ADA`: Karras, Aittala, Hellsten, Laine, Lehtinen and Aila 2020, *Training generative adversarial
networks with limited data*, arXiv:2006.06676. `InstanceNoise`: Sønderby, Caballero, Theis, Shi and Huszár 2017,
*Amortised MAP inference for image super-resolution*, arXiv:1610.04490, and Arjovsky and Bottou 2017, *Towards
principled methods for training generative adversarial networks*, arXiv:1701.04862.

All draw from torch's default generator on the images' device, independently for each image. Like dropout they do
nothing in evaluation mode. Images are warped by gathering pixels, because `grid_sample` has neither a second
derivative, which gradient penalties need, nor a deterministic first one on a GPU.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Zhao = Literal["colour", "translation", "cutout"]
Karras = Literal["blit", "geometry", "colour"]


class Transform(nn.Module):
    """Base of the transforms of real and generated images before D."""

    classes = 0

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Transformed images (B,C,H,W) of images (B,C,H,W); in evaluation mode the images themselves."""
        if not self.training:
            return x
        # Half precision would round generated images, which are of it, and the data differently.
        return self.transform(x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).to(x.dtype)

    def transform(self, x: Tensor) -> Tensor:
        """Images (B,C,H,W) of float32 or float64, transformed."""
        raise NotImplementedError

    def observe(self, sign: Tensor, images: int) -> None:
        """Adapts the transform; called after each update of D.

        Args:
            sign: mean sign () of D's logits of real images.
            images: number of real images of the step, over all ranks.
        """


class Identity(Transform):
    """No transform."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x


def _check_arguments(kind: str, policy: tuple[str, ...], known: tuple[str, ...], shape: tuple[int, int, int]) -> None:
    unknown = [p for p in policy if p not in known]
    if unknown or not policy:
        problem = f"{unknown[0]!r} is not possible" if unknown else "there is none"
        raise ValueError(f"policy: {problem}; choose from {', '.join(known)}")
    c, h, w = shape
    if min(h, w) < 2:
        raise ValueError(f"{kind} transforms images, not points or lines of {h}×{w}; use augment.InstanceNoise")
    if c > 4:
        raise ValueError(f"{kind} takes images of 1 to 4 channels, these have {c}; use augment.InstanceNoise")


def _colour_channels(channels: int) -> int:
    """Number of channels that are colours; the second of two and the fourth of four are alpha."""
    return 3 if channels > 2 else 1


def _per_image(values: Tensor, x: Tensor) -> Tensor:
    """Values (B,) as (B,1,1,1) of the type of x."""
    return values.to(x.dtype)[:, None, None, None]


class DiffAugment(Transform):
    """DiffAugment: every kind of transform is applied to every image, by a random amount (Zhao et al. 2020).

    * colour: brightness + U(-1/2, 1/2), saturation × U(0, 2), contrast × U(1/2, 3/2), both about their means;
      grey images have no saturation;
    * translation: by whole pixels, up to 1/8 of the side each way; zeros, which are grey, come in;
    * cutout: a square (in pixels of each side) of half the side is set to 0; its centre is anywhere in the image.

    Args:
        policy: the kinds, in the order in which they are applied. Leave one out if generated images show it, for
            example as grey bars or squares.
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(
        self, policy: tuple[Zhao, ...] = ("colour", "translation", "cutout"), *, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        _check_arguments("DiffAugment", policy, ("colour", "translation", "cutout"), shape)
        self.policy = policy

    def transform(self, x: Tensor) -> Tensor:
        for kind in self.policy:
            if kind == "colour":
                x = jitter_colour(x)
            elif kind == "translation":
                x = translate(x)
            else:
                x = cutout(x)
        return x

    def extra_repr(self) -> str:
        return ", ".join(self.policy)


def jitter_colour(x: Tensor) -> Tensor:
    """Images (B,C,H,W) with random brightness, saturation and contrast; alpha does not change."""
    b, c = x.shape[:2]
    brightness, saturation, contrast = (_per_image(u, x) for u in torch.rand(3, b, device=x.device))
    colour = x[:, : _colour_channels(c)] + (brightness - 0.5)
    if _colour_channels(c) == 3:
        grey = colour.mean(1, keepdim=True)
        colour = grey + 2 * saturation * (colour - grey)
    mean = colour.mean((1, 2, 3), keepdim=True)
    colour = mean + (contrast + 0.5) * (colour - mean)
    return torch.cat([colour, x[:, _colour_channels(c) :]], 1)


def translate(x: Tensor) -> Tensor:
    """Images (B,C,H,W) translated by whole pixels, up to 1/8 of the side each way, and padded with zeros."""
    for dim in (2, 3):
        n = x.shape[dim]
        limit = int(n / 8 + 0.5)
        shift = torch.randint(-limit, limit + 1, (len(x), 1), device=x.device)
        source = torch.arange(n, device=x.device) - shift  # (B,n)
        view = (-1, 1, n, 1) if dim == 2 else (-1, 1, 1, n)
        inside = ((source >= 0) & (source < n)).view(view)
        shifted = x.gather(dim, source.clamp(0, n - 1).view(view).expand_as(x))
        x = torch.where(inside, shifted, torch.zeros((), dtype=x.dtype, device=x.device))
    return x


def cutout(x: Tensor) -> Tensor:
    """Images (B,C,H,W) in which a rectangle of half the sides, at a random position, is 0."""
    masks = []
    for dim in (2, 3):
        n = x.shape[dim]
        size = int(n / 2 + 0.5)
        first = torch.randint(0, n + 1 - size % 2, (len(x), 1), device=x.device) - size // 2
        offset = torch.arange(n, device=x.device) - first  # (B,n)
        masks.append((offset >= 0) & (offset < size))
    rows, columns = masks
    hole = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(hole, torch.zeros((), dtype=x.dtype, device=x.device), x)


class ADA(Transform):
    """Adaptive discriminator augmentation, as strong as D needs not to overfit (Karras et al. 2020).

    Each transform is applied to each image with probability p; for p < 1 some images are not transformed, so that
    generated images do not show the transforms. p starts at 0, where ADA is exactly the identity. D overfits when
    r_t = E[sign D(real)] is large: it is 0 for a D that guesses and 1 for one that accepts all its real images. Every 4
    updates of D p changes by (images since) / `speed_images`: it rises if r_t is above `target`, else it falls.

    * blit: translation by whole pixels, up to 1/8 of the side, and mirroring if `flip`;
    * geometry: isotropic scaling by 2^N(0, 0.2²), rotation before and after anisotropic scaling by 2^N(0, 0.2²),
      translation by N(0, (side/8)²); images are continued by reflection;
    * colour: brightness + N(0, 0.2²), contrast × 2^N(0, 0.5²), and for colour images hue by any angle and
      saturation × 2^N(0, 1).

    Departures: images are resampled once and bilinearly, without the paper's wavelet filters; rotations by 90° and the
    inversion of luma are left out, and so are filters and corruptions, which the paper found not to help. The cap on p
    is an addition: on very small sets p would rise above 1, and generated images would show the transforms.

    Args:
        target: target of r_t. Lower it if D still overfits; raise it if generated images show the transforms.
        policy: kinds of transform.
        speed_images: real images over which p can rise from 0 to 1, as a whole number such as 500000. Lower it if
            training ends before p is stable; raise it if p oscillates.
        cap: largest p. Lower it if generated images show the transforms; raise it if r_t stays above `target`.
        flip: whether images are mirrored. Leave it off for digits, letters and other images that have a left and a
            right.
        rotation: largest angle in degrees; 180 is the paper's. Lower it if images have one way up and p comes near 1.
        shape: (C,H,W) of an image; filled from the data.

    Attributes:
        p: the current probability, on the device; the model's checkpoint holds it.
    """

    p: Tensor
    signs: Tensor
    observations: Tensor
    images: Tensor

    every = 4  # updates of D between changes of p, as in the paper

    def __init__(
        self,
        target: float = 0.6,
        policy: tuple[Karras, ...] = ("blit", "geometry", "colour"),
        speed_images: int = 500_000,
        cap: float = 0.8,
        flip: bool = False,
        rotation: float = 180.0,
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        _check_arguments("ADA", policy, ("blit", "geometry", "colour"), shape)
        if not -1 < target < 1:
            raise ValueError(f"target must lie between -1 and 1, as a mean of signs does, got {target:g}")
        if not 0 <= cap <= 1:
            raise ValueError(f"cap is a probability, got {cap:g}; choose one from 0 to 1")
        if speed_images < 1:
            raise ValueError(f"speed_images must be at least 1, got {speed_images}")
        if not 0 <= rotation <= 180:
            raise ValueError(f"rotation must lie between 0 and 180 degrees, got {rotation:g}")
        self.target, self.policy, self.speed_images, self.cap = target, policy, speed_images, cap
        self.flip, self.rotation = flip, rotation
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("signs", torch.zeros(()))
        self.register_buffer("observations", torch.zeros((), dtype=torch.int64))
        self.register_buffer("images", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, sign: Tensor, images: int) -> None:
        """Counts an update of D; every `every` updates p changes."""
        self.signs += sign.detach()
        self.observations += 1
        self.images += images
        due = self.observations >= self.every
        change = (self.signs / self.every - self.target).sign() * (self.images / self.speed_images)
        self.p.copy_(torch.where(due, (self.p + change).clamp(0, self.cap), self.p))
        for counter in (self.signs, self.observations, self.images):
            counter *= ~due

    def transform(self, x: Tensor) -> Tensor:
        if "blit" in self.policy or "geometry" in self.policy:
            changed, inverse = self._inverse_map(x)
            x = torch.where(changed[:, None, None, None], warp(x, inverse), x)
        return self._jitter_colour(x) if "colour" in self.policy else x

    def _randomly(self, values: Tensor, neutral: float, p: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A random mask (B,) of images to transform, and the values (B,) where it is set, else `neutral`."""
        mask = torch.rand(len(values), device=values.device) < (self.p if p is None else p)
        return mask, torch.where(mask, values, neutral)

    def _inverse_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A mask (B,) of the images to warp, and affine maps (B,2,3) from positions in the result to the source.

        Positions are (x, y) in pixels from the image's centre. Maps go from the result to the source, so each transform
        is multiplied by its inverse from the right.
        """
        (b, _, h, w), device = x.shape, x.device
        changed = torch.zeros(b, dtype=torch.bool, device=device)
        inverse = torch.eye(3, device=device).repeat(b, 1, 1)
        # A tensor made of host numbers could not be recorded in a CUDA graph.
        side = torch.cat([torch.full((1,), n, device=device) for n in (w, h)])
        if "blit" in self.policy:
            if self.flip:
                mirrored, sign = self._randomly(1 - 2 * torch.randint(0, 2, (b,), device=device).float(), 1.0)
                inverse, changed = _matmul(inverse, _scale(sign, torch.ones_like(sign))), changed | mirrored
            mask, on = self._randomly(torch.ones(b, device=device), 0.0)
            shift = ((torch.rand(b, 2, device=device) * 2 - 1) * side / 8).round() * on[:, None]
            inverse, changed = _matmul(inverse, _translation(-shift)), changed | mask
        if "geometry" in self.policy:
            mask, size = self._randomly(torch.exp2(0.2 * torch.randn(b, device=device)), 1.0)
            inverse, changed = _matmul(inverse, _scale(1 / size, 1 / size)), changed | mask
            p_rotation = 1 - (1 - self.p).sqrt()  # of two rotations, so that at least one happens with probability p
            mask, angle = self._randomly(self._angles(b, device), 0.0, p_rotation)
            inverse, changed = _matmul(inverse, _rotation(-angle)), changed | mask
            mask, size = self._randomly(torch.exp2(0.2 * torch.randn(b, device=device)), 1.0)
            inverse, changed = _matmul(inverse, _scale(1 / size, size)), changed | mask
            mask, angle = self._randomly(self._angles(b, device), 0.0, p_rotation)
            inverse, changed = _matmul(inverse, _rotation(-angle)), changed | mask
            mask, on = self._randomly(torch.ones(b, device=device), 0.0)
            shift = torch.randn(b, 2, device=device) * side / 8 * on[:, None]
            inverse, changed = _matmul(inverse, _translation(-shift)), changed | mask
        return changed, inverse[:, :2]

    def _angles(self, n: int, device: torch.device) -> Tensor:
        return (torch.rand(n, device=device) * 2 - 1) * math.radians(self.rotation)

    def _jitter_colour(self, x: Tensor) -> Tensor:
        (b, c), device = x.shape[:2], x.device
        colours = _colour_channels(c)
        mask_b, brightness = self._randomly(0.2 * torch.randn(b, device=device), 0.0)
        mask_c, contrast = self._randomly(torch.exp2(0.5 * torch.randn(b, device=device)), 1.0)
        changed = mask_b | mask_c
        colour = _per_image(contrast, x) * (x[:, :colours] + _per_image(brightness, x))
        if colours == 3:
            mask_h, hue = self._randomly((torch.rand(b, device=device) * 2 - 1) * math.pi, 0.0)
            mask_s, saturation = self._randomly(torch.exp2(torch.randn(b, device=device)), 1.0)
            changed = changed | mask_h | mask_s
            matrix = _hue_saturation(hue, saturation).to(x.dtype)  # (B,3,3)
            colour = (matrix[..., None, None] * colour[:, None]).sum(2)
        colour = torch.where(changed[:, None, None, None], colour, x[:, :colours])
        return torch.cat([colour, x[:, colours:]], 1)

    def extra_repr(self) -> str:
        return f"{', '.join(self.policy)}, target={self.target:g}, cap={self.cap:g}"


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """The product of matrices (B,3,3) in full precision: `@` may round to bfloat16 or TF32."""
    return (a[..., None] * b[:, None]).sum(2)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    """A matrix (B,3,3) from its entries (B,)."""
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _scale(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix([[x, zero, zero], [zero, y, zero], [zero, zero, one]])


def _rotation(angle: Tensor) -> Tensor:
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    return _matrix([[angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero], [zero, zero, one]])


def _translation(shift: Tensor) -> Tensor:
    zero, one = torch.zeros_like(shift[:, 0]), torch.ones_like(shift[:, 0])
    return _matrix([[one, zero, shift[:, 0]], [zero, one, shift[:, 1]], [zero, zero, one]])


def _hue_saturation(hue: Tensor, saturation: Tensor) -> Tensor:
    """Colour matrices (B,3,3): rotation about the grey axis (Rodrigues's formula), then scaling away from it."""
    axis = torch.full((3,), 3**-0.5, device=hue.device)
    grey = torch.outer(axis, axis)
    eye = torch.eye(3, device=hue.device)
    cross = (eye.roll(-1, 1) - eye.roll(1, 1)) * 3**-0.5
    cos, sin, scale = (v[:, None, None] for v in (hue.cos(), hue.sin(), saturation))
    rotation = cos * eye + (1 - cos) * grey + sin * cross
    return grey + scale * (rotation - grey)  # = (grey + scale (1 - grey)) rotation, which leaves grey unchanged


def warp(x: Tensor, inverse: Tensor) -> Tensor:
    """Images (B,C,H,W) resampled bilinearly at the positions that `inverse` (B,2,3) gives, reflected at the edges.

    Positions are (x, y) in pixels from the image's centre.
    """
    b, c, h, w = x.shape
    grid_y = torch.arange(h, device=x.device) - (h - 1) / 2
    grid_x = torch.arange(w, device=x.device) - (w - 1) / 2
    grid = [grid_x.repeat(h), grid_y.repeat_interleave(w)]  # (HW,) each
    columns, rows = (
        inverse[:, i, 0:1] * grid[0] + inverse[:, i, 1:2] * grid[1] + inverse[:, i, 2:3] + (n - 1) / 2
        for i, n in enumerate((w, h))
    )  # (B,HW)
    left, top = columns.floor(), rows.floor()
    weight_x, weight_y = (columns - left).to(x.dtype)[:, None], (rows - top).to(x.dtype)[:, None]  # (B,1,HW) in [0,1)
    neighbours = [(_reflect(left, w), 1 - weight_x), (_reflect(left + 1, w), weight_x)]
    flat = x.flatten(2)
    rows_of_pixels = []
    for row in (top, top + 1):
        start = _reflect(row, h) * w
        near, far = (weight * flat.gather(2, (start + i)[:, None].expand(b, c, -1)) for i, weight in neighbours)
        rows_of_pixels.append(near + far)
    return ((1 - weight_y) * rows_of_pixels[0] + weight_y * rows_of_pixels[1]).view(b, c, h, w)


def _reflect(position: Tensor, n: int) -> Tensor:
    """Integral positions as indices in [0,n-1], by reflection at the first and the last pixel."""
    return ((n - 1) - (position.remainder(2 * (n - 1)) - (n - 1)).abs()).long()


class InstanceNoise(Transform):
    """Instance noise: Gaussian noise on every image whose standard deviation falls linearly to 0.

    Sønderby et al. 2017; Arjovsky and Bottou 2017, Theorem 2.3.

    Real and generated images lie on low-dimensional sets that hardly intersect, so a perfect D exists, whose gradient
    is of no use to G. Noise on both makes their distributions overlap.

    Args:
        sigma: standard deviation at the start, where images are in [-1,1]. Raise it if D wins at once; lower it if
            generated images stay noisy.
        images: real images after which there is no noise, as a whole number such as 500000. Raise it if D wins as soon
            as the noise is gone; lower it if generated images are still noisy at the end.
        shape: (C,H,W) of an image or (D,1,1) of a point; filled from the data.

    Attributes:
        seen: number of real images so far, on the device; the model's checkpoint holds it.
    """

    seen: Tensor

    def __init__(self, sigma: float = 0.1, images: int = 500_000, *, shape: tuple[int, int, int]) -> None:
        super().__init__()
        if sigma < 0:
            raise ValueError(f"sigma is a standard deviation, got {sigma:g}; choose 0 or more")
        if images < 1:
            raise ValueError(f"images must be at least 1, got {images}")
        self.sigma, self.images = sigma, images
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, sign: Tensor, images: int) -> None:
        """Counts the real images of an update of D."""
        self.seen += images

    def transform(self, x: Tensor) -> Tensor:
        return x + self.level.to(x.dtype) * torch.randn_like(x)

    @property
    def level(self) -> Tensor:
        """The current standard deviation, ()."""
        return self.sigma * (1 - self.seen / self.images).clamp(min=0)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma:g}, images={self.images}"
