"""The animation of models with a density, and of models that move points from noise to data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from limner import report
from limner.core.run import Run
from limner.report import density_film

Frame = dict[str, Any]


def frame_of(d: int, *, moving: bool, known: bool = True, gap: float = 0.5) -> Frame:
    """The tensors of a frame of points in d dimensions, with a coarse grid."""
    g = torch.Generator().manual_seed(0)
    real = torch.randn(64, d, generator=g)
    axis = torch.linspace(-4, 4, 24)
    places = torch.cartesian_prod(*[axis] * d).view(-1, d).flip(1)
    log_p = -0.5 * places.square().sum(1) - d
    f = {"real": real, "fake": real + 0.1, "places": places, "log_density": log_p, "nats": torch.tensor(1.0)}
    if known:
        f |= {"truth": log_p + 0.1, "gap": torch.tensor(gap)}
    if moving:
        path = torch.stack([real * s for s in torch.linspace(1, 0.3, 5)])
        field = -places[None].expand(2, -1, -1)
        f |= {"times": torch.linspace(1, 0, 5), "path": path, "field_places": places, "field": field}
        f |= {"field_times": torch.tensor([1.0, 0.5])}
    else:
        f["lines"] = torch.randn(3, 20, d, generator=g)
        f |= {"hue": real[:, 0]} if d == 2 else {}
    return f


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create({"name": "toy"}, tmp_path / "run")


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("moving", [False, True])
def test_every_frame_is_drawn_and_then_the_way_from_noise_to_data(run: Run, d: int, moving: bool) -> None:
    for images, gap in ((0, 2.0), (100, 0.1)):
        run.save_frame(images, frame_of(d, moving=moving, gap=gap))
    path = report.film(run.path)
    assert path is not None
    with Image.open(path) as film:
        assert film.n_frames == 2 + 5 * moving
        width, height = film.size
        film.seek(1)
        film.load()
    assert (width > 2.5 * height) == (d == 2), "three panels in the plane, two for a line"
    caption = run.read_json("figures/captions.json")["animation"]
    assert "gap" in caption
    assert ("velocity" in caption) == moving


def test_all_frames_have_one_scale() -> None:
    low, high = frame_of(2, moving=False), frame_of(2, moving=False)
    low["log_density"] = low["log_density"] - 1
    (first, second), moving = density_film.draw([(0, numpy(low)), (1, numpy(high))])
    assert moving == 0
    a, b = (np.asarray(image.convert("L"), dtype=float) for image in (first, second))
    third = a.shape[1] // 3
    body = slice(60, None)  # below the titles
    assert np.array_equal(a[body, :third], b[body, :third]), "the density of the data stays"
    assert a[body, third : 2 * third].mean() > b[body, third : 2 * third].mean(), "a lower density is paler"


def test_densities_of_zero_and_unknown_ones_are_drawn(run: Run) -> None:
    zero = frame_of(2, moving=False, known=False)
    zero["log_density"] = torch.where(zero["log_density"] < -4, -torch.inf, zero["log_density"])
    run.save_frame(0, zero)
    unlikely = frame_of(2, moving=False, known=False) | {"nats": torch.tensor(torch.inf)}
    run.save_frame(1, unlikely)
    run.save_frame(
        2, frame_of(2, moving=False, known=False) | {"log_density": torch.full((576,), torch.nan)}
    )  # left out
    run.save_frame(3, frame_of(2, moving=False, known=False) | {"lines": torch.full((3, 20, 2), torch.inf)})  # left out
    path = report.film(run.path)
    assert path is not None
    with Image.open(path) as film:
        assert film.n_frames == 2


def numpy(f: Frame) -> Frame:
    return {k: v.numpy() for k, v in f.items()}
