"""The animation of a toy run: the arrays of its frames, the files, and frames of resumed runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import limner
import limner.data
from limner import report
from limner.core.errors import LimnerError
from limner.core.frame import drawable, grid_points
from limner.core.grid import plot_points
from limner.core.run import Run

SMALL = {"train.batch": 64, "data.n": 256, "train.device": "cpu", "train.threads": 1, "train.samples": 8}


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("toys") / "ring"
    return limner.train("toy-gan", out=out, images=1280, **SMALL | {"train.sample_images": 256})


def test_a_frame_holds_points_logits_and_sample_gradients(ring: Run) -> None:
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
    positions = torch.from_numpy(last["places"])[:, :, None, None]
    assert np.allclose(last["logits"], model.critic(positions).detach().numpy(), atol=1e-4)
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        torch.nn.functional.softplus(-model.critic(x)).sum().backward()
    assert np.allclose(last["pull"], -x.grad.flatten(1).numpy(), atol=1e-4)


def test_the_animation_is_in_the_report(ring: Run, tmp_path: Path) -> None:
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
    resumed = dict(run.frames())
    for images, file in ring.frames():
        ours, theirs = dict(np.load(resumed[images])), dict(np.load(file))
        assert all(np.array_equal(ours[k], theirs[k]) for k in theirs), images


def test_points_on_a_line_have_an_animation_too(tmp_path: Path) -> None:
    run = limner.train("toy-shift", out=tmp_path / "line", images=600, **SMALL | {"train.sample_images": 300})
    assert (run.path / "figures" / "animation.webp").is_file()
    assert set(run.read_json("scores.json")) == {"modes", "high_quality", "reverse_kl"}


def save_frame(run: Run, images: int, **numbers: object) -> None:
    """Saves a frame of points on a line."""
    x = torch.linspace(-1, 1, 64)[:, None]
    parts = {"real": x, "fake": x, "pull": torch.zeros_like(x), "places": grid_points(x), "logits": torch.zeros(256)}
    run.save_frame(images, parts | numbers)


@pytest.fixture
def empty(tmp_path: Path) -> Run:
    return Run.create({"name": "toy"}, tmp_path / "run")


def frames_of(path: Path | None) -> int:
    assert path is not None
    with Image.open(path) as film:
        return int(film.n_frames)


def test_diverged_samples_are_still_drawn(empty: Run) -> None:
    x = torch.linspace(-1, 1, 64)[:, None]
    save_frame(empty, 0, fake=x + 1e6)  # every sample outside the plot
    save_frame(empty, 1, fake=0 * x, pull=1e8 * x, logits=1e8 * torch.arange(256.0))
    save_frame(empty, 2, fake=x / 0)  # not finite: left out
    save_frame(empty, 3)
    (empty.path / "frames" / "00000004.npz").write_bytes(b"cut short")
    assert frames_of(report.film(empty.path)) == 3
    for file in (empty.path / "frames").iterdir():
        file.unlink()
    assert report.film(empty.path) is None


def test_an_animation_that_cannot_be_written_is_left_out(empty: Run, tmp_path: Path) -> None:
    save_frame(empty, 0)
    (empty.path / "figures").write_text("in the way")
    assert report.film(empty.path) is None
    with pytest.raises(LimnerError, match="choose another folder"):
        report.film(empty.path, empty.path / "figures" / "film.gif")
    assert [p.name for p in tmp_path.rglob("*.tmp")] == []


def test_a_long_animation_has_forty_frames_with_the_first_and_the_last(empty: Run) -> None:
    for images in range(90):
        save_frame(empty, images, fake=torch.full((64, 1), images / 90 - 0.5))
    path = report.film(empty.path)
    assert frames_of(path) == 40
    assert path is not None
    assert path.stat().st_size < 2_000_000
    with Image.open(path) as film:
        first = film.convert("RGB").copy()
        film.seek(39)
        assert first.tobytes() != film.convert("RGB").tobytes()


def test_grids_of_points_have_one_scale_in_the_whole_run(ring: Run) -> None:
    grids = [np.asarray(Image.open(file).convert("L")) for _, file in ring.samples()]
    tight = np.asarray(plot_points(torch.tensor([[0.5, 0.0]])))
    inner = np.asarray(plot_points(torch.tensor([[0.5, 0.0], [9.0, 9.0]]), extent=2.0))
    assert len({grid.shape for grid in grids}) == 1
    across = [float(np.argwhere(p < 128)[:, 1].mean()) for p in (tight, inner)]
    assert across[0] == pytest.approx(255 / 2 * (1 + 0.5 / 1.2), abs=1)
    assert across[1] == pytest.approx(255 / 2 * (1 + 0.5 / 2.0), abs=1), "points outside are not drawn"
    model = limner.load(ring.latest)
    extent = 1.5 * float(limner.data.load("ring", n=256).pixels.abs().max())
    expected = np.asarray(plot_points(model.sample(8, seed=0).flatten(1), extent))
    assert np.array_equal(expected, grids[-1])


def test_only_points_on_a_line_or_in_the_plane_are_drawn() -> None:
    assert drawable((1, 1, 1))
    assert drawable((2, 1, 1))
    assert not drawable((3, 1, 1))
    assert not drawable((1, 28, 28))
    grid = grid_points(torch.tensor([[-4.0, -4.0], [4.0, 4.0]]))
    assert grid.min() == -6
    assert grid.max() == 6
