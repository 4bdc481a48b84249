"""Pictures with transparency, for nets that know colours alone: the one method that everything in `limner.apply` uses.

A picture that is laid over white, translated, and then cut out again keeps the white in its soft edges: on a dark page
they shine. So colours and alpha are kept apart, and nothing is mixed with a background that is not in the result:

1. `opaque` gives the net the picture's own colours wherever alpha is not 0. They go on for 15 pixels into the
   transparent parts, as a mean of the nearest colours weighted by alpha, so that a net, a blur or a change of size sees
   no other colour at the edge. Beyond lies white, as in training, where transparency is laid over white.
2. The net, and what follows it, works on these colours; where a task promises that something stays (the luminance of
   `colourise`, the pixels outside of a hole), it stays for the colours themselves.
3. `with_alpha` gives the result the alpha of the picture, at the size of the result.

Two pictures are laid over each other by `over`, which multiplies colours by alpha first, and divides at the end.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from limner.core.batch import to_float, to_uint8
from limner.data.files import decode

_RADII = (1, 2, 4, 8)  # their sum is how far in pixels colours go on into transparent parts


def has_alpha(image: Image.Image) -> bool:
    """Whether an image of mode L, LA, RGB or RGBA has an alpha channel."""
    return image.mode in ("LA", "RGBA")


def opaque(image: Image.Image) -> Image.Image:
    """The colours of an image of mode L, LA, RGB or RGBA without its alpha, mode L or RGB (step 1 above)."""
    if not has_alpha(image):
        return image
    values = np.asarray(image)
    colours, alpha = values[..., :-1], values[..., -1]
    if not alpha.all():
        x = torch.from_numpy(colours.transpose(2, 0, 1).copy())[None].float()
        filled = _extended(x, torch.from_numpy(alpha.copy())[None, None].float() / 255)
        colours = filled[0].round().to(torch.uint8).permute(1, 2, 0).numpy()
    return decode.from_array(np.ascontiguousarray(colours))


def _extended(x: Tensor, alpha: Tensor) -> Tensor:
    """Colours x (1,C,H,W) in [0,255] that go on where alpha (1,1,H,W) in [0,1] is 0, and white beyond."""
    visible = alpha > 0
    filled, weight, known = x * visible, alpha.clone(), visible.clone()
    for radius in _RADII:
        total, mass = _box(filled * weight, radius), _box(weight, radius)
        new = ~known & (mass > 1e-6)
        filled = torch.where(new, total / mass.clamp_min(1e-6), filled)
        weight, known = torch.where(new, mass, weight), known | new
    return torch.where(known, filled, 255.0)


def _box(x: Tensor, radius: int) -> Tensor:
    """The mean of x (B,C,H,W) over squares of 2 radius + 1 pixels a side; there is 0 outside of the image."""
    side = 2 * radius + 1
    rows = F.avg_pool2d(x, (side, 1), 1, (radius, 0))
    return F.avg_pool2d(rows, (1, side), 1, (0, radius))


def alpha_of(image: Image.Image) -> Tensor | None:
    """Alpha (1,1,H,W) in [-1,1], or None for an image without."""
    if not has_alpha(image):
        return None
    return to_float(torch.from_numpy(np.asarray(image.getchannel("A")).copy()))[None, None]


def with_alpha(y: Tensor, alpha: Tensor | None) -> Tensor:
    """The result y (1,C,H,W) with alpha (1,1,h,w), resized to y; y itself if there is none, or y has one already."""
    if alpha is None or y.shape[1] in (2, 4):
        return y
    if alpha.shape[2:] != y.shape[2:]:
        alpha = F.interpolate(alpha, y.shape[2:], mode="bicubic", antialias=True).clamp(-1, 1)
    return torch.cat([y, alpha.to(y)], 1)


def over(front: Tensor, opacity: Tensor, back: Tensor, back_opacity: Tensor) -> tuple[Tensor, Tensor]:
    """Colours and opacity of one picture laid over another (Porter and Duff 1984, *Compositing digital images*).

    Args:
        front: colours (1,C,H,W) in [-1,1], not multiplied by their opacity.
        opacity: its opacity (1,1,H,W) in [0,1].
        back: colours of the picture behind, (1,C,H,W).
        back_opacity: its opacity (1,1,H,W).
    """
    behind = back_opacity * (1 - opacity)
    total = opacity + behind
    mixed = (front * opacity + back * behind) / total.clamp_min(1e-6)
    return torch.where(total > 0, mixed, back), total


def over_white(image: Image.Image) -> Image.Image:
    """An image without alpha, laid over white, for formats that have none."""
    return decode.channelled(image, 3 if image.mode == "RGBA" else 1) if has_alpha(image) else image


def to_image(y: Tensor) -> Image.Image:
    """An image (C,H,W) in [-1,1], C from 1 to 4, of mode L, LA, RGB or RGBA."""
    return decode.from_array(np.ascontiguousarray(to_uint8(y).permute(1, 2, 0).cpu().numpy()))
