"""What a picture shows and how it is painted, as distances of maps that a perceptual net makes of it.

Gatys, Ecker and Bethge 2016, *Image style transfer using convolutional neural networks*, CVPR (arXiv:1508.06576):
content is where features are, style is which of them occur together. The Gram matrix of a layer with N maps of M = h·w
places is G_ij = Σ_k F_ik F_jk; the lectures have it in three scales:

==============  ===================  ===============================================================
convention      G is                 E_l is
==============  ===================  ===============================================================
``gatys``       F Fᵀ                 1/(4 N² M²) Σ (G − Ĝ)²           the paper, eq. 4
``places``      F Fᵀ / M             mean (G − Ĝ)²                    TensorFlow's tutorial
``all``         F Fᵀ / (N M)         mean (G − Ĝ)²                    PyTorch's tutorial
==============  ===================  ===============================================================

They differ by factors that depend on the layer (E_places = 4 E_gatys, E_all = 4 E_gatys / N²), so weights of layers
mean something only beside the convention. With `gatys` the style may have another size than the picture: N² M²
is taken with each picture's own M (both Grams are divided by it). PyTorch's tutorial folds the batch into the rows,
which mixes the pictures of a batch; here every picture has a Gram matrix of its own.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from limner.losses._precision import in_float32

Convention = Literal["gatys", "places", "all"]


@in_float32
def gram(features: Tensor, convention: Convention = "gatys", mask: Tensor | None = None) -> Tensor:
    """Gram matrices (B,N,N) of maps (B,N,h,w), divided as the convention has it.

    Args:
        features: maps of one layer.
        convention: of the module's table.
        mask: (B or 1,1,h,w) weights of places in [0,1]: M is then their sum, and only these places count.

    >>> import torch
    >>> gram(torch.ones(1, 2, 3, 3)).tolist()
    [[[9.0, 9.0], [9.0, 9.0]]]
    """
    f = features.permute(0, 2, 3, 1).flatten(1, 2)  # (B,M,N); no copy, whatever the memory format
    places: Tensor | float = f.shape[1]
    if mask is not None:
        w = mask.permute(0, 2, 3, 1).flatten(1, 2).to(f.dtype)
        f, places = f * w.sqrt(), w.sum(1, keepdim=True).clamp_min(1e-6)
    products: Tensor = _Products.apply(f)  # type: ignore[no-untyped-call]
    return scaled(products, places, convention)


class _Products(torch.autograd.Function):
    """FᵀF of f (B,M,N). By the product rule autograd would multiply twice on the way back; its two terms are one."""

    @staticmethod
    def forward(ctx: Any, f: Tensor) -> Tensor:
        ctx.save_for_backward(f)
        with torch.autocast(f.device.type, enabled=False):  # thousands of products, squared: too many for bfloat16
            return f.transpose(1, 2) @ f

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (f,) = ctx.saved_tensors
        return f @ (grad + grad.transpose(1, 2))


def scaled(g: Tensor, places: Tensor | float, convention: Convention) -> Tensor:
    """Sums over places Σ_k F_ik F_jk (B,N,N), such as those of all tiles of a picture, divided as a convention has it.

    Args:
        g: the sums.
        places: M, how many places they are over; with a mask the sum of its weights.
        convention: of the module's table.
    """
    match convention:
        case "gatys":
            return g
        case "places":
            return g / places
        case "all":
            return g / (places * g.shape[1])
    raise ValueError(f"unknown convention {convention!r}; choose from: gatys, places, all")


@in_float32
def style(
    g: Tensor,
    target: Tensor,
    places: float | Tensor,
    target_places: float | Tensor,
    convention: Convention = "gatys",
) -> Tensor:
    """E_l (scalar, mean over the batch) of Gram matrices g (B,N,N) against target (B or 1,N,N).

    Args:
        g: of the picture, by `gram`.
        target: of the style, by `gram` of the same convention.
        places: M of the picture's maps.
        target_places: M of the style's maps; the two differ when pictures have different sizes.
        convention: of the module's table.
    """
    if convention == "gatys":  # 1/(4 N² M²) Σ (G − Ĝ)², both per place, so that sizes may differ
        n = g.shape[1]
        return ((g / places - target / target_places) ** 2).sum((1, 2)).mean() / (4 * n * n)
    return ((g - target) ** 2).mean((1, 2)).mean()


@in_float32
def total_variation(x: Tensor) -> Tensor:
    """Mean squared difference of neighbours in pictures (B,C,H,W): how rough they are (Mahendran and Vedaldi 2015)."""
    across, down = (x[..., 1:] - x[..., :-1]).square(), (x[..., 1:, :] - x[..., :-1, :]).square()
    return across.mean() + down.mean()


@in_float32
def moments(features: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B,N,1,1) of every map, as AdaIN takes them (Huang and Belongie 2017, eq. 5 to 7)."""
    mean = features.mean((2, 3), keepdim=True)
    return mean, (features.var((2, 3), keepdim=True, correction=0) + eps).sqrt()


def adain(features: Tensor, style_features: Tensor) -> Tensor:
    """Maps (B,N,h,w) with each map's mean and standard deviation taken from the style's (B or 1,N,h',w'): eq. 8.

    >>> import torch
    >>> x = torch.randn(1, 4, 8, 8)
    >>> torch.allclose(adain(x, x), x, atol=1e-4)
    True
    """
    mean, std = moments(features)
    style_mean, style_std = moments(style_features)
    return style_std * (features - mean) / std + style_mean


def coloured(features: Tensor, style_features: Tensor, least: float = 1e-5) -> Tensor:
    """Maps (B,N,h,w) whose means and covariances are the style's (B or 1,N,h',w'): whitening, then colouring.

    Li, Fang, Yang, Wang, Lu and Yang 2017, *Universal style transfer via feature transforms*, arXiv:1705.08086, eq. 2
    and 3: E_s D_s^½ E_sᵀ E_c D_c^-½ E_cᵀ (f - mean f) + mean s. Where `adain` fits each map on its own, this fits which
    of them occur together, as Gram matrices have it.

    Args:
        features: of the content.
        style_features: of the style, of any size.
        least: eigenvalues of the content's covariance below this share of its largest are left out.

    >>> import torch
    >>> x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    >>> torch.allclose(coloured(x, x), x)
    True
    """
    f, s = features.flatten(2).double(), style_features.flatten(2).double()
    mean, mean_s = f.mean(2, keepdim=True), s.mean(2, keepdim=True)
    f, s = f - mean, s - mean_s
    values, vectors = torch.linalg.eigh(f @ f.transpose(1, 2) / f.shape[2])
    values_s, vectors_s = torch.linalg.eigh(s @ s.transpose(1, 2) / s.shape[2])
    kept = values > least * values[:, -1:]
    white = torch.where(kept, values.clamp_min(1e-30).rsqrt(), 0.0)
    whiten = vectors * white[:, None] @ vectors.transpose(1, 2)
    colour = vectors_s * values_s.clamp_min(0).sqrt()[:, None] @ vectors_s.transpose(1, 2)
    return (colour @ whiten @ f + mean_s).view_as(features).to(features.dtype)
