"""Temporal consistency of a painted clip: each frame is blended with the last one, moved along the optical flow.

Ruder, Dosovitskiy and Brox 2016, *Artistic style transfer for videos*, arXiv:1604.08610, section 4: optical flow
between frames says where a point was, and where forward and backward flow agree, paint should move with it. They
optimise pixels under that loss. A net that paints in one pass optimises nothing, so its frames are blended instead:

    y_t  painted frame t
    o_t = y_t + steady c (warp(o_{t-1}) - y_t)       c: 1 where the point was visible before, 0 where it was not
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limner.core.errors import LimnerError
from limner.data.degradations import opencv

Frame = NDArray[np.uint8]
"""(H,W,3) RGB."""
Floats = NDArray[np.float32]

_MAX_DIFFERENCE = 0.1  # mean over channels in [0,1]; points that differ more are not the same, whatever the flow says


@dataclass
class Steady:
    """Blends painted frames with the ones before; it takes them in order.

    Args:
        amount: 0 leaves frames as they are; 0.9 keeps nearly all of the frame before.

    Attributes:
        frames: number of frames so far.
    """

    amount: float
    frames: int = 0
    _last: tuple[Frame, Floats] | None = None
    _flow: Any = None
    _sums: Floats = field(default_factory=lambda: np.zeros(3, np.float32))

    def __post_init__(self) -> None:
        if not 0 <= self.amount < 1:
            raise LimnerError(f"steady must be at least 0 and less than 1, got {self.amount:g}; 0.6 is a good start")

    def __call__(self, frame: Frame, painted: Floats) -> Floats:
        """The painted frame (H,W,3) in [0,1], blended with the last one where both show the same point."""
        cv2 = opencv()
        self.frames += 1
        if self._last is None:
            self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            self._last = frame, painted
            return painted
        last_frame, last_result = self._last
        grey, last_grey = (cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in (frame, last_frame))
        backward = self._flow.calc(grey, last_grey, None)
        forward = self._flow.calc(last_grey, grey, None)
        x, last_x = (f.astype(np.float32) / np.float32(255) for f in (frame, last_frame))
        difference = np.abs(x - warp(last_x, backward)).mean(2)
        visible = consistent(forward, backward) * (difference < _MAX_DIFFERENCE)
        warped = warp(last_result, backward)
        weight = np.minimum(visible, cv2.blur(visible, (5, 5)))[..., None]
        result = np.clip(painted + self.amount * weight * (warped - painted), 0, 1).astype(np.float32)
        change = np.abs(result - warped).mean(2)
        sums = [(visible * change).sum(), (visible * difference).sum(), visible.sum()]
        self._sums += np.array(sums, np.float32) / visible.size
        self._last = frame, result
        return result

    @property
    def flicker(self) -> tuple[float, float] | None:
        """Mean change of a point from one frame to the next along the flow, of 255: of results and of source frames.

        Source frames change by noise, light and errors of the flow; a painting that shows them can have no less.
        None for fewer than two frames, or where no point could be followed.
        """
        if self._sums[2] == 0:
            return None
        return float(255 * self._sums[0] / self._sums[2]), float(255 * self._sums[1] / self._sums[2])


def warp(x: Floats, flow: Floats) -> Floats:
    """Values (H,W,C) of x at p + flow(p) for every point p, by cubic interpolation, edges repeated.

    Args:
        x: a frame (H,W,C), or a flow.
        flow: (H,W,2), pixels to the right and down.
    """
    cv2 = opencv()
    h, w = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    border = cv2.BORDER_REPLICATE
    warped: Floats = cv2.remap(x, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_CUBIC, borderMode=border)
    return warped


def consistent(forward: Floats, backward: Floats) -> Floats:
    """1 where a point of this frame was visible in the last one, else 0: (H,W).

    Ruder et al. 2016, eq. 5 and 6 (after Sundaram, Brox and Keutzer 2010): forward and backward flow have to cancel,
    and the edges of moving things, where the flow changes abruptly, are left out. So are points from outside the frame.

    Args:
        forward: flow (H,W,2) from the last frame to this one, at the last frame's points.
        backward: flow (H,W,2) from this frame to the last one.
    """
    warped = warp(forward, backward)
    size = (warped**2).sum(2) + (backward**2).sum(2)
    cancels = ((warped + backward) ** 2).sum(2) <= 0.01 * size + 0.5
    gradient = sum((g**2).sum(2) for g in np.gradient(backward, axis=(0, 1)))
    smooth = gradient <= 0.01 * (backward**2).sum(2) + 0.002
    h, w = backward.shape[:2]
    columns, rows = np.meshgrid(np.arange(w), np.arange(h))
    x, y = columns + backward[..., 0], rows + backward[..., 1]
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    return (cancels & smooth & inside).astype(np.float32)
