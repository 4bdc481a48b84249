"""Masks: where they are found and what in them is white."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from limner.apply import translate
from limner.apply.masks import Masks
from limner.apply.tasks import apply
from limner.core.errors import LimnerError
from limner.data.files.masks import whiteness

Save = Callable[..., Path]
RGB = np.random.default_rng(0).integers(0, 200, (12, 20, 3)).astype(np.uint8)
HOLE = np.zeros((12, 20), np.uint8)
HOLE[3:7, 5:15] = 255


@pytest.fixture
def inpaint(tmp_path: Path, save_model: Save, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that paints holes white."""

    def white(model: object, x: torch.Tensor, **_: object) -> torch.Tensor:
        return torch.ones_like(x[:, :3])

    monkeypatch.setattr(translate, "translated", white)
    return save_model(tmp_path / "i.safetensors", {"name": "inpaint", "amount": 0.25}, source=4)


def layers(alpha: Any, colour: Any = 255) -> Image.Image:
    pixels = np.full((12, 20, 4), 0, np.uint8)
    pixels[..., :3], pixels[..., 3] = np.asarray(colour)[..., None] if np.ndim(colour) == 2 else colour, alpha
    return Image.fromarray(pixels)


MASKS: dict[str, Callable[[], Image.Image]] = {
    "grey.png": lambda: Image.fromarray(HOLE),
    "bits.png": lambda: Image.fromarray(HOLE).convert("1"),
    "colour.bmp": lambda: Image.fromarray(HOLE).convert("RGB"),
    "palette.gif": lambda: Image.fromarray(HOLE).convert("P"),
    "wide.png": lambda: Image.fromarray(HOLE.astype(np.uint16) * 257),
    "white on transparent.png": lambda: layers(HOLE),
    "white on transparent black.png": lambda: layers(HOLE, HOLE),
    "white on transparent white.webp": lambda: layers(HOLE, 255),
    "grey alpha.png": lambda: layers(HOLE).convert("LA"),
    "grey alpha.tif": lambda: layers(HOLE).convert("LA"),
    "opaque alpha.png": lambda: layers(255, HOLE),
    "black outside, opaque.png": lambda: layers(np.full_like(HOLE, 255), HOLE),
}


def test_masks_in_one_folder_around_them_are_found_by_their_paths(tmp_path: Path) -> None:
    file = tmp_path / "masks.zip"
    pictures = ["one/a.1.png", "two/a.1.png", "two/b.png"]
    with zipfile.ZipFile(file, "w") as z:
        for name in pictures:
            info = zipfile.ZipInfo()
            info.filename = f"all\\masks\\{name}".replace("/", "\\")
            z.writestr(info, b"")
    masks = Masks(file)
    masks.expect(pictures)
    assert [masks.name_for(name) for name in pictures] == [f"all/masks/{name}" for name in pictures]


def test_a_mask_of_zeros_and_ones_is_no_white_mask(tmp_path: Path, inpaint: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(HOLE // 255).save(tmp_path / "m.png")
    with pytest.raises(LimnerError, match=r"the mask m\.png has nothing white \(at most 1 of 255\); paint it white"):
        apply(inpaint, tmp_path / "a.png", tmp_path / "b.png", mask=tmp_path / "m.png", device="cpu")


@pytest.mark.parametrize("name", MASKS)
def test_every_kind_of_mask_changes_what_is_white_and_nothing_else(tmp_path: Path, inpaint: Path, name: str) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    options = {"lossless": True} if name.endswith(".webp") else {}
    MASKS[name]().save(tmp_path / name, **options)
    apply(inpaint, tmp_path / "a.png", tmp_path / "out.png", mask=tmp_path / name, device="cpu")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.where(HOLE[..., None] > 0, 255, RGB))


def test_a_palette_with_a_transparent_colour_and_a_turned_mask(tmp_path: Path, inpaint: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    indexed = Image.fromarray((HOLE > 0).astype(np.uint8), "P")
    indexed.putpalette([255, 255, 255] * 2)  # both colours are white, and the first is transparent
    indexed.save(tmp_path / "p.png", transparency=0)
    exif = Image.Exif()
    exif[0x0112] = 8  # stored lying, to be turned to the left
    Image.fromarray(np.rot90(HOLE, -1).copy()).save(tmp_path / "turned.png", exif=exif.tobytes())
    for name in ("p.png", "turned.png"):
        apply(inpaint, tmp_path / "a.png", tmp_path / f"out-{name}", mask=tmp_path / name, device="cpu")
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"out-{name}")), np.where(HOLE[..., None] > 0, 255, RGB))


def test_whiteness_is_luminance_times_alpha() -> None:
    """By hand: 200 × 100 / 255 = 78; ITU-R 601 luminance of red is 76."""
    assert whiteness(Image.new("LA", (1, 1), (200, 100))).getpixel((0, 0)) == 78
    assert whiteness(Image.new("RGBA", (1, 1), (255, 0, 0, 255))).getpixel((0, 0)) == 76
    assert whiteness(Image.new("RGBA", (1, 1), (255, 255, 255, 0))).getpixel((0, 0)) == 0
    assert whiteness(Image.new("L", (1, 1), 9)).getpixel((0, 0)) == 9


def test_masks_lie_as_their_pictures_do(tmp_path: Path, inpaint: Path) -> None:
    """Mirrored folders, other suffixes, equal names in two folders, a flat folder, and one that is missing."""
    flipped = HOLE[::-1].copy()
    places = {"one/a": HOLE, "two/a": flipped, "two/deep/b": HOLE}
    for place, hole in places.items():
        for folder, suffix, image in (("in", ".webp", RGB), ("masks", ".png", hole)):
            path = tmp_path / folder / f"{place}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, lossless=True)
    Image.fromarray(RGB).save(tmp_path / "in" / "c.png")
    Image.fromarray(RGB).save(tmp_path / "in" / "lost.png")
    Image.fromarray(flipped).save(tmp_path / "masks" / "two" / "c.bmp")  # at another place, but the only c
    result = apply(inpaint, tmp_path / "in", tmp_path / "out", mask=tmp_path / "masks", device="cpu")
    assert result["skipped"] == [["lost.png", "there is no mask for lost.png in masks; give it the same name"]]
    for place, hole in (*places.items(), ("c", flipped)):
        (out,) = (tmp_path / "out").glob(f"{place}.*")
        assert np.array_equal(np.asarray(Image.open(out)), np.where(hole[..., None] > 0, 255, RGB))

    with zipfile.ZipFile(tmp_path / "masks.zip", "w") as archive:
        for path in (tmp_path / "masks").rglob("*.*"):
            archive.write(path, path.relative_to(tmp_path / "masks").as_posix())
    zipped = apply(inpaint, tmp_path / "in", tmp_path / "zipped", mask=tmp_path / "masks.zip", device="cpu")
    assert zipped["n"] == 4
    for path in (tmp_path / "out").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "zipped" / path.relative_to(tmp_path / "out")).read_bytes()


def test_a_name_that_could_mean_two_masks_is_refused(tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.png", "b.png", "b.bmp"):
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(HOLE).save(tmp_path / "m" / name)
    masks = Masks(tmp_path / "m")
    masks.expect(["a.jpg", "b.png", "b.webp"])
    with pytest.raises(LimnerError, match="several masks in m, such as"):
        masks.name_for("a.jpg")
    assert masks.name_for("b.png") == "b.png"
    with pytest.raises(LimnerError, match="several masks"):
        masks.name_for("b.webp")
    (tmp_path / "m" / "y" / "a.png").unlink()
    masks = Masks(tmp_path / "m")
    masks.expect(["q/a.jpg", "r/a.jpg"])  # which of them is meant?
    with pytest.raises(LimnerError, match=r"no mask for q/a\.jpg"):
        masks.name_for("q/a.jpg")


def test_dark_colours_on_transparent_are_no_mask(tmp_path: Path, inpaint: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    layers(HOLE, 0).save(tmp_path / "m.png")
    with pytest.raises(LimnerError, match="paint it white"):
        apply(inpaint, tmp_path / "a.png", tmp_path / "out.png", mask=tmp_path / "m.png", device="cpu")
    Image.new("L", (20, 12), 0).save(tmp_path / "m2.png")  # nothing is missing
    apply(inpaint, tmp_path / "a.png", tmp_path / "out.png", mask=tmp_path / "m2.png", device="cpu")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), RGB)


def test_masks_of_styles_count_their_alpha_too(tmp_path: Path) -> None:
    import limner.data

    big = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3)).astype(np.uint8))
    for name in ("content.png", "style.png"):
        big.save(tmp_path / name)
    layers(HOLE).resize((40, 24), Image.Resampling.NEAREST).save(tmp_path / "clear.png")
    Image.fromarray(HOLE).resize((40, 24), Image.Resampling.NEAREST).save(tmp_path / "plain.png")
    content, style = str(tmp_path / "content.png"), str(tmp_path / "style.png")
    masks = [[str(tmp_path / name)] for name in ("clear.png", "plain.png")]
    sets = [limner.data.load("styled", path=content, style=style, size=40, masks=each) for each in masks]
    clear, plain = (s.masks[0] for s in sets)
    assert torch.equal(clear, plain)
