"""The card of translators: what perfect, lazy and simple ones score, and where their scores go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import limner
from limner.bench import compare
from limner.core.batch import to_uint8
from limner.core.capabilities import Translates
from limner.core.errors import LimnerError
from limner.data import degradations as tasks
from limner.data import load
from limner.data.datasets import Pixels
from limner.data.pairs import DomainSet, PairSet, StackedPairs
from limner.evaluation import scoring as evaluation
from limner.evaluation import translation
from limner.evaluation.translation import Effort, PairBaselines, TranslationEvaluator, small_set_frechet
from limner.evaluation.translation.frechet import _jackknife
from limner.evaluation.translation.without_learning import NAMES
from limner.metrics.extractors.features import Random
from limner.metrics.frechet import frechet
from limner.metrics.paired import Perceptual
from limner.metrics.scorecard import PROPERTIES, Card, base

RANDOM = Perceptual.random(1)
Map = Callable[[Tensor], Tensor]


class Fixed(nn.Module):
    """Translates by functions that a test gives."""

    def __init__(self, there: Map, back: Map | None = None) -> None:
        super().__init__()
        self.there, self.back, self.pairing = there, back, None
        self.domains = ("b",) if back is None else ("b", "a")
        self.source = self.shape = (1, 16, 16)
        self.nothing = nn.Parameter(torch.zeros(()))

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        return self.there(x) if to == "b" or self.back is None else self.back(x)


def same(x: Tensor) -> Tensor:
    return x


def negative(x: Tensor) -> Tensor:
    return -x


def pictures(n: int = 40, seed: int = 0, channels: int = 1, side: int = 16) -> Tensor:
    """Blurred noise (n,channels,side,side) uint8: no two alike, none symmetric in grey."""
    noise = torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed))
    return to_uint8(2 * nn.functional.avg_pool2d(noise, 3, 1, 1) ** 2 - 1)


def negatives(n: int = 40, seed: int = 0) -> PairSet:
    """Pairs of a picture's negative and the picture: what must be learnt is x -> -x."""
    x = pictures(n, seed)
    return PairSet(StackedPairs(Pixels("negatives", 255 - x), Pixels("pictures", x)))


def evaluated(model: Translates, heldout: Any, train: Any, **effort: Any) -> Card:
    extractor = Random(train.fetch(range(len(train))))
    return TranslationEvaluator(train, heldout, Effort(**effort), extractor, RANDOM).card(model)


def values(card: Card) -> dict[str, Any]:
    return {base(name): score.value for name, score in card.items()}


def test_a_perfect_translator_is_exact_and_a_lazy_one_beats_nothing() -> None:
    train, heldout = negatives(), negatives(30, seed=1)
    perfect, lazy = evaluated(Fixed(negative), heldout, train), evaluated(Fixed(same), heldout, train)
    best = values(perfect)
    assert best["l1"] == best["perceptual"] == 0
    assert best["ssim"] == pytest.approx(1, abs=1e-12)
    assert best["psnr_db"] == 100
    assert best["fd"] == pytest.approx(0, abs=1e-6)
    heads = [k for k in perfect if base(k) in ("l1", "ssim", "perceptual")]
    assert all(perfect[k].norm == pytest.approx(1) for k in heads)
    worst = values(lazy)
    assert all(worst[k] == worst[f"{k}_source"] for k in ("l1", "ssim", "perceptual", "fd"))
    assert worst["l1"] > worst["l1_constant"] > 0
    assert all(lazy[k].norm == 0 for k in heads)
    assert "better than the mean colour" in perfect["l1[n=30]"].how
    assert "worse than the mean colour" in lazy["l1[n=30]"].how
    assert "neither better nor worse (0 to 0) than the source itself" in lazy["l1[n=30]"].how


def test_every_score_of_pictures_has_its_interval_and_its_baselines() -> None:
    card = evaluated(Fixed(lambda x: 0.5 * x), negatives(30, seed=1), negatives())
    for measure in ("l1", "psnr_db", "ssim", "perceptual", "fd"):
        head, unit = measure.removesuffix("_db"), "_db" * measure.endswith("_db")
        own = next(s for k, s in card.items() if base(k) == measure)
        others = {w: next(s for k, s in card.items() if base(k) == f"{head}_{w}{unit}") for w in NAMES
                  if w != "identity"}  # fmt: skip
        for score in (own, *others.values()):
            assert score.low <= score.value <= score.high
            assert score.error is not None
            assert score.property == "quality"
        floors = [s.value for w, s in others.items() if measure != "fd" or w != "nearest"]
        assert own.floor == (max if own.better == "higher" else min)(floors)


def test_names_carry_their_conditions() -> None:
    card = evaluated(Fixed(negative), negatives(30, seed=1), negatives(), perceptual=12)
    assert {"l1[n=30]", "l1_nearest[n=30]", "psnr_db[n=30]", "psnr_nearest_db[n=30]", "ssim[n=30]"} <= set(card)
    assert {"perceptual@random-conv-v1[n=12]", "diversity[n=30]"} <= set(card)
    assert any(k.startswith("fd@random167-v1-") and k.endswith("[n=30]") for k in card)
    small = PairSet(StackedPairs(*(Pixels("small", pictures(25, side=8)) for _ in "ab")))
    assert "ssim[n=25, window=7]" in evaluated(Fixed(same), small, small)


def test_the_nearest_neighbour_among_the_training_pairs_themselves_is_perfect() -> None:
    train = negatives(70)
    result = values(evaluated(Fixed(same), train, train))
    assert result["l1_nearest"] == result["perceptual_nearest"] == 0
    assert result["ssim_nearest"] == pytest.approx(1)


def test_the_nearest_neighbour_is_nearest_in_l2() -> None:
    known, (a, _) = PairBaselines(negatives(70)), negatives(20, seed=1).pairs(range(20))
    sources, targets = negatives(70).pairs(range(70))
    wanted = (a[:, None] - sources).square().flatten(2).sum(2).argmin(1)
    assert known.nearest_ids(a) == wanted.tolist()
    assert torch.equal(known.nearest(a), targets[wanted])


def test_the_mean_is_the_best_constant_in_squared_error_and_the_median_in_l1() -> None:
    x = pictures(20, channels=3)
    known = PairBaselines(PairSet(StackedPairs(Pixels("sources", x), Pixels("targets", x))))
    flat = x.double().transpose(0, 1).flatten(1)  # (3,N)

    def errors(colour: Tensor) -> tuple[Tensor, Tensor]:
        errors = flat - colour.double()[:, None]
        return errors.square().mean(1), errors.abs().mean(1)

    for step in (-1.0, 1.0):
        assert (errors(known.mean + step)[0] > errors(known.mean)[0]).all()
        assert (errors(known.median + step)[1] >= errors(known.median)[1]).all()
    torch.testing.assert_close(known.mean.double(), flat.mean(1), rtol=1e-6, atol=0)
    y = known.constant(known.mean)(torch.zeros(2, 1, 5, 7))
    assert y.shape == (2, 3, 5, 7)
    torch.testing.assert_close((y[0, :, 0, 0] + 1) * 127.5, known.mean)


def test_neither_order_nor_batches_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    train, heldout = negatives(), negatives(30, seed=1)
    turned = PairSet(StackedPairs(*(Pixels(s.name, s.pixels.flip(0)) for s in (heldout.stacked.a, heldout.stacked.b))))
    one = values(evaluated(Fixed(lambda x: 0.5 * x), heldout, train))
    other = values(evaluated(Fixed(lambda x: 0.5 * x), turned, train))
    for module in ("without_learning", "pairs"):
        monkeypatch.setattr(f"limner.evaluation.translation.{module}.BATCH", 7)
    batched = values(evaluated(Fixed(lambda x: 0.5 * x), heldout, train))
    for name, value in one.items():
        assert other[name] == pytest.approx(value, rel=1e-4), name
        assert batched[name] == pytest.approx(value, rel=1e-4), name


def test_a_task_has_its_classic_way_and_is_finished_as_in_use() -> None:
    digits = {split: load("digits", split=split, size=16, limit=60) for split in ("train", "test")}
    train, heldout = (PairSet(digits[s], tasks.make("denoise", 0.2)) for s in ("train", "test"))
    lazy = evaluated(Fixed(same), heldout, train)
    plain = values(lazy)
    assert plain["psnr_classic_db"] > plain["psnr_db"]  # a median filter is better than nothing
    assert "l1_nearest" not in plain
    assert any("median filter" in s.how for k, s in lazy.items() if base(k) == "l1_classic")
    up = PairSet(digits["test"], tasks.make("upscale", 2))
    result = values(evaluated(Fixed(same), up, up))
    assert result["l1"] == result["l1_classic"]  # bicubic is the source itself
    holes = PairSet(digits["test"], tasks.make("inpaint"))
    a, b = holes.pairs(range(len(holes)))
    result = values(evaluated(Fixed(lambda x: 0 * x[:, :1] - 1), holes, holes))  # black, but only holes are filled
    assert result["l1"] == pytest.approx(float(((b + 1) / 2 * (a[:, 1:] > 0)).mean()), rel=1e-5)
    edges = PairSet(digits["test"], tasks.make("edges"))
    assert {"l1_nearest", "l1_constant", "l1_source"} <= set(values(evaluated(Fixed(same), edges, edges)))


def test_diversity_is_that_of_the_noise() -> None:
    train = negatives()
    noisy = evaluated(Fixed(lambda x: (-x + 0.2 * torch.randn_like(x)).clamp(-1, 1)), train, train, seeds=3)
    assert values(evaluated(Fixed(negative), train, train))["diversity"] == 0
    # two draws of N(0, 0.2²) are 0.2·2/√π apart on average, half of that on [0,1]; clamping takes some
    assert values(noisy)["diversity"] == pytest.approx(0.2 / np.pi**0.5, rel=0.15)
    assert noisy["diversity[n=40]"].property == "coverage"
    assert "dropout" in noisy["diversity[n=40]"].how
    assert "diversity" not in values(evaluated(Fixed(negative), train, train, seeds=1))


@pytest.mark.parametrize(("n", "m", "d"), [(30, 25, 50), (200, 150, 20), (30, 100, 40)])
def test_a_frechet_distance_of_few_images_is_that_of_many(n: int, m: int, d: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = 0.5 + 2 * torch.randn(m, d, generator=generator, dtype=torch.float64)
    assert small_set_frechet(x, y) == pytest.approx(frechet(x, y), rel=1e-6)
    assert small_set_frechet(x, x) == pytest.approx(0, abs=1e-9)


def test_the_interval_of_a_frechet_distance_is_as_wide_as_it_varies() -> None:
    """The jackknife's error against the spread over fresh sets."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(400, 4, generator=generator, dtype=torch.float64)
    sets = [torch.randn(200, 4, generator=generator, dtype=torch.float64) + 1 for _ in range(60)]
    spread = float(torch.tensor([small_set_frechet(x, y) for x in sets]).std())
    errors = [_jackknife(x, y[:200])[1] for x in sets]
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.5)


def test_identity_generators_have_no_cycle_and_no_identity_error() -> None:
    both = DomainSet(Pixels("a", pictures(30)), Pixels("b", pictures(30, seed=1)))
    lazy = values(evaluated(Fixed(same, same), both, both))
    assert [lazy[k] for k in ("cycle_l1_a", "cycle_l1_b", "identity_l1_to_a", "identity_l1_to_b")] == [0] * 4
    assert lazy["fd_to_b"] == lazy["fd_to_b_identity"] > 0
    assert not any(k.startswith("pair") for k in lazy)  # pairs that are not known are not scored
    inverse = values(evaluated(Fixed(negative, negative), both, both))
    assert inverse["cycle_l1_a"] == inverse["cycle_l1_b"] == 0
    assert inverse["identity_l1_to_b"] > 0.1
    one_way = evaluated(Fixed(lambda x: 0.5 * x, lambda x: x), both, both)
    assert values(one_way)["cycle_l1_a"] == pytest.approx(values(one_way)["cycle_l1_b"], rel=0.1)


def test_true_pairs_that_are_known_are_scored_in_both_directions() -> None:
    x = pictures(30)
    known = DomainSet(Pixels("a", 255 - x), Pixels("b", x), known=True)
    perfect, lazy = (evaluated(Fixed(f, f), known, known) for f in (negative, same))
    for to in "ab":
        best, worst = values(perfect), values(lazy)
        assert best[f"pair_l1_to_{to}"] == best[f"pair_perceptual_to_{to}"] == 0
        assert best[f"pair_ssim_to_{to}"] == pytest.approx(1)
        assert best[f"fd_to_{to}"] == pytest.approx(0, abs=1e-6)
        assert worst[f"pair_l1_to_{to}"] == worst[f"pair_l1_to_{to}_identity"] > 0.1
        assert perfect[f"pair_l1_to_{to}[n=30]"].norm == 1
        assert lazy[f"pair_l1_to_{to}[n=30]"].norm == 0


def test_a_floor_that_is_better_than_the_ceiling_gives_no_norm() -> None:
    """Doing nothing between two equal domains is nearer to them than other real pictures are."""
    x = Pixels("x", pictures(30))
    other = DomainSet(Pixels("a", pictures(30, seed=2)), Pixels("b", pictures(30, seed=3)))
    card = evaluated(Fixed(negative, negative), DomainSet(x, x), other)
    assert all(score.norm is None for name, score in card.items() if base(name) in ("fd_to_a", "fd_to_b"))


def test_the_number_on_the_way_is_lower_for_the_better_model() -> None:
    heldout = negatives(30, seed=1)
    score = translation.training_scorer(heldout)
    assert score(Fixed(negative)) == {"l1": 0}
    assert score(Fixed(same))["l1"] > 0.1
    both = DomainSet(Pixels("a", pictures(30)), Pixels("b", pictures(30, seed=1)))
    score = translation.training_scorer(both)
    assert score(Fixed(negative, negative)) == {"cycle_l1": 0}
    assert score(Fixed(same, lambda x: 0 * x))["cycle_l1"] > 0.1


def test_before_and_after_has_a_row_a_picture() -> None:
    rows, columns, names = translation.before_after(Fixed(negative), negatives(30, seed=1), negatives())
    assert names == "source, the nearest training source's target, translation, target"
    assert (columns, rows.shape) == (4, (40, 3, 16, 16))
    torch.testing.assert_close(rows[2::4], rows[3::4])
    x = pictures(30)
    a, b = Pixels("a", 255 - x), Pixels("b", x)
    rows, columns, names = translation.before_after(Fixed(negative, negative), DomainSet(a, b, known=True))
    assert (columns, len(rows), names) == (4, 40, "a, as b, its partner in b, that as a")
    torch.testing.assert_close(rows[1::4], rows[2::4])
    rows, columns, names = translation.before_after(Fixed(negative, negative), DomainSet(a, b), rows=3)
    assert (columns, len(rows)) == (6, 18)
    torch.testing.assert_close(rows[0::6], rows[2::6])


def test_what_cannot_be_judged_is_one_clear_line() -> None:
    plain = Pixels("x", pictures(30))
    with pytest.raises(LimnerError, match="has no pairs"):
        translation.pair_scores(Fixed(same), plain)
    with pytest.raises(LimnerError, match="no two domains"):
        translation.domain_scores(Fixed(same), plain)
    with pytest.raises(LimnerError, match="not finite"):
        translation.pair_scores(Fixed(lambda x: x / 0), negatives(), perceptual=RANDOM, extractor=Random(plain.pixels))
    few = evaluated(Fixed(negative), negatives(10, seed=1), negatives())
    assert "needs 20" in few["fd"].why
    assert set(values(few)) >= {"l1", "ssim", "diversity"}
    assert {s.property for s in translation.missing_scores("pix2pix", list(PROPERTIES)).values()} == {
        "latent", "disentangled", "likelihood", "copying"
    }  # fmt: skip


# -- real runs -------------------------------------------------------------------------------------------------------

PIX2PIX: dict[str, Any] = {
    "name": "tiny",
    "model": {
        "name": "pix2pix",
        "G": {"name": "unet.Generator", "width": 4, "norm": "instance"},
        "D": {"name": "patchgan.PairDiscriminator", "width": 4, "patch": 16, "norm": "instance"},
    },
    "data": {"name": "pairs", "path": "mnist-5k", "task": "denoise", "size": 16, "limit": 300},
    "optim": {"G": {"lr": 2e-3}, "D": {"lr": 2e-4}},
    "train": {"images": 320, "batch": 8, "score_images": 160, "device": "cpu", "threads": 1},
}
NET = {"name": "resnet.Generator", "width": 4, "blocks": 1}
CRITIC = {"name": "patchgan.Discriminator", "width": 4, "patch": 16, "norm": "instance"}
CYCLEGAN: dict[str, Any] = PIX2PIX | {
    "model": {"name": "cyclegan", "G": NET, "F": NET, "D_X": CRITIC, "D_Y": CRITIC},
    "data": {"name": "domains", "a": "mnist-5k", "b": "digits", "size": 16, "limit": 200},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))


def test_pairs_are_scored_on_the_way_at_the_end_and_by_evaluate(tmp_path: Path) -> None:
    run = limner.train(PIX2PIX, out=tmp_path / "run")
    scored = [line for line in run.metrics() if "score/l1" in line]
    assert [line["images"] for line in scored] == [160, 320]
    assert int(run.best.name) == min(scored, key=lambda line: line["score/l1"])["images"]
    left = run.read_json("scores.json")
    assert {base(k) for k in left} >= {"l1", "l1_classic", "psnr_db", "ssim", "perceptual", "diversity"}
    assert run.read_json("figures/captions.json")["before-after"] == (
        "A row for each held-out picture. Columns: source, median filter of 3×3, translation, target."
    )
    sheet = Image.open(run.path / "figures" / "before-after.webp")
    assert sheet.size == (4 * 18 - 2, 10 * 18 - 2)
    cards = limner.evaluate(run.path, n=40, seeds=2)
    (card,) = cards.values()
    assert {score["property"] for score in card.values()} == set(PROPERTIES)
    assert json.loads((run.path / "scores.json").read_text()) == card
    assert card["fd@lenet64-v1[n=40]"]["value"] > 0
    assert card["l1[n=40]"]["floor"] == card["l1_classic[n=40]"]["value"]
    text = evaluation.table(cards)
    assert "l1_classic[n=40]" in text
    assert "n/a: pix2pix does not say how probable a picture is" in text
    page = (run.path / "report.html").read_text()
    for words in ("baseline – exact", "Columns: source, median filter of 3×3", "Perceptual classic"):
        assert words in page


def test_other_pairs_and_features_can_be_named(tmp_path: Path) -> None:
    run = limner.train(PIX2PIX | {"train": PIX2PIX["train"] | {"images": 16, "score_images": 0}}, out=tmp_path / "run")
    (card,) = limner.evaluate(run.path, n=30, seeds=2, data="digits", extractor="random", only="quality").values()
    assert card["l1[n=30]"]["on"] == "30 of 179 held-out pairs of digits, denoise (drawn with seed 0)"
    assert "perceptual@random-conv-v1[n=30]" in card
    assert any(name.startswith("fd@random192-v1") for name in card)
    assert {score["property"] for score in card.values()} == {"quality"}
    other = limner.train(PIX2PIX | {"data": PIX2PIX["data"] | {"task": "deblur"}}, out=tmp_path / "other", images=16)
    with pytest.raises(LimnerError, match="different data"):
        limner.evaluate(run.path, other.path, n=30)


def test_domains_are_scored_on_the_way_at_the_end_and_by_evaluate(tmp_path: Path) -> None:
    run = limner.train(CYCLEGAN, out=tmp_path / "run", images=48, score_images=24)
    assert [line["images"] for line in run.metrics() if "score/cycle_l1" in line] == [24, 48]
    left = {base(k) for k in run.read_json("scores.json")}
    assert left == {"cycle_l1_a", "cycle_l1_b", "identity_l1_to_a", "identity_l1_to_b"}
    (card,) = limner.evaluate(run.path, n=30).values()
    assert {base(k) for k in card} >= {"fd_to_a", "fd_to_b", "fd_to_b_identity", "cycle_l1_a", "throughput", "latent"}
    sheet = Image.open(run.path / "figures" / "before-after.webp")
    assert sheet.size == (6 * 18 - 2, 10 * 18 - 2)


def test_two_translators_can_be_compared(tmp_path: Path) -> None:
    files = []
    for name, weight in (("strong", 100), ("weak", 0)):
        files.append(str(tmp_path / f"{name}.yaml"))
        tree = PIX2PIX | {"name": name, "model": PIX2PIX["model"] | {"l1_weight": weight}}
        Path(files[-1]).write_text(json.dumps(tree))
    result = compare.run(
        *files, seeds=2, budget=160, n=30, out=tmp_path / "out", only="quality", **{"train.device": "cpu"}
    )
    assert {base(v["score"]) for v in result["verdicts"]} == {"l1", "ssim", "perceptual", "fd"}
    text = compare.text(result)
    assert "best baseline" in text
    assert "L1 classic" in text
    assert "best baseline" in (tmp_path / "out" / "index.html").read_text()
