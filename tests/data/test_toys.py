"""Points of known densities, and sprites with known factors."""

from __future__ import annotations

import math

import pytest
import torch

from limner.core.batch import Dataset
from limner.core.errors import LimnerError
from limner.data import load
from limner.data.arrays import Cloud
from limner.data.datasets import from_cloud

GAUSSIANS = ["line", "ring", "grid"]


@pytest.mark.parametrize(("name", "modes", "d"), [("line", 3, 1), ("ring", 8, 2), ("grid", 25, 2)])
def test_every_mode_has_its_share_and_its_standard_deviation(name, modes, d):
    points = load(name, n=20_000)
    assert isinstance(points, Dataset)
    assert points.shape == (d, 1, 1)
    assert points.centres.shape == (modes, d)
    x = points.pixels.view(-1, d)
    nearest = torch.cdist(x, points.centres).argmin(1)
    if name != "line":  # whose modes may touch
        assert torch.equal(nearest, points.labels)
    share = points.labels.bincount() / len(x)
    assert (share - 1 / modes).abs().max() < 5 * (1 / modes / len(x)) ** 0.5
    std = (x - points.centres[points.labels]).std().item()
    assert std == pytest.approx(points.sigma, rel=0.02)


def test_the_ring_and_the_grid_are_those_of_the_papers():
    ring, grid = load("ring", n=10), load("grid", n=10)
    assert torch.allclose(ring.centres.norm(dim=1), torch.ones(8))
    assert ring.sigma == 0.01
    assert grid.sigma == 0.05
    assert sorted(set(grid.centres.flatten().tolist())) == [-4, -2, 0, 2, 4]


def test_options_move_the_centres():
    assert load("line", modes=1, n=4).centres.tolist() == [[0.0]]
    assert load("ring", modes=5, radius=2.0, n=4).centres.norm(dim=1).tolist() == pytest.approx([2.0] * 5)
    assert len(load("grid", side=3, n=4).centres) == 9


def test_a_line_with_another_centre_and_an_older_fingerprint():
    near, far = load("line", n=400), load("line", n=400, centre=3)
    assert far.centres.flatten().tolist() == [2.0, 3.0, 4.0]
    assert torch.allclose(far.pixels, near.pixels + 3, atol=1e-6)
    with pytest.raises(LimnerError, match="finite"):
        load("line", n=4, centre=float("nan"))
    older = {"modes": 3, "std": 0.1, "n": 400, "seed": 0, "split": "train"}
    cloud = Cloud(near.pixels.view(-1, 1).numpy(), 0.1, near.centres.numpy(), near.labels.numpy())
    assert from_cloud("line", cloud, repr(sorted(older.items()))).fingerprint == near.fingerprint


def test_the_swiss_roll_lies_on_its_curve():
    roll = load("swiss-roll", sigma=0.0, n=2000)
    x = roll.pixels.view(-1, 2).double()
    r = x.norm(dim=1)
    t = r * 4.5 * torch.pi
    assert torch.allclose(x, torch.stack([r * t.cos(), r * t.sin()], 1), atol=1e-5)
    assert (r.min() >= 1 / 3 - 1e-6).item()
    assert (r.max() <= 1 + 1e-6).item()
    assert roll.centres is None


@pytest.mark.parametrize("name", [*GAUSSIANS, "swiss-roll", "checkerboard"])
def test_splits_are_independent_samples_and_depend_on_the_seed(name):
    train, again, test = load(name, n=500), load(name, n=500), load(name, n=500, split="test")
    assert torch.equal(train.pixels, again.pixels)
    assert train.fingerprint == again.fingerprint
    assert len(test) == 50
    assert not torch.isin(test.pixels, train.pixels).any()
    assert torch.equal(load(name, n=500, split="all").pixels, torch.cat([train.pixels, test.pixels]))
    assert load(name, n=500, seed=1).fingerprint != train.fingerprint


@pytest.mark.parametrize("bad", [{"n": 0}, {"sigma": -1.0}, {"modes": 0}, {"split": "half"}, {"flip": True}])
def test_bad_options_are_one_clear_line(bad):
    with pytest.raises(LimnerError):
        load("ring", **bad)


@pytest.fixture(scope="module")
def sprites():
    return load("mini-dsprites", split="all")


def test_every_combination_of_factors_occurs_once(sprites):
    assert sprites.shape == (1, 32, 32)
    assert len(sprites) == 11_520 == len(sprites.factors.unique(dim=0))
    assert sprites.factor_sizes == (3, 6, 10, 8, 8)
    assert sprites.factors.amax(0).tolist() == [2, 5, 9, 7, 7]
    assert torch.equal(sprites.labels, sprites.factors[:, 0])
    assert sprites.classes == ["square", "ellipse", "heart"]


def test_sprites_never_touch_the_border_and_move_with_x_and_y(sprites):
    x = sprites.pixels[:, 0].float()
    border = torch.cat([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], 1)
    assert border.max() == 0
    mass = x.sum((1, 2))
    at = torch.arange(32.0) + 0.5
    centre_x, centre_y = (x.sum(1) * at).sum(1) / mass, (x.sum(2) * at).sum(1) / mass
    f = sprites.factors
    even = f[:, 0] < 2  # the heart's centre of mass is not its centre
    assert torch.allclose(centre_x[even], 9.0 + 2 * f[even, 3], atol=0.02)
    assert torch.allclose(centre_y[even], 9.0 + 2 * f[even, 4], atol=0.02)


def test_areas_are_those_of_the_shapes(sprites):
    area = sprites.pixels[:, 0].float().sum((1, 2)) / 255
    f, r = sprites.factors, 8.0 * (0.5 + 0.1 * sprites.factors[:, 1])
    square, ellipse = f[:, 0] == 0, f[:, 0] == 1
    assert torch.allclose(area[square], 2 * r[square] ** 2, rtol=0.05)
    assert torch.allclose(area[ellipse], torch.pi * 0.6 * r[ellipse] ** 2, rtol=0.05)


def test_hearts_point_down_and_turn(sprites):
    def heart(angle: int) -> torch.Tensor:
        return sprites.pixels[(sprites.factors == torch.tensor([2, 5, angle, 4, 4])).all(1)][0, 0].float()

    upright = heart(0)  # its centre lies at 17, so column 17 + k mirrors column 16 - k
    assert torch.equal(upright, upright.flip(1).roll(2, 1))
    assert (upright - heart(5).flip(0, 1).roll((2, 2), (0, 1))).abs().max() <= 8  # half a turn on, upside down
    rows = upright.sum(1)
    top, bottom = rows.nonzero().flatten()[[0, -1]]
    assert rows[top + 1] > 2 * rows[bottom - 1]


def test_selected_sprites_keep_their_factors():
    some = load("mini-dsprites", only=["heart"], limit=100, split="test", size=16)
    assert some.shape == (1, 16, 16)
    assert some.factors.shape == (100, 5)
    assert some.factors[:, 0].tolist() == [2] * 100
    assert some.labels.tolist() == [0] * 100
    train, test = load("mini-dsprites"), load("mini-dsprites", split="test")
    assert len(train) + len(test) == 11_520
    assert len(test) == 1152


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("line", {}),
        ("ring", {"sigma": 0.125}),
        ("grid", {"side": 2, "step": 1.0, "sigma": 0.2}),
        ("swiss-roll", {}),
        ("checkerboard", {}),
    ],
)
def test_densities_integrate_to_one_and_entropies_are_means_over_the_points(name, options):
    points = load(name, n=20_000, **options)
    d = points.shape[0]
    side = 200 if d == 2 else 4000
    axis = (4 * torch.arange(side) + 2) / side - 2  # the middles of cells, whose edges are also those of the board
    grid = torch.cartesian_prod(*[axis] * d).view(-1, d, 1, 1)
    total = points.log_density(grid).exp().sum() * float(axis[1] - axis[0]) ** d
    assert float(total) == pytest.approx(1, abs=0.01)
    some = points.log_density(points.pixels)
    assert some.shape == (20_000,)
    assert points.entropy == pytest.approx(-float(some.mean()), abs=4 * float(some.std()) / 20_000**0.5 + 1e-9)


def test_entropies_in_closed_form():
    alone = 1 + math.log(2 * math.pi)  # of a Gaussian in the plane with sigma 1
    assert load("ring", n=4).entropy == pytest.approx(math.log(8) + alone + 2 * math.log(0.01), abs=1e-6)
    assert load("line", modes=1, std=2.0, n=4).entropy == pytest.approx(alone / 2 + math.log(2), abs=1e-9)
    assert load("checkerboard", n=4).entropy == pytest.approx(math.log(2))
    near, far = load("ring", sigma=0.125, n=4), load("ring", sigma=0.5, radius=4.0, n=4)
    assert far.entropy == pytest.approx(near.entropy + 2 * math.log(4)), "the scale adds its log for each coordinate"


def test_log_densities_are_those_of_torch_distributions():
    ring = load("ring", sigma=0.3, n=400)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(8).double()),
        torch.distributions.Independent(torch.distributions.Normal(ring.centres.double(), 0.3), 1),
    )
    far = torch.cat([ring.pixels, 50 + ring.pixels])
    torch.testing.assert_close(ring.log_density(far), mixture.log_prob(far.flatten(1).double()), rtol=1e-6, atol=1e-6)


def test_points_without_noise_have_no_density():
    for points in (load("ring", sigma=0.0, n=4), load("swiss-roll", sigma=0.0, n=4)):
        assert points.entropy is None
        assert points.log_density(points.pixels) is None


def test_a_checkerboard_has_no_point_on_the_other_squares():
    board = load("checkerboard", side=4, n=20_000)
    square = ((board.pixels.flatten(1) + 1) * 2).floor().long()
    assert (square.sum(1) % 2 == 0).all()
    counts = torch.bincount(square[:, 0] * 4 + square[:, 1], minlength=16)
    assert (counts[counts > 0] - 2500).abs().max() < 5 * 50
    assert board.log_density(board.pixels).isfinite().all()
    assert board.log_density(torch.tensor([[[[-0.9]], [[-0.4]]], [[[-0.9]], [[-1.1]]]])).tolist() == [-math.inf] * 2
    with pytest.raises(LimnerError, match="side is 1"):
        load("checkerboard", side=1)
