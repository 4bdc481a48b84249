"""Seamless composites of two pictures: the seam between them is painted anew by a model that inpaints.

The classic way beside it is gradient-domain blending: Pérez, Gangnet and Blake 2003, *Poisson image editing*, by
OpenCV.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from limner.apply.translate import Picture, Translation, mask_of
from limner.core.batch import to_float, to_uint8
from limner.core.errors import LimnerError
from limner.data.degradations import opencv


def blend(translation: Translation, background: Picture, foreground: Picture, mask: Path, seam: int = 8) -> Tensor:
    """The foreground laid into the background where the mask is white, (1,C,H,W) in [-1,1].

    A band around the edge of the mask, `seam` pixels to each side, is taken out and painted by the model.

    Args:
        translation: a model trained to inpaint.
        background: the picture that stays where the mask is black.
        foreground: a picture of the same size.
        mask: file of the same size, white where the foreground is wanted.
        seam: half the width of the band that is painted, in pixels.

    Raises:
        LimnerError: the model does not inpaint, or sizes differ.
    """
    task, channels = translation.task, translation.model.shape[0]
    if task is None or task.name != "inpaint":
        raise LimnerError("blending needs a model trained to inpaint; train one: limner train inpaint data=FOLDER")
    if seam < 1:
        raise LimnerError(f"seam={seam} is not possible; write how many pixels on each side are painted, 1 or more")
    wanted = _wanted(background, foreground, mask)
    together = torch.where(wanted > 0, foreground.tensor(channels), background.tensor(channels))
    a = task.prepare(together, band(wanted, seam))
    return task.finish(a, translation.run(a))


def poisson(background: Picture, foreground: Picture, mask: Path) -> Tensor:
    """The same by Poisson blending, (1,3,H,W) in [-1,1].

    Raises:
        LimnerError: sizes differ, the mask is empty, or OpenCV is missing.
    """
    cv2, wanted = opencv(), _wanted(background, foreground, mask)
    rows, columns = torch.nonzero(wanted[0, 0], as_tuple=True)
    inside = (wanted[0, 0].numpy() * 255).astype(np.uint8)
    centre = (int(columns.min() + columns.max()) // 2, int(rows.min() + rows.max()) // 2)
    fore, back = (np.ascontiguousarray(to_uint8(p.tensor(3)[0]).permute(1, 2, 0)) for p in (foreground, background))
    done = cv2.seamlessClone(fore, back, inside, centre, cv2.NORMAL_CLONE)
    return to_float(torch.from_numpy(done).permute(2, 0, 1)[None])


def band(mask: Tensor, seam: int) -> Tensor:
    """What lies within `seam` pixels of the edge of a mask (1,1,H,W), on either side: 1 there."""
    side = 2 * seam + 1
    grown = F.max_pool2d(mask, side, 1, seam)
    shrunk = -F.max_pool2d(-mask, side, 1, seam)
    return grown - shrunk


def _wanted(background: Picture, foreground: Picture, mask: Path) -> Tensor:
    if background.size != foreground.size:
        (h, w), (h2, w2) = background.size, foreground.size
        raise LimnerError(f"{background.name} is {h}×{w} and {foreground.name} {h2}×{w2}; make them alike")
    wanted = mask_of(mask, background)
    if not bool(wanted.any()):
        raise LimnerError(f"the mask {mask.name} is black all over; make it white where the foreground is wanted")
    return wanted
