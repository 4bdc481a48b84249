"""Generated images, and real data where this machine has them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SHARED = Path(os.environ.get("LIMNER_SHARED") or Path(__file__).resolve().parents[3] / "shared" / "data")


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """The path of a real data file, or a skip where it is absent."""

    def find(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"{name} is not on this machine; set LIMNER_SHARED to the folder that has it")
        return SHARED / name

    return find


@pytest.fixture
def paint() -> Callable[..., Image.Image]:
    """An image of noise, different for each seed."""

    def make(seed: int = 0, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> Image.Image:
        h, w = size
        channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
        values = np.random.default_rng(seed).integers(0, 256, (h, w, channels), dtype=np.uint8)
        return Image.fromarray(values[..., 0] if channels == 1 else values, mode=mode if mode == "CMYK" else None)

    return make


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """The bytes of an image in a file format."""

    def save(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
        stream = io.BytesIO()
        image.save(stream, format, **options)
        return stream.getvalue()

    return save


@pytest.fixture
def folder_of(tmp_path: Path, paint: Callable[..., Image.Image]) -> Callable[..., Path]:
    """A folder with one PNG of noise at each path."""

    def make(*paths: str, size: tuple[int, int] = (12, 12), mode: str = "RGB", root: str = "photos") -> Path:
        for seed, path in enumerate(paths):
            file = tmp_path / root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            paint(seed, size, mode).save(file)
        return tmp_path / root

    return make
