"""A thousand random pictures: every output opens, has size, orientation and alpha of its source; no file changes."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image, ImageOps

from limner.apply.tasks import apply

N = 1000
MODES = {
    ".png": ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16"),
    ".jpg": ("L", "RGB", "CMYK"),
    ".JPEG": ("L", "RGB"),
    ".webp": ("RGB", "RGBA"),
    ".bmp": ("1", "L", "P", "RGB", "RGBA"),
    ".gif": ("L", "P", "PA"),
    ".tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"),
    ".avif": ("RGB", "RGBA"),
}
STEMS = ("a", "b", "bild", "Bild", "é", "e\u0301", "日本語", "with space", "a.b", "..dots", "x=1", "#5", "100%",
         "q'uote", "A", "-dash", "z" * 120)  # fmt: skip
FOLDERS = ("", "", "one", "one/two", "Ünï cödé", "v1.2", "a.png")


def picture(rng: random.Random, suffix: str) -> bytes:
    """The bytes of a picture of a random size, mode, transparency, orientation and EXIF block."""
    noise = np.random.default_rng(rng.getrandbits(32))
    mode, (h, w) = rng.choice(MODES[suffix]), (rng.randint(1, 60), rng.randint(1, 60))
    rgba = Image.fromarray(noise.integers(0, 256, (h, w, 4), np.uint8))
    kind = rng.choice(("opaque", "clear", "binary", "soft", "noise"))
    if kind != "noise":
        ramp = np.linspace(0, 255, w * h).reshape(h, w)
        alpha = {"opaque": ramp * 0 + 255, "clear": ramp * 0, "binary": (ramp > 99) * 255, "soft": ramp}[kind]
        rgba.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    if mode == "I;16":
        image = Image.fromarray(noise.integers(0, 65536, (h, w)).astype(np.uint16))
    elif mode in ("P", "PA"):
        image = rgba.convert("RGB").quantize(16)
    else:
        image = rgba.convert(mode)
    options: dict[str, object] = {"transparency": 0} if mode == "PA" else {}
    exif = Image.Exif()
    if rng.random() < 0.5:
        exif[0x0112] = rng.randint(1, 8)
    if rng.random() < 0.3:
        exif[0x8298], exif[0x010F] = "the author", "maker"
        exif[0x8769] = {0x9003: "2020:01:02 03:04:05", 0x927C: b"\0maker note" * 20}
    if suffix not in (".bmp", ".gif"):
        options["exif"] = exif.tobytes()
    if suffix == ".tif" and 0x8769 not in exif:  # Pillow cannot write both
        options["compression"] = rng.choice(("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"))
    stream = BytesIO()
    image.save(stream, Image.registered_extensions()[suffix.lower()], **options)
    return stream.getvalue()


def tree(root: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a thousand pictures, sub-folders, equal stems and odd names."""
    rng, root = random.Random(0), tmp_path_factory.mktemp("thousand")
    count = 0
    while count < N:
        suffix = rng.choices(list(MODES), [20] * (len(MODES) - 1) + [1])[0]  # AVIF takes long to write
        number = rng.choice(("", "", str(rng.randint(0, 40))))
        path = root / "in" / rng.choice(FOLDERS) / f"{rng.choice(STEMS)}{number}{suffix}"
        if not path.exists() and not path.name.startswith("."):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(rng, suffix))
            count += 1
    (root / "in" / "notes.txt").write_text("no picture", encoding="utf-8")
    return root


def upright(path: Path) -> Image.Image:
    """The source as Pillow shows it."""
    image = Image.open(BytesIO(path.read_bytes()))  # from its path it would not turn all TIFF files
    image.load()
    return image if image.format == "TIFF" else ImageOps.exif_transpose(image)


def alpha_of(image: Image.Image) -> np.ndarray | None:
    if not (image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info):
        return None
    return np.asarray(image.convert("RGBA").getchannel("A"))


def test_translations_open_and_have_size_orientation_and_alpha(
    pictures: Path, save_model: Callable[..., Path], tmp_path: Path
) -> None:
    model = save_model(tmp_path / "m.safetensors")
    before = tree(pictures)
    result = apply(model, pictures / "in", pictures / "out", device="cpu")
    after = tree(pictures)
    written = {Path(w).relative_to(pictures).as_posix() for w in result["written"]}
    assert {k: v for k, v in after.items() if k in before} == before
    assert set(after) - set(before) == written
    assert len(written) == result["n"] == N
    assert result["skipped"] == []
    assert len({unicodedata.normalize("NFC", name).casefold() for name in written}) == N
    sources = [p for p in sorted(before) if not p.endswith(".txt")]
    for name, out in zip(sources, result["written"], strict=True):
        source, path = upright(pictures / name), Path(out)
        with Image.open(path) as image:
            image.load()
            assert image.size == source.size, name
            assert image.getexif().get(0x0112, 1) == 1, name
            alpha, expected = alpha_of(image), alpha_of(source)
        assert (alpha is None) == (expected is None), name
        assert alpha is None or np.array_equal(alpha, expected), name
        if path.suffix != ".bmp":  # which libvips does not read
            vips = pyvips.Image.new_from_file(str(path), access="sequential")
            assert (vips.width, vips.height) == source.size, name
            vips.avg()  # reads all pixels
        if path.suffix == ".tif":
            assert tifffile.imread(path).shape[:2] == source.size[::-1], name


def test_reconstructions_are_as_many_as_the_pictures(
    pictures: Path, save_autoencoder: Callable[..., Path], tmp_path: Path
) -> None:
    before = tree(pictures / "in")
    model = save_autoencoder(tmp_path / "a.safetensors", (3, 8, 24))
    result = apply(model, pictures / "in", tmp_path / "out", device="cpu")
    assert result["n"] == len(set(result["written"])) == len(tree(tmp_path / "out")) == N
    assert {Image.open(p).size for p in result["written"]} == {(24, 8)}
    assert tree(pictures / "in") == before
