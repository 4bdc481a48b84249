"""The lab of the vanishing gradient: what it measures, and that it does so while G stands still."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from limner import labs
from limner.config.spec import Spec
from limner.core.batch import Dataset
from limner.core.checkpoint import folders
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.optimisers import Adam
from limner.core.run import Run
from limner.core.stream import Stream
from limner.labs import vanishing_gradient as lab
from limner.labs._bench import Bench

DATA = {"name": "digits", "size": 28, "limit": 400}


def trained() -> GenerativeModel:
    torch.manual_seed(3)
    nets = {"G": {"name": "mlp.Decoder", "z": 8, "widths": [32]}, "D": {"name": "mlp.Discriminator", "widths": [64]}}
    spec = Spec.parse("model", {"name": "gan"} | nets).resolve(shape=(1, 8, 8))
    model: GenerativeModel = spec.build()
    model.spec = spec
    return model


def digits() -> Dataset:
    made: Dataset = Spec.parse("data", {"name": "digits"}).build()
    return made


def gradient_with_bias(game: str, bias: float) -> torch.Tensor:
    """What the lab measures for a D that gives all images lower logits."""
    model = lab.make_game(trained(), game, "on", 0)
    with torch.no_grad():
        model.groups()["D"].head.bias.fill_(bias)  # type: ignore[union-attr, operator]
    update = lab.FrozenGeneratorUpdate(model, Adam())
    update.train_D = False
    stream = Stream(digits(), 64, 0)
    stream.begin()
    model.step(stream, update)
    return update.gradient.double()


def test_a_surer_d_takes_the_saturating_gradient_away_and_no_other() -> None:
    """A logit lower by b scales it by e^−b, as soon as D is sure; the others do not fall."""
    far, further = (gradient_with_bias("saturating", b) for b in (-12.0, -22.0))
    torch.testing.assert_close(further, far * math.exp(-10), rtol=1e-3, atol=1e-12)
    assert float(far.norm()) < 1e-4 * float(gradient_with_bias("saturating", 0.0).norm())
    for game in ("nonsaturating", "wgan_gp"):
        torch.testing.assert_close(
            gradient_with_bias(game, -32.0), gradient_with_bias(game, -22.0), rtol=1e-4, atol=1e-8
        )


def test_the_two_cross_entropy_gradients_add_up_to_wassersteins() -> None:
    assert lab.identity(trained(), 0) < 1e-5


def test_d_descends_and_g_stands_still() -> None:
    model = lab.make_game(trained(), "wgan_gp", "scratch", 0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    update, stream = lab.FrozenGeneratorUpdate(model, Adam()), Stream(digits(), 64, 0)
    model.step(stream, update)
    still = {k for k, v in model.state_dict().items() if torch.equal(v, before[k])}
    assert still == {k for k in before if k.startswith("G.")} | {"D.head.bias"}  # a constant of D cancels in its loss
    assert float(update.gradient.norm()) > 0
    settled = {k: v.clone() for k, v in model.state_dict().items()}
    update.train_D = False
    model.step(stream, update)
    assert all(torch.equal(v, settled[k]) for k, v in model.state_dict().items())


def test_d_starts_anew_in_all_games_alike_or_goes_on() -> None:
    source = trained()
    made = {(g, m): lab.make_game(source, g, m, 0).groups() for g in lab.GAMES for m in ("scratch", "on")}
    theirs = source.groups()["D"].state_dict()
    for (game, mode), groups in made.items():
        assert all(torch.equal(v, source.groups()["G"].state_dict()[k]) for k, v in groups["G"].state_dict().items())
        expected = theirs if mode == "on" else made["saturating", "scratch"]["D"].state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in groups["D"].state_dict().items()), game
    fresh = made["saturating", "scratch"]["D"].state_dict()
    assert not any(torch.equal(v, theirs[k]) for k, v in fresh.items())


def test_decades_are_those_between_the_start_and_the_last_tenth() -> None:
    n = 200
    norms = [10 ** (1 - 4 * i / (n - 1)) if i >= 20 else 0.5 for i in range(n)]
    played = lab.DiscriminatorTraining("1 epoch", "saturating", list(range(n)), norms, [], [], [], [])
    assert played.start == 0.5
    assert played.end == pytest.approx(10 ** (1 - 4 * 189.5 / 199), rel=0.01)
    assert played.lost == pytest.approx(math.log10(0.5 / played.end))
    assert played.highest == pytest.approx(norms[22])


def test_the_saturating_gradient_vanishes_where_wgan_gps_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "D_STEPS", Adam(lr=5e-3, betas=(0.5, 0.999)))  # in a hurry
    bench = Bench("vanishing-gradient", "", out=tmp_path)
    games = {g: lab.train_discriminator(bench, "no epochs", g, trained(), digits(), 150, "scratch") for g in lab.GAMES}
    assert games["saturating"].lost > 1.2
    assert games["wgan_gp"].lost < 0.5
    assert games["nonsaturating"].lost < 0.5
    assert games["saturating"].weights == games["nonsaturating"].weights
    assert {p.moved for p in games.values()} == {0.0}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    out = tmp_path_factory.mktemp("lab") / "page"
    return labs.run("vanishing-gradient", out=out, images=320, data=DATA, iterations=20, mode=True)


def test_the_lab_leaves_a_page(result: dict[str, object]) -> None:
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []  # type: ignore[attr-defined]
    page = Path(str(result["page"]))
    assert page.read_text(encoding="utf-8").count("data:image/png") == len(result["figures"]) == 4  # type: ignore[arg-type]
    written = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    assert written["settings"] == {
        "images": 320,
        "data": DATA,
        "seed": 0,
        "iterations": 20,
        "mode": "on",
        "nets": "mlp",
    }
    assert len(written["results"]["games"]) == 9
    assert len(written["claims"]) == 3


def test_three_generators_are_kept(result: dict[str, object]) -> None:
    """After a twenty-fifth of the training, ten of them, and all; no other checkpoint stays."""
    (run,) = result["run"]  # type: ignore[misc]
    assert [int(p.name) for p in folders(Run(run).checkpoints)] == [64, 128, 320]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"iterations": 5}, "iterations: input should be greater than or equal to 20; got 5"),
        ({"iterations": "some"}, "iterations: 'some' is not a count"),
        ({"mode": "off"}, "mode: input should be 'scratch' or 'on'; got 'off'"),
        ({"epochs": 3}, "unknown setting of lab vanishing-gradient"),
    ],
)
def test_settings_of_its_own_are_checked_before_anything_is_written(
    settings: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LimnerError) as caught:
        labs.run("vanishing-gradient", **settings)
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []
