"""The film of a toy run: its numbers, its frames, and that a resumed run forgets what it will draw again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import limner
from limner import report
from limner.core.errors import LimnerError
from limner.core.frame import drawable, places
from limner.core.run import Run

SMALL = {"train.batch": 64, "data.n": 256, "train.device": "cpu", "train.threads": 1, "train.samples": 8}


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("toys") / "ring"
    return limner.train("toy-gan", out=out, images=1280, **SMALL | {"train.sample_images": 256})


def test_a_frame_holds_points_the_field_and_the_pull(ring: Run) -> None:
    frames = ring.frames()
    assert [images for images, _ in frames] == [0, 256, 512, 768, 1024, 1280]
    last = dict(np.load(frames[-1][1]))
    assert last["fake"].shape == last["pull"].shape == (512, 2)
    assert last["real"].shape == (256, 2)
    assert last["places"].shape == (48 * 48, 2)
    assert last["logits"].shape == (48 * 48,)
    model = limner.load(ring.latest)
    x = model.sample(512, seed=0)
    assert np.allclose(last["fake"], x.flatten(1).numpy(), atol=1e-5)
    asked = torch.from_numpy(last["places"])[:, :, None, None]
    assert np.allclose(last["logits"], model.critic(asked).detach().numpy(), atol=1e-4)
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        torch.nn.functional.softplus(-model.critic(x)).sum().backward()
    assert np.allclose(last["pull"], -x.grad.flatten(1).numpy(), atol=1e-4)


def test_the_film_is_in_the_report_and_moves(ring: Run, tmp_path: Path) -> None:
    with Image.open(ring.path / "figures" / "animation.webp") as film:
        assert film.n_frames == 6
    page = (ring.path / "report.html").read_text()
    assert "Arrows: where G" in page
    assert len(page) > (ring.path / "figures" / "animation.webp").stat().st_size
    gif = report.film(ring.path, tmp_path / "ring.gif")
    assert gif is not None
    with Image.open(gif) as film:
        assert film.format == "GIF"
        assert film.n_frames == 6
    with pytest.raises(LimnerError, match=r"\.webp or \.gif"):
        report.film(ring.path, tmp_path / "ring.mp4")


def test_a_resumed_run_has_the_same_frames(ring: Run, tmp_path: Path) -> None:
    half = SMALL | {"train.sample_images": 256, "train.checkpoint_images": 512}
    run = limner.train("toy-gan", out=tmp_path / "half", images=704, **half)
    assert [images for images, _ in run.frames()] == [0, 256, 512, 704]
    run = limner.resume(run.path, images=1280)
    kept = dict(run.frames())
    for images, file in ring.frames():
        ours, theirs = dict(np.load(kept[images])), dict(np.load(file))
        assert all(np.array_equal(ours[k], theirs[k]) for k in theirs), images


def test_the_lectures_line_has_a_film_too(tmp_path: Path) -> None:
    run = limner.train("toy-shift", out=tmp_path / "line", images=600, **SMALL | {"train.sample_images": 300})
    assert (run.path / "figures" / "animation.webp").is_file()
    assert set(run.read_json("scores.json")) == {"modes", "high_quality", "reverse_kl"}


def test_only_points_on_a_line_or_in_the_plane_are_drawn() -> None:
    assert drawable((1, 1, 1))
    assert drawable((2, 1, 1))
    assert not drawable((3, 1, 1))
    assert not drawable((1, 28, 28))
    grid = places(torch.tensor([[-4.0, -4.0], [4.0, 4.0]]))
    assert grid.min() == -6
    assert grid.max() == 6
