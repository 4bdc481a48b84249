"""The page of pictures behind sliders: each position shows its own picture, from one file."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.core.errors import LimnerError
from limner.report.explorer import Axis, Panel, write_explorer

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def grey(n: int, size: tuple[int, int] = (8, 6)) -> list[Image.Image]:
    return [Image.new("L", size, 10 * k) for k in range(n)]


def test_every_position_has_its_picture_in_one_sheet(tmp_path: Path) -> None:
    axes = [Axis("width", ["-3 σ", "0", "+3 σ"], 1), Axis("light <b>", ["low", "high"])]
    path = write_explorer(tmp_path / "a.html", "A title", [Panel("pad", axes, grey(6))], "Said of it.")
    html = path.read_text(encoding="utf-8")
    assert "light <b>" not in html
    assert not re.search(r'(src|href)="(?!data:|#)|url\((?!data:)', html)
    content = re.search(r"url\(data:image/webp;base64,([^)]*)\)", html)
    columns, rows = (int(v) for v in re.search(r'data-rows="(\d+)" data-columns="(\d+)"', html).groups()[::-1])  # type: ignore[union-attr]
    with Image.open(io.BytesIO(base64.b64decode(content[1]))) as sheet:  # type: ignore[index]
        pixels = np.asarray(sheet.convert("L"))
    assert pixels.shape == (6 * rows, 8 * columns)
    assert [int(pixels[6 * (i // columns), 8 * (i % columns)]) for i in range(6)] == [0, 10, 20, 30, 40, 50]
    assert re.findall(r'data-stride="(\d+)"', html) == ["1", "3"]


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome here")
def test_a_slider_moves_to_its_picture_in_a_browser(tmp_path: Path) -> None:
    path = write_explorer(tmp_path / "a.html", "A", [Panel("p", [Axis("x", list("abcdefgh"), 2)], grey(8, (8, 8)))])
    moved = """<script>
      const slider = document.querySelector(".explorer input");
      slider.value = 5;
      slider.dispatchEvent(new Event("input"));
    </script></body>"""
    path.write_text(path.read_text("utf-8").replace("</body>", moved), "utf-8")
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'p'}",
        "--dump-dom",
    ]
    dom = subprocess.run(
        [*map(str, command), path.as_uri()], capture_output=True, text=True, check=True, timeout=600
    ).stdout
    assert re.search(r"background-position: 100% 50%", dom)  # the sixth of 3×3
    assert "<output>f</output>" in dom


def test_wrong_numbers_of_pictures_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LimnerError, match="5 pictures for"):
        write_explorer(tmp_path / "a.html", "A", [Panel("p", [Axis("x", ["a", "b"])], grey(5))])
    monkeypatch.setattr("limner.report.explorer._SIDE", 20)
    with pytest.raises(LimnerError, match="too many"):
        write_explorer(tmp_path / "a.html", "A", [Panel("p", [Axis("x", ["a"] * 9)], grey(9))])
