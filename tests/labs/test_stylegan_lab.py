"""The lab of StyleGAN runs through, agrees with the papers' numbers, and tells a better space from a worse one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from limner import labs
from limner.core.prior import Prior
from limner.core.run import Run
from limner.evaluation.smoothness import PathLength
from limner.labs import stylegan as lab
from limner.metrics.separability import Separability

SMALL = {"name": "avatars", "n": 900, "size": 16}


@pytest.mark.slow
def test_the_lab_runs_through_and_its_numbers_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "DATA", SMALL)
    sizes = {"_PAIRS": 20, "_SCORED": 130, "_STYLES": 4, "_NOISES": 4, "_PATHS": 100, "_DRAWS": 60}
    for name, value in sizes.items():
        monkeypatch.setattr(lab, name, value)
    narrow = {f"model.{net}.{key}": 4 for net in "GD" for key in ("width", "widest")}
    monkeypatch.setattr(lab, "SMALL", lab.SMALL | narrow)
    result = labs.run("stylegan", out=tmp_path / "lab", images=64, seed=1)
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []
    assert len(result["checks"]) == 10
    assert [Path(path).name for path in result["run"]] == ["seed-1"]
    recipe = Run(result["run"][0]).recipe
    assert recipe["data"] == SMALL
    assert recipe["train"]["seed"] == 1
    page = (tmp_path / "lab" / "index.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in page
    assert page.count("data:image/png") == len(result["figures"]) == 8
    assert set(result["results"]["spaces"]["seed-1"]) == {"z", "w"}
    assert set(result["results"]["psi"]) == {f"{psi:g}" for psi in lab.PSI}
    assert "limner lab stylegan images=64 seed=1" in page


class Noisy:
    """Images of 2×2 that are w, and a tenth and a half of two maps of noise."""

    def __init__(self) -> None:
        self.prior = Prior("normal", 1)
        self.G = SimpleNamespace(noise=SimpleNamespace(sizes=[(1, 1), (2, 2)], total=5))

    def styles(self, z: Tensor) -> Tensor:
        return z[:, None].expand(-1, 2, -1)

    def synthesise(self, ws: Tensor, noise: Tensor) -> Tensor:
        one, four = noise.split([1, 4], 1)
        maps = 0.1 * one.view(-1, 1, 1, 1) + 0.5 * four.view(-1, 1, 2, 2)
        return (ws[:, :1, :1, None] + maps).expand(len(ws), 3, 2, 2)


def recorder() -> Any:
    """A bench that keeps claims."""
    claims: list[bool] = []
    return SimpleNamespace(
        seed=0, lab="stylegan", claims=claims, results={}, figure=lambda *_: None, section=lambda *_, **__: None,
        progress=SimpleNamespace(say=print), claim=lambda _, __, holds: claims.append(holds),
    )  # fmt: skip


def test_noise_is_measured_map_by_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "_STYLES", 400)
    monkeypatch.setattr(lab, "_NOISES", 300)
    bench = recorder()
    reader = SimpleNamespace(read=lambda x: (x.mean((1, 2, 3)) > 100).long()[:, None])
    lab._noise(bench, Noisy(), reader)  # type: ignore[arg-type]
    found = bench.results["noise"]
    assert found["maps"] == pytest.approx({"1×1, layer 0": 0.1, "2×2, layer 1": 0.5}, rel=0.1)
    assert found["noise"] == pytest.approx((0.1**2 + 0.5**2) ** 0.5, rel=0.1)
    assert found["styles"] == pytest.approx(1, rel=0.1)
    assert found["read_the_same"] == 1
    assert bench.claims == [False], "half of what the styles do is no detail"


def test_claims_of_spaces_ask_for_more_than_the_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    def quality(path: float, planes: float, told: float) -> lab.Quality:
        separable = Separability(planes, planes - 1, planes + 1, 90, 20)
        return lab.Quality(
            PathLength(path, 1, 100, 1e-4, "lerp"), separable, {"hair": lab.Told(told, told - 0.02, told + 0.02)}
        )

    def holds(z: lab.Quality, w: lab.Quality) -> list[bool]:
        monkeypatch.setattr(lab, "measured", lambda *_: {"z": z, "w": w})
        bench = recorder()
        lab._spaces(bench, {"seed-0": object()}, object())  # type: ignore[dict-item, arg-type]
        return bench.claims

    base = quality(10, 20, 0.7)
    assert holds(base, quality(6, 17, 0.8)) == [True, True, True]
    assert holds(base, quality(6.5, 18.5, 0.73)) == [False, False, False]
    assert holds(quality(6, 17, 0.8), base) == [False, False, False]


def test_linear_classifiers_tell_what_is_linear() -> None:
    points = torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
    eye = torch.eye(2)
    table = {
        "known": eye[(points[:, 0] > 0).long()],
        "absent": eye[torch.arange(600) % 7 // 4],
        "constant": eye[torch.zeros(600).long()],
    }
    found = lab.told(points, table)
    assert set(found) == {"known", "absent"}
    assert found["known"].accuracy > 0.9
    assert found["absent"].accuracy < 0.65
    assert found["known"].low < found["known"].accuracy < found["known"].high
