"""Content and style of images as distances between the feature maps of a perceptual net.

Gatys, Ecker and Bethge 2016, *Image style transfer using convolutional neural networks*, CVPR (arXiv:1508.06576):
content is where features are, style is which of them occur together. The Gram matrix of a layer with N maps of M = h·w
positions is G_ij = Σ_k F_ik F_jk. Three scales of it are common:

==============  ===================  ===============================================================
convention      G is                 E_l is
==============  ===================  ===============================================================
``gatys``       F Fᵀ                 1/(4 N² M²) Σ (G − Ĝ)²           the paper, eq. 4
``places``      F Fᵀ / M             mean (G − Ĝ)²                    TensorFlow's tutorial
``all``         F Fᵀ / (N M)         mean (G − Ĝ)²                    PyTorch's tutorial
==============  ===================  ===============================================================

They differ by factors that depend on the layer (E_places = 4 E_gatys, E_all = 4 E_gatys / N²), so weights of layers
have a meaning for one convention only. With `gatys` too the style may have another size than the image: each Gram
matrix is divided by its own M. PyTorch's tutorial folds the batch into the rows, which mixes the images of a batch;
here every image has its own Gram matrix.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from limner.losses._precision import in_float32

Convention = Literal["gatys", "places", "all"]


@in_float32
def gram(features: Tensor, convention: Convention = "gatys", mask: Tensor | None = None) -> Tensor:
    """Gram matrices (B,N,N) of maps (B,N,h,w), scaled by a convention.

    Args:
        features: maps of one layer.
        convention: a row of the module's table.
        mask: (B or 1,1,h,w) weights of positions in [0,1]; M is then their sum.

    >>> import torch
    >>> gram(torch.ones(1, 2, 3, 3)).tolist()
    [[[9.0, 9.0], [9.0, 9.0]]]
    """
    f = features.permute(0, 2, 3, 1).flatten(1, 2)  # (B,M,N); no copy, whatever the memory format
    positions: Tensor | float = f.shape[1]
    if mask is not None:
        w = mask.permute(0, 2, 3, 1).flatten(1, 2).to(f.dtype)
        f, positions = f * w.sqrt(), w.sum(1, keepdim=True).clamp_min(1e-6)
    products: Tensor = _GramMatrix.apply(f)  # type: ignore[no-untyped-call]
    return scale_gram(products, positions, convention)


class _GramMatrix(torch.autograd.Function):
    """FᵀF of f (B,M,N), with one matrix product in the backward pass where autograd would take two."""

    @staticmethod
    def forward(ctx: Any, f: Tensor) -> Tensor:
        ctx.save_for_backward(f)
        with torch.autocast(f.device.type, enabled=False):  # sums of thousands of products lose too much in bfloat16
            return f.transpose(1, 2) @ f

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (f,) = ctx.saved_tensors
        return f @ (grad + grad.transpose(1, 2))


def scale_gram(g: Tensor, positions: Tensor | float, convention: Convention) -> Tensor:
    """Scales sums Σ_k F_ik F_jk (B,N,N), such as those over all tiles of an image, by a convention.

    Args:
        g: the sums.
        positions: M, the number of positions; with a mask the sum of its weights.
        convention: a row of the module's table.
    """
    match convention:
        case "gatys":
            return g
        case "places":
            return g / positions
        case "all":
            return g / (positions * g.shape[1])
    raise ValueError(f"unknown convention {convention!r}; choose from: gatys, places, all")


@in_float32
def style(
    g: Tensor,
    target: Tensor,
    positions: float | Tensor,
    target_positions: float | Tensor,
    convention: Convention = "gatys",
) -> Tensor:
    """E_l (scalar, mean over the batch) of Gram matrices g (B,N,N) against target (B or 1,N,N).

    Args:
        g: Gram matrices of the image, by `gram`.
        target: Gram matrices of the style, by `gram` with the same convention.
        positions: M of the image's maps.
        target_positions: M of the style's maps.
        convention: a row of the module's table.
    """
    if convention == "gatys":  # 1/(4 N² M²) Σ (G − Ĝ)², where each G has its own M
        n = g.shape[1]
        return ((g / positions - target / target_positions) ** 2).sum((1, 2)).mean() / (4 * n * n)
    return ((g - target) ** 2).mean((1, 2)).mean()


@in_float32
def total_variation(x: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels of images (B,C,H,W) (Mahendran and Vedaldi 2015)."""
    across, down = (x[..., 1:] - x[..., :-1]).square(), (x[..., 1:, :] - x[..., :-1, :]).square()
    return across.mean() + down.mean()


@in_float32
def moments(features: Tensor, eps: float = 1e-5, correction: int = 0) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B,N,1,1) of every map, as in AdaIN (Huang and Belongie 2017, eq. 5 to 7).

    Args:
        features: maps (B,N,h,w).
        eps: added to the variance.
        correction: the variance is a sum over h·w positions, divided by h·w - correction.
    """
    mean = features.mean((2, 3), keepdim=True)
    return mean, (features.var((2, 3), keepdim=True, correction=correction) + eps).sqrt()


def adain(features: Tensor, style_features: Tensor, correction: int = 0) -> Tensor:
    """Maps (B,N,h,w) with the mean and standard deviation of each map of the style (B or 1,N,h',w'): eq. 8.

    >>> import torch
    >>> x = torch.randn(1, 4, 8, 8)
    >>> torch.allclose(adain(x, x), x, atol=1e-4)
    True
    """
    mean, std = moments(features, correction=correction)
    style_mean, style_std = moments(style_features, correction=correction)
    return style_std * (features - mean) / std + style_mean


def whiten_and_colour(features: Tensor, style_features: Tensor, threshold: float = 1e-5) -> Tensor:
    """Maps (B,N,h,w) with the means and covariances of a style's maps (B or 1,N,h',w').

    Li, Fang, Yang, Wang, Lu and Yang 2017, *Universal style transfer via feature transforms*, arXiv:1705.08086, eq. 2
    and 3: E_s D_s^½ E_sᵀ E_c D_c^-½ E_cᵀ (f - mean f) + mean s. `adain` matches the moments of each map alone.

    Args:
        features: maps of the content.
        style_features: maps of the style, of any size.
        threshold: eigenvalues of the content's covariance below this share of the largest one are dropped.

    >>> import torch
    >>> x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    >>> torch.allclose(whiten_and_colour(x, x), x)
    True
    """
    f, s = features.flatten(2).double(), style_features.flatten(2).double()
    mean, mean_s = f.mean(2, keepdim=True), s.mean(2, keepdim=True)
    f, s = f - mean, s - mean_s
    values, vectors = torch.linalg.eigh(f @ f.transpose(1, 2) / f.shape[2])
    values_s, vectors_s = torch.linalg.eigh(s @ s.transpose(1, 2) / s.shape[2])
    large = values > threshold * values[:, -1:]
    scale = torch.where(large, values.clamp_min(1e-30).rsqrt(), 0.0)
    whiten = vectors * scale[:, None] @ vectors.transpose(1, 2)
    colour = vectors_s * values_s.clamp_min(0).sqrt()[:, None] @ vectors_s.transpose(1, 2)
    return (colour @ whiten @ f + mean_s).view_as(features).to(features.dtype)
