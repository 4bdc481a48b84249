"""Points from tables and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner import data
from limner.core.errors import LimnerError


def test_a_table_is_scaled_and_keeps_its_aspect(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x,y\n10,0\n20,1\n30;2\n\n")
    cloud = data.load("points", path=str(tmp_path / "p.csv"), n=500)
    assert cloud.shape == (2, 1, 1)
    assert len(cloud) == 500
    assert {tuple(p) for p in cloud.pixels.flatten(1).tolist()} == {
        (-1, np.float32(-0.1)),
        (0, 0),
        (1, np.float32(0.1)),
    }
    assert cloud.centres is None
    np.save(tmp_path / "line.npy", np.array([3.0, 5.0]))
    line = data.load("points", path=str(tmp_path / "line.npy"), n=50, split="test")
    assert line.shape == (1, 1, 1)
    assert set(line.pixels.flatten().tolist()) == {-1.0, 1.0}


def test_a_picture_gives_points_where_it_is_dark_and_upwards_is_up(tmp_path: Path) -> None:
    paper = np.full((40, 80), 255, np.uint8)
    paper[:10, :20] = 0  # black, top left
    paper[30:, 60:] = 128  # half as dark, bottom right
    Image.fromarray(paper).save(tmp_path / "p.png")
    xy = data.load("points", path=str(tmp_path / "p.png"), n=20_000).pixels.flatten(1).numpy()
    left = xy[:, 0] < 0
    assert (xy[left] >= [-1, 0.25]).all()
    assert (xy[left] <= [-0.5, 0.5]).all()
    assert (xy[~left] >= [0.5, -0.5]).all()
    assert (xy[~left] <= [1, -0.25]).all()
    assert left.mean() == pytest.approx(2 / 3, abs=0.02)


def test_a_picture_is_decoded_as_it_is_displayed(tmp_path: Path) -> None:
    paper = np.full((40, 40), 65535, np.uint16)
    paper[:10] = 0  # a 16-bit scan with a black bar on top
    Image.fromarray(paper).save(tmp_path / "scan.png")
    assert float(data.load("points", path=str(tmp_path / "scan.png"), n=500).pixels[:, 1].min()) >= 0.5
    clear = np.zeros((40, 40, 4), np.uint8)  # black all over, but opaque only on the left
    clear[:, :10, 3] = 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert float(data.load("points", path=str(tmp_path / "clear.png"), n=500).pixels[:, 0].max()) <= -0.5
    photo = Image.new("L", (40, 40), 255)
    photo.paste(0, (0, 0, 40, 10))  # a bar on top, stored by a rotated camera
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    photo.save(tmp_path / "photo.png", exif=turned)
    assert float(data.load("points", path=str(tmp_path / "photo.png"), n=500).pixels[:, 0].min()) >= 0.5


def test_the_largest_and_the_smallest_numbers_are_scaled_too(tmp_path: Path) -> None:
    for size in (1.7e308, 1e-300):
        np.save(tmp_path / "p.npy", np.array([[-size, 0.0], [size, size]]))
        cloud = data.load("points", path=str(tmp_path / "p.npy"), n=100)
        assert {tuple(p) for p in cloud.pixels.flatten(1).tolist()} == {(-1, -0.5), (1, 0.5)}


def test_noise_and_halves(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("0 0\n")
    cloud = data.load("points", path=str(tmp_path / "p.csv"), sigma=0.2, n=5000, split="all")
    assert len(cloud) == 5500
    assert float(cloud.pixels.std()) == pytest.approx(0.2, rel=0.05)
    again = data.load("points", path=str(tmp_path / "p.csv"), sigma=0.2, n=5000, split="all")
    assert cloud.fingerprint == again.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("p.csv", "1,2,3\n4,5,6\n", "one or two columns"),
        ("p.csv", "1,2\n3\n", "different lengths"),
        ("p.csv", "1,2\nnan,3\n", "row 2"),
        ("p.csv", "", "one or two"),
        ("p.csv", "1,two\n3,4\nfive,6\n", "no table of numbers"),
        ("p.npy", "hello", "no table of numbers"),
        ("p.csv", "1,2\n1e999,3\n", "row 2"),
        ("p.csv", "1,2\n\0,3\n", "no table of numbers"),
        ("p.png", "hello", "neither a table"),
        ("p.png", "", "empty file"),
    ],
)
def test_files_that_are_no_points(name: str, content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(LimnerError, match=reason):
        data.load("points", path=str(tmp_path / name))


def test_arrays_that_are_no_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]))
    with pytest.raises(LimnerError, match="no table of numbers"):
        data.load("points", path=str(tmp_path / "p.npy"))
    with (tmp_path / "z.npy").open("wb") as file:
        np.savez(file, a=np.zeros((3, 2)))
    with pytest.raises(LimnerError, match="no table of numbers"):
        data.load("points", path=str(tmp_path / "z.npy"))
    whole = (tmp_path / "p.npy").read_bytes().replace(b"(1,)", b"(99999999999999,)")
    (tmp_path / "huge.npy").write_bytes(whole)
    with pytest.raises(LimnerError, match="no table of numbers"):
        data.load("points", path=str(tmp_path / "huge.npy"))
    with pytest.raises(LimnerError, match="split"):
        data.load("points", path=str(tmp_path / "p.npy"), split="half")


def test_blank_paper_missing_files_and_bad_numbers(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "white").save(tmp_path / "blank.png")
    with pytest.raises(LimnerError, match="blank"):
        data.load("points", path=str(tmp_path / "blank.png"))
    with pytest.raises(LimnerError, match="no file"):
        data.load("points", path=str(tmp_path / "none.csv"))
    (tmp_path / "p.csv").write_text("1,2\n")
    for bad in ({"n": 0}, {"sigma": -1}):
        with pytest.raises(LimnerError, match="or more"):
            data.load("points", path=str(tmp_path / "p.csv"), **bad)
