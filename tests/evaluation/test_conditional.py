"""Scores of conditional models find a label that is ignored, one image for each label, and what was never combined."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limner import data
from limner.core.batch import to_float, to_uint8
from limner.core.condition import Attributes, Classes
from limner.core.model import GenerativeModel
from limner.core.rng import Noise
from limner.data.datasets import Pixels
from limner.evaluation import conditional
from limner.evaluation.conditional import condition_scores
from limner.evaluation.draws import asked_labels
from limner.evaluation.reference_set import ReferenceSet, ScoredImages
from limner.metrics.conditions import Agreement
from limner.metrics.extractors import readers
from limner.metrics.scorecard import Card, base

BOTH = ("quality", "coverage")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMNER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


class Stub(GenerativeModel):
    """Draws of images what `draws` returns for uniform numbers (n,2) and labels."""

    def __init__(self, draws, condition=None) -> None:
        super().__init__()
        self.draws, self.weight = draws, torch.nn.Parameter(torch.zeros(1))
        if condition is not None:
            self.condition = condition

    def draw(self, n: int, y: Tensor | None, noise: Noise, **options: object) -> Tensor:
        return to_float(self.draws(torch.special.ndtr(noise(0, 2)), y))


def card(reference: ReferenceSet, model: GenerativeModel, heldout: Pixels, properties=BOTH) -> Card:
    y = asked_labels(model, heldout, reference.n)
    scored: ScoredImages = reference(model.sample(reference.n, y=y, seed=0))
    return {base(k): v for k, v in condition_scores(reference, scored, model, heldout, properties).items()}


# ---- classes -------------------------------------------------------------------------------------------------------


class Digits:
    def __init__(self) -> None:
        self.train = data.load("mnist-5k", limit=500)
        self.heldout = data.load("mnist-5k", split="test", limit=200)
        self.reference = ReferenceSet(self.train, self.heldout, n=300)
        self.members = [(self.train.labels == k).nonzero().flatten() for k in range(10)]

    def image(self, u: Tensor, y: Tensor) -> Tensor:
        ids = [
            self.members[k][int(v * len(self.members[k]))] for k, v in zip(y.tolist(), u[:, 0].tolist(), strict=True)
        ]
        return self.train.pixels[torch.stack(ids)]


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def test_real_digits_of_the_class_pass_every_score(digits: Digits) -> None:
    found = card(digits.reference, Stub(digits.image, Classes(digits.train.classes)), digits.heldout)
    assert set(found) == {"gan_test", "cas", "label_diversity", "label_effect", "r_precision"}
    assert "the labels of this model are none" in found.pop("r_precision").why
    assert found["gan_test"].value > 0.98
    assert found["gan_test"].floor == pytest.approx(0.1), "with shuffled labels"
    assert "lenet64-v1 (Shmelkov" in found["gan_test"].how
    assert found["cas"].value > 0.65
    assert found["cas"].floor < 0.3
    assert 0.85 < found["label_diversity"].value < 1.15
    assert 0.85 < found["label_effect"].value < 1.15
    assert {s.property for s in found.values()} == {"quality", "coverage"}


def test_one_digit_for_each_class_is_found_though_every_sample_obeys(digits: Digits) -> None:
    collapsed = Stub(lambda u, y: digits.image(0 * u, y), Classes(digits.train.classes))
    found = card(digits.reference, collapsed, digits.heldout, ["coverage"])
    assert found["label_diversity"].value == 0
    assert list(found) == ["label_diversity"], "quality was not asked for"


def test_a_label_that_is_ignored_is_found(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limner.evaluation.conditional.SmallReader", _Untrained)  # CAS takes time, and is tested above
    ignores = Stub(lambda u, y: digits.image(u, (u[:, 1] * 10).long()), Classes(digits.train.classes))
    found = card(digits.reference, ignores, digits.heldout)
    assert found["label_effect"].value == 0
    assert abs(found["gan_test"].value - 0.1) < 0.06
    assert found["gan_test"].norm < 0.07


class _Untrained:
    """In place of a small reader: it always reads the first value."""

    def __init__(self, values) -> None:
        self.values = values

    @classmethod
    def trained(cls, x: Tensor, labels: Tensor, values, **settings: object) -> _Untrained:
        return cls(values)

    def logits(self, x: Tensor) -> dict[str, Tensor]:
        return {k: torch.arange(len(v), 0, -1).float().expand(len(x), -1) for k, v in self.values.items()}


def test_unconditional_models_and_folders_have_a_reason(digits: Digits) -> None:
    plain = Stub(lambda u, y: digits.image(u, (u[:, 1] * 10).long()))
    found = card(digits.reference, plain, digits.heldout)
    assert {k: v.value for k, v in found.items()} == {"gan_test": None, "label_diversity": None}
    assert "takes no labels, so nothing was asked for" in found["gan_test"].why
    scored = digits.reference(digits.train.pixels[:300])
    folder = condition_scores(digits.reference, scored, None, digits.heldout, BOTH)
    assert all("a folder of pictures tells no labels" in score.why for score in folder.values())
    other = Stub(digits.image, Classes([f"digit {k}" for k in range(10)]))
    assert (
        "not those that Stub was trained with"
        in card(digits.reference, other, digits.heldout)["cas" if 0 else "gan_test"].why
    )


# ---- attributes ----------------------------------------------------------------------------------------------------

VALUES = {"side": ["left", "right"], "shade": ["dark", "middle", "bright"]}
CONDITION = Attributes(VALUES)


def painted(u: Tensor, features: Tensor) -> Tensor:
    """Bars (N,1,16,16) uint8 of a side and a shade, at a height that the noise decides."""
    x = torch.zeros(len(u), 1, 16, 16)
    for image, (side, shade), height in zip(x, features.tolist(), u[:, 0].tolist(), strict=True):
        column, top = (2 if side == 0 else 10), int(height * 8)
        image[0, top : top + 8, column : column + 4] = (shade + 1) / 3
    return to_uint8(2 * x - 1)


def bars(n: int, without_bright_left: bool) -> Pixels:
    chance = torch.Generator().manual_seed(n)
    y = torch.stack([torch.randint(k, (4 * n,), generator=chance) for k in (2, 3)], 1)
    y = y[~((y[:, 0] == 0) & (y[:, 1] == 2))] if without_bright_left else y
    y = y[:n]
    found = Pixels("bars", painted(torch.rand(n, 2, generator=chance), y), labels=CONDITION.vectors(y))
    found.condition = CONDITION
    return found


class Bars:
    def __init__(self) -> None:
        self.train, self.heldout = bars(300, True), bars(320, False)
        self.reference = ReferenceSet(self.train, self.heldout, n=300)


@pytest.fixture(scope="module")
def rectangles() -> Bars:
    return Bars()


def test_attributes_by_themselves_jointly_and_of_new_combinations(rectangles: Bars) -> None:
    """The model paints a bright bar on the left, which it never saw, as a dark one."""

    def clumsy(u: Tensor, y: Tensor) -> Tensor:
        features = CONDITION.features(y).clone()
        features[(features[:, 0] == 0) & (features[:, 1] == 2), 1] = 0
        return painted(u, features)

    found = card(rectangles.reference, Stub(clumsy, CONDITION), rectangles.heldout)
    asked = CONDITION.features(asked_labels(Stub(clumsy, CONDITION), rectangles.heldout, 300))
    wrong = float(((asked[:, 0] == 0) & (asked[:, 1] == 2)).double().mean())
    assert wrong > 0.1
    assert found["gan_test:side"].value > 0.97
    assert found["gan_test:shade"].value == pytest.approx(1 - wrong, abs=0.04)
    assert found["gan_test_joint"].value == pytest.approx(1 - wrong, abs=0.04)
    assert found["gan_test"].value == pytest.approx(1 - wrong / 2, abs=0.04)
    assert found["gan_test:side"].floor == pytest.approx(0.5, abs=0.03)
    assert found["gan_test_joint"].floor < 0.25
    assert found["gan_test_joint_held_out"].value < 0.1
    assert found["gan_test_joint_seen"].value > 0.95
    assert "combinations that no training image has" in found["gan_test_held_out"].on
    assert "a small net trained on 300 real images" in found["gan_test"].how
    assert "least in shade" in found["gan_test"].how
    assert found["cas:side"].value > 0.95
    assert found["cas:side"].ceiling > 0.95
    assert found["cas_joint"].floor < 0.5
    assert 0.8 < found["label_diversity"].value < 1.2


def test_the_pinned_reader_of_the_data_judges(rectangles: Bars, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pinned:
        def __init__(self) -> None:
            self.key, self.about = "bars-v1", {}
            self.values = {"shade": ["bright", "middle", "dark"], "side": ["left", "right"], "more": ["a"]}

        def logits(self, x: Tensor, *, batch: int = 256) -> dict[str, Tensor]:
            x = to_float(x)
            shade = ((x.amax((1, 2, 3)) + 1) / 2 * 3).round().long() - 1
            side = (x[..., 8:].mean((1, 2, 3)) > x[..., :8].mean((1, 2, 3))).long()
            return {"shade": torch.eye(3)[2 - shade], "side": torch.eye(2)[side]}

    monkeypatch.setitem(readers.READERS, "bars", lambda device: Pinned())
    # one net may give both the features and the attributes, with an accuracy for each attribute
    monkeypatch.setattr(rectangles.reference.extractor, "key", "bars-v1")
    monkeypatch.setattr(rectangles.reference.extractor, "about", {"accuracy_test": {"side": 0.9}}, raising=False)
    monkeypatch.setattr("limner.evaluation.conditional.SmallReader", _Untrained)
    honest = Stub(lambda u, y: painted(u, CONDITION.features(y)), CONDITION)
    found = condition_scores(
        rectangles.reference,
        rectangles.reference(honest.sample(300, y=asked_labels(honest, rectangles.heldout, 300), seed=0)),
        honest,
        rectangles.heldout,
        BOTH,
    )
    assert found["gan_test_joint@bars-v1[n=300]"].value == 1
    assert found["gan_test:shade@bars-v1[n=300]"].ceiling == 1
    assert "by bars-v1 (Shmelkov" in found["gan_test@bars-v1[n=300]"].how


def test_scored_labels_are_those_of_held_out_images(rectangles: Bars) -> None:
    model = Stub(lambda u, y: painted(u, CONDITION.features(y)), CONDITION)
    y = asked_labels(model, rectangles.heldout, 400)
    assert torch.equal(y[:320], rectangles.heldout.labels)
    assert torch.equal(y[320:], rectangles.heldout.labels[:80])
    assert asked_labels(Stub(None), rectangles.heldout, 4) is None


def test_a_judge_that_is_no_better_than_chance_gives_no_norm() -> None:
    found = Agreement(0.4, 0.3, 0.5, 100, 0.35)
    assert conditional._row(found, floor=0.35, ceiling=0.9, how="x").norm == pytest.approx(1 / 11)
    assert conditional._row(found, floor=0.35, ceiling=0.3, how="x").norm is None
