"""Consecutive frames of a clip: where each point was in the last frame, and painting that stays on it.

Ruder, Dosovitskiy and Brox 2016, *Artistic style transfer for videos*, arXiv:1604.08610, section 4: optical flow
between frames says where a point was; where flow there and back agree, paint should move with it. They optimise pixels
under that loss; a net that paints in one pass has no loss to add it to, so its frames are blended with the last one.

    y_t  painted frame t
    o_t = y_t + steady c (warp(o_{t-1}) - y_t)       c: 1 where the point was seen before, 0 where it was not
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

_UNLIKE = 0.1  # mean difference of channels, of 1, from which a point is another one whatever the flow says


@dataclass
class Steady:
    """Takes frames in order and gives each, painted, in agreement with the one before.

    Args:
        amount: 0 leaves frames as they are, 0.9 holds on to nearly all that was there.

    Attributes:
        frames: seen so far.
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
        """The painted frame (H,W,3) in [0,1], blended with the last one where that shows the same."""
        cv2 = opencv()
        self.frames += 1
        if self._last is None:
            self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            self._last = frame, painted
            return painted
        before, shown = self._last
        grey, grey_before = (cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in (frame, before))
        back = self._flow.calc(grey, grey_before, None)
        there = self._flow.calc(grey_before, grey, None)
        now, source = (f.astype(np.float32) / np.float32(255) for f in (frame, before))
        off = np.abs(now - warp(source, back))
        seen = trusted(there, back) * (off.mean(2) < _UNLIKE)
        moved = warp(shown, back)
        soft = np.minimum(seen, cv2.blur(seen, (5, 5)))[..., None]
        result = np.clip(painted + self.amount * soft * (moved - painted), 0, 1).astype(np.float32)
        changes = np.abs(result - moved).mean(2)
        self._sums += np.array([(seen * changes).sum(), (seen * off.mean(2)).sum(), seen.sum()], np.float32) / seen.size
        self._last = frame, result
        return result

    @property
    def flicker(self) -> tuple[float, float] | None:
        """Mean change of a point from one frame to the next, followed along the flow, of 255: of results and of frames.

        What is left of frames themselves is noise, change of light and error of the flow: no painting can have less
        and still show them. None for fewer than two frames, or where no point could be followed.
        """
        if self._sums[2] == 0:
            return None
        return float(255 * self._sums[0] / self._sums[2]), float(255 * self._sums[1] / self._sums[2])


def warp(x: Floats, flow: Floats) -> Floats:
    """What lies at p + flow(p), for every p: (H,W,C), by cubic interpolation, edges repeated.

    Args:
        x: a frame (H,W,C), or a flow.
        flow: (H,W,2), pixels to the right and down.
    """
    cv2 = opencv()
    h, w = flow.shape[:2]
    across, down = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    found: Floats = cv2.remap(
        x, across + flow[..., 0], down + flow[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return found


def trusted(there: Floats, back: Floats) -> Floats:
    """1 where a point of this frame was visible in the last one, else 0: (H,W).

    Ruder et al. 2016, eq. 5 and 6 (after Sundaram, Brox and Keutzer 2010): flow there and back have to cancel, and
    places where the flow itself jumps are left out. Points that come from outside the frame are, too.

    Args:
        there: flow (H,W,2) from the last frame to this one, at the last frame's points.
        back: from this frame to the last one.
    """
    forth = warp(there, back)
    size = (forth**2).sum(2) + (back**2).sum(2)
    cancels = ((forth + back) ** 2).sum(2) <= 0.01 * size + 0.5
    jumps = sum((g**2).sum(2) for g in np.gradient(back, axis=(0, 1)))
    smooth = jumps <= 0.01 * (back**2).sum(2) + 0.002
    h, w = back.shape[:2]
    across, down = np.meshgrid(np.arange(w), np.arange(h))
    x, y = across + back[..., 0], down + back[..., 1]
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    return (cancels & smooth & inside).astype(np.float32)
