"""The geometry of walks, and the grid of quantiles of the prior."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limner.core.errors import LimnerError
from limner.latent import walk


class Plane:
    """Decodes a code of two numbers to an image that shows them."""

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if z.shape[1:] != (2,):
            raise RuntimeError("two numbers only")
        return z.view(-1, 1, 1, 2)


@pytest.mark.parametrize("shape", [(7,), (3, 2, 2)])
def test_slerp_keeps_the_norm_and_turns_evenly(shape: tuple[int, ...]) -> None:
    a, b = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b = b * a.norm() / b.norm()
    path = walk.slerp(a, b, 9).flatten(1)
    torch.testing.assert_close(path.norm(dim=1), a.norm().expand(9))
    torch.testing.assert_close(path[[0, -1]], torch.stack([a, b]).flatten(1))
    angles = torch.nn.functional.cosine_similarity(path[1:], path[:-1]).arccos()
    torch.testing.assert_close(angles, angles[0].expand(8))


@pytest.mark.parametrize("b", [[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
def test_slerp_is_a_straight_line_where_the_arc_is_not_unique(b: list[float]) -> None:
    start, end = torch.tensor([1.0, 0.0]), torch.tensor(b)
    torch.testing.assert_close(walk.slerp(start, end, 5), walk.lerp(start, end, 5))


def test_quantile_grid_gives_every_cell_the_same_share_of_the_prior() -> None:
    n = 8
    grid = walk.quantile_grid(n).view(n, n, 2)
    shares = torch.special.ndtr(grid)  # back to probabilities
    steps = (torch.arange(n) + 0.5) / n
    torch.testing.assert_close(shares[0, :, 0], steps)  # z1 to the right
    torch.testing.assert_close(shares[:, 0, 1], steps.flip(0))  # z2 upwards
    z = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0))
    edges = torch.special.ndtri(torch.arange(1, n) / n)
    cells = torch.bucketize(z[:, 0].contiguous(), edges) * n + torch.bucketize(z[:, 1].contiguous(), edges)
    counts = torch.bincount(cells, minlength=n * n).double()
    assert float((counts / counts.mean() - 1).abs().max()) < 0.08  # five standard errors


def test_manifold_decodes_the_grid_in_its_order() -> None:
    torch.testing.assert_close(walk.manifold(Plane(), 5).flatten(1), walk.quantile_grid(5))


def test_manifold_of_another_latent_size_says_what_to_do() -> None:
    class Cube(Plane):
        def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return super().decode(torch.cat([z, z[:, :1]], 1))

    with pytest.raises(LimnerError, match="z=2"):
        walk.manifold(Cube(), 3)


def test_traverse_changes_one_dimension_only() -> None:
    values = torch.tensor([-1.0, 0.0, 4.0])
    codes = walk.traverse(Plane(), torch.tensor([5.0, 6.0]), 1, values).flatten(1)
    assert codes.tolist() == [[5.0, -1.0], [5.0, 0.0], [5.0, 4.0]]


@pytest.mark.parametrize("dim", [-1, 2])
def test_traverse_names_the_dimensions_of_the_code(dim: int) -> None:
    with pytest.raises(LimnerError, match="0 to 1"):
        walk.traverse(Plane(), torch.zeros(2), dim, torch.zeros(3))


def test_a_walk_has_two_ends() -> None:
    with pytest.raises(LimnerError, match="2 steps"):
        walk.slerp(torch.ones(2), torch.ones(2), 1)
