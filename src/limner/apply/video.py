"""Style transfer for clips: every frame is painted, the sound is kept, and memory does not grow with the length.

Frames are read, painted and written one after the other with their own times, so clips whose frame rate varies stay
in step with their sound, which is copied and not encoded again. PyAV (FFmpeg) reads and writes the files.
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

from limner.apply import outputs, tones
from limner.apply.steady import Frame, Steady
from limner.core.batch import to_float
from limner.core.errors import LimnerError, extra
from limner.core.signals import stop_signals

SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"))
_DEFAULT_CODEC = ("libx264", {"crf": "18", "preset": "medium"})
_CODECS = {
    ".webm": ("libvpx-vp9", {"crf": "24", "b": "0", "row-mt": "1"}),
    ".avi": ("libx264", {"crf": "18", "preset": "medium", "bf": "0"}),  # AVI stores no times, so frames stay in order
}
_BT709, _UNSPECIFIED = 1, 2  # of ITU-T H.273; the same numbers for matrix, primaries and transfer
_REORDERING = 2.0  # seconds after the end up to which packets may be needed to decode frames before it
_HD = 720  # height in pixels from which a clip without a colour matrix is taken for BT.709 rather than BT.601


@dataclass(frozen=True)
class Clip:
    """A painted clip.

    Attributes:
        path: the file.
        frames: number of frames written.
        seconds: time that it took.
        flicker: mean change of a point from one painted frame to the next, of 255; None where no point could be
            followed.
        flicker_before: the same of the source clip, which is the least that a painting of it can have.
        stopped: seconds of the clip at which it was interrupted; None for a complete clip.
        tones: the high dynamic range (PQ, HLG) that was mapped to sRGB; None where the clip has a usual one.
    """

    path: Path
    frames: int
    seconds: float
    flicker: float | None
    flicker_before: float | None
    stopped: float | None = None
    tones: str | None = None

    @property
    def text(self) -> str:
        """A summary in one line."""
        if self.stopped is not None:
            state = f"stopped at {self.stopped:.2f} s: {self.path} has {self.frames} frames"
            return f"{state}; go on with start={self.stopped}"
        summary = f"wrote {self.frames} frames to {self.path} in {self.seconds:.0f} s"
        if self.tones is not None:
            summary += f", mapped from high dynamic range ({self.tones}) to usual tones"
        if self.flicker is None or self.flicker_before is None:
            return summary
        before = f"({self.flicker_before:.1f} in the clip itself)"
        return f"{summary}; a point changes by {self.flicker:.1f} of 255 per frame {before}"


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
    overwrite: bool = False,
    on_frame: Callable[[int, float, float], None] = lambda frames, seconds, total: None,
) -> Clip:
    """Paints a clip. Ctrl-C or SIGTERM ends it early and leaves a playable clip of the frames so far beside `out`.

    Args:
        painter: from a frame (1,3,H,W) in [-1,1] to a painted one.
        source: an MP4, MOV, MKV, WebM or AVI file.
        out: the file to write; its suffix chooses the format. It appears when it is complete.
        steady: how much of the last frame each frame keeps; 0 paints frames independently.
        size: longer side of the result; by default that of the clip. Odd sides lose a pixel, as codecs need even ones.
        start: where to begin, in seconds of the clip.
        end: where to end, in seconds of the clip; by default at its end.
        sound: copy the sound.
        overwrite: replace `out` if it exists.
        on_frame: called after each frame with the number of frames, the seconds of the clip so far, and its length.

    Raises:
        LimnerError: `out` exists already, PyAV is missing, the clip cannot be read or written, or holds no frame from
            `start` to `end`.
    """
    _check(source, out, start, end)
    outputs.refuse_existing([out], overwrite, [source])
    began, av_, blender = time.monotonic(), av(), Steady(steady)
    part = outputs.numbered(out.with_name(f"{out.stem}-part{out.suffix}"))  # an earlier part is a result too
    position, signals, range_ = start, list[int](), None
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _ffmpeg_errors(source), av_.open(str(source)) as reader, av_.open(str(part), "w") as writer:
            if not reader.streams.video:
                raise LimnerError(f"{source.name} holds no pictures; give a clip that has a video track")
            copier = _Transcoder(reader, writer, source, out, sound, start)
            length = float((reader.duration or 0) / av_.time_base)
            with stop_signals(signals.append):
                for frame in copier.frames(end):
                    seconds = float(frame.time or 0) - copier.zero
                    if seconds < start or (end is not None and seconds >= end):
                        continue
                    x, range_ = to_rgb(frame, size), tones.TRANSFERS.get(int(frame.color_trc))
                    y = painter(to_float(torch.from_numpy(x.copy()).permute(2, 0, 1))[None])
                    painted = ((y[0, :3].permute(1, 2, 0) + 1) / 2).numpy()
                    copier.write(np.rint(255 * blender(x, painted)).astype(np.uint8), frame)
                    position = seconds + copier.half
                    on_frame(blender.frames, seconds - start, (end or length) - start)
                    if signals:
                        break
            copier.finish()
    except BaseException:  # an unfinished file cannot be played
        part.unlink(missing_ok=True)
        raise
    if not blender.frames:
        part.unlink(missing_ok=True)
        raise LimnerError(f"{source.name} has no frame from {start:g} s on" + ("" if end is None else f" to {end:g} s"))
    flicker, before = blender.flicker or (None, None)
    path = part if signals else part.replace(out)
    return Clip(path, blender.frames, time.monotonic() - began, flicker, before, position if signals else None, range_)


def av() -> Any:
    """The module of PyAV.

    Raises:
        LimnerError: the extra that installs it is missing.
    """
    return extra("av", "video", "clips need PyAV")


def to_rgb(frame: Any, size: int | None = None) -> Frame:
    """A frame as (H,W,3) RGB, turned upright by its metadata, its longer side `size` pixels, both sides even.

    The tones of high dynamic range (PQ, HLG) are mapped to sRGB.
    """
    rotation = int(frame.rotation) % 360
    h, w = (frame.width, frame.height) if rotation in (90, 270) else (frame.height, frame.width)
    if size is not None:
        h, w = (max(2, round(n * size / max(h, w))) for n in (h, w))
    stored_h, stored_w = (w, h) if rotation in (90, 270) else (h, w)
    transfer = int(frame.color_trc)
    if transfer in tones.TRANSFERS:
        x: Frame = tones.mapped(frame.reformat(stored_w, stored_h, format="rgb48le").to_ndarray(), transfer)
    else:
        matrix = "itu709" if frame.colorspace == _UNSPECIFIED and frame.height >= _HD else None
        x = frame.reformat(stored_w, stored_h, format="rgb24", src_colorspace=matrix).to_ndarray()
    upright = np.rot90(x, rotation // 90)  # FFmpeg counts counterclockwise, as numpy does
    return np.ascontiguousarray(upright[: h - h % 2, : w - w % 2])


class _Transcoder:
    """Decodes the frames of a clip, encodes painted ones, and copies the packets of sound.

    Args:
        reader: the source clip, open.
        writer: the result, open.
        source: path of the clip.
        out: path of the result; its suffix chooses the codec.
        sound: copy the sound.
        start: seconds to leave out.

    Attributes:
        half: half of the mean time between frames, in seconds.
        zero: time stamp of the clip's first moment, in seconds.
    """

    def __init__(self, reader: Any, writer: Any, source: Path, out: Path, sound: bool, start: float) -> None:
        self.reader, self.writer, self.start = reader, writer, start
        self.video = reader.streams.video[0]
        self.video.thread_type = "AUTO"
        codec, options = _CODECS.get(out.suffix.lower(), _DEFAULT_CODEC)
        rate = self.video.average_rate or Fraction(25)
        self.video_out = writer.add_stream(codec, rate=rate, options=options)
        self.video_out.pix_fmt = "yuv420p"
        encoder = self.video_out.codec_context
        encoder.time_base = self.video_out.time_base = self.video.time_base
        encoder.colorspace = encoder.color_primaries = encoder.color_trc = _BT709
        encoder.color_range = 1  # limited
        self.half = float(1 / rate / 2)
        self.begun, self.zero = False, float((reader.start_time or 0) / av().time_base)
        if start:
            reader.seek(round((start + self.zero) * av().time_base))  # to the key frame before
        self.audio = reader.streams.audio[0] if sound and reader.streams.audio else None
        self.audio_out: Any = None
        self.waiting: list[Any] = []  # packets of sound before the first frame
        if self.audio is not None:
            if self.audio.codec_context.name not in writer.supported_codecs:
                raise LimnerError(
                    f"the sound of {source.name} ({self.audio.codec_context.name}) does not fit into"
                    f" {out.suffix}; write {source.suffix}, or leave it out with sound=false"
                )
            self.audio_out = writer.add_stream_from_template(self.audio)

    def frames(self, end: float | None) -> Iterator[Any]:
        """Frames in the order in which they are shown; sound is copied on the way, damaged packets are left out."""
        for packet in self._packets(end):
            try:
                yield from packet.decode()
            except av().error.InvalidDataError:
                continue

    def _packets(self, end: float | None) -> Iterator[Any]:
        """Packets of video; those of sound are copied."""
        streams = [self.video] + ([] if self.audio is None else [self.audio])
        for packet in self.reader.demux(streams):
            if packet.dts is None:  # the last of its stream, which makes the decoder return the frames it still holds
                if packet.stream is self.video:
                    yield packet
                continue
            seconds = float(packet.dts * packet.time_base) - self.zero
            if packet.stream is self.video:
                if end is None or seconds < end + _REORDERING:
                    yield packet
            elif (seconds >= self.start or not self.start) and (end is None or seconds < end):  # sound may precede 0
                self._copy(packet)

    def write(self, pixels: Frame, source: Any) -> None:
        """Encodes a frame (H,W,3) with the time of the frame that it was made of."""
        rgb = av().VideoFrame.from_ndarray(pixels, format="rgb24")
        frame = rgb.reformat(format="yuv420p", dst_colorspace="itu709")
        if not self.begun:
            self.video_out.height, self.video_out.width = pixels.shape[:2]
        frame.time_base = self.video.time_base
        frame.pts = source.pts - self._offset(frame.time_base)
        self._mux(self.video_out.encode(frame))
        if not self.begun:
            self.begun = True
            self._mux(self.waiting)
            self.waiting = []

    def finish(self) -> None:
        """Writes the frames that the encoder still holds."""
        if self.begun:
            self._mux(self.video_out.encode(None))

    def _offset(self, base: Fraction) -> int:
        return round((self.start + self.zero) / base)

    def _copy(self, packet: Any) -> None:
        packet.stream = self.audio_out
        offset = self._offset(packet.time_base)
        packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
        if self.begun:
            self.writer.mux(packet)
        else:
            self.waiting.append(packet)  # the header is written with the first frame, whose size it holds

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            self.writer.mux(packet)


def _check(source: Path, out: Path, start: float, end: float | None) -> None:
    if not source.is_file():
        raise LimnerError(f"there is no clip {str(source)!r}; check the path")
    if not is_clip(out):
        raise LimnerError(f"name the clip with its suffix: out={out.stem or 'clip'}.mp4 (or .mov, .mkv, .webm, .avi)")
    if start < 0 or (end is not None and end <= start):
        raise LimnerError("start and end are seconds of the clip; start must not be negative, and end after start")


@contextmanager
def _ffmpeg_errors(source: Path) -> Iterator[None]:
    """Turns FFmpeg's errors into one line."""
    try:
        yield
    except av().error.FFmpegError as error:
        raise LimnerError(f"{source.name} cannot be painted: {error.strerror or error}") from None
