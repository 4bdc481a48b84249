"""Image transforms before D: of real *and* generated images, differentiable, so that G learns through them.

A discriminator with few images learns them by heart. If it sees nothing but transformed images, real and generated ones
alike, it has many more to learn, and as long as the transform keeps distributions apart the generator still has to
match the untransformed ones.

`DiffAugment`: Zhao, Liu, Lin, Zhu and Han 2020, *Differentiable augmentation for data-efficient GAN training*,
arXiv:2006.10738. `ADA`: Karras, Aittala, Hellsten, Laine, Lehtinen and Aila 2020, *Training generative adversarial
networks with limited data*, arXiv:2006.06676. `InstanceNoise`: Sønderby, Caballero, Theis, Shi and Huszár 2017,
*Amortised MAP inference for image super-resolution*, arXiv:1610.04490, and Arjovsky and Bottou 2017, *Towards
principled methods for training generative adversarial networks*, arXiv:1701.04862.

All draw from torch's default generator on the images' device, anew for each image. Like dropout they do nothing in
evaluation mode. Images are warped by gathering pixels, because `grid_sample` has neither a second derivative, which
gradient penalties need, nor a deterministic first one on a GPU.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Zhao = Literal["colour", "translation", "cutout"]
Karras = Literal["blit", "geometry", "colour"]


class Transform(nn.Module):
    """What happens to every image, real or generated, before a discriminator sees it."""

    classes = 0

    def changed(self, x: Tensor) -> Tensor:
        """Transformed images (B,C,H,W); in evaluation mode the same ones."""
        if not self.training:
            return x
        # In half precision the changes would round, and those of G's images not as those of the data.
        return self.change(x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).to(x.dtype)

    def change(self, x: Tensor) -> Tensor:
        """Images (B,C,H,W) of float32 or float64, transformed."""
        raise NotImplementedError

    def observe(self, sign: Tensor, images: int) -> None:
        """Adapts to how D does: called after each of its updates.

        Args:
            sign: the mean sign () of D's logits of real images.
            images: real images of the step.
        """


class Identity(Transform):
    """Leaves images as they are."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x


def _checked(kind: str, policy: tuple[str, ...], known: tuple[str, ...], shape: tuple[int, int, int]) -> None:
    wrong = [p for p in policy if p not in known]
    if wrong or not policy:
        what = f"{wrong[0]!r} is not possible" if wrong else "there is none"
        raise ValueError(f"policy: {what}; choose from {', '.join(known)}")
    c, h, w = shape
    if min(h, w) < 2:
        raise ValueError(f"{kind} transforms images, not points or lines of {h}×{w}; use augment.InstanceNoise")
    if c > 4:
        raise ValueError(f"{kind} takes images of 1 to 4 channels, these have {c}; use augment.InstanceNoise")


def _colours(channels: int) -> int:
    """How many of the channels are colours; the second of two and the fourth of four are alpha."""
    return 3 if channels > 2 else 1


def _per_image(values: Tensor, x: Tensor) -> Tensor:
    """Values (B,) as (B,1,1,1) of the type of x."""
    return values.to(x.dtype)[:, None, None, None]


class DiffAugment(Transform):
    """Every image gets every kind of change, always, each by an amount of its own (Zhao et al. 2020).

    * colour: brightness + U(-1/2, 1/2), saturation × U(0, 2), contrast × U(1/2, 3/2), both about their means;
      grey images have no saturation;
    * translation: by whole pixels, up to 1/8 of the side each way; what comes in is 0, which is grey;
    * cutout: a square (in pixels of each side) of half the side is set to 0; its centre is anywhere in the image.

    Args:
        policy: the kinds, in the order in which they are applied. Take one out if generated images show it, as grey
            bars or squares say; that happens when D is too weak to undo it.
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(
        self, policy: tuple[Zhao, ...] = ("colour", "translation", "cutout"), *, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        _checked("DiffAugment", policy, ("colour", "translation", "cutout"), shape)
        self.policy = policy

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Transformed images (B,C,H,W) of images (B,C,H,W); in evaluation mode the same ones."""
        return self.changed(x)

    def change(self, x: Tensor) -> Tensor:
        for kind in self.policy:
            if kind == "colour":
                x = recoloured(x)
            elif kind == "translation":
                x = translated(x)
            else:
                x = cut(x)
        return x

    def extra_repr(self) -> str:
        """What `print(net)` shows."""
        return ", ".join(self.policy)


def recoloured(x: Tensor) -> Tensor:
    """Images (B,C,H,W) of other brightness, saturation and contrast; alpha stays."""
    b, c = x.shape[:2]
    brightness, saturation, contrast = (_per_image(u, x) for u in torch.rand(3, b, device=x.device))
    colour = x[:, : _colours(c)] + (brightness - 0.5)
    if _colours(c) == 3:
        grey = colour.mean(1, keepdim=True)
        colour = grey + 2 * saturation * (colour - grey)
    mean = colour.mean((1, 2, 3), keepdim=True)
    colour = mean + (contrast + 0.5) * (colour - mean)
    return torch.cat([colour, x[:, _colours(c) :]], 1)


def translated(x: Tensor) -> Tensor:
    """Images (B,C,H,W) moved by whole pixels, up to 1/8 of the side each way, zeros coming in."""
    for dim in (2, 3):
        n = x.shape[dim]
        most = int(n / 8 + 0.5)
        move = torch.randint(-most, most + 1, (len(x), 1), device=x.device)
        source = torch.arange(n, device=x.device) - move  # (B,n)
        view = (-1, 1, n, 1) if dim == 2 else (-1, 1, 1, n)
        inside = ((source >= 0) & (source < n)).view(view)
        moved = x.gather(dim, source.clamp(0, n - 1).view(view).expand_as(x))
        x = torch.where(inside, moved, torch.zeros((), dtype=x.dtype, device=x.device))
    return x


def cut(x: Tensor) -> Tensor:
    """Images (B,C,H,W), half of each side of which is 0 about a centre anywhere in the image."""
    covered = []
    for dim in (2, 3):
        n = x.shape[dim]
        size = int(n / 2 + 0.5)
        first = torch.randint(0, n + 1 - size % 2, (len(x), 1), device=x.device) - size // 2
        place = torch.arange(n, device=x.device) - first  # (B,n)
        covered.append((place >= 0) & (place < size))
    rows, columns = covered
    hole = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(hole, torch.zeros((), dtype=x.dtype, device=x.device), x)


class ADA(Transform):
    """Adaptive discriminator augmentation: as much as D needs not to overfit (Karras et al. 2020).

    Each change of each image happens with probability p, so for p < 1 some images always stay what they are, and the
    transform does not leak into what is generated. p starts at 0, where this is exactly the identity. D overfits when
    it is sure of its real images: r_t = E[sign D(real)], which is 0 for a D that guesses and 1 for one that knows them
    all. Every 4 observations p moves by (images since) / `speed_images`, up if r_t is above `target`, else down.

    * blit: whole-pixel moves of up to 1/8 of the side, and mirroring if `flip`;
    * geometry: isotropic scaling by 2^N(0, 0.2²), rotation before and after anisotropic scaling by 2^N(0, 0.2²), moves
      by N(0, (side/8)²); outside the image lies its reflection;
    * colour: brightness + N(0, 0.2²), contrast × 2^N(0, 0.5²), and, where there is colour, hue by any angle and
      saturation × 2^N(0, 1).

    Departures: images are resampled once and bilinearly, without the paper's wavelet filters; no quarter turns and no
    inversion of luma; its filters and corruptions, which the paper found not to help, are left out. The cap on p is
    ours; without one p runs past 1 on very small sets, and then the transform leaks.

    Args:
        target: of r_t. Lower it if D still overfits; raise it if the changes show in generated images.
        policy: kinds of change.
        speed_images: real images over which p could rise from 0 to 1, as a whole number such as 500000. Lower it if
            training ends before p has settled; raise it if p swings.
        cap: largest p. Lower it if the changes show in generated images; raise it if r_t stays above `target`.
        flip: whether mirrored images are likely images too. Turn it off for digits, letters and whatever knows its
            left from its right.
        rotation: largest angle in degrees; 180 is the paper's. Lower it if images have one way up and p comes near 1.
        shape: (C,H,W) of an image; filled from the data.

    Attributes:
        p: the probability now, on the device; the model's checkpoint holds it.
    """

    p: Tensor
    signs: Tensor
    observations: Tensor
    images: Tensor

    every = 4  # observations between changes of p, as in the paper

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
        _checked("ADA", policy, ("blit", "geometry", "colour"), shape)
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
        """Told after each update of D: the mean sign of its logits of real images (), and the step's real images."""
        self.signs += sign.detach()
        self.observations += 1
        self.images += images
        due = self.observations >= self.every
        move = (self.signs / self.every - self.target).sign() * (self.images / self.speed_images)
        self.p.copy_(torch.where(due, (self.p + move).clamp(0, self.cap), self.p))
        for seen in (self.signs, self.observations, self.images):
            seen *= ~due

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Transformed images (B,C,H,W) of images (B,C,H,W); in evaluation mode the same ones."""
        return self.changed(x)

    def change(self, x: Tensor) -> Tensor:
        if "blit" in self.policy or "geometry" in self.policy:
            moved, inverse = self._inverse(x)
            x = torch.where(moved[:, None, None, None], warped(x, inverse), x)
        return self._recoloured(x) if "colour" in self.policy else x

    def _some(self, values: Tensor, otherwise: float, p: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Which images (B,) are changed, and the values (B,), or `otherwise` where they are not."""
        chosen = torch.rand(len(values), device=values.device) < (self.p if p is None else p)
        return chosen, torch.where(chosen, values, otherwise)

    def _inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Which images (B,) are warped, and the maps (B,2,3) from a warped image's places to its source's.

        Places are pixels (x, y) from the image's centre. The source is looked for, so each change enters by its inverse
        on the right.
        """
        (b, _, h, w), device = x.shape, x.device
        moved = torch.zeros(b, dtype=torch.bool, device=device)
        inverse = torch.eye(3, device=device).repeat(b, 1, 1)
        side = torch.cat([torch.full((1,), n, device=device) for n in (w, h)])  # no number comes from the host
        if "blit" in self.policy:
            if self.flip:
                mirrored, sign = self._some(1 - 2 * torch.randint(0, 2, (b,), device=device).float(), 1.0)
                inverse, moved = _after(inverse, _scaling(sign, torch.ones_like(sign))), moved | mirrored
            chosen, here = self._some(torch.ones(b, device=device), 0.0)
            move = ((torch.rand(b, 2, device=device) * 2 - 1) * side / 8).round() * here[:, None]
            inverse, moved = _after(inverse, _moving(-move)), moved | chosen
        if "geometry" in self.policy:
            chosen, size = self._some(torch.exp2(0.2 * torch.randn(b, device=device)), 1.0)
            inverse, moved = _after(inverse, _scaling(1 / size, 1 / size)), moved | chosen
            turns = 1 - (1 - self.p).sqrt()  # so that an image is turned at all with probability p
            chosen, angle = self._some(self._angles(b, device), 0.0, turns)
            inverse, moved = _after(inverse, _turning(-angle)), moved | chosen
            chosen, size = self._some(torch.exp2(0.2 * torch.randn(b, device=device)), 1.0)
            inverse, moved = _after(inverse, _scaling(1 / size, size)), moved | chosen
            chosen, angle = self._some(self._angles(b, device), 0.0, turns)
            inverse, moved = _after(inverse, _turning(-angle)), moved | chosen
            chosen, here = self._some(torch.ones(b, device=device), 0.0)
            move = torch.randn(b, 2, device=device) * side / 8 * here[:, None]
            inverse, moved = _after(inverse, _moving(-move)), moved | chosen
        return moved, inverse[:, :2]

    def _angles(self, n: int, device: torch.device) -> Tensor:
        return (torch.rand(n, device=device) * 2 - 1) * math.radians(self.rotation)

    def _recoloured(self, x: Tensor) -> Tensor:
        (b, c), device = x.shape[:2], x.device
        colours = _colours(c)
        bright, brightness = self._some(0.2 * torch.randn(b, device=device), 0.0)
        strong, contrast = self._some(torch.exp2(0.5 * torch.randn(b, device=device)), 1.0)
        changed = bright | strong
        colour = _per_image(contrast, x) * (x[:, :colours] + _per_image(brightness, x))
        if colours == 3:
            turned, hue = self._some((torch.rand(b, device=device) * 2 - 1) * math.pi, 0.0)
            tinted, saturation = self._some(torch.exp2(torch.randn(b, device=device)), 1.0)
            changed = changed | turned | tinted
            matrix = _tinting(hue, saturation).to(x.dtype)  # (B,3,3)
            colour = (matrix[..., None, None] * colour[:, None]).sum(2)
        colour = torch.where(changed[:, None, None, None], colour, x[:, :colours])
        return torch.cat([colour, x[:, colours:]], 1)

    def extra_repr(self) -> str:
        """What `print(net)` shows."""
        return f"{', '.join(self.policy)}, target={self.target:g}, cap={self.cap:g}"


def _after(a: Tensor, b: Tensor) -> Tensor:
    """The product of matrices (B,3,3), exact where it can be: `@` may round to bfloat16 or TF32."""
    return (a[..., None] * b[:, None]).sum(2)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    """A matrix (B,3,3) of its entries (B,)."""
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _scaling(across: Tensor, down: Tensor) -> Tensor:
    zero, one = torch.zeros_like(across), torch.ones_like(across)
    return _matrix([[across, zero, zero], [zero, down, zero], [zero, zero, one]])


def _turning(angle: Tensor) -> Tensor:
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    return _matrix([[angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero], [zero, zero, one]])


def _moving(by: Tensor) -> Tensor:
    """Of moves (B,2)."""
    zero, one = torch.zeros_like(by[:, 0]), torch.ones_like(by[:, 0])
    return _matrix([[one, zero, by[:, 0]], [zero, one, by[:, 1]], [zero, zero, one]])


def _tinting(hue: Tensor, saturation: Tensor) -> Tensor:
    """Maps of colours (B,3,3): turns about the grey axis (Rodrigues's formula), then scaling away from it."""
    axis = torch.full((3,), 3**-0.5, device=hue.device)
    grey = torch.outer(axis, axis)
    eye = torch.eye(3, device=hue.device)
    cross = (eye.roll(-1, 1) - eye.roll(1, 1)) * 3**-0.5
    cos, sin, scale = (v[:, None, None] for v in (hue.cos(), hue.sin(), saturation))
    turn = cos * eye + (1 - cos) * grey + sin * cross
    return grey + scale * (turn - grey)  # the turn leaves grey where it is, so this is (grey + scale (1 - grey)) turn


def warped(x: Tensor, inverse: Tensor) -> Tensor:
    """Images (B,C,H,W), each pixel fetched bilinearly from where `inverse` (B,2,3) says, reflected at the edges.

    Places are (x, y) in pixels from the image's centre.
    """
    b, c, h, w = x.shape
    down = torch.arange(h, device=x.device) - (h - 1) / 2
    across = torch.arange(w, device=x.device) - (w - 1) / 2
    grid = [across.repeat(h), down.repeat_interleave(w)]  # (HW,) each
    columns, rows = (
        inverse[:, i, 0:1] * grid[0] + inverse[:, i, 1:2] * grid[1] + inverse[:, i, 2:3] + (n - 1) / 2
        for i, n in enumerate((w, h))
    )  # (B,HW)
    left, top = columns.floor(), rows.floor()
    right, low = (columns - left).to(x.dtype)[:, None], (rows - top).to(x.dtype)[:, None]  # (B,1,HW) shares in [0,1)
    sides = [(_reflected(left, w), 1 - right), (_reflected(left + 1, w), right)]
    flat = x.flatten(2)
    lines = []
    for edge in (top, top + 1):
        start = _reflected(edge, h) * w
        near, far = (share * flat.gather(2, (start + p)[:, None].expand(b, c, -1)) for p, share in sides)
        lines.append(near + far)
    return ((1 - low) * lines[0] + low * lines[1]).view(b, c, h, w)


def _reflected(place: Tensor, n: int) -> Tensor:
    """Whole-numbered places as indices in [0,n-1], mirrored at the first and the last as often as it takes."""
    return ((n - 1) - (place.remainder(2 * (n - 1)) - (n - 1)).abs()).long()


class InstanceNoise(Transform):
    """Gaussian noise on every image, less and less (Sønderby et al. 2017; Arjovsky and Bottou 2017, Theorem 2.3).

    Real and generated images lie on thin sets that hardly meet, so a perfect D exists and gives G no direction. Noise
    of the same kind on both makes them overlap. The standard deviation falls linearly to 0.

    Args:
        sigma: standard deviation at the start, where images are in [-1,1]. Raise it if D wins at once; lower it if
            generated images stay noisy.
        images: real images after which there is no noise, as a whole number such as 500000. Raise it if D wins as soon
            as the noise is gone; lower it if the end of training is too short to become sharp.
        shape: (C,H,W) of an image or (D,1,1) of a point; filled from the data.

    Attributes:
        seen: real images so far, on the device; the model's checkpoint holds it.
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
        """Told after each update of D: the mean sign of its logits of real images (), and the step's real images."""
        self.seen += images

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Transformed images (B,C,H,W) of images (B,C,H,W); in evaluation mode the same ones."""
        return self.changed(x)

    def change(self, x: Tensor) -> Tensor:
        return x + self.level.to(x.dtype) * torch.randn_like(x)

    @property
    def level(self) -> Tensor:
        """The standard deviation now, ()."""
        return self.sigma * (1 - self.seen / self.images).clamp(min=0)

    def extra_repr(self) -> str:
        """What `print(net)` shows."""
        return f"sigma={self.sigma:g}, images={self.images}"
