"""PCA equals the singular value decomposition, t-SNE keeps neighbourhoods, and nearest neighbours are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limner.core.errors import LimnerError
from limner.latent import maps
from limner.latent.neighbours import nearest


def codes(n: int, *shape: int) -> torch.Tensor:
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_pca_is_the_singular_value_decomposition() -> None:
    z = codes(60, 3, 2, 2) * torch.linspace(0.5, 3, 12).double().view(3, 2, 2)
    table = z.flatten(1).numpy()
    u, s, _ = np.linalg.svd(table - table.mean(0), full_matrices=False)
    ours, theirs = maps.pca(z, 4), u[:, :4] * s[:4]
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours * signs, theirs, atol=1e-4)


def test_projection_on_all_components_is_exact_and_on_fewer_the_best() -> None:
    x = codes(40, 1, 3, 3).float()
    torch.testing.assert_close(maps.project(maps.principal(x, 9), x), x, atol=1e-5, rtol=0)
    s = torch.linalg.svdvals(x.flatten(1) - x.flatten(1).mean(0))
    error = (maps.project(maps.principal(x, 4), x) - x).square().sum()
    torch.testing.assert_close(error, s[4:].square().sum(), rtol=1e-4, atol=0)  # Eckart and Young 1936


def test_pca_names_the_number_of_components() -> None:
    with pytest.raises(LimnerError, match="1 to 5 components, not 9"):
        maps.pca(codes(5, 8), 9)


def test_pooling_ignores_positions_and_flattening_keeps_them() -> None:
    z = codes(4, 64, 2, 2)
    assert maps.flat(z).shape == (4, 256)
    assert maps.pooled(z).shape == (4, 64)
    np.testing.assert_allclose(maps.pooled(z), maps.pooled(z.flip(2)), rtol=1e-6)
    np.testing.assert_array_equal(maps.pooled(z[:, :, 0, 0]), maps.flat(z[:, :, 0, 0]))


def test_tsne_keeps_groups_together() -> None:
    centres = 20 * codes(3, 6)
    labels = torch.arange(90) % 3
    points = torch.from_numpy(maps.tsne(centres[labels] + 0.1 * codes(90, 6), perplexity=10))
    _, indices = nearest(points, points, 6)
    assert bool((labels[indices] == labels[:, None]).all())


def test_nearest_agrees_with_all_pairwise_distances() -> None:
    x, query = codes(300, 4, 2), codes(20, 4, 2) + 0.01
    distances, indices = nearest(x, query, 7)
    every = (x.flatten(1)[None] - query.flatten(1)[:, None]).norm(dim=2)
    values, order = every.sort(dim=1)
    assert torch.equal(indices, order[:, :7])
    torch.testing.assert_close(distances.double(), values[:, :7], rtol=1e-5, atol=1e-6)


def test_the_distance_of_a_code_to_itself_is_zero_far_from_the_origin() -> None:
    x = 1000 + 1e-2 * codes(50, 16).float()
    distances, indices = nearest(x, x, 1)
    assert indices[:, 0].tolist() == list(range(50))
    assert float(distances.max()) == 0


def test_nearest_names_the_number_of_codes() -> None:
    with pytest.raises(LimnerError, match="1 to 3"):
        nearest(codes(3, 2), codes(1, 2), 4)
