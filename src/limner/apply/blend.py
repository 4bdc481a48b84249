"""Seamless composites of two images: a model that inpaints fills a band around the edge of the mask.

The classical method beside it is gradient-domain blending (Pérez, Gangnet and Blake 2003, *Poisson image editing*), by
OpenCV.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from limner.apply.translate import ImageFile, Translation, read_mask
from limner.core.batch import to_float, to_uint8
from limner.core.errors import LimnerError
from limner.data.degradations import opencv


def blend(translation: Translation, background: ImageFile, foreground: ImageFile, mask: Path, seam: int = 8) -> Tensor:
    """The foreground where the mask is white and the background elsewhere, (1,C,H,W) in [-1,1].

    A band around the edge of the mask, `seam` pixels to each side, is removed and inpainted by the model.

    Args:
        translation: a model trained to inpaint.
        background: the image that stays where the mask is black.
        foreground: an image of the same size.
        mask: file of the same size, white where the foreground is wanted.
        seam: half the width of the band that is inpainted, in pixels.

    Raises:
        LimnerError: the model does not inpaint, or sizes differ.
    """
    task, channels = translation.task, translation.model.shape[0]
    if task is None or task.name != "inpaint":
        raise LimnerError("blending needs a model trained to inpaint; train one: limner train inpaint data=FOLDER")
    if seam < 1:
        raise LimnerError(f"seam={seam} is not possible; write how many pixels on each side are painted, 1 or more")
    m = _read_mask(background, foreground, mask)
    pasted = torch.where(m > 0, foreground.tensor(channels), background.tensor(channels))
    a = task.prepare(pasted, band(m, seam))
    return task.finish(a, translation.run(a))


def poisson(background: ImageFile, foreground: ImageFile, mask: Path) -> Tensor:
    """The same composite by Poisson blending, (1,3,H,W) in [-1,1].

    Raises:
        LimnerError: sizes differ, the mask is black everywhere, or OpenCV is missing.
    """
    cv2, m = opencv(), _read_mask(background, foreground, mask)[0, 0]
    rows, columns = torch.nonzero(m, as_tuple=True)
    centre = (int(columns.min() + columns.max()) // 2, int(rows.min() + rows.max()) // 2)
    fore, back = (np.ascontiguousarray(to_uint8(p.tensor(3)[0]).permute(1, 2, 0)) for p in (foreground, background))
    cloned = cv2.seamlessClone(fore, back, (m.numpy() * 255).astype(np.uint8), centre, cv2.NORMAL_CLONE)
    return to_float(torch.from_numpy(cloned).permute(2, 0, 1)[None])


def band(mask: Tensor, seam: int) -> Tensor:
    """1 within `seam` pixels of the edge of a mask (1,1,H,W), on either side, else 0."""
    side = 2 * seam + 1
    dilated = F.max_pool2d(mask, side, 1, seam)
    eroded = -F.max_pool2d(-mask, side, 1, seam)
    return dilated - eroded


def _read_mask(background: ImageFile, foreground: ImageFile, path: Path) -> Tensor:
    """The mask (1,1,H,W), 1 where the foreground is wanted."""
    if background.size != foreground.size:
        (h, w), (h2, w2) = background.size, foreground.size
        raise LimnerError(f"{background.name} is {h}×{w} and {foreground.name} {h2}×{w2}; make them the same size")
    mask = read_mask(path, background)
    if not bool(mask.any()):
        raise LimnerError(f"the mask {path.name} is black everywhere; make it white where the foreground is wanted")
    return mask
