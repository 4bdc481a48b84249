"""The state of a model of points of one or two dimensions at one moment, for an animation.

What is drawn follows from what the model can do: a GAN has D's logits and the pull on its samples, a model with a
likelihood has its density, one that denoises has the paths of its points from noise to data, and a flow that decodes
normal noise has the lines to which it bends the circles and spokes of that noise.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import pi

import torch
from torch import Tensor

from limner.core.capabilities import Conditional, Denoises, Encodes, Generates, HasCritic, HasLogProb
from limner.core.model import GenerativeModel

POINTS = 512  # number of samples, and of real points, in a frame
_LABELS = 12  # labels over which the logits of a conditional critic are averaged
_SIDE, _LINE = 48, 256  # grid points for the critic: along each side in the plane, or on a line
_FINE, _COARSE = 96, 32  # grid points along each side for a density: of one evaluation of a net, and of many
_PATHS, _STEPS, _EVERY = 256, 48, 2  # paths from noise to data, their steps, and how many steps apart they are kept
_FIELD, _FIELD_EVERY = 16, 6  # grid points along each side for the velocity, and the steps between two fields
_RADII, _SPOKES, _LINE_POINTS = (0.5, 1.0, 1.5, 2.0, 2.5), 16, 128  # circles and spokes of normal noise in the plane

LogDensity = Callable[[Tensor], Tensor | None]
"""Log p(x) in nats (B,) of points (B,D,1,1), or None where it is not known."""


def drawable(shape: tuple[int, int, int]) -> bool:
    """Whether samples of this shape are points on a line or in the plane."""
    return shape[1:] == (1, 1) and shape[0] <= 2


def is_drawn(model: GenerativeModel) -> bool:
    """Whether there are frames of a model of points."""
    return isinstance(model, HasCritic | HasLogProb | Denoises)


def grid_points(real: Tensor, side: int = _SIDE) -> Tensor:
    """Points (P,D) of a regular grid over the data (N,D), which it exceeds by a quarter on each side.

    In the plane P = side², row by row from the lowest; on a line P = 256.
    """
    low, high = real.min(0).values, real.max(0).values
    centre, extent = (low + high) / 2, 0.75 * (high - low).max().clamp_min(1e-3)
    if real.shape[1] == 1:
        return (centre + extent * torch.linspace(-1, 1, _LINE, device=real.device)[:, None]).float()
    axis = torch.linspace(-1, 1, side, device=real.device)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return centre + extent * torch.stack([x.flatten(), y.flatten()], 1)


def frame(model: GenerativeModel, real: Tensor, seed: int, truth: LogDensity = lambda x: None) -> dict[str, Tensor]:
    """The tensors of one frame of an animation, float32; a pure function of its arguments.

    All frames have ``fake`` (N,D), samples, and ``real`` (M,D), data. Further tensors are those of `critic_frame` for
    GANs, and those of `density`, `paths` and `bent_lines` for other models.

    Args:
        model: the model, in evaluation mode.
        real: data (M,D,1,1).
        seed: seed of the samples.
        truth: log-density of the data in nats.
    """
    fake = model.sample(POINTS, seed=seed)
    with torch.inference_mode(False):  # samples may be inference tensors, which have no gradients
        fake, real = fake.clone(), real.clone()
        if isinstance(model, HasCritic):
            return critic_frame(model, fake, real)
        tensors = {"fake": fake.flatten(1), "real": real.flatten(1)}
        with torch.no_grad():
            if isinstance(model, HasLogProb):
                tensors |= density(model, real, truth)
            if isinstance(model, Denoises):
                tensors |= paths(model, real, seed)
            elif isinstance(model, Generates):
                tensors |= bent_lines(model, fake)
    return {k: v.detach().float().cpu() for k, v in tensors.items()}


def critic_frame(model: HasCritic, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
    """The frame of a GAN.

    Args:
        model: the model, in evaluation mode.
        fake: samples (N,D,1,1).
        real: data (M,D,1,1).

    Returns:
        ``fake`` (N,D), ``real`` (M,D), ``pull`` (N,D): the directions in which G's loss moves the samples, ``places``
        (P,D): the points of a grid, and ``logits`` (P,): the logits of D there, of a conditional D their mean over some
        labels.
    """
    y = model.condition.default(len(fake)).to(fake.device) if isinstance(model, Conditional) else None  # as in `sample`
    gradient = model.sample_gradient(fake, real[torch.arange(len(fake), device=real.device) % len(real)], y)
    with torch.no_grad():
        points = grid_points(real.flatten(1))
        x = points[:, :, None, None]
        shown = [None] if y is None else [label.expand(len(x), *label.shape) for label in y[:_LABELS]]
        logits = torch.stack([model.critic(x, label) for label in shown]).mean(0)
    tensors = {"fake": fake, "real": real, "pull": gradient, "places": points}
    return {k: v.detach().flatten(1).float() for k, v in tensors.items()} | {"logits": logits.detach().float()}


def density(model: HasLogProb, real: Tensor, truth: LogDensity) -> dict[str, Tensor]:
    """The model's density, beside that of the data.

    Returns:
        ``places`` (P,D): the points of a grid, ``log_density`` (P,): log p(x) of the model there in nats, ``nats`` ():
        the mean of -log p(x) over the data. Where the density of the data is known, ``truth`` (P,): its log there, and
        ``gap`` (): the mean of its log less that of the model over the data, an estimate of KL(data || model).
    """
    by_solver = getattr(model, "likelihood_kind", "exact") == "ODE"
    places = grid_points(real.flatten(1), _COARSE if by_solver else _FINE)
    points = torch.cat([places[:, :, None, None], real[::2] if by_solver else real])
    log_p = model.log_prob(points)
    tensors = {"places": places, "log_density": log_p[: len(places)], "nats": -log_p[len(places) :].mean()}
    known = truth(points)
    if known is not None:
        known = known.to(log_p.device)
        tensors |= {"truth": known[: len(places)], "gap": (known - log_p)[len(places) :].mean()}
    return tensors


def paths(model: Denoises, real: Tensor, seed: int) -> dict[str, Tensor]:
    """The way of points from noise to data, by Euler's method on x_t = (1 - t) x_0 + t ε, t = σ / (1 + σ).

    Any denoiser moves along dx_t/dt = (x_t - D) / t in these coordinates (Liu et al. 2022, arXiv:2209.03003), where a
    path is straight if D does not change along it.

    Returns:
        ``times`` (T,): t, from about 1 to 0, ``path`` (T,N,D): the points then, ``field_places`` (Q,D): the points of a
        coarse grid, ``field_times`` (S,): t, and ``field`` (S,Q,D): the velocity -dx/dt towards the data there.
    """
    device, d = real.device, real.shape[1]
    largest = model.sigma_max / (1 + model.sigma_max)
    times = [largest * (1 - i / _STEPS) for i in range(_STEPS + 1)]
    x = largest * torch.randn(_PATHS, d, 1, 1, generator=torch.Generator().manual_seed(seed)).to(device)
    # Noise reaches further than the data, so the field has a wider grid.
    corners = torch.cat(
        [real.flatten(1), torch.full((1, d), 2.0, device=device), torch.full((1, d), -2.0, device=device)]
    )
    coarse = grid_points(corners, _FIELD)
    coarse = coarse if d == 2 else coarse[:: _LINE // _FIELD]
    kept, field, field_times = [x.flatten(1)], [], []
    for i, (t, after) in enumerate(pairwise(times)):
        if i % _FIELD_EVERY == 0:
            field.append(-_velocity(model, coarse[:, :, None, None], t).flatten(1))
            field_times.append(t)
        x = x + (after - t) * _velocity(model, x, t)
        if (i + 1) % _EVERY == 0:
            kept.append(x.flatten(1))
    return {
        "times": torch.tensor(times[::_EVERY]),
        "path": torch.stack(kept),
        "field_places": coarse,
        "field_times": torch.tensor(field_times),
        "field": torch.stack(field),
    }


def _velocity(model: Denoises, x: Tensor, t: float) -> Tensor:
    """The dx_t/dt (B,C,H,W) at time t in (0,1)."""
    sigma = torch.full((len(x),), t / (1 - t), device=x.device)
    return (x - model.denoise(x / (1 - t), sigma)) / t


def bent_lines(model: Generates, fake: Tensor) -> dict[str, Tensor]:
    """What a flow makes of lines in its noise.

    Args:
        model: decodes normal noise of as many numbers as its points have.
        fake: samples (N,D,1,1).

    Returns:
        ``lines`` (L,M,D): in the plane, circles around the origin of the noise and spokes from it, decoded; on a line,
        the one curve of the points to which the noise from -3 to 3 is decoded. ``hue`` (N,): in the plane, the angle of
        each sample's noise in radians. Nothing where the noise has another dimension than the points.
    """
    d = fake.shape[1]
    noise = model.prior.sample(1, torch.Generator(fake.device).manual_seed(0))
    if noise.shape[1:] != (d,):
        return {}
    at = torch.linspace(0, 1, _LINE_POINTS, device=fake.device)
    if d == 1:
        z = (6 * at - 3)[None, :, None]
    else:
        angle = 2 * pi * at
        circles = [r * torch.stack([angle.cos(), angle.sin()], 1) for r in _RADII]
        ends = 2 * pi * torch.arange(_SPOKES, device=fake.device) / _SPOKES
        spokes = [max(_RADII) * at[:, None] * torch.stack([a.cos(), a.sin()]) for a in ends]
        z = torch.stack([*circles, *spokes])
    tensors = {"lines": model.decode(z.flatten(0, 1)).flatten(1).unflatten(0, z.shape[:2])}
    if d == 2 and isinstance(model, Encodes):
        code = model.encode(fake)
        tensors["hue"] = torch.atan2(code[:, 1], code[:, 0])
    return tensors
