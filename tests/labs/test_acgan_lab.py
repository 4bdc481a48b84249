"""The lab of AC-GAN's bias: games at rest against closed forms, what it counts, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from limner import labs
from limner.core.run import Run
from limner.labs import acgan
from limner.labs._rest import Game, at_rest, costs

OVERLAP = torch.tensor([[0.25, 0.25, 0.0], [0.25, 0.0, 0.25]], dtype=torch.float64)


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.0, 1.5])
def test_a_classifier_of_real_images_leaves_the_share_of_the_closed_form(weight: float) -> None:
    q = at_rest(OVERLAP, "real", weight)
    s = (3 - 2**weight) / (2 + 2 * 2**weight)
    torch.testing.assert_close(2 * q[:, 0], torch.full((2,), s).double(), atol=1e-6, rtol=0)
    assert (1 + 2 * s) * 2**weight == pytest.approx(1 + 2 * (1 - s))  # both digits cost the same
    assert acgan.rest_share(weight) == pytest.approx(s)


def test_no_shared_image_is_left_from_a_weight_of_log2_3() -> None:
    assert float(at_rest(OVERLAP, "real", 1.7)[:, 0].sum()) < 1e-3
    assert acgan.rest_share(1.7) == 0


@pytest.mark.parametrize("game", ["twin", "2K", "conditional"])
def test_the_corrected_games_rest_at_the_data_from_any_start(game: Game) -> None:
    chance = torch.Generator().manual_seed(1)
    p = torch.rand(3, 7, generator=chance, dtype=torch.float64)
    p = (p / p.sum()).where(torch.rand(3, 7, generator=chance) > 0.2, torch.zeros(()).double())
    p = p / p.sum()
    q = at_rest(p, game, 2.0, start=torch.randn(3, 7, generator=chance))
    torch.testing.assert_close(q, p, atol=1e-6, rtol=0)


@pytest.mark.parametrize("game", get_args(Game))
def test_at_rest_all_that_g_draws_costs_the_same_and_the_rest_more(game: Game) -> None:
    p = torch.tensor([[0.3, 0.1, 0.1], [0.1, 0.1, 0.3]]).double()
    q = at_rest(p, game, 0.7, steps=4000)
    assert q.sum(1).tolist() == pytest.approx([0.5, 0.5])
    cost = costs(p.log(), q.clamp(min=1e-300).log(), game, 0.7)
    for row, drawn in zip(cost, q > 1e-6, strict=True):
        assert float(row[drawn].max() - row[drawn].min()) < 1e-4
        assert float(row.min()) > float(row[drawn].min()) - 1e-4


def test_signs_on_which_g_and_c_agree_leave_more_of_the_shared_digit() -> None:
    real, both = (acgan.shared_at_rest(game, [0.5, 1.0]) for game in ("real", "both"))
    assert real == pytest.approx([acgan.rest_share(w) for w in (0.5, 1.0)], abs=1e-6)
    assert all(r + 0.05 < b < 0.45 for r, b in zip(real, both, strict=True))


def test_shares_are_of_the_shared_the_own_the_other_and_no_digit() -> None:
    found = acgan.shares([0, 0, 0, 2, 1, 1, 7, 9, 9, 9], own=2, foreign=1)
    assert (found.shared, found.own, found.foreign, found.none) == pytest.approx((0.3, 0.1, 0.2, 0.4))
    assert found.low < 0.3 < found.high


def test_a_share_says_something_only_of_samples_that_are_digits_of_their_class() -> None:
    def holds(share: float, strays: float) -> list[bool]:
        claims: list[bool] = []
        bench: Any = SimpleNamespace(claim=lambda text, measured, holds: claims.append(holds))
        each = acgan.Shares(share, 0.0, 1.0, 1 - share - strays, 0.0, strays)
        drawn = acgan.Drawn((each, each), share, strays, share, 0.4, None, None)
        acgan._claims(bench, {"AC-GAN, C of both": drawn, "projection": drawn})
        return claims

    assert holds(0.5, 0.1) == [False, True]
    assert holds(0.3, 0.1) == [True, False]
    assert holds(0.6, 0.1) == [False, False]
    assert holds(0.5, 0.3) == holds(0.3, 0.3) == [False, False]


def test_the_lab_runs_through_and_its_numbers_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_SAMPLES": 40, "_NETS": acgan._NETS | {f"model.{net}.width": 4 for net in "GD"}}.items():
        monkeypatch.setattr(acgan, name, value)
    monkeypatch.setattr(acgan, "KINDS", {k: acgan.KINDS[k] for k in ("AC-GAN, C of real images", "projection")})
    trained = acgan.SmallReader.trained
    monkeypatch.setattr(acgan.SmallReader, "trained", lambda x, y, values, seed: trained(x[:256], y[:256], values))
    result = labs.run("acgan", out=tmp_path / "lab", images=64, class_weight=2, seed=1)
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []
    assert len(result["checks"]) == 4
    ac, projection = (Run(path).recipe for path in result["run"])
    assert (ac["model"]["class_weight"], ac["model"]["classify_fakes"]) == (2, False)
    assert ac["model"]["G"] == projection["model"]["G"]
    assert ac["data"] == projection["data"]
    assert ac["optim"] == projection["optim"]
    page = (tmp_path / "lab" / "index.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in page
    assert page.count("data:image/png") == len(result["figures"]) == 5
    written = json.loads((tmp_path / "lab" / "results.json").read_text(encoding="utf-8"))["results"]
    for drawn in written["shares"].values():
        a, b = drawn["classes"]
        assert drawn["share"] == pytest.approx((a["shared"] + b["shared"]) / 2)
        assert drawn["strays"] == pytest.approx(1 - (a["shared"] + a["own"] + b["shared"] + b["own"]) / 2)
        assert 0 <= drawn["clean"] <= 1
        assert sum(a[part] for part in ("shared", "own", "foreign", "none")) == pytest.approx(1)
    assert written["shares"]["projection"]["class_real"] is None
    assert not any(c["holds"] for c in result["claims"]), "after a single step no model draws digits"
