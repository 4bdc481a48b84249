"""The lab of ageing runs through; it measures identity and cue apart, and searches end where they say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limner import labs
from limner.apply.relabel import of_features, pixels
from limner.core.batch import to_float
from limner.core.condition import Attributes
from limner.core.model import GenerativeModel
from limner.core.prior import Prior
from limner.core.run import Run
from limner.data import load
from limner.labs import ageing as lab
from limner.metrics.extractors.attributes import attribute_reader
from limner.metrics.identity import Identity

SMALL = {"name": "avatars", "n": 600, "size": 16, "attributes": list(lab.CUE)}


@pytest.fixture(autouse=True)
def drawn() -> None:
    for module in ("python_avatars", "resvg_py"):
        pytest.importorskip(module, reason="faces are drawn by: pip install 'limner[avatars]'")


def test_the_lab_runs_through_and_its_autoencoders_differ_in_the_weight_of_d_z_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caae = {"model.encoder.width": 4, "model.decoder.width": 4, "model.D_img.width": 4, "train.batch": 32}
    gan = {"model.G.width": 4, "model.D.width": 4, "model.encoder.widths": [4, 8], "train.batch": 32}
    for name, value in {"DATA": SMALL, "CAAE": caae, "AGE_CGAN": gan, "_FACES": 6, "_MEASURED": 40}.items():
        monkeypatch.setattr(lab, name, value)
    monkeypatch.setattr(lab, "_LEARNT", 100)
    monkeypatch.setattr(lab, "_STEPS", 3)
    result = labs.run("ageing", out=tmp_path / "lab", images=128, seed=1)
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []
    assert len(result["checks"]) == 7
    one, other, _ = (Run(path).recipe for path in result["run"])
    assert other["model"].pop("adv_z") == 0
    assert one["model"].pop("adv_z", 0.01) == 0.01
    assert [one[key] for key in ("model", "data", "optim", "train")] == [
        other[key] for key in ("model", "data", "optim", "train")
    ]
    page = Path(result["page"]).read_text(encoding="utf-8")
    assert page.count("data:image/png") == len(result["figures"]) == 7
    assert "limner lab ageing images=128 seed=1 " in page
    found = result["results"]
    assert list(found["age_cgan"]) == [*lab.PUBLISHED, "the judge's own features"]
    assert abs(found["mmd"]["two draws from the cube"]["value"]) < 0.02
    on, off = (found["mmd"][name] for name in ("D_z on", "D_z off"))
    apart = on["value"] + 2 * on["error"] < off["value"] - 2 * off["error"]
    assert [c["holds"] for c in result["claims"]][:2] == [False, apart]


class Decoder(GenerativeModel):
    """A small smooth generator of codes and a label; its encoder gives codes that are wrong by a constant."""

    condition: Any = Attributes({"age": ["young", "old"]})
    wrong = 0.3

    def __init__(self) -> None:
        super().__init__()
        self.spec: Any = SimpleNamespace(name="decoder")
        self.prior = Prior("normal", 2)
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3 * 64), nn.Tanh())

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        assert y is not None
        return self.net(torch.cat([z, y], 1)).view(-1, 3, 8, 8)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.known[[int((self.pictures - one).abs().sum((1, 2, 3)).argmin()) for one in x]] + self.wrong


def test_a_search_ends_where_its_distance_is_small_and_the_encoder_alone_does_not_search() -> None:
    model = Decoder().eval()
    y = model.condition.read(["age=young", "age=old"], 2)
    model.known = torch.randn(2, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.pictures = model.decode(model.known, y)
    upper = of_features(lambda x: x[:, :, :4])
    codes = lab.searched(model, lab.Faces(model.pictures, y), {"pixels": pixels, "upper": upper}, seed=0)
    torch.testing.assert_close(codes["encoder alone"], model.known + 0.3)
    with torch.no_grad():
        for name, distance in (("pixels", pixels), ("upper", upper)):
            assert (distance(model.decode(codes[name], y), model.pictures) < 1e-4).all(), name
        assert (pixels(model.decode(codes["encoder alone"], y), model.pictures) > 1e-3).all()


def test_identity_is_what_stays_and_the_cue_is_what_was_asked_for() -> None:
    """Of faces in the place of a model's: the same person with the cue of another, and another person."""
    dataset: Any = load(**SMALL | {"size": 32, "n": 3000, "split": "test"})
    model: Any = SimpleNamespace(condition=dataset.condition)
    judge = attribute_reader("avatars-v1")
    table = dataset.factors
    names = list(dataset.factor_names)
    who, cue = ([names.index(name) for name in part] for part in (lab.IDENTITY, lab.CUE))
    twins = {}
    for i, row in enumerate(table.tolist()):
        twins.setdefault(tuple(row[k] for k in who), []).append(i)
    pairs = [ids[:2] for ids in twins.values() if len(ids) > 1]
    assert len(pairs) > 20
    first, second = torch.tensor(pairs).T
    x = to_float(dataset.pixels)
    same = lab.aged(judge, model, x[first], x[second], dataset.labels[second])
    assert same.identity.value > 0.97
    assert same.cue > 0.97
    stayed = lab.aged(judge, model, x[first], x[first], dataset.labels[second])
    agree = (table[first][:, cue] == table[second][:, cue]).double().mean()
    assert stayed.cue == pytest.approx(float(agree), abs=0.03)
    other = lab.aged(judge, model, x[first], x[second.flip(0)], dataset.labels[second])
    assert other.identity.value < 0.5


def test_one_search_keeps_more_than_another_only_if_chance_would_not_give_it() -> None:
    def aged(right: list[float]) -> lab.Aged:
        shares = torch.tensor(right).double()
        return lab.Aged(Identity(float(shares.mean()), 0.0, 1.0, 0.2, {}, shares), 0.5)

    claims: list[bool] = []
    bench: Any = SimpleNamespace(
        seed=0, results={}, section=lambda *a, **k: None, claim=lambda text, measured, holds: claims.append(holds)
    )
    shares = {"encoder alone": [0.25, 0.5] * 20, "pixels": [0.75, 1.0] * 20, "identity-preserving": [1.0, 0.76] * 20}
    found = {name: (aged(right), aged(right)) for name, right in shares.items()}
    lab._identity(bench, found, 40)
    assert claims == [True, False]
    assert bench.results["gaps"]["pixels - encoder alone"][0] == pytest.approx(0.5)


def test_headings_say_what_is_asked_for_in_words() -> None:
    condition = Attributes({"hair_colour": ["brown", "grey"], "facial_hair": ["none", "long beard"]})
    model: Any = SimpleNamespace(condition=condition)
    row = condition.read(["hair_colour=grey facial_hair=none", "hair_colour=brown facial_hair=long beard"], 2)
    assert lab._headings(model, row) == ["grey hair, no facial hair", "brown hair, long beard"]
