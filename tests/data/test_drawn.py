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
        ("p.png", "hello", "neither a table"),
    ],
)
def test_files_that_are_no_points(name: str, content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(LimnerError, match=reason):
        data.load("points", path=str(tmp_path / name))


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
