"""Headings of sheets: in one line, wrapped, or turned upwards, whichever fits and takes less room."""

from __future__ import annotations

import numpy as np
import torch

from limner.core.grid import make_grid


def height(headings: list[str], side: int = 64) -> int:
    """Pixels above the images."""
    image = make_grid(torch.zeros(len(headings), 1, side, side), len(headings), headings=headings)
    return image.height - side


def test_short_headings_take_one_line_and_stand_upright():
    assert height(["cat", "dog"]) == height(["3", "7"]) < 20
    ink = np.asarray(make_grid(torch.ones(1, 1, 64, 64), 1, headings=["llllllll"]))[:18] < 128
    assert ink.any(1).sum() > 8, "letters stand"


def test_long_headings_are_wrapped():
    text = "a face with curly red hair, brown skin and round glasses"
    assert height([text], 64) < height([text.replace(" ", "_")], 64) / 2
    assert height([text], 400) < 20, "where there is room nothing is wrapped"


def test_no_heading_leaves_its_column():
    words = "a portrait of somebody with a thick beard, round glasses and wild silver hair " * 2
    image = np.asarray(make_grid(torch.ones(2, 1, 32, 32), 2, headings=[words, ""]))
    above = image[: image.shape[0] - 32]
    assert (above[:, :32] < 128).any()
    assert not (above[:, 34:] < 128).any()
    assert not (above[0] < 128).any(), "nor is it cut at the top"


def test_no_line_is_cut():
    words = "a portrait of somebody with a thick beard, round glasses, silver hair " * 2
    image = np.asarray(make_grid(torch.ones(1, 1, 128, 128), 1, headings=[words]))
    assert image.shape[0] - 128 > 60, "several lines"
    assert not (image[:2] < 128).any()
    assert not (image[image.shape[0] - 130 : image.shape[0] - 128] < 128).any()


def test_a_heading_as_wide_as_its_column_is_drawn_whole_above_each():
    def inks(heading: str, columns: int, side: int) -> list[int]:
        image = np.asarray(make_grid(torch.ones(columns, 1, side, side), columns, headings=[heading] * columns))
        step = side + 2
        return [int((image[:18, k * step : (k + 1) * step] < 128).sum()) for k in range(columns)]

    first, *others = inks("c1=9", 3, 28)
    assert others == [first, first]
    assert first == inks("c1=9", 1, 64)[0], "as much ink as where there is room"


def test_names_of_rows_stand_on_their_left_and_images_stay():
    x, headings = torch.rand(4, 3, 32, 20) * 2 - 1, ["one", "two"]
    plain = make_grid(x, 2, headings=headings)
    named = make_grid(x, 2, headings=headings, names=["before", "after all"])
    left = named.width - plain.width
    assert named.height == plain.height
    assert np.array_equal(np.asarray(named)[:, left:], np.asarray(plain))
    ink = (np.asarray(named)[:, :left] < 128).any(2)
    rows = [ink[-66:][:32], ink[-66:][34:]]
    assert all(row.any() for row in rows)
    assert not ink[:-66].any(), "nothing beside the headings"
    assert not ink[:, -2:].any(), "no name touches the images"
    widths = [row.any(0).nonzero()[0].max() for row in rows]
    assert widths[0] < widths[1]


def test_names_beside_small_pictures_stay_within_their_rows():
    ink = np.asarray(make_grid(torch.ones(2, 1, 8, 8), 1, names=["A", ""])) < 128
    assert ink.any()
    assert not ink[9:].any()
