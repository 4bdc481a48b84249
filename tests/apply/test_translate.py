"""Translation of image files: names, sizes, transparency, EXIF, masks and tiles."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from limner.apply import translate
from limner.apply.blend import band, poisson
from limner.apply.files import read_file
from limner.apply.masks import Masks
from limner.apply.tasks import apply
from limner.cli import main
from limner.core.batch import to_uint8
from limner.core.errors import LimnerError

Save = Callable[..., Path]
PHOTO = Image.fromarray(load_sample_image("china.jpg")).resize((96, 64))


def image_folder(path: Path) -> Path:
    """A folder of images of many formats and modes, one of them broken."""
    (path / "in" / "more").mkdir(parents=True)
    rgb = PHOTO
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a pagoda"  # turned to the right, and a description
    rgb.save(path / "in" / "turned.jpg", exif=exif, quality=95)
    rgb.resize((53, 37)).save(path / "in" / "odd.png")
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(rgb.size))
    alpha.save(path / "in" / "more" / "alpha.png")
    rgb.convert("L").save(path / "in" / "grey.webp", lossless=True)
    rgb.convert("CMYK").save(path / "in" / "press.jpg", quality=95)
    wide = (np.asarray(rgb.convert("L")).astype(np.uint16) * 257).astype("<u2")
    Image.fromarray(wide).save(path / "in" / "sixteen.png")
    (path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return path / "in"


def test_a_folder_keeps_names_sizes_alpha_and_exif(tmp_path: Path, save_model: Save) -> None:
    source = image_folder(tmp_path)
    result = apply(save_model(tmp_path / "m.safetensors"), source, tmp_path / "out", device="cpu")
    assert result["task"] == "translate"
    assert result["n"] == 6
    assert [name for name, _ in result["skipped"]] == ["broken.png"]
    sizes = {p.relative_to(tmp_path / "out").as_posix(): Image.open(p).size for p in (tmp_path / "out").rglob("*.*")}
    assert sizes == {
        "turned.jpg": (64, 96),  # upright now
        "odd.png": (53, 37),
        "more/alpha.png": (96, 64),
        "grey.webp": (96, 64),
        "press.jpg": (96, 64),
        "sixteen.png": (96, 64),
    }
    turned = Image.open(tmp_path / "out" / "turned.jpg").getexif()
    assert (turned[0x0112], turned[0x010E]) == (1, "a pagoda")
    result_image = Image.open(tmp_path / "out" / "more" / "alpha.png")
    assert result_image.mode == "RGBA"
    before = Image.open(source / "more" / "alpha.png").getchannel("A")
    assert np.array_equal(np.asarray(result_image.getchannel("A")), np.asarray(before))


def test_the_command_line_writes_one_file_for_one_file(
    tmp_path: Path, save_model: Save, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    PHOTO.save(tmp_path / "a.png")
    model = save_model(tmp_path / "m.safetensors", kind="cyclegan")
    for to in ("a", "b"):
        out = tmp_path / f"to-{to}.png"
        command = ["limner", "apply", model, tmp_path / "a.png", out, "--to", to, "--json", "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", [str(word) for word in command])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        assert json.loads(capsys.readouterr().out)["written"] == [str(out)]
    assert not np.array_equal(*(np.asarray(Image.open(tmp_path / f"to-{to}.png")) for to in "ab"))


def test_upscale_enlarges_images_and_their_alpha(tmp_path: Path, save_model: Save) -> None:
    model = save_model(tmp_path / "m.safetensors", {"name": "upscale", "amount": 2.0})
    apply(model, image_folder(tmp_path), tmp_path / "out", device="cpu")
    assert Image.open(tmp_path / "out" / "odd.png").size == (106, 74)
    result_image = Image.open(tmp_path / "out" / "more" / "alpha.png")
    assert (result_image.mode, result_image.size) == ("RGBA", (192, 128))


def test_colourise_keeps_the_luminance(tmp_path: Path, save_model: Save) -> None:
    PHOTO.convert("L").save(tmp_path / "grey.png")
    model = save_model(tmp_path / "m.safetensors", {"name": "colourise", "amount": None}, source=1)
    result = apply(model, tmp_path / "grey.png", tmp_path / "out.png", device="cpu")
    assert result["task"] == "colourise"
    grey = np.asarray(PHOTO.convert("L"), dtype=float)
    result_grey = np.asarray(Image.open(tmp_path / "out.png").convert("L"), dtype=float)
    assert np.corrcoef(grey.ravel(), result_grey.ravel())[0, 1] > 0.95


def test_inpainting_changes_no_pixel_outside_the_mask(tmp_path: Path, save_model: Save) -> None:
    model = save_model(tmp_path / "m.safetensors", {"name": "inpaint", "amount": 0.25}, source=4)
    PHOTO.save(tmp_path / "a.png")
    hole = np.zeros((64, 96), np.uint8)
    hole[20:40, 30:60] = 255
    Image.fromarray(hole).save(tmp_path / "hole.png")
    apply(model, tmp_path / "a.png", tmp_path / "out.png", mask=tmp_path / "hole.png", device="cpu")
    before, after = np.asarray(PHOTO), np.asarray(Image.open(tmp_path / "out.png"))
    assert np.array_equal(before[hole == 0], after[hole == 0])
    assert not np.array_equal(before[hole > 0], after[hole > 0])
    cut = PHOTO.convert("RGBA")
    cut.putalpha(Image.fromarray(255 - hole))
    cut.save(tmp_path / "cut.png")  # transparent parts are holes
    apply(model, tmp_path / "cut.png", tmp_path / "cut-out.png", device="cpu")
    assert Image.open(tmp_path / "cut-out.png").mode == "RGB"
    (tmp_path / "masks").mkdir()
    Image.fromarray(hole).save(tmp_path / "masks" / "a.bmp")
    apply(model, tmp_path / "a.png", tmp_path / "again.png", mask=tmp_path / "masks", device="cpu")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "again.png")), after)


def test_bad_masks_and_options_that_do_not_fit_are_refused_in_one_line(tmp_path: Path, save_model: Save) -> None:
    PHOTO.save(tmp_path / "a.png")
    Image.new("L", (40, 40)).save(tmp_path / "small.png")
    holes = save_model(tmp_path / "i.safetensors", {"name": "inpaint", "amount": 0.25}, source=4)
    plain = save_model(tmp_path / "p.safetensors")

    def refused(match: str, model: Path, **options: Any) -> None:
        with pytest.raises(LimnerError, match=match):
            apply(model, tmp_path / "a.png", tmp_path / "out.png", device="cpu", **options)

    refused("40×40 and a.png 64×96", holes, mask=tmp_path / "small.png")
    refused("which parts of a.png are missing", holes)
    refused("there is no mask .*none", holes, mask=tmp_path / "none")
    refused("mask is for models trained to inpaint", plain, mask=tmp_path / "small.png")
    refused("translates to b only", plain, to="a")
    refused("tile=20 is too small", plain, tile=20)
    refused("knows no way to degrade", plain, degrade=True)
    refused("trained to translate, not to denoise", plain, task="denoise")
    refused("model trained to inpaint", plain, blend=tmp_path / "a.png", mask=tmp_path / "small.png")
    refused("--mask FILE too", holes, blend=tmp_path / "a.png")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"?")
    with pytest.raises(LimnerError, match="no picture could be read"):
        apply(plain, tmp_path / "bad", tmp_path / "out", device="cpu")


def test_degrade_changes_the_result(tmp_path: Path, save_model: Save) -> None:
    PHOTO.save(tmp_path / "a.png")
    model = save_model(tmp_path / "m.safetensors", {"name": "edges", "amount": 0.8}, source=1)
    apply(model, tmp_path / "a.png", tmp_path / "sketch.png", device="cpu")
    apply(model, tmp_path / "a.png", tmp_path / "photo.png", degrade=True, device="cpu")
    assert not np.array_equal(*(np.asarray(Image.open(tmp_path / n)) for n in ("sketch.png", "photo.png")))


def test_tiles_of_a_pointwise_net_equal_the_whole() -> None:
    x = torch.randn(1, 3, 301, 517)
    torch.testing.assert_close(translate.tiled(lambda part: part.sin(), x, 128, 32), x.sin())
    sides = []
    translate.tiled(lambda part: sides.append(part.shape[2:]) or part, x, 128, 32)
    assert max(max(s) for s in sides) <= 128


def test_tiles_of_a_local_net_have_no_seams() -> None:
    """A net with a small receptive field gives the same result in tiles."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 3, 9, padding=4, padding_mode="replicate")
    x = torch.randn(1, 3, 200, 330)
    with torch.no_grad():
        torch.testing.assert_close(translate.tiled(conv, x, 128, 64), conv(x), rtol=1e-4, atol=1e-5)


def test_a_large_image_is_translated_in_tiles(
    tmp_path: Path, save_model: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translate, "LARGE", 10_000)
    monkeypatch.setattr(translate, "_TILE", 128)
    PHOTO.resize((300, 200)).save(tmp_path / "a.png")
    apply(save_model(tmp_path / "m.safetensors"), tmp_path / "a.png", tmp_path / "out.png", device="cpu")
    assert Image.open(tmp_path / "out.png").size == (300, 200)


def test_the_seam_is_a_band_around_the_edge_of_the_mask() -> None:
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 10:30, 10:30] = 1
    seam = band(mask, 3)
    inside = torch.zeros_like(mask)
    inside[..., 7:33, 7:33] = 1
    inside[..., 13:27, 13:27] = 0
    assert torch.equal(seam, inside)


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="the extra 'classic' is not installed")
@pytest.mark.parametrize(
    "area", [np.s_[:, :], np.s_[:10, :10], np.s_[30:, 50:], np.s_[5:6, 5:6], np.s_[8:20, 10:31], np.s_[::2, ::3]]
)
def test_a_picture_blended_into_itself_by_poisson_is_itself(tmp_path: Path, area: Any) -> None:
    """It was laid in a pixel beside its place where the mask had an even side or touched the edge."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[area] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    file = read_file(tmp_path / "a.png")
    result = to_uint8(poisson(file, file, Masks(tmp_path / "mask.png")))[0].permute(1, 2, 0).numpy()
    assert np.abs(result.astype(int) - noise).max() <= 1


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="the extra 'classic' is not installed")
def test_blending_changes_the_seam_only_and_writes_a_poisson_blend_beside_it(tmp_path: Path, save_model: Save) -> None:
    model = save_model(tmp_path / "m.safetensors", {"name": "inpaint", "amount": 0.25}, source=4)
    PHOTO.save(tmp_path / "back.png")
    other = Image.fromarray(load_sample_image("flower.jpg")).resize((96, 64))
    other.save(tmp_path / "fore.png")
    mask = np.zeros((64, 96), np.uint8)
    mask[16:48, 24:72] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result = apply(
        model, tmp_path / "back.png", tmp_path / "out.png", blend=tmp_path / "fore.png", mask=tmp_path / "mask.png",
        device="cpu",
    )  # fmt: skip
    assert [Path(w).name for w in result["written"]] == ["out.png", "out-poisson.png"]
    out = np.asarray(Image.open(tmp_path / "out.png"))
    assert np.array_equal(out[:6], np.asarray(PHOTO)[:6])
    assert np.array_equal(out[28:36, 40:56], np.asarray(other)[28:36, 40:56])
    assert Image.open(tmp_path / "out-poisson.png").size == (96, 64)
