"""The lab of the four families: what it reads from digits, equal times, and its page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from limner import labs
from limner.core.errors import LimnerError
from limner.labs import four_families as lab

DATA = {"name": "digits", "size": 28, "limit": 400}


def stroke(slant: float, width: int = 3) -> torch.Tensor:
    """A white stroke (1,1,28,28) that moves `slant` pixels to the right per pixel of height."""
    x = torch.full((1, 1, 28, 28), -1.0)
    for row in range(4, 24):
        middle = 14 + slant * (13.5 - row)
        left = round(middle - width / 2)
        x[0, 0, row, left : left + width] = 1
    return x


def test_slant_width_and_ink_are_read_from_pixels() -> None:
    upright, slanted, bold = lab.attributes(torch.cat([stroke(0), stroke(0.4), stroke(0, 6)]))
    assert float(upright[0]) == pytest.approx(0, abs=1e-9)
    assert float(slanted[0]) == pytest.approx(0.4, abs=0.03)
    assert float(upright[2]) == pytest.approx(60 / 784, abs=1e-6)
    assert float(bold[2]) == pytest.approx(2 * float(upright[2]))
    assert float(bold[1]) > float(upright[1])


def test_a_black_image_has_attributes_too() -> None:
    assert bool(lab.attributes(torch.full((1, 1, 28, 28), -1.0)).isfinite().all())


def test_the_lab_trains_four_families_and_leaves_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "VAE": {"model.encoder.widths": [4], "model.decoder.widths": [4]},
        "GAN": {
            "model.G": {"name": "mlp.Decoder", "z": 8, "widths": [16]},
            "model.D": {"name": "mlp.Discriminator", "widths": [16]},
        },
        "flow": {"model.F.width": 4, "model.F.levels": 2},
        "diffusion": {
            "model.F.width": 8,
            "model.F.mults": [1, 1],
            "model.F.attention": 1,
            "model.F.conditional": False,
        },
    }
    families = [
        replace(f, changes=f.changes | small[f.name], fast={"steps": 1} if f.fast else {}) for f in lab.FAMILIES
    ]
    monkeypatch.setattr(lab, "FAMILIES", tuple(families))
    monkeypatch.setattr(lab, "_SAMPLES", 20)
    monkeypatch.setattr(lab, "_LIKELIHOODS", 10)
    monkeypatch.setattr(lab, "_CODES", 100)
    monkeypatch.setattr(lab, "_MEASURING", 0.1)
    monkeypatch.setattr(lab, "_TIMING", 0.2)
    result = labs.run("four-families", out=tmp_path / "lab", images=64, data=DATA, time="1s")
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []
    assert len(result["checks"]) == 8
    assert len(result["run"]) == 4
    page = Path(result["page"]).read_text(encoding="utf-8")
    assert page.count("data:image/png") == len(result["figures"]) == 3
    assert "limner lab four-families images=64" in page
    assert "time=1s" in page
    written = json.loads((tmp_path / "lab" / "results.json").read_text(encoding="utf-8"))["results"]["families"]
    assert list(written) == ["VAE", "GAN", "flow", "diffusion"]
    assert written["GAN"]["bits"] is None
    assert all(written[name]["bits"] > 0 for name in ("VAE", "flow", "diffusion"))
    assert [written[name]["evaluations"] for name in written] == [1, 1, 1, 20]


@pytest.mark.parametrize("time", ["0s", "soon"])
def test_a_time_that_is_none_is_refused(time: str, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match="time"):
        labs.run("four-families", out=tmp_path / "lab", time=time)
    assert not (tmp_path / "lab").exists()
