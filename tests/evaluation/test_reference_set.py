"""Scores know real from noise, name a missing class, and are not moved by what they should not see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from limner import data
from limner.core.batch import to_float, to_uint8
from limner.core.errors import LimnerError
from limner.data.datasets import Pixels
from limner.evaluation import real_features, reference_set
from limner.evaluation.properties import copying_scores, gallery, image_scores
from limner.evaluation.reference_set import MEASURES, ReferenceSet, ScoredImages
from limner.metrics.extractors.features import Random
from limner.metrics.scorecard import comparable, interval


class Digits:
    """5,000 digits cut at random into images to train on, to hold out, and to pass off as generated."""

    def __init__(self) -> None:
        whole = data.load("mnist-5k", split="all")
        order = torch.randperm(5000, generator=torch.Generator().manual_seed(1))
        x, y = whole.pixels[order], whole.labels[order]
        self.train = Pixels("mnist-5k", x[:1500], labels=y[:1500], classes=whole.classes)
        self.heldout = Pixels("mnist-5k", x[1500:3000], labels=y[1500:3000], classes=whole.classes)
        self.made, self.made_of = x[3000:4500], y[3000:4500]
        self.more, self.more_of = x[3000:], y[3000:]


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


@pytest.fixture(scope="module")
def reference(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> ReferenceSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMNER_CACHE", str(tmp_path_factory.mktemp("cache")))
        reference_set = ReferenceSet(digits.train, digits.heldout)
        assert reference_set.ceiling.hole_rate < reference_set.noise.hole_rate  # both computed while the cache is there
    return reference_set


@pytest.fixture(scope="module")
def real(reference: ReferenceSet, digits: Digits) -> ScoredImages:
    return reference(digits.made)


def blurred(x: Tensor, sigma: float) -> Tensor:
    line = torch.exp(-(torch.arange(-4.0, 5.0) ** 2) / (2 * sigma**2))
    line /= line.sum()
    across = F.conv2d(F.pad(to_float(x), (4, 4, 0, 0), value=-1), line.view(1, 1, 1, -1))
    return F.conv2d(F.pad(across, (0, 0, 4, 4), value=-1), line.view(1, 1, -1, 1))


def test_real_images_land_at_the_ceiling_and_noise_at_the_floor(reference: ReferenceSet, real: ScoredImages) -> None:
    for name, measure in MEASURES.items():
        if measure.better is not None and name not in ("density", "kid"):  # neither ends at its ceiling
            assert reference.norm(name, real.scores[name]) == pytest.approx(1, abs=0.08), name
            assert reference.norm(name, reference.noise.scores[name]) == 0, name
    assert real.scores["clipped_density"] > 0.95
    assert real.scores["clipped_coverage"] > 0.9
    assert real.scores["sharpness"] == pytest.approx(1, abs=0.05)
    assert abs(real.scores["kid"]) < 0.01
    assert reference.noise.scores["clipped_density"] < 0.02


def test_a_dropped_class_lowers_coverage_and_not_fidelity(
    reference: ReferenceSet, digits: Digits, real: ScoredImages
) -> None:
    without = reference(digits.more[digits.more_of != 3][:1500]).scores
    assert without["class_kl"] > 0.08 > 10 * real.scores["class_kl"]
    assert without["clipped_coverage"] < real.scores["clipped_coverage"] - 0.05
    assert without["clipped_density"] > real.scores["clipped_density"] - 0.03
    assert without["precision"] > real.scores["precision"] - 0.03


def test_blur_lowers_fidelity_and_keeps_classes(reference: ReferenceSet, digits: Digits, real: ScoredImages) -> None:
    """Coverage by neighbourhoods falls too: blurred images leave them. The classes are all still there."""
    soft = reference(blurred(digits.made, 0.7)).scores
    assert soft["clipped_density"] < real.scores["clipped_density"] - 0.2
    assert soft["sharpness"] < 0.4
    assert soft["classes_found"] == 10
    assert soft["class_kl"] < 0.01


def test_a_memoriser_wins_all_but_the_guard(reference: ReferenceSet, digits: Digits, real: ScoredImages) -> None:
    again = digits.train.pixels[torch.randperm(1500, generator=torch.Generator().manual_seed(0))]
    copies = reference(again)
    assert copies.scores["clipped_density"] > 0.95
    guard, honest = copying_scores(reference, copies), copying_scores(reference, real)
    at = reference.conditions
    assert guard[f"copying{at}"].value == "copies"
    assert guard[f"duplicates{at}"].value == 1
    assert honest[f"copying{at}"].value == "no sign of copying"
    assert honest[f"duplicates{at}"].value < 0.02
    rows, columns = gallery(reference, copies, 8)
    assert columns == 8
    assert torch.equal(rows[:8], rows[8:16]), "the nearest training image of a copy is the copy"


def test_samples_are_scored_as_they_would_be_saved(reference: ReferenceSet, digits: Digits) -> None:
    x = to_float(digits.made[:200]) + 0.001  # less than half a grey level
    assert reference(x).scores == reference(digits.made[:200]).scores
    assert torch.equal(reference(x).images, to_uint8(x))


def test_the_name_carries_the_conditions(reference: ReferenceSet, digits: Digits) -> None:
    card, _ = image_scores(reference, [0, 1, 2], lambda n, seed: digits.more[seed * 200 : seed * 200 + n])
    assert reference.conditions == "@lenet64-v1[n=1500]"
    fd = card["fd@lenet64-v1[n=1500]"]
    assert fd.low < fd.value < fd.high
    assert fd.on == "1500 samples against 1500 held-out images of mnist-5k, 3 seeds"
    assert comparable([{"fd@lenet64-v1[n=1500]": 1}, {"fd@lenet64-v1[n=1500]": 2}]) == ["fd@lenet64-v1[n=1500]"]
    with pytest.raises(LimnerError, match="cannot be compared"):
        comparable([{"fd@lenet64-v1[n=1500]": 1}, {"fd@lenet64-v1[n=2000]": 2}])
    with pytest.raises(LimnerError, match="cannot be compared"):
        comparable([{"fd@lenet64-v1[n=1500]": 1}, {"fd@random192-v1-aa[n=1500]": 2}])


def test_an_interval_covers() -> None:
    """95 % of Student's intervals of five normal numbers hold the mean."""
    chance = torch.Generator().manual_seed(0)
    ends = [interval(torch.randn(5, generator=chance).tolist()) for _ in range(2000)]
    inside = sum(low <= 0 <= high for _, _, low, high in ends) / 2000
    assert abs(inside - 0.95) < 3 * (0.95 * 0.05 / 2000) ** 0.5


def test_too_few_images_are_refused(digits: Digits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path))
    few = Pixels("mnist-5k", digits.made[:50])
    with pytest.raises(LimnerError, match="at least 65 images on each side; there are 50 held-out"):
        ReferenceSet(digits.train, few)
    with pytest.raises(LimnerError, match="there are 40 generated"):
        ReferenceSet(digits.train, digits.heldout, n=40)
    with pytest.raises(LimnerError, match="at least 8×8"):
        ReferenceSet(Pixels("points", torch.zeros(100, 2, 1, 1)), few)


def test_features_are_computed_once(digits: Digits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path))
    extractor = Random(digits.train.pixels[:300])
    first = real_features.load_real_images(digits.heldout, extractor)
    (file,) = (tmp_path / "features").iterdir()
    content = file.read_bytes()
    assert torch.equal(real_features.load_real_images(digits.heldout, extractor).features, first.features)
    other = Random(digits.train.pixels[300:600])
    assert other.key != extractor.key
    real_features.load_real_images(digits.heldout, other)
    assert len(list((tmp_path / "features").iterdir())) == 2, "another extractor, another file"
    file.write_bytes(content[: len(content) // 2])  # a damaged cache costs time, not scores
    assert torch.equal(real_features.load_real_images(digits.heldout, extractor).features, first.features)
    monkeypatch.setenv("LIMNER_CACHE", str(file))  # no folder at all
    assert torch.equal(real_features.load_real_images(digits.heldout, extractor).features, first.features)


def test_the_best_and_the_worst_are_scored_once(
    digits: Digits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path))
    few = Pixels("mnist-5k", digits.made[:300])
    first, again, other = (ReferenceSet(digits.train, few, n=n) for n in (200, 200, 201))
    ceiling, noise = first.ceiling, first.noise
    sets = (tmp_path / "features").iterdir
    files = {file: file.read_bytes() for file in sets()}
    assert len(files) == 3, "features of real images, and both bounds"
    scored: list[int] = []
    monkeypatch.setattr(ReferenceSet, "__call__", lambda _, x: scored.append(len(x)) or first_call(first, x))
    assert (again.ceiling, again.noise) == (ceiling, noise)
    assert scored == []
    assert other.ceiling != ceiling, "another number of samples is another bound"
    for file, content in files.items():
        file.write_bytes(content[: len(content) // 2])
    assert ReferenceSet(digits.train, few, n=200).noise == noise, "a damaged cache costs time, not scores"
    assert scored == [201, 200]


first_call = ReferenceSet.__call__


def test_features_without_labels_tell_images_apart(digits: Digits) -> None:
    """The same reference set with random features: real images at the ceiling, blur seen."""
    extractor = Random(digits.train.pixels)
    z = extractor.features(digits.made[:200])
    assert z.shape == (200, 192)
    torch.testing.assert_close(extractor.features(digits.made[:200], batch=7), z, atol=1e-4, rtol=1e-4)
    trained = extractor.features(digits.train.pixels)
    torch.testing.assert_close(trained.mean(0), torch.zeros(192), atol=1e-3, rtol=0)
    fires = trained.std(0) > 0.5  # a channel of a random net may never fire
    assert int(fires.sum()) > 180
    torch.testing.assert_close(trained.std(0)[fires], torch.ones(int(fires.sum())), atol=1e-3, rtol=0)
    for bad, why in (
        (torch.zeros(3, 3, 28, 28), "these features need images"),
        (torch.full((2, 1, 8, 8), 3.0), "lie"),
    ):
        with pytest.raises(LimnerError, match=why):
            extractor.features(bad)


def test_large_images_are_scored_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and deviation of each pixel, and one draw of noise, are those of all images at once."""
    x = torch.randint(0, 256, (70, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(reference_set, "_VALUES", 16 * 3 * 9 * 7)
    mean, std = reference_set._pixel_moments(x)
    torch.testing.assert_close(mean, to_float(x).mean(0))
    torch.testing.assert_close(std, to_float(x).std(0))
    whole = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(torch.cat([torch.randn(part.shape, generator=generator) for part in x.split(16)]), whole)
