"""Folders of pictures as subjects and as real images: which are drawn, how they are prepared, what is left out."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image

import limner
from limner import data
from limner.core.batch import drawn
from limner.core.errors import LimnerError
from limner.core.rng import seed_of
from limner.evaluation.scoring import table
from limner.metrics.extractors.features import Random, lenet64


def frechet(a: torch.Tensor, b: torch.Tensor) -> float:
    """The Fréchet distance of two sets of features, by SciPy's eigenvalues of the product of covariances."""
    x, y = (np.asarray(z, dtype=np.float64) for z in (a, b))
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.sqrt(np.maximum(scipy.linalg.eigvals(s @ t).real, 0)).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t) - 2 * root)


def save(folder: Path, images: torch.Tensor, names: list[str]) -> None:
    for image, name in zip(images, names, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / name)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMNER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """700 digits in ten class folders, and their pixels in the order of their paths."""
    source = data.load("mnist-5k", split="train")
    ids = source.labels.argsort(stable=True)[drawn(len(source), 700)]
    pixels, labels = source.pixels[ids], source.labels[ids]
    folder = tmp_path_factory.mktemp("sorted") / "digits"
    save(folder, pixels, [f"{int(y)}/{i:04d}.png" for i, y in enumerate(labels)])
    return folder, pixels


def test_pictures_are_drawn_from_all_classes(digits: tuple[Path, torch.Tensor]) -> None:
    """The first 200 of these have three classes; the distance is that of the drawn ones, computed by other means."""
    folder, pixels = digits
    (card,) = limner.evaluate(folder, data="mnist-5k", n=200, only=["quality", "coverage"]).values()
    at = "@lenet64-v1[n=200]"
    assert card[f"classes_found{at}"]["value"] == 10
    net, real = lenet64(), data.load("mnist-5k", split="test").pixels
    here = frechet(net.features(pixels[drawn(700, 200)]), net.features(real))
    first = frechet(net.features(pixels[:200]), net.features(real))
    assert card[f"fd{at}"]["value"] == pytest.approx(here, rel=1e-4)
    assert first > 5 * here, "what a score of the first 200 would have said"
    on = "200 of 700 pictures of digits (drawn with seed 0) against 500 held-out images of mnist-5k"
    assert card[f"fd{at}"]["on"] == on
    assert (card[f"fd{at}"]["drawn"], card[f"fd{at}"]["of"]) == (200, 700)


def test_the_draw_depends_on_the_number_alone(digits: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    """A ZIP in another order, and a folder written in reverse, give the same score to the last bit."""
    folder = digits[0]
    files = sorted(folder.rglob("*.png"), reverse=True)
    for file in files:
        target = tmp_path / "reversed" / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", folder)
    cards = limner.evaluate(folder, tmp_path / "reversed", archive, data="mnist-5k", n=100, only="quality")
    values = [card["fd@lenet64-v1[n=100]"]["value"] for card in cards.values()]
    assert len(values) == 3
    assert len(set(values)) == 1


def test_smaller_draws_are_parts_of_larger_ones() -> None:
    assert set(drawn(1000, 50)) < set(drawn(1000, 300)) < set(range(1000))
    assert drawn(10, 10) == drawn(10, 99) == list(range(10))
    counts = np.bincount(np.array(drawn(1000, 300)) // 100, minlength=10)  # ten classes of a hundred, one after another
    assert counts.min() >= 18, "each class has about 30"
    alternating = np.bincount(np.array(drawn(1000, 100)) % 10, minlength=10)  # every tenth would be of one class
    assert alternating.min() >= 3


def test_the_real_images_are_drawn_too(digits: tuple[Path, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """More real images than are compared with: a draw of all of them, and the score says so."""
    monkeypatch.setattr("limner.evaluation.reference_set.LIMIT", 200)
    (card,) = limner.evaluate(digits[0], data="mnist-5k", n=100, only="quality").values()
    score = card["fd@lenet64-v1[n=100]"]
    assert score["on"].endswith("against 200 of 500 held-out images of mnist-5k (drawn with seed 0)")
    net, real = lenet64(), data.load("mnist-5k", split="test").pixels
    expected = frechet(net.features(digits[1][drawn(700, 100)]), net.features(real[drawn(500, 200)]))
    assert score["value"] == pytest.approx(expected, rel=1e-4)


def test_two_folders_of_ones_own(digits: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    """Other sizes and channels are prepared alike; half of the real pictures are compared with, half are the best."""
    folder, pixels = digits
    for i in range(260):
        colour = Image.fromarray(pixels[i * 700 // 260][0].numpy()).resize((40, 36)).convert("RGB")
        (tmp_path / "theirs").mkdir(exist_ok=True)
        colour.save(tmp_path / "theirs" / f"{i:03d}.png")
    here = os.path.relpath(folder)
    (card,) = limner.evaluate(tmp_path / "theirs", data=here, only="quality").values()
    (name,) = (k for k in card if k.startswith("fd@"))
    assert name.startswith("fd@random192-v1-")
    assert name.endswith("[n=260]")
    score = card[name]
    assert score["on"] == "260 pictures of theirs against 350 held-out images of digits"
    order = torch.randperm(700, generator=torch.Generator().manual_seed(seed_of(1, 700)))
    halves = pixels[order[::2].sort().values], pixels[order[1::2].sort().values]
    made = data.load(str(tmp_path / "theirs"), size=28, channels=1, split="all").pixels
    net = Random(halves[1])
    assert score["value"] == pytest.approx(frechet(net.features(made), net.features(halves[0])), rel=1e-3)
    said = " ".join(score["notes"])
    assert "theirs and digits are compared at 28×28 pixels with 1 channel" in said
    assert "36x40 images: resized and centre-cropped to 28x28" in said
    assert "digits has no test folder: 350 of its 700 pictures" in said


def test_too_few_real_pictures_to_halve_are_all_compared_with(
    digits: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    """250 pictures: halves would be smaller than the number of features. There is no ceiling then, and no norm."""
    folder, pixels = digits
    save(tmp_path / "photos", pixels[::2][:250], [f"{i:03d}.png" for i in range(250)])
    (card,) = limner.evaluate(folder, data=tmp_path / "photos", only=["quality", "copying"]).values()
    (name,) = (k for k in card if k.startswith("fd@"))
    score = card[name]
    assert score["on"] == "250 of 700 pictures of digits (drawn with seed 0) against 250 images of photos"
    assert score.keys() & {"ceiling", "norm"} == set()
    net = Random(pixels[::2][:250])
    assert score["value"] == pytest.approx(
        frechet(net.features(pixels[drawn(700, 250)]), net.features(pixels[::2][:250])), rel=1e-3
    )
    assert "photos has 250 pictures and no test folder, too few to halve" in " ".join(score["notes"])
    assert "too few to keep some apart" in card["copying"]["why"]
    save(tmp_path / "few", pixels[:150], [f"{i:03d}.png" for i in range(150)])
    with pytest.raises(LimnerError, match="at least 193 images on each side; there are 150"):
        limner.evaluate(folder, data=tmp_path / "few", only="quality")


def test_a_test_folder_is_compared_with(digits: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    folder = digits[0]
    real = data.load("mnist-5k", split="all").pixels
    save(tmp_path / "photos" / "train", real[:300], [f"{i}.png" for i in range(300)])
    save(tmp_path / "photos" / "test", real[300:500], [f"{i}.png" for i in range(200)])
    (card,) = limner.evaluate(folder, data=tmp_path / "photos", only="quality").values()
    (score,) = (s for k, s in card.items() if k.startswith("fd@"))
    assert score["on"] == "300 of 700 pictures of digits (drawn with seed 0) against 200 held-out images of photos"
    assert not any("has no test folder" in note for note in score["notes"])


def test_what_is_left_out_is_said(digits: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    folder = shutil.copytree(digits[0], tmp_path / "some")
    (folder / "3" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "4" / "empty.jpg").write_bytes(b"")
    (folder / "5" / "red\n\x1b[31m.png").write_bytes(b"")
    (folder / "notes.txt").write_text("not a picture", encoding="utf-8")
    (folder / "6" / "scan.jp2").write_bytes(b"x")
    cards = limner.evaluate(folder, data="mnist-5k", n=100, only="copying")
    for score in json.loads(json.dumps(cards))[str(folder)].values():
        said = " ".join(score["notes"])
        assert "some: left out 3 bad files: 3/broken.png (" in said
        assert r"'5/red\n\x1b[31m.png' (" in said
        assert "4/empty.jpg (" in said
        assert "ignored 1 other file" in said
        assert "some: left out 1 pictures of a format that is not read (.jp2 1, JPEG 2000: convert it to PNG)" in said
        assert score["of"] == 700
    assert "some: left out 3 bad files: 3/broken.png (" in table(cards)
    assert "some: 100 of 700 pictures of some (drawn with seed 0)" in table(cards)


def test_files_found_damaged_only_when_they_are_read_are_replaced(
    digits: tuple[Path, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set too large for memory meets a damaged file late: another of the draw takes its place, and it is said."""
    monkeypatch.setattr("limner.data.sources.folder.IN_MEMORY", 1)
    folder = shutil.copytree(digits[0], tmp_path / "some")
    files = sorted(folder.rglob("*.png"))
    order = torch.randperm(700, generator=torch.Generator().manual_seed(seed_of(0, 700))).tolist()
    damaged = [files[i] for i in order[:3]]
    for file in damaged:
        file.write_bytes(file.read_bytes()[:-40])
    (card,) = limner.evaluate(folder, data="mnist-5k", n=100, only="quality").values()
    score = card["fd@lenet64-v1[n=100]"]
    assert (score["drawn"], score["of"]) == (100, 697)
    assert "left out 3 bad files" in " ".join(score["notes"])
    net, real = lenet64(), data.load("mnist-5k", split="test").pixels
    expected = frechet(net.features(digits[1][sorted(order[3:103])]), net.features(real))
    assert score["value"] == pytest.approx(expected, rel=1e-4)


def test_pictures_of_one_colour_each_have_no_sharpness(tmp_path: Path) -> None:
    shades = torch.arange(400).remainder(250).byte()[:, None, None, None].expand(400, 1, 16, 16)
    for name in ("a", "b"):
        save(tmp_path / name, shades, [f"{k}.png" for k in range(400)])
    (card,) = limner.evaluate(tmp_path / "a", data=str(tmp_path / "b"), n=200, only=["quality"]).values()
    assert {name.split("@")[0]: s["value"] for name, s in card.items()}["sharpness"] is None
    assert any(s.get("why") == "sharpness: each real image is of one colour" for s in card.values())


def test_a_run_beside_a_folder(digits: tuple[Path, torch.Tensor], tmp_path: Path, monkeypatch) -> None:
    """A run of other pictures and a folder, both compared with the user's own, at the size of the model."""
    run = limner.train(
        "ae-mnist", out=tmp_path / "run", data={"name": "mnist-5k", "limit": 64}, images=64, batch=32, samples=4,
        device="cpu", threads=1,
    )  # fmt: skip
    large = data.load("mnist-5k", split="all", size=32).pixels[:600]
    save(tmp_path / "large" / "train", large[:300], [f"{i}.png" for i in range(300)])
    save(tmp_path / "large" / "test", large[300:], [f"{i}.png" for i in range(300)])
    monkeypatch.setenv("HOME", str(tmp_path))
    cards = limner.evaluate(run.path, data="~/large", n=200, seeds=1, only="quality")
    assert all("[n=200]" in name for name in next(iter(cards.values())) if name.startswith("fd"))
    cards = limner.evaluate(run.path, digits[0], data={"name": "folder", "path": "~/large", "size": 28}, seeds=1, n=200)
    mine, theirs = cards.values()
    (name,) = (k for k in theirs if k.startswith("fd@"))
    assert name in mine
    assert mine[name]["on"].startswith("200 samples against 300 held-out images of large")


@pytest.mark.parametrize(
    ("real", "why"),
    [("nowhere/", "there is no folder or ZIP 'nowhere/'"), ("two", "needs at least 2"), (None, "is no run folder")],
)
def test_one_clear_line(real: str | None, why: str, digits: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    save(tmp_path / "two", digits[1][:1], ["a.png"])
    with pytest.raises(LimnerError, match=why) as error:
        limner.evaluate(digits[0], data=str(tmp_path / "two") if real == "two" else real)
    assert "\n" not in str(error.value)
