"""Distance of a translated image from its target, pixel by pixel."""

from __future__ import annotations

from torch import Tensor

from limner.losses._precision import in_float32


@in_float32
def l1(y: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of images y and target (B,C,H,W) in [-1,1], over pixels and batch.

    Isola et al. 2017 (arXiv:1611.07004), eq. 3, and the norm of the cycle and identity losses of Zhu et al. 2017
    (arXiv:1703.10593), eq. 2 and section 5.2; as in their code the mean over pixels, not their sum.
    """
    if y.shape != target.shape:
        raise ValueError(f"shapes {tuple(y.shape)} and {tuple(target.shape)} differ; use images of one shape")
    return (y - target).abs().mean()
