"""Where results go: nothing is overwritten unasked, all is decided before any work, and what is left out is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limner.apply import outputs, tasks
from limner.apply.draw import draw
from limner.apply.tasks import apply
from limner.core.errors import LimnerError

Save = Callable[..., Path]
RGB = np.random.default_rng(0).integers(0, 256, (12, 20, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, save_model: Save) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "m.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures of two stems."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "a.jpg", "a.gif", "b.gif", "b.png"):
        Image.fromarray(np.roll(RGB, len(name) * 7)).save(folder / name)
    return folder


def content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def refused(match: str, *args: Any, **options: Any) -> None:
    with pytest.raises(LimnerError, match=match) as error:
        apply(*args, device="cpu", **options)
    assert "\n" not in str(error.value)


def test_pictures_of_one_stem_get_a_result_each(model: Path, photos: Path, tmp_path: Path) -> None:
    result = apply(model, photos, tmp_path / "out", device="cpu")
    assert sorted(content(tmp_path / "out")) == ["a.gif.png", "a.jpg", "a.png", "b.gif.png", "b.png"]
    assert result["n"] == 5
    assert "a.gif is written as a.gif.png, as another result has its name" in result["notes"]
    text = tasks.text(result, "out/")
    assert text.startswith("translate: 5 pictures, written to out/\nwritten as PNG: 2 .gif\n")


def test_names_that_some_disks_take_for_one_are_kept_apart() -> None:
    names = ["A.png", "a.png", "\u00e9.png", "e\u0301.png", "x/b.gif", "X/B.png", "c.gif", "c.gif.png", "c.png"]
    plan = outputs.plan("out/", {n: n[-4:].replace(".gif", ".png") for n in names}, single=False)
    keys = {outputs._key(str(path)) for path in plan.paths.values()}
    assert len(keys) == len(names)
    assert plan.paths["A.png"] == Path("out/A.png")
    assert plan.paths["a.png"] == Path("out/a.png.png")
    assert plan.paths["c.gif.png"] == Path("out/c.gif.png")
    assert plan.paths["c.gif"] == Path("out/c-2.png")
    assert (
        outputs.plan("out/", {"d.gif": ".png", "d.png/e.png": ".png"}, single=False).paths["d.gif"].name == "d.gif.png"
    )


def test_neither_sources_nor_earlier_results_are_overwritten(model: Path, photos: Path, tmp_path: Path) -> None:
    before = content(tmp_path)
    (tmp_path / "link").symlink_to(photos, target_is_directory=True)
    for out in (photos, f"{photos}/", tmp_path / "link", photos / ".." / "in"):
        refused("is the folder that is read", model, photos, out)
        refused("is the folder that is read", model, photos, out, overwrite=True)
    refused("would overwrite it", model, photos / "a.png", photos, overwrite=True)
    refused("would overwrite it", model, photos / "a.png", photos / "a.png")
    (tmp_path / "same.png").symlink_to(photos / "a.png")
    refused("would overwrite it", model, photos / "a.png", tmp_path / "same.png", overwrite=True)
    refused("a file that exists|is the name of a file", model, photos, photos / "a.png")
    refused("many pictures go into a folder", model, photos, tmp_path / "new.png")
    (tmp_path / "same.png").unlink()
    (tmp_path / "link").unlink()
    assert content(tmp_path) == before

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.png").write_bytes(b"precious")
    refused("out/b.png exists already; .*overwrite=true", model, photos, tmp_path / "out")
    assert content(tmp_path / "out") == {"b.png": b"precious"}  # refused before any work
    (tmp_path / "out" / "b.png").unlink()
    (tmp_path / "out" / "other.txt").write_bytes(b"x")
    apply(model, photos, tmp_path / "out", device="cpu")  # other files are not in the way
    first = content(tmp_path / "out")
    refused("5 results exist already, such as", model, photos, tmp_path / "out")
    assert apply(model, photos, tmp_path / "out", overwrite=True, device="cpu")["n"] == 5
    assert content(tmp_path / "out") == first


def test_results_inside_of_the_source_are_not_read_again(model: Path, photos: Path) -> None:
    assert apply(model, photos, photos / "out", device="cpu")["n"] == 5
    again = apply(model, photos, photos / "out", overwrite=True, device="cpu")
    assert again["n"] == 5
    assert "5 pictures in out/ are results and were not read" in again["notes"]
    assert not (photos / "out" / "out").exists()


@pytest.mark.parametrize("given", ["results.v2/", "results.v2"])
def test_a_folder_may_have_a_dot(model: Path, photos: Path, tmp_path: Path, given: str) -> None:
    if not given.endswith("/"):
        refused("write results.v2/ for a folder", model, photos / "a.png", tmp_path / "results.v2")
        (tmp_path / given).mkdir()
    apply(model, photos / "a.png", f"{tmp_path}/{given}", device="cpu")
    assert sorted(content(tmp_path / "results.v2")) == ["a.png"]
    apply(model, photos, tmp_path / "many.v3", device="cpu")
    assert len(content(tmp_path / "many.v3")) == 5


def test_a_tilde_is_the_home_folder(model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(photos)
    (tmp_path / "m.safetensors").write_bytes(model.read_bytes())
    apply("~/m.safetensors", "~/in/a.png", "~/out/x.png", device="cpu")
    assert (tmp_path / "out" / "x.png").is_file()
    assert not (photos / "~").exists()


def test_a_broken_write_leaves_nothing(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    refused("cannot write a.png: No space left on device", model, photos / "a.png", tmp_path / "out/")
    assert content(tmp_path / "out") == {}


def test_what_a_killed_process_left_half_written_is_swept(model: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f".limner-1.{ended.pid}.tmp", f".mine.{ended.pid}.tmp", f".limner-1.{os.getppid()}.tmp"):
        (tmp_path / "out" / name).write_bytes(b"half")
    apply(model, photos / "a.png", tmp_path / "out", device="cpu")
    assert sorted(content(tmp_path / "out")) == sorted(
        [f".mine.{ended.pid}.tmp", f".limner-1.{os.getppid()}.tmp", "a.png"]
    )


def test_a_full_disk_ends_the_batch_at_once(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    whole = outputs.write_whole

    def full(path: Path, content: bytes) -> Path:
        if written:
            raise OSError(28, "No space left on device")
        written.append(whole(path, content))
        return path

    monkeypatch.setattr(outputs, "write_whole", full)
    refused("No space left on device; 1 pictures were written before", model, photos, tmp_path / "out")
    assert list(content(tmp_path / "out")) == [written[0].name]


def test_tiny_pictures_go_through_every_net(tmp_path: Path, save_model: Save) -> None:
    (tmp_path / "in").mkdir()
    for h, w in ((1, 1), (1, 40), (7, 3), (17, 2)):
        Image.fromarray(np.full((h, w, 3), 99, np.uint8)).save(tmp_path / "in" / f"{h}x{w}.png")
    for kind in ("pix2pix", "cyclegan"):
        model = save_model(tmp_path / f"{kind}.safetensors", kind=kind)
        result = apply(model, tmp_path / "in", tmp_path / kind, device="cpu")
        assert (result["n"], result["skipped"]) == (4, [])
        for path in map(Path, result["written"]):
            assert "x".join(map(str, Image.open(path).size[::-1])) == path.stem


def test_what_is_left_out_is_said_with_the_reason(model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (photos / "cut.jpg").write_bytes((photos / "a.jpg").read_bytes()[:200])
    (photos / "notes.txt").write_text("x", encoding="utf-8")
    (photos / "raw.dng").write_bytes(b"II*\0")
    result = apply(model, photos, tmp_path / "out", device="cpu")
    skipped = dict(map(tuple, result["skipped"]))
    assert {"bad.png", "cut.jpg"} <= set(skipped)
    text = tasks.text(result, "out")
    assert "left out: " in text
    assert all(f"{name} ({reason})" in text for name, reason in skipped.items())
    assert ".txt" in text
    assert ".dng" in text or "raw.dng" in text


def test_a_folder_of_other_files_alone_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    refused("no picture could be read from .*in; give PNG", model, tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "a.jp2").write_bytes(b"x")
    refused("no picture could be read .*JPEG 2000: convert it to PNG", model, tmp_path / "in", tmp_path / "out")
    assert content(tmp_path / "out") == {}


def test_a_result_that_cannot_be_written_costs_itself_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    long = "n" * 250 + ".gif"  # with .png there would be no room left for a second suffix
    Image.fromarray(RGB).save(tmp_path / "in" / long)
    Image.fromarray(RGB).save(tmp_path / "in" / ("n" * 250 + ".png"))
    Image.fromarray(RGB).save(tmp_path / "in" / "z.png")
    result = apply(model, tmp_path / "in", tmp_path / "out", device="cpu")
    assert result["n"] + len(result["skipped"]) == 3
    assert result["n"] >= 2


def test_odd_names_of_files_are_written_and_scored(tmp_path: Path, model: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(RGB).save(tmp_path / "in" / "a.png")
    odd = os.fsdecode(b"caf\xe9.png")  # no UTF-8
    (tmp_path / "in" / "a.png").rename(tmp_path / "in" / odd)
    result = apply(model, tmp_path / "in", tmp_path / "out", device="cpu")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [odd]
    assert result["n"] == 1


@pytest.mark.parametrize(("key", "value"), [("batch", 0), ("batch", -1), ("generator", "3"), ("self", "1")])
def test_what_is_no_sampling_option_is_refused(tmp_path: Path, save_autoencoder: Save, key: str, value: Any) -> None:
    model = save_autoencoder(tmp_path / "a.safetensors", (3, 8, 8))
    with pytest.raises(LimnerError, match=f"^batch: {value} images|no sampling option '{key}'"):
        draw(model, tmp_path / "grid.png", n=4, device="cpu", **{key: value})


def test_samples_replace_samples_and_nothing_else(tmp_path: Path, save_autoencoder: Save) -> None:
    model, grid = save_autoencoder(tmp_path / "a.safetensors", (3, 8, 8)), tmp_path / "grid.png"
    Image.fromarray(RGB).save(grid)
    before = content(tmp_path)
    with pytest.raises(LimnerError, match=r"grid\.png exists already"):
        draw(model, grid, n=4, device="cpu")
    assert content(tmp_path) == before
    draw(model, grid, n=4, overwrite=True, device="cpu")
    first = grid.read_bytes()
    with Image.open(grid) as image:
        assert image.getexif()[0x010E] == "limner sample: autoencoder, seed 0"
    draw(model, grid, n=4, seed=1, device="cpu")
    assert grid.read_bytes() != first
    with Image.open(grid) as image:
        x = np.asarray(image)
    draw(model, grid, n=4, seed=1, batch=3, device="cpu")
    with Image.open(grid) as image:
        assert np.array_equal(image, x)
    assert len(draw(model, f"{tmp_path}/samples.v2/", n=3, device="cpu").written) == 3
    assert len(draw(model, tmp_path / "samples.v2", n=4, device="cpu").written) == 4
