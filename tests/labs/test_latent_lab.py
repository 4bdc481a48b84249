"""The lab of latent spaces runs through, and tells a space with holes from one without."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from limner import labs
from limner.core.interpolation import lerp, slerp
from limner.core.run import Run
from limner.labs import latent as lab

SMALL = {"name": "avatars", "n": 1200, "size": 32}
GLASSES, HAIR = 3, 6


def narrow() -> dict[str, Any]:
    """The trainings with an eighth of the channels."""
    result = {name: (recipe, dict(changes)) for name, (recipe, changes) in lab.TRAININGS.items()}
    for _, changes in result.values():
        for key, widths in (("model.encoder", [4, 8, 16]), ("model.decoder", [16, 8, 4])):
            if key in changes:
                changes[key] = changes[key] | {"widths": widths}
    result["GAN"][1].update({"model.G.width": 4, "model.D.width": 4})
    return result


@pytest.mark.slow
def test_the_lab_runs_through_and_its_numbers_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "DATA", SMALL)
    small = {"_WAYS": 130, "_TRIALS": 3, "_EVEN": 2, "_PLACES": (0.0, 0.5), "EXAMPLES": (1, 3), "TRAININGS": narrow()}
    for name, value in small.items():
        monkeypatch.setattr(lab, name, value)
    result = labs.run("latent", out=tmp_path / "lab", images=64, seed=1)
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []
    assert len(result["checks"]) == 6
    page = (tmp_path / "lab" / "index.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in page
    assert page.count("data:image/png") == len(result["figures"])
    runs = [Run(path).recipe for path in result["run"]]
    assert [run["data"] for run in runs] == [SMALL] * 3
    assert set(result["results"]["ways"]) == {"autoencoder", "VAE", "GAN"}
    assert result["results"]["ways"]["GAN"]["gap"] is None


class Drawn:
    """A space whose images of one pixel are its points: glasses, colour of hair, and a number that noise disturbs."""

    def __init__(self, between: Any = lerp) -> None:
        self.between, self.model = between, SimpleNamespace(prior=self, decode=None)

    def images(self, points: Tensor, rest: None = None) -> Tensor:
        return points[:, :, None, None]


class Reader:
    """Reads the nearest value of each number."""

    values = MappingProxyType(
        {"glasses": ["none", "round", "square"], "hair_colour": list("abcdef"), "mouth": ["x", "y"]}
    )

    def logits(self, x: Tensor) -> dict[str, Tensor]:
        return {
            name: -(x[:, k, 0, :] - torch.arange(float(len(names)))).abs()
            for k, (name, names) in enumerate(self.values.items())
        }


def pool_of(noise: float, n: int = 600) -> lab.Pool:
    """Points with values of all attributes, and noise in each number."""
    chance = torch.Generator().manual_seed(0)
    columns = [torch.randint(len(names), (n,), generator=chance) for names in Reader.values.values()]
    points = torch.stack(columns, 1) + noise * (torch.rand(n, 3, generator=chance) - 0.5)
    return lab.Pool.of(Drawn(), points, Reader())  # type: ignore[arg-type]


def test_sums_of_examples_give_what_a_has_and_keep_what_c_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "_TRIALS", 60)

    def sums(noise: float, k: int) -> lab.Sums:
        found = lab.summed(Drawn(), pool_of(noise), Reader(), k, 0)  # type: ignore[arg-type]
        assert found is not None
        return found

    exact = sums(0.0, 1)
    assert exact.reached == exact.hair == 1
    assert exact.kept < 0.9, "a and b have mouths of their own, and single ones differ"
    assert exact.random_reached < 0.7
    one, ten = sums(0.9, 1), sums(0.9, 10)
    assert ten.reached > one.reached + 0.05
    assert ten.kept > one.kept + 0.05


def test_examples_are_of_the_kinds_that_are_asked_for() -> None:
    pool = pool_of(0.2)
    for seed in range(5):
        found = pool.examples(4, torch.Generator().manual_seed(seed))
        assert found is not None
        a, b, c = (
            {name: logits.argmax(1) for name, logits in Reader().logits(p[:, :, None, None]).items()} for p in found
        )
        assert a["glasses"].eq(1).all()
        assert b["glasses"].eq(0).all()
        assert c["glasses"].eq(0).all()
        hair = [torch.unique(kind["hair_colour"]) for kind in (a, b, c)]
        assert hair[0].equal(hair[1])
        assert not hair[0].equal(hair[2])
        assert len({tuple(row) for row in found[0].tolist()}) == 4, "no example twice"
    few = lab.Pool(pool.points[:3], {k: v[:3] for k, v in pool.read.items()}, pool.values)
    assert few.examples(1, torch.Generator()) is None


def test_a_line_between_points_of_a_shell_sags_and_an_arc_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shell:
        """Real pictures have norm 1."""

        extractor = SimpleNamespace(features=lambda x: x.flatten(1))

        def __call__(self, x: Tensor) -> Any:
            near = float((x.flatten(1).norm(dim=1) > 0.9).double().mean())
            return SimpleNamespace(scores={"clipped_density": near, "fd": 1 - near, "sharpness": 1.0})

    points = torch.nn.functional.normalize(torch.randn(400, 64, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(lab, "places_of", lambda *_: points)
    monkeypatch.setattr(lab, "Noise", lambda model: SimpleNamespace(draw=lambda n, *_: points[:n]))
    line, arc = (
        lab.ways_of(Drawn(between), points, None, Shell(), 0)  # type: ignore[arg-type]
        for between in (lerp, slerp)
    )
    assert line.density[0] == arc.density[0] == line.drawn == 1
    assert line.sag < 0.1
    assert arc.sag == 1
    assert 1 <= arc.evenness < 1.01
    assert line.gap is None


def test_claims_follow_the_numbers() -> None:
    def ways(sag: float, fd: float, sharp: float) -> lab.Ways:
        return lab.Ways([0.5, 0.5 * sag], (1, 1, fd), 1 / fd, sharp, 1.1, None)

    def holds(ae: float, vae: float, one: float, three: float) -> list[bool]:
        claims: list[bool] = []
        bench: Any = SimpleNamespace(claim=lambda _, __, holds: claims.append(holds))
        found = {"autoencoder": ways(ae, 30, 0.4), "VAE": ways(vae, 20, 0.3), "GAN": ways(1, 10, 0.9)}
        each = {k: lab.Sums(s, 1, s, 0, 0) for k, s in ((1, one), (3, three))}
        lab._claims(bench, found, dict.fromkeys(found, each))
        return claims

    assert holds(0.5, 0.9, 0.4, 0.8) == [True, True, True, True]
    assert holds(0.85, 0.9, 0.4, 0.4) == [False, True, True, False]
    assert holds(0.5, 0.55, 0.8, 0.4) == [False, True, True, False]
