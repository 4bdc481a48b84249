"""The state of a GAN on points of one or two dimensions at one moment, for an animation."""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.capabilities import HasCritic

POINTS = 512  # number of samples, and of real points, in a frame
_SIDE, _LINE = 48, 256  # grid points for the critic: along each side in the plane, or on a line


def drawable(shape: tuple[int, int, int]) -> bool:
    """Whether samples of this shape are points on a line or in the plane."""
    return shape[1:] == (1, 1) and shape[0] <= 2


def grid_points(real: Tensor) -> Tensor:
    """Points (P,D) of a regular grid over the data (N,D), which it exceeds by a quarter on each side.

    In the plane P = 48², row by row from the lowest; on a line P = 256.
    """
    low, high = real.min(0).values, real.max(0).values
    centre, extent = (low + high) / 2, 0.75 * (high - low).max().clamp_min(1e-3)
    if real.shape[1] == 1:
        return (centre + extent * torch.linspace(-1, 1, _LINE, device=real.device)[:, None]).float()
    axis = torch.linspace(-1, 1, _SIDE, device=real.device)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return centre + extent * torch.stack([x.flatten(), y.flatten()], 1)


def frame(model: HasCritic, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
    """The tensors of one frame of an animation.

    Args:
        model: the model, in evaluation mode.
        fake: samples (N,D,1,1).
        real: data (M,D,1,1).

    Returns:
        ``fake`` (N,D), ``real`` (M,D), ``pull`` (N,D): the directions in which G's loss moves the samples, ``places``
        (P,D): the points of a grid, and ``logits`` (P,): the logits of D there.
    """
    with torch.inference_mode(False):  # samples may be inference tensors, which have no gradients
        fake, real = fake.clone(), real.clone()
        gradient = model.sample_gradient(fake, real[torch.arange(len(fake), device=real.device) % len(real)])
        with torch.no_grad():
            points = grid_points(real.flatten(1))
            logits = model.critic(points[:, :, None, None])
    tensors = {"fake": fake, "real": real, "pull": gradient, "places": points}
    return {k: v.detach().flatten(1).float() for k, v in tensors.items()} | {"logits": logits.detach().float()}
