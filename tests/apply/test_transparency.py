"""Colours and alpha are kept apart: no halo, whatever the result is laid on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from limner import painting
from limner.apply import translate, transparency
from limner.apply.files import read_file
from limner.apply.tasks import apply

Save = Callable[..., Path]
Pixels = np.ndarray[Any, Any]


def disc(side: int = 48, colour: tuple[int, int, int] = (40, 40, 40), soft: float = 8) -> Image.Image:
    """A disc with a soft edge; what is fully transparent is bright green, which must never be seen."""
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    alpha = np.clip((side / 3 - np.hypot(rows, columns)) / soft + 0.5, 0, 1)
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., 3] = np.rint(alpha * 255)
    pixels[...] = np.where(pixels[..., 3:] > 0, [*colour, 0], [0, 255, 0, 0]) + pixels * [0, 0, 0, 1]
    return Image.fromarray(pixels)


def on(page: int, path: Path) -> Pixels:
    """A picture as it is seen on a page."""
    with Image.open(path) as image:
        rgba = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, (page,) * 3), rgba).convert("RGB")).astype(int)


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The net gives back the colours of its input."""

    def net(model: object, x: torch.Tensor, **_: object) -> torch.Tensor:
        return x[:, :3].expand(-1, 3, -1, -1)

    monkeypatch.setattr(translate, "translated", net)


def test_opaque_keeps_visible_colours_continues_them_and_ends_in_white() -> None:
    image = disc(64, soft=4)
    colours, alpha = np.asarray(transparency.opaque(image)).astype(int), np.asarray(image)[..., 3]
    assert (colours[alpha > 0] == 40).all()
    near = np.zeros_like(alpha, dtype=bool)
    for dy, dx in ((0, 4), (4, 0), (0, -4), (-4, 0)):
        near |= np.roll(alpha > 0, (dy, dx), (0, 1))
    assert (np.abs(colours[near] - 40) <= 1).all()
    assert (colours[0, 0] == 255).all()  # farther than the band
    assert (np.asarray(transparency.opaque(Image.new("LA", (5, 4), (9, 0)))) == 255).all()
    assert (np.asarray(transparency.opaque(Image.new("LA", (5, 4), (9, 1)))) == 9).all()


@pytest.mark.parametrize(
    ("pairing", "factor"),
    [(None, 1), ({"name": "denoise", "amount": 0.1}, 1), ({"name": "deblur", "amount": 1.5}, 1),
     ({"name": "upscale", "amount": 2.0}, 2), ({"name": "upscale", "amount": 3.0}, 3)],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_what_a_net_leaves_alone_is_seen_as_before_on_every_page(
    tmp_path: Path, save_model: Save, identity: None, pairing: dict[str, Any] | None, factor: int, suffix: str
) -> None:
    disc().save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    out = tmp_path / f"out{suffix}"
    apply(save_model(tmp_path / "m.safetensors", pairing), tmp_path / f"a{suffix}", out, device="cpu")
    expected = disc().resize((48 * factor, 48 * factor), Image.Resampling.BICUBIC)  # Pillow multiplies by alpha
    expected.save(tmp_path / "expected.png")
    for page in (0, 255):
        difference = np.abs(on(page, out) - on(page, tmp_path / "expected.png"))
        assert difference.max() <= (0 if factor == 1 else 3)


def test_colourise_keeps_the_luminance_to_the_edge(tmp_path: Path, save_model: Save) -> None:
    """Independent luminance: scikit-image's CIE Lab of the colours where anything is seen."""
    disc(64).save(tmp_path / "a.png")
    model = save_model(tmp_path / "m.safetensors", {"name": "colourise", "amount": None}, source=1)
    apply(model, tmp_path / "a.png", tmp_path / "out.png", device="cpu")
    result = np.asarray(Image.open(tmp_path / "out.png"))
    assert np.array_equal(result[..., 3], np.asarray(disc(64))[..., 3])
    visible = result[..., 3] > 0
    expected = rgb2lab(np.uint8([[[40, 40, 40]]]))[0, 0, 0]
    assert np.abs(rgb2lab(result[..., :3])[visible][:, 0] - expected).max() < 0.5
    assert on(0, tmp_path / "out.png").max() < 120  # no bright ring on a dark page


def test_a_real_net_sees_no_white_at_the_edge(tmp_path: Path, save_model: Save) -> None:
    """The same net on the same colours without transparency gives what is seen inside of the disc."""
    disc(96, soft=2).save(tmp_path / "a.png")
    Image.new("RGB", (96, 96), (40, 40, 40)).save(tmp_path / "plain.png")
    model = save_model(tmp_path / "m.safetensors", {"name": "denoise", "amount": 0.1}, kind="cyclegan")
    apply(model, tmp_path / "a.png", tmp_path / "out.png", device="cpu")
    assert Image.open(tmp_path / "out.png").mode == "RGBA"
    alpha = np.asarray(disc(96, soft=2))[..., 3]
    result = np.asarray(Image.open(tmp_path / "out.png"))[..., :3].astype(int)
    edge, inside = (alpha > 0) & (alpha < 255), alpha == 255
    assert np.abs(result[edge].mean(0) - result[inside].mean(0)).max() < 25


def test_one_pass_style_uses_the_same_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    disc().save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")

    def painter(x: torch.Tensor) -> torch.Tensor:
        return x

    monkeypatch.setattr(painting, "_make_painter", lambda *_: painter)
    monkeypatch.setattr(painting, "_describe", lambda *_: "painted")
    painter.model = None  # type: ignore[attr-defined]
    written = painting.paint("model", tmp_path / "in", tmp_path / "out")
    assert [path.name for path in written] == ["a.png"]
    assert [name for name, _ in written.skipped] == ["bad.png"]
    for page in (0, 255):
        assert np.array_equal(on(page, written[0]), on(page, tmp_path / "in" / "a.png"))
    assert Image.open(written[0]).getexif()[0x010E] == "painted"


def test_holes_of_soft_alpha_are_filled_without_a_ring(tmp_path: Path, save_model: Save, identity: None) -> None:
    """Transparent parts are painted; what is half transparent is laid over what was painted, not over white."""
    disc().save(tmp_path / "a.png")
    model = save_model(tmp_path / "m.safetensors", {"name": "inpaint", "amount": 0.25}, source=4)
    apply(model, tmp_path / "a.png", tmp_path / "out.png", device="cpu")
    result, alpha = np.asarray(Image.open(tmp_path / "out.png")).astype(int), np.asarray(disc())[..., 3].astype(int)
    assert result.shape == (48, 48, 3)
    assert (result[alpha == 255] == 40).all()
    grey = 127.5  # an identity paints the grey of the hole
    soft = (alpha > 0) & (alpha < 128)
    expected = 40 * alpha[soft] / 255 + grey * (1 - alpha[soft] / 255)
    assert np.abs(result[soft] - expected[:, None]).max() <= 1


def test_over_is_porter_and_duff() -> None:
    front, back = torch.full((1, 1, 1, 1), 1.0), torch.full((1, 1, 1, 1), -1.0)
    colour, opacity = transparency.over(front, torch.tensor([[[[0.5]]]]), back, torch.tensor([[[[0.5]]]]))
    assert float(opacity) == pytest.approx(0.75)
    assert float(colour) == pytest.approx((0.5 * 1 + 0.25 * -1) / 0.75)


def test_formats_without_alpha_get_white_and_it_is_said(tmp_path: Path, save_model: Save, identity: None) -> None:
    disc().save(tmp_path / "a.png")
    result = apply(save_model(tmp_path / "m.safetensors"), tmp_path / "a.png", tmp_path / "out.jpg", device="cpu")
    assert "transparency is laid over white, as .jpg has none (1 picture)" in result["notes"]
    expected = on(255, tmp_path / "a.png")
    assert np.abs(np.asarray(Image.open(tmp_path / "out.jpg")).astype(int) - expected).mean() < 2


def test_a_cut_out_is_blended_by_its_alpha(tmp_path: Path, save_model: Save, identity: None) -> None:
    pytest.importorskip("cv2")
    model = save_model(tmp_path / "m.safetensors", {"name": "inpaint", "amount": 0.25}, source=4)
    Image.new("RGB", (64, 64), (200, 20, 20)).save(tmp_path / "back.png")
    disc(64, soft=40).save(tmp_path / "fore.png")
    Image.new("L", (64, 64), 255).save(tmp_path / "mask.png")
    blend: dict[str, Any] = {"blend": tmp_path / "fore.png", "device": "cpu"}
    apply(model, tmp_path / "back.png", tmp_path / "out.png", mask=tmp_path / "mask.png", **blend)
    apply(model, tmp_path / "back.png", tmp_path / "again.png", **blend)  # a cut-out needs no mask
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "out.png").read_bytes()
    back, fore = Image.open(tmp_path / "back.png").convert("RGBA"), disc(64, soft=40)
    expected = np.asarray(Image.alpha_composite(back, fore).convert("RGB")).astype(int)
    result = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    alpha = np.asarray(fore)[..., 3]
    away = (alpha < 50) | (alpha > 205)  # the seam, where alpha passes a half, is painted
    assert np.abs(result - expected)[away].max() <= 1
    assert read_file(tmp_path / "out-poisson.png").size == (64, 64)
