"""Clips: every frame is painted, the sound is kept, and memory does not grow with the length.

Frames are read, painted and written one after the other, with the times they had, so clips whose frame rate varies
stay in step with their sound, which is copied and not encoded again. PyAV (FFmpeg) reads and writes the files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limner.apply.steady import Frame, Steady
from limner.core.batch import to_float
from limner.core.errors import LimnerError, extra
from limner.core.signals import stop_signals

SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"))
_USUAL = ("libx264", {"crf": "18", "preset": "medium"})
_CODECS = {
    ".webm": ("libvpx-vp9", {"crf": "24", "b": "0", "row-mt": "1"}),
    ".avi": ("libx264", {"crf": "18", "preset": "medium", "bf": "0"}),  # AVI keeps no times, so frames stay in order
}
_BT709, _UNSAID = 1, 2  # of ITU-T H.273: matrix, primaries and transfer alike
_LATE = 2.0  # seconds after the end until which packets may be needed for frames before it
_HD = 720  # lines from which a clip that says nothing is meant to be BT.709 rather than BT.601


@dataclass(frozen=True)
class Clip:
    """What became of a clip.

    Attributes:
        path: of the file.
        frames: written.
        seconds: it took.
        flicker: mean change of a point from one painted frame to the next, of 255; None where none could be followed.
        flicker_before: the same of the clip as it was: the least there can be.
        stopped: seconds of the clip at which it was interrupted; None for all of it.
    """

    path: Path
    frames: int
    seconds: float
    flicker: float | None
    flicker_before: float | None
    stopped: float | None = None

    @property
    def text(self) -> str:
        """One line on it."""
        if self.stopped is not None:
            at = f"stopped at {self.stopped:.2f} s: {self.path} has {self.frames} frames"
            return f"{at}; go on with start={self.stopped}"
        told = f"wrote {self.frames} frames to {self.path} in {self.seconds:.0f} s"
        if self.flicker is None or self.flicker_before is None:
            return told
        own = f"({self.flicker_before:.1f} in the clip itself)"
        return f"{told}; a point changes by {self.flicker:.1f} of 255 per frame {own}"


def is_clip(path: str | Path) -> bool:
    """Whether the name is that of a clip."""
    return Path(path).suffix.lower() in SUFFIXES


def paint(
    painter: Callable[[Tensor], Tensor],
    source: Path,
    out: Path,
    *,
    steady: float = 0.6,
    size: int | None = None,
    start: float = 0.0,
    end: float | None = None,
    sound: bool = True,
    said: Callable[[int, float, float], None] = lambda frames, at, whole: None,
) -> Clip:
    """Paints a clip. Ctrl-C or SIGTERM end it early: what is painted by then is a whole clip, beside `out`.

    Args:
        painter: from a frame (1,3,H,W) in [-1,1] to a painted one.
        source: MP4, MOV, MKV, WebM or AVI.
        out: likewise; its suffix says what is written. It appears when it is complete.
        steady: how much each frame holds on to the last one; 0 paints frames one by one.
        size: longer side of the result; by default that of the clip. Sides are even: odd ones lose a pixel.
        start: seconds of the clip to begin with.
        end: seconds to end before; by default where the clip ends.
        sound: copy the sound.
        said: is told after each frame: how many are painted, seconds of the clip reached, and seconds in all.

    Raises:
        LimnerError: PyAV is missing, the clip cannot be read or written, or holds no frame from `start` to `end`.
    """
    _check(source, out, start, end)
    began, reader, keeper = time.monotonic(), av(), Steady(steady)
    part = out.with_name(f"{out.stem}-part{out.suffix}")
    reached, signals = start, list[int]()
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _readable(source), reader.open(str(source)) as taken, reader.open(str(part), "w") as given:
            if not taken.streams.video:
                raise LimnerError(f"{source.name} holds no pictures")
            writer = _Writer(taken, given, source, out, sound, start)
            whole = float((taken.duration or 0) / reader.time_base)
            with stop_signals(signals.append):
                for frame in writer.frames(end):
                    at = float(frame.time or 0) - writer.zero
                    if at < start or (end is not None and at >= end):
                        continue
                    x = upright(frame, size)
                    y = painter(to_float(torch.from_numpy(x.copy()).permute(2, 0, 1))[None])
                    painted = ((y[0, :3].permute(1, 2, 0) + 1) / 2).numpy()
                    writer.write(np.rint(255 * keeper(x, painted)).astype(np.uint8), frame)
                    reached = at + writer.half
                    said(keeper.frames, at - start, (end or whole) - start)
                    if signals:
                        break
            writer.finish()
    except BaseException:  # whatever it was, half a file helps nobody
        part.unlink(missing_ok=True)
        raise
    if not keeper.frames:
        part.unlink(missing_ok=True)
        raise LimnerError(f"{source.name} has no frame from {start:g} s on" + ("" if end is None else f" to {end:g} s"))
    flicker, before = keeper.flicker or (None, None)
    path = part if signals else part.replace(out)
    return Clip(path, keeper.frames, time.monotonic() - began, flicker, before, reached if signals else None)


def av() -> Any:
    """The module of PyAV.

    Raises:
        LimnerError: the extra that brings it is missing.
    """
    return extra("av", "video", "clips need PyAV")


def upright(frame: Any, size: int | None = None) -> Frame:
    """A frame as (H,W,3) RGB: turned as the camera noted, its longer side `size` pixels, both sides even."""
    rotation = int(frame.rotation) % 360
    h, w = (frame.width, frame.height) if rotation in (90, 270) else (frame.height, frame.width)
    if size is not None:
        h, w = (max(2, round(n * size / max(h, w))) for n in (h, w))
    a, b = (w, h) if rotation in (90, 270) else (h, w)
    matrix = "itu709" if frame.colorspace == _UNSAID and frame.height >= _HD else None
    x: Frame = frame.reformat(b, a, format="rgb24", src_colorspace=matrix).to_ndarray()
    turned = np.rot90(x, rotation // 90)  # FFmpeg counts counterclockwise, as numpy does
    return np.ascontiguousarray(turned[: h - h % 2, : w - w % 2])


class _Writer:
    """The file that is made: its streams, and what belongs between the frames.

    Args:
        taken: the clip, open.
        given: the file, open.
        source: name of the clip.
        out: name of the file; its suffix chooses the codec.
        sound: copy it.
        start: seconds that are left out.

    Attributes:
        half: of the seconds from one frame to the next, in the mean.
        zero: seconds at which the clip begins by its own count.
    """

    def __init__(self, taken: Any, given: Any, source: Path, out: Path, sound: bool, start: float) -> None:
        self.taken, self.given, self.start = taken, given, start
        self.pictures = taken.streams.video[0]
        self.pictures.thread_type = "AUTO"
        codec, options = _CODECS.get(out.suffix.lower(), _USUAL)
        rate = self.pictures.average_rate or Fraction(25)
        self.made = given.add_stream(codec, rate=rate, options=options)
        self.made.pix_fmt = "yuv420p"
        coder = self.made.codec_context
        coder.time_base = self.made.time_base = self.pictures.time_base
        coder.colorspace = coder.color_primaries = coder.color_trc = coder.color_range = (
            _BT709  # 1 is limited range, too
        )
        self.half = float(1 / rate / 2)
        self.begun, self.zero = False, float((taken.start_time or 0) / av().time_base)
        if start:
            taken.seek(round((start + self.zero) * av().time_base))  # to the key frame before
        self.heard = taken.streams.audio[0] if sound and taken.streams.audio else None
        self.copied: Any = None
        self.waiting: list[Any] = []
        if self.heard is not None:
            if self.heard.codec_context.name not in given.supported_codecs:
                raise LimnerError(
                    f"the sound of {source.name} ({self.heard.codec_context.name}) does not fit into"
                    f" {out.suffix}; write {source.suffix}, or leave it out with sound=false"
                )
            self.copied = given.add_stream_from_template(self.heard)

    def frames(self, end: float | None) -> Iterator[Any]:
        """Frames in the order in which they are shown; sound is copied on the way, damaged packets are passed over."""
        for packet in self._packets(end):
            try:
                yield from packet.decode()
            except av().error.InvalidDataError:
                continue

    def _packets(self, end: float | None) -> Iterator[Any]:
        """Packets of pictures."""
        streams = [self.pictures] + ([] if self.heard is None else [self.heard])
        for packet in self.taken.demux(streams):
            if packet.dts is None:  # the last of its stream: the decoder gives what it still holds
                if packet.stream is self.pictures:
                    yield packet
                continue
            at = float(packet.dts * packet.time_base) - self.zero
            if packet.stream is self.pictures:
                if end is None or at < end + _LATE:
                    yield packet
            elif (at >= self.start or not self.start) and (end is None or at < end):  # sound may begin before 0
                self._copy(packet)

    def write(self, pixels: Frame, like: Any) -> None:
        """Encodes a frame (H,W,3) that is shown when `like` was."""
        rgb = av().VideoFrame.from_ndarray(pixels, format="rgb24")
        frame = rgb.reformat(format="yuv420p", dst_colorspace="itu709")
        if not self.begun:
            self.made.height, self.made.width = pixels.shape[:2]
        frame.time_base = self.pictures.time_base
        frame.pts = like.pts - self._offset(frame.time_base)
        self._mux(self.made.encode(frame))
        if not self.begun:
            self.begun = True
            for packet in self.waiting:
                self.given.mux(packet)
            self.waiting = []

    def finish(self) -> None:
        """Writes what the encoder still holds."""
        if self.begun:
            self._mux(self.made.encode(None))

    def _offset(self, base: Fraction) -> int:
        return round((self.start + self.zero) / base)

    def _copy(self, packet: Any) -> None:
        packet.stream = self.copied
        offset = self._offset(packet.time_base)
        packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
        if self.begun:
            self.given.mux(packet)
        else:
            self.waiting.append(packet)  # the header is written with the first frame, which knows its size

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            self.given.mux(packet)


def _check(source: Path, out: Path, start: float, end: float | None) -> None:
    if not source.is_file():
        raise LimnerError(f"there is no clip {str(source)!r}; check the path")
    if not is_clip(out):
        raise LimnerError(f"name the clip with its suffix: out={out.stem or 'clip'}.mp4 (or .mov, .mkv, .webm, .avi)")
    if out.exists() and out.samefile(source):
        raise LimnerError("out would overwrite the clip that is read; choose another name")
    if start < 0 or (end is not None and end <= start):
        raise LimnerError("start and end are seconds of the clip, end after start")


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    """What FFmpeg finds wrong with a file, in one line."""
    try:
        yield
    except av().error.FFmpegError as error:
        raise LimnerError(f"{source.name} cannot be painted: {error.strerror or error}") from None
