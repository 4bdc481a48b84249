"""A given picture with another label, by any conditional model that decodes noise: an image of it is searched for.

Antipov, Baccouche and Dugelay 2017, *Face aging with conditional generative adversarial networks*, arXiv:1702.01983,
section 2: a picture x of label y0 is G(z*, y0) for some noise z*, and G(z*, y1) is the same with the label y1.

    z0 = E(x), or the best of some noise if the model has no encoder
    z* = argmin_z || FR(x) - FR(G(z, y0)) ||^2        from z0, by L-BFGS
    result G(z*, y1)

With FR the identity, z* gives back the pixels; with the features of a net that recognises faces it keeps whose face it
is (the paper's identity-preserving optimisation). Judge the result by another net than FR, for FR was optimised. The
weights of the model stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from limner.core.capabilities import Encodes, Generates

Distance = Callable[[Tensor, Tensor], Tensor]
"""Distances (B,) of images (B,C,H,W) from images of the same shape; differentiable in the first."""

_STEPS = 100
_FAR = 1e30
_DRAWS = 64  # of the prior, of which a search without an encoder begins with the best


@dataclass(frozen=True, eq=False)
class Found:
    """Codes of pictures.

    Attributes:
        z: (B,…) the codes.
        before: (B,) the distance at which each search began.
        after: (B,) that of the code found; never larger.
    """

    z: Tensor
    before: Tensor
    after: Tensor


def pixels(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared differences (B,) of images (B,C,H,W).

    >>> pixels(torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2))
    tensor([1., 1.])
    """
    return (a - b).square().flatten(1).mean(1)


def of_features(features: Callable[[Tensor], Tensor]) -> Distance:
    """The distance ‖FR(a) − FR(b)‖² (B,) of features FR(x) (B,…), a differentiable function of images (B,C,H,W)."""
    return lambda a, b: (features(a) - features(b)).square().flatten(1).sum(1)


def nearest_codes(
    model: Generates,
    x: Tensor,
    y: Tensor,
    distance: Distance = pixels,
    *,
    steps: int = _STEPS,
    seed: int = 0,
) -> Found:
    """The codes whose pictures are nearest to images; the weights of the model do not change.

    Args:
        model: a conditional model in evaluation mode. If it encodes images, the search begins at their codes.
        x: images (B,C,H,W) in [-1,1], on the model's device.
        y: their labels (B,…).
        distance: what is minimised.
        steps: iterations of L-BFGS. Raise it if pictures are not found again; 0 leaves the code where it began.
        seed: of the noise with which a search without an encoder begins.
    """
    with torch.inference_mode(False):
        rows = [_nearest(model, x[i : i + 1], y[i : i + 1], distance, steps, seed) for i in range(len(x))]
    return Found(*(torch.cat(column) for column in zip(*rows, strict=True)))


def _nearest(
    model: Generates, x: Tensor, y: Tensor, distance: Distance, steps: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Code, first and last distance (1,…) of one image; alone, so that no other picture changes its line search."""
    x, y = x.clone(), y.clone()  # tensors of inference mode have no gradient
    with torch.no_grad():
        z = _start(model, x, y, distance, seed)
        before = distance(_decoded(model, z, y), x)
    z = z.clone().requires_grad_()
    lbfgs = torch.optim.LBFGS([z], max_iter=steps, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        z.grad = None
        value = distance(_decoded(model, z, y), x).sum()
        value.backward(inputs=[z])
        return value.detach().nan_to_num(nan=_FAR, posinf=_FAR)  # torch's line search fails at NaN

    first = z.detach().clone()
    if steps:
        with torch.enable_grad():
            lbfgs.step(loss)
    with torch.no_grad():
        after = distance(_decoded(model, z, y), x)
        nearer = after < before  # false also where the search left the finite numbers
        z = torch.where(nearer.view(-1, *[1] * (z.dim() - 1)), _within(model, z), first)
    return z.detach(), before, torch.where(nearer, after, before)


def _start(model: Generates, x: Tensor, y: Tensor, distance: Distance, seed: int) -> Tensor:
    """The code of an image (1,C,H,W) by the encoder, or the nearest of some noise."""
    if isinstance(model, Encodes):
        return model.encode(x, y)
    z = model.prior.sample(_DRAWS, torch.Generator(x.device).manual_seed(seed))
    far = distance(model.decode(z, y.expand(_DRAWS, *y.shape[1:])), x.expand(_DRAWS, *x.shape[1:]))
    best = int(far.argmin())
    return z[best : best + 1]


def _within(model: Generates, z: Tensor) -> Tensor:
    """The code itself, or the nearest in the cube of a uniform prior: G knows no other."""
    return z.clamp(-1, 1) if getattr(model.prior, "kind", None) == "uniform" else z


def _decoded(model: Generates, z: Tensor, y: Tensor) -> Tensor:
    return model.decode(_within(model, z), y)
