"""Seamless composites of two images: a model that inpaints fills a band around the edge of the mask.

The classical method beside it is gradient-domain blending (Pérez, Gangnet and Blake 2003, *Poisson image editing*), by
OpenCV.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from limner.apply import transparency
from limner.apply.files import ImageFile
from limner.apply.masks import Masks
from limner.core.batch import to_float, to_uint8
from limner.core.errors import LimnerError
from limner.data.degradations import opencv

Inpaint = Callable[[Tensor, Tensor], Tensor]
"""Images (1,C,H,W), and masks (1,1,H,W) with 1 in their holes, to whole images."""

_EDGE = 2  # pixels


def blend(
    inpaint: Inpaint,
    channels: int,
    background: ImageFile,
    foreground: ImageFile,
    mask: Masks | None,
    seam: int = 8,
) -> Tensor:
    """The foreground where the mask is white and the background elsewhere, (1,C,H,W) in [-1,1].

    Where the foreground is transparent, the background shows. A band around the edge of what is seen of the foreground,
    `seam` pixels to each side, is removed and inpainted by the model. The result is as transparent as the background.

    Args:
        inpaint: a model that fills holes.
        channels: of its images.
        background: the image that stays where the mask is black.
        foreground: an image of the same size; a cut-out may be transparent.
        mask: of the same size, white where the foreground is wanted; None for all of it.
        seam: half the width of the band that is inpainted, in pixels.

    Raises:
        LimnerError: sizes differ.
    """
    if seam < 1:
        raise LimnerError(f"seam={seam} is not possible; write how many pixels on each side are painted, 1 or more")
    opacity = _opacity(background, foreground, mask)
    pasted, alpha = _paste(background, foreground, opacity, channels)
    return transparency.with_alpha(inpaint(pasted, band((opacity > 0.5).float(), seam)), alpha)


def poisson(background: ImageFile, foreground: ImageFile, mask: Masks | None) -> Tensor:
    """The same composite by Poisson blending, (1,3,H,W) in [-1,1], with the background's alpha.

    Raises:
        LimnerError: sizes differ, the mask is black everywhere, or OpenCV is missing.
    """
    cv2, opacity = opencv(), _opacity(background, foreground, mask)
    pasted, alpha = _paste(background, foreground, opacity, 3)
    edge = (_EDGE,) * 4  # OpenCV leaves the outermost pixels of a mask out
    m = F.pad((opacity > 0.5).byte() * 255, edge)[0, 0].numpy()
    x, y, width, height = cv2.boundingRect(m)
    fore, back = (
        np.ascontiguousarray(to_uint8(F.pad(p, edge, mode="replicate")[0]).permute(1, 2, 0))
        for p in (pasted, background.tensor(3))
    )
    try:
        cloned = cv2.seamlessClone(fore, back, m, (x + width // 2, y + height // 2), cv2.NORMAL_CLONE)
    except cv2.error:  # a mask of a single pixel leaves nothing to solve
        cloned = fore
    result = to_float(torch.from_numpy(cloned).permute(2, 0, 1)[None])[..., _EDGE:-_EDGE, _EDGE:-_EDGE]
    return transparency.with_alpha(result, alpha)


def band(mask: Tensor, seam: int) -> Tensor:
    """1 within `seam` pixels of the edge of a mask (1,1,H,W), on either side, else 0."""
    side = 2 * seam + 1
    dilated = F.max_pool2d(mask, side, 1, seam)
    eroded = -F.max_pool2d(-mask, side, 1, seam)
    return dilated - eroded


def _paste(
    background: ImageFile, foreground: ImageFile, opacity: Tensor, channels: int
) -> tuple[Tensor, Tensor | None]:
    """Colours (1,C,H,W) of the foreground over the background, and their alpha in [-1,1], None if all is opaque."""
    if channels in (2, 4):  # alpha is a channel like the others
        return torch.where(opacity > 0.5, foreground.tensor(channels), background.tensor(channels)), None
    alpha = background.alpha
    behind = torch.ones_like(opacity) if alpha is None else (alpha + 1) / 2
    pasted, total = transparency.over(foreground.tensor(channels), opacity, background.tensor(channels), behind)
    return pasted, None if alpha is None else 2 * total - 1


def _opacity(background: ImageFile, foreground: ImageFile, masks: Masks | None) -> Tensor:
    """How much of the foreground is seen, (1,1,H,W) in [0,1]: the mask times the foreground's alpha."""
    if background.size != foreground.size:
        (h, w), (h2, w2) = background.size, foreground.size
        raise LimnerError(f"{background.name} is {h}×{w} and {foreground.name} {h2}×{w2}; make them the same size")
    mask = torch.ones(1, 1, *background.size) if masks is None else masks.read(background)
    if masks is not None and not bool(mask.any()):
        name = masks.path.name
        raise LimnerError(f"the mask {name} is black everywhere; make it white where the foreground is wanted")
    opacity = mask if foreground.alpha is None else mask * (foreground.alpha + 1) / 2
    if not bool((opacity > 0.5).any()):
        raise LimnerError(f"{foreground.name} is transparent where the mask is white; make it white where it is seen")
    return opacity
