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
        curves: of each picture the distance at every evaluation of the search.
    """

    z: Tensor
    before: Tensor
    after: Tensor
    curves: tuple[tuple[float, ...], ...] = ()


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
    with torch.no_grad():
        start = torch.cat([_start(model, x[i : i + 1], y[i : i + 1], distance, seed) for i in range(len(x))])
    y = y.clone()  # tensors of inference mode have no gradient
    return searched(
        lambda z, i: model.decode(z, y[i : i + 1]), start, x, distance, steps=steps, within=lambda z: _within(model, z)
    )


def searched(
    decode: Callable[[Tensor, int], Tensor],
    start: Tensor,
    x: Tensor,
    distance: Distance,
    *,
    steps: int = _STEPS,
    within: Callable[[Tensor], Tensor] = lambda z: z,
) -> Found:
    """The codes whose pictures are nearest to images, by L-BFGS from given codes, each image alone.

    Args:
        decode: the picture (1,C,H,W) of a code (1,…) for the i-th image; differentiable.
        start: codes (B,…) at which the searches begin.
        x: images (B,C,H,W) in [-1,1], on the device of the codes.
        distance: what is minimised.
        steps: iterations of L-BFGS.
        within: the nearest codes that the model knows.
    """

    def picture(i: int) -> Callable[[Tensor], Tensor]:
        return lambda z: decode(z, i)

    with torch.inference_mode(False):
        rows = [_searched(picture(i), start[i : i + 1], x[i : i + 1], distance, steps, within) for i in range(len(x))]
    z, before, after = (torch.cat([getattr(row, name) for row in rows]) for name in ("z", "before", "after"))
    return Found(z, before, after, tuple(row.curves[0] for row in rows))


def _searched(
    decode: Callable[[Tensor], Tensor],
    start: Tensor,
    x: Tensor,
    distance: Distance,
    steps: int,
    within: Callable[[Tensor], Tensor],
) -> Found:
    """The code of one image; alone, so that no other picture changes its line search."""
    x, curve = x.clone(), list[float]()  # tensors of inference mode have no gradient
    first = start.detach().clone()
    with torch.no_grad():
        before = distance(decode(within(first)), x)
    z = first.clone().requires_grad_()
    lbfgs = torch.optim.LBFGS([z], max_iter=steps, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        z.grad = None
        value = distance(decode(within(z)), x).sum()
        value.backward(inputs=[z])
        curve.append(float(value.detach()))
        return value.detach().nan_to_num(nan=_FAR, posinf=_FAR)  # torch's line search fails at NaN

    if steps:
        with torch.enable_grad():
            lbfgs.step(loss)
    with torch.no_grad():
        after = distance(decode(within(z)), x)
        nearer = after < before  # false also where the search left the finite numbers
        z = torch.where(nearer.view(-1, *[1] * (z.dim() - 1)), within(z), first)
    return Found(z.detach(), before, torch.where(nearer, after, before), (tuple(curve),))


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
