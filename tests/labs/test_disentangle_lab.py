"""The lab of disentanglement: its measures on codes that are known, and its page."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from limner import labs
from limner.config import recipe
from limner.core.paths import BUILTIN
from limner.evaluation.factors import factor_reader
from limner.labs import disentangle
from limner.latent.directions import ridge


@pytest.fixture
def vae():
    """A small VAE with random weights, whose posterior is far from round."""
    torch.manual_seed(0)
    small = {"model.z": 4, "model.encoder.widths": [8], "model.decoder.widths": [8]}
    model = recipe.load(f"{BUILTIN}vae-mnist", small).model.build(shape=(1, 4, 4)).eval()
    for p in model.parameters():
        p.data.mul_(2)
    return model


def test_a_turned_code_has_the_same_likelihood_and_independent_numbers_lose(vae):
    x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    Q = disentangle.random_turn(4, 0)
    torch.testing.assert_close(Q @ Q.T, torch.eye(4, dtype=torch.float64))
    found = disentangle.likelihoods(vae, x, Q, 200, 0)
    assert found["turned"] == pytest.approx(found["plain"], abs=1e-9)
    assert found["elbo"] < found["plain"]
    assert found["diagonal"] != pytest.approx(found["elbo"], abs=1e-3)
    still = disentangle.likelihoods(vae, x, torch.eye(4, dtype=torch.float64), 200, 0)
    assert still["diagonal"] == pytest.approx(still["elbo"], abs=1e-9)


def test_the_turned_model_decodes_what_it_encodes_as_before(vae):
    turned = disentangle.Turned(vae, disentangle.random_turn(4, 1).float())
    x = torch.rand(3, 1, 4, 4) * 2 - 1
    torch.testing.assert_close(turned.decode(turned.encode(x)), vae.decode(vae.encode(x)))
    assert not torch.allclose(turned.encode(x), vae.encode(x))


def test_an_angle_is_told_by_its_cosine_and_sine():
    reader = factor_reader()
    generator = torch.Generator().manual_seed(0)
    factors = torch.stack([torch.randint(0, k, (2000,), generator=generator) for k in (3, 6, 5, 8, 8)], 1)
    columns = disentangle.targets(factors, reader)
    assert {name: y.shape[1] for name, y in columns.items()} == {"shape": 3, "scale": 1, "angle": 2, "x": 1, "y": 1}
    half_turns = 2 * torch.pi * factors[:, 2] / 5
    assert disentangle.multiple_r(torch.sin(half_turns + 0.3), columns["angle"]) == pytest.approx(1)
    assert disentangle.multiple_r(torch.sin(half_turns), columns["x"]) < 0.1
    assert disentangle.multiple_r((factors[:, 0] == 1).float(), columns["shape"]) == pytest.approx(1)


def test_ridge_finds_the_direction_along_which_a_factor_grows():
    z = torch.randn(3000, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0, 1.0, 0.2, 1.0])
    w = torch.tensor([1.0, 0.0, -2.0, 1.0, 0.0])
    y = z @ w + 0.1 * torch.randn(3000, generator=torch.Generator().manual_seed(1))
    (found,) = ridge(z, torch.stack([y], 1), 1e-6)
    torch.testing.assert_close(found, w / w.norm(), atol=0.02, rtol=0)
    scaled = ridge(z, torch.stack([-5 * y, z[:, 1]], 1))
    torch.testing.assert_close(scaled.norm(dim=1), torch.ones(2))
    assert float(scaled[0] @ w) < 0


def test_the_pictures_of_a_factor_change_nothing_else():
    bench = SimpleNamespace()
    data = disentangle.Bench.dataset(bench, "all", disentangle.SETS["mini-dsprites"])
    rows = disentangle._along_factors(data)
    assert list(rows) == ["shape", "scale", "angle", "x", "y"]
    light = rows["x"].add(1).sum((1, 2, 3))
    assert light.std() / light.mean() < 1e-3  # it is the same sprite elsewhere
    across = (rows["x"].add(1).sum((1, 2)) * torch.arange(32)).sum(1) / light
    assert (across.diff() >= 0).all()
    assert across[-1] - across[0] == pytest.approx(14, abs=0.01)


@pytest.mark.slow
def test_the_lab_runs_through_and_its_numbers_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"_POINTS": 300, "_LEARN": 100, "_TEST": 50, "_LIKELIHOODS": 10, "_BOUND": 4, "_DRAWS": 20, "_BASES": 1}
    for name, number in few.items():
        monkeypatch.setattr(disentangle, name, number)
    monkeypatch.setattr("limner.metrics.disentangle._TREES", 2)
    small = {"model.encoder.widths": [4], "model.decoder.widths": [4]}
    gan = {"model.G.widths": [4], "model.D.widths": [4], "model.G.hidden": 8, "model.D.hidden": 8}
    vae = {"model.z": 4, "model.beta": 4.0} | small
    methods = {"β-VAE": ("conv-vae-mnist", vae), "InfoGAN": ("infogan-sprites", gan)}
    monkeypatch.setattr(disentangle, "METHODS", methods)
    result = labs.run("disentangle", out=tmp_path / "lab", images=64, of="solids", seeds=2, seed=3)
    assert [c["name"] for c in result["checks"] if not c["ok"] and "noise" not in c["name"]] == []
    assert len(result["checks"]) == 5
    assert [Path(path).name for path in result["run"]] == [
        f"solids-{method}-{k}" for method in ("beta-vae", "infogan") for k in (1, 2)
    ]
    found = result["results"]["trainings"]["solids"]
    assert len(found) == 4
    assert set(result["results"]["with labels"]["solids"]) == {"azimuth", "elevation", "light", "width"}
    page = (tmp_path / "lab" / "index.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in page
    assert page.count("data:image/png") == len(result["figures"]) == 5
    assert len(result["claims"]) == 4
