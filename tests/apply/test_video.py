"""Clips: optical flow and its consistency, temporal blending, and real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import Tensor

from limner.apply import video
from limner.apply.steady import Steady, consistent, warp
from limner.config.spec import Spec
from limner.core import checkpoint
from limner.core.errors import LimnerError
from limner.painting import paint_clip

av = pytest.importorskip("av")

# ---- flow ------------------------------------------------------------------------------------------------------------


def photograph(h: int, w: int) -> np.ndarray:
    return np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize((w, h), Image.Resampling.LANCZOS))


def test_warp_follows_the_flow():
    """Frame 2 is frame 1 moved by (5, -2): what is at p was at p + flow."""
    x = photograph(120, 160)
    last, now = x[10:100, 10:140], x[12:102, 5:135]
    flow = np.zeros((90, 130, 2), np.float32)
    flow[..., 0], flow[..., 1] = -5, 2
    np.testing.assert_allclose(warp(last.astype(np.float32), flow)[:-2, 5:], now[:-2, 5:], atol=1e-3)


def test_forward_and_backward_flow_have_to_cancel():
    forward = np.zeros((20, 30, 2), np.float32)
    forward[..., 0] = 3
    visible = consistent(forward, -forward)
    assert visible[:, 3:].all()
    assert not visible[:, :3].any()  # these come from outside
    forward[5:9, 10:14] = 0  # what covered this moved on, and back leads to something else
    assert not consistent(forward, -np.full_like(forward, (3, 0)))[5:9, 13:17].any()
    jump = np.zeros((20, 30, 2), np.float32)
    jump[:, 15:, 0] = 1
    assert not consistent(-jump, jump)[:, 15:16].any()  # eq. 6: not where the flow changes abruptly


def add_noise(frame: np.ndarray, k: int) -> np.ndarray:
    """A painting that flickers: the noise differs from frame to frame."""
    g = np.random.default_rng(k)
    return np.clip(frame / 255 + g.normal(0, 0.1, frame.shape), 0, 1).astype(np.float32)


def test_steady_reduces_flicker_and_follows_movement():
    x, flicker = photograph(160, 220), {}
    for amount in (0.0, 0.6):
        blender = Steady(amount)
        for k in range(8):
            frame = np.ascontiguousarray(x[k : k + 120, 3 * k : 3 * k + 160])
            painted = blender(frame, add_noise(frame, k))
        change = blender.flicker
        assert change is not None
        flicker[amount] = change[0]
        error = np.abs(painted - frame / 255)[20:-20, 20:-20].mean()
        assert error < (0.09 if amount == 0 else 0.06)  # averaged along the movement, not smeared
    assert flicker[0.6] < 0.6 * flicker[0.0]


def test_frames_are_not_blended_across_a_cut():
    a = photograph(96, 128)
    b = np.ascontiguousarray(255 - np.rot90(photograph(128, 96)))
    blender = Steady(0.9)
    blender(a, np.zeros(a.shape, np.float32))
    assert blender(b, np.ones(b.shape, np.float32)).mean() > 0.97


def test_steady_must_be_less_than_one():
    with pytest.raises(LimnerError, match="less than 1"):
        Steady(1.0)


# ---- files -----------------------------------------------------------------------------------------------------------

N, RATE = 12, 12


def write(path: Path, size: tuple[int, int] = (96, 64), sound: str | None = "aac", **options: Any) -> Path:
    """A clip of a second: a photograph that moves by, and a tone."""
    x, (w, h) = photograph(120, 180), size
    with av.open(str(path), "w") as out:
        pictures = out.add_stream(options.get("codec", "libx264"), rate=RATE, options={"crf": "12"})
        pictures.width, pictures.height, pictures.pix_fmt = w, h, options.get("pixels", "yuv420p")
        if "times" in options:
            pictures.codec_context.time_base = Fraction(1, 1000)
        if "turned" in options:
            pictures.set_display_rotation(options["turned"])
        audio = out.add_stream(sound, rate=48000) if sound else None
        for k in range(N):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(x[k : k + h, 3 * k : 3 * k + w]), format="rgb24")
            if "times" in options:
                frame.pts, frame.time_base = options["times"][k], Fraction(1, 1000)
            for packet in pictures.encode(frame):
                out.mux(packet)
        for packet in pictures.encode(None):
            out.mux(packet)
        if audio is not None:
            wave = (0.3 * np.sin(np.arange(48000) / 17)).astype(np.float32)
            for at in range(0, 48000, 960):
                tone = av.AudioFrame.from_ndarray(wave[None, at : at + 960].copy(), format="fltp", layout="mono")
                tone.sample_rate, tone.pts, tone.time_base = 48000, at, Fraction(1, 48000)
                for packet in audio.encode(tone):
                    out.mux(packet)
            for packet in audio.encode(None):
                out.mux(packet)
    return path


def read(path: Path) -> tuple[list[float], list[np.ndarray], list[bytes]]:
    """Times and pictures of the frames, and the packets of sound."""
    with av.open(str(path)) as clip:
        frames = list(clip.decode(video=0))
    with av.open(str(path)) as clip:
        audio = [bytes(p) for p in clip.demux(clip.streams.audio[0])] if clip.streams.audio else []
    return [float(f.time) for f in frames], [f.to_ndarray(format="rgb24") for f in frames], [h for h in audio if h]


def negative(x: Tensor) -> Tensor:
    return -x


def same(x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize(("suffix", "sound"), [("mp4", "aac"), ("mov", "aac"), ("mkv", "aac"), ("webm", "libopus")])
def test_every_frame_is_painted_and_the_sound_is_copied(tmp_path, suffix, sound):
    codec = "libvpx-vp9" if suffix == "webm" else "libx264"
    source = write(tmp_path / f"in.{suffix}", sound=sound, codec=codec)
    clip = video.paint(negative, source, tmp_path / f"new/out.{suffix}", steady=0)
    assert (clip.frames, clip.stopped) == (N, None)
    (times, before, audio), (times_out, after, audio_out) = read(source), read(clip.path)
    assert times_out == pytest.approx(times, abs=2e-3)
    assert audio_out == audio
    for x, y in zip(before, after, strict=True):
        assert np.abs(255 - x.astype(int) - y).mean() < 4
    assert not list((tmp_path / "new").glob("*part*"))


def test_colours_are_kept(tmp_path):
    source = write(tmp_path / "in.mp4")
    clip = video.paint(same, source, tmp_path / "out.mkv", steady=0)
    for x, y in zip(read(source)[1], read(clip.path)[1], strict=True):
        assert np.abs(x.astype(int) - y).mean() < 4
        assert (
            np.abs(x.mean((0, 1)) - y.mean((0, 1))).max() < 2
        )  # rounded to YUV twice; one matrix read as the other is 10 to 20


def hdr(path: Path, signal: np.ndarray, transfer: int) -> Path:
    """A clip of four frames, of R'G'B' (H,W,3) in [0,1] of BT.2020, in 10 bits without loss."""
    h, w, _ = signal.shape
    y = signal @ [0.2627, 0.6780, 0.0593]
    b, r = (signal[..., 2] - y) / 1.8814, (signal[..., 0] - y) / 1.4746
    halves = [c.reshape(h // 2, 2, w // 2, 2).mean(axis=(1, 3)) for c in (b, r)]
    with av.open(str(path), "w") as out:
        pictures = out.add_stream("libx265", rate=10, options={"x265-params": "lossless=1:log-level=none"})
        pictures.width, pictures.height, pictures.pix_fmt = w, h, "yuv420p10le"
        codec = pictures.codec_context
        codec.color_primaries = codec.colorspace = 9
        codec.color_trc, codec.color_range = transfer, 1
        for k in range(4):
            frame = av.VideoFrame(w, h, "yuv420p10le")
            for plane, values in zip(frame.planes, (64 + 876 * y, *(512 + 896 * c for c in halves)), strict=True):
                row = np.zeros((plane.height, plane.line_size // 2), "<u2")
                row[:, : plane.width] = np.round(values)
                plane.update(row.tobytes())
            frame.colorspace, frame.color_range, frame.color_trc, frame.pts = 9, 1, transfer, k
            out.mux(pictures.encode(frame))
        out.mux(pictures.encode(None))
    return path


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_mapped_to_the_light_of_srgb(tmp_path, transfer):
    srgb = np.array([[20, 20, 20], [90, 90, 90], [180, 180, 180], [180, 60, 60], [60, 150, 60], [90, 90, 200]])
    linear = np.where(srgb <= 10, srgb / 255 / 12.92, ((srgb / 255 + 0.055) / 1.055) ** 2.4)
    to_2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]  # BT.2087
    light = linear @ np.array(to_2020).T * 203  # in cd/m², paper white is 203
    if transfer == 16:
        x = (light / 10_000) ** (2610 / 16384)
        signal = ((3424 / 4096 + 2413 / 128 * x) / (1 + 2392 / 128 * x)) ** (2523 / 32)
    else:
        shown = (light @ [0.2627, 0.6780, 0.0593])[:, None] / 1000
        scene = light / 1000 * shown ** (1 / 1.2 - 1)
        high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)
    wide = np.repeat(np.repeat(signal[None], 64, axis=0), 16, axis=1)  # upright stripes of 16 pixels
    source = hdr(tmp_path / "in.mp4", wide, transfer)
    clip = video.paint(same, source, tmp_path / "out.mp4", steady=0)
    found = read(clip.path)[1][0][32, 8::16].astype(int)
    assert np.abs(found - srgb).max() <= 6
    assert f"mapped from high dynamic range ({'PQ' if transfer == 16 else 'HLG'})" in clip.text


def test_highlights_are_rolled_off_and_not_clipped():
    from limner.apply.tones import mapped

    light = np.array([100.0, 203, 400, 1000, 4000])
    x = (light / 10_000) ** (2610 / 16384)
    signal = ((3424 / 4096 + 2413 / 128 * x) / (1 + 2392 / 128 * x)) ** (2523 / 32)
    levels = mapped(np.repeat((signal * 65280).astype(np.uint16)[None, :, None], 3, axis=2), 16)[0, :, 0].astype(int)
    assert (np.diff(levels) >= 0).all()
    assert levels[0] == pytest.approx(255 * (1.055 * (100 / 203) ** (1 / 2.4) - 0.055), abs=2)
    assert 230 <= levels[1] < levels[2] < levels[3] <= 255


def test_frames_of_varying_rate_keep_their_times(tmp_path):
    times = [0, 40, 200, 210, 220, 400, 401, 500, 700, 710, 720, 990]
    source = write(tmp_path / "in.mkv", times=times)
    clip = video.paint(same, source, tmp_path / "out.mkv", steady=0.5)
    assert read(clip.path)[0] == pytest.approx([t / 1000 for t in times], abs=2e-3)


def test_a_rotated_clip_is_written_upright(tmp_path):
    plain, turned = write(tmp_path / "plain.mp4"), write(tmp_path / "turned.mp4", turned=90)
    clip = video.paint(same, turned, tmp_path / "out.mp4", steady=0)
    before, after = read(plain)[1][0], read(clip.path)[1][0]
    assert after.shape == (96, 64, 3)
    assert np.abs(np.rot90(before).astype(int) - after).mean() < 4


def test_sizes_become_even(tmp_path):
    source = write(tmp_path / "in.mkv", size=(97, 63), pixels="yuv444p")
    assert read(video.paint(same, source, tmp_path / "a.mp4").path)[1][0].shape == (62, 96, 3)
    assert read(video.paint(same, source, tmp_path / "b.mp4", size=51).path)[1][0].shape == (32, 50, 3)


def test_start_and_end_cut_video_and_sound(tmp_path):
    source = write(tmp_path / "in.mp4")
    clip = video.paint(same, source, tmp_path / "out.mp4", start=0.25, end=0.75, steady=0)
    times, frames, audio = read(clip.path)
    whole = read(source)
    assert clip.frames == 6
    assert times == pytest.approx([k / RATE for k in range(6)], abs=2e-3)
    assert np.abs(frames[0].astype(int) - whole[1][3]).mean() < 4
    assert 0.3 < len(audio) / len(whole[2]) < 0.7


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("none.mp4", {}, "there is no clip"),
        ("bad.mp4", {}, "bad.mp4 cannot be painted"),
        ("in.mp4", {"out": "out.png"}, "name the clip with its suffix"),
        ("in.mp4", {"out": "in.mp4"}, "would overwrite"),
        ("in.mp4", {"out": "bad.mp4"}, "bad.mp4 exists already"),
        ("in.mp4", {"start": 0.5, "end": 0.2}, "end after start"),
        ("in.mp4", {"start": 9.0}, "has no frame from 9 s on"),
        ("in.mp4", {"out": "out.webm"}, r"the sound of in.mp4 \(aac\) does not fit into .webm"),
        ("sound.mkv", {}, "holds no pictures"),
    ],
)
def test_errors_are_one_line_and_leave_no_file(tmp_path, what, options, message):
    write(tmp_path / "in.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 8)
    with av.open(str(tmp_path / "sound.mkv"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        tone.sample_rate = 8000
        for packet in [*stream.encode(tone), *stream.encode(None)]:
            out.mux(packet)
    before = {p.name for p in tmp_path.iterdir()}
    settings = dict(options)
    with pytest.raises(LimnerError, match=message):
        video.paint(same, tmp_path / what, tmp_path / settings.pop("out", "out.mp4"), **settings)
    assert {p.name for p in tmp_path.iterdir()} == before


def test_ctrl_c_leaves_a_playable_clip(tmp_path):
    def painter(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return x

    calls = 0
    source = write(tmp_path / "in.mp4")
    clip = video.paint(painter, source, tmp_path / "out.mp4")
    assert clip.path == tmp_path / "out-part.mp4"
    assert (clip.frames, len(read(clip.path)[0])) == (5, 5)
    assert clip.stopped is not None
    assert 4 / RATE < clip.stopped < 5 / RATE  # position to resume from
    rest = video.paint(same, source, tmp_path / "rest.mp4", start=clip.stopped)
    assert rest.frames == N - 5
    assert not (tmp_path / "out.mp4").exists()


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AdaIN with random weights."""
    folder, g, weights = tmp_path_factory.mktemp("clip"), torch.Generator().manual_seed(0), {}
    for n, a, b in (("1_1", 3, 64), ("1_2", 64, 64), ("2_1", 64, 128)):
        weights[f"conv{n}.weight"] = torch.randn(b, a, 3, 3, generator=g) * (2 / (9 * a)) ** 0.5
        weights[f"conv{n}.bias"] = torch.zeros(b)
    save_file(weights, folder / "vgg.safetensors")
    tree = {
        "name": "adain",
        "weights": str(folder / "vgg.safetensors"),
        "decoder": {"name": "style.Decoder", "layer": "relu2_1"},
    }
    spec = Spec.parse("model", tree).resolve(shape=(3, 64, 64))
    built: Any = spec.build()
    built.spec = spec
    return checkpoint.export(built, folder / "adain.safetensors")


def test_a_model_paints_a_clip_in_two_styles(model, tmp_path):
    source, paintings = write(tmp_path / "in.mp4"), [tmp_path / "a.png", tmp_path / "b.png"]
    for k, path in enumerate(paintings):
        Image.fromarray(np.roll(photograph(64, 64), 50 * k, 2)).save(path)
    clip = paint_clip(model, source, tmp_path / "out.mp4", paintings, style_shares=[3, 1], steady=0.5, device="cpu")
    assert clip.frames == N
    assert clip.flicker is not None


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "limner", "stylise", *map(str, words)]


def test_the_command_line_paints_clips_and_needs_a_model(model, tmp_path):
    source, painting = write(tmp_path / "in.mp4"), tmp_path / "a.png"
    Image.fromarray(photograph(64, 64)).save(painting)
    done = subprocess.run(
        command(source, painting, f"model={model}", f"out={tmp_path / 'o.mp4'}", "device=cpu", "--json"),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert result["frames"] == N
    assert result["flicker"] > 0
    assert len(read(tmp_path / "o.mp4")[0]) == N
    refused = subprocess.run(command(source, painting), capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "model=RUN" in refused.stderr


def test_ctrl_c_on_the_command_line_says_how_to_go_on(model, tmp_path):
    source, painting = write(tmp_path / "in.mkv", size=(168, 108)), tmp_path / "a.png"
    Image.fromarray(photograph(64, 64)).save(painting)
    words = command(source, painting, f"model={model}", f"out={tmp_path / 'o.mkv'}", "size=900", "device=cpu")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stdout is not None
        process.stderr.readline()  # the first frame is painted
        process.send_signal(signal.SIGINT)
        message = process.stdout.read()
        assert process.wait(120) == 130
    assert "go on with start=" in message
    assert 0 < len(read(tmp_path / "o-part.mkv")[0]) < N
