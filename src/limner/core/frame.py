"""One moment of a GAN on points of one or two numbers: what can be drawn of the whole game."""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.capabilities import HasCritic

POINTS = 512  # samples and reals of a frame
_SIDE, _LINE = 48, 256  # places of the critic's field along a side, or along a line


def drawable(shape: tuple[int, int, int]) -> bool:
    """Whether samples of this shape are points on a line or in the plane."""
    return shape[1:] == (1, 1) and shape[0] <= 2


def places(real: Tensor) -> Tensor:
    """Where the critic is asked: points (P,D) of an even grid over the data (N,D), and a quarter beyond on each side.

    In the plane P = 48², row by row from the lowest; on a line P = 256.
    """
    low, high = real.min(0).values, real.max(0).values
    middle, reach = (low + high) / 2, 0.75 * (high - low).max().clamp_min(1e-3)
    if real.shape[1] == 1:
        return (middle + reach * torch.linspace(-1, 1, _LINE, device=real.device)[:, None]).float()
    axis = torch.linspace(-1, 1, _SIDE, device=real.device)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return middle + reach * torch.stack([x.flatten(), y.flatten()], 1)


def frame(model: HasCritic, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
    """The numbers behind one picture of the game.

    Args:
        model: in evaluation mode.
        fake: samples (N,D,1,1).
        real: data (M,D,1,1).

    Returns:
        ``fake`` (N,D), ``real`` (M,D), ``pull`` (N,D): where G's loss moves each sample, ``places`` (P,D) and
        ``logits`` (P,): what D thinks of them.
    """
    with torch.inference_mode(False):  # the pull is a gradient, and samples may come from inference
        fake, real = fake.clone(), real.clone()
        pull = model.sample_gradient(fake, real[torch.arange(len(fake), device=real.device) % len(real)])
        with torch.no_grad():
            asked = places(real.flatten(1))
            logits = model.critic(asked[:, :, None, None])
    parts = {"fake": fake.flatten(1), "real": real.flatten(1), "pull": pull.flatten(1), "places": asked}
    return {k: v.detach().float() for k, v in (parts | {"logits": logits}).items()}
