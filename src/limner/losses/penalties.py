"""Penalties on a critic's gradient with respect to its input.

All are called as `penalty(critic, real, fake)` and return a scalar that can be differentiated again. `critic` maps
(B,…) to (B,); a label is given once with `D.bind(y)`, which keeps the gradient written out. The images are taken as given: no gradient reaches the
generator. A critic with batch norm mixes the images of a batch and has no gradient of its own per image, so give it
none. One that packs m images into a judgement (PacGAN) gives (B/m,) logits and counts one gradient for each pack.

A penalty needs the gradient of a gradient. A critic that can write its input gradient out as a forward computation
(`input_gradient`, as the nets of limner do wherever they are piecewise linear) makes that one ordinary backward pass,
with the same value, and cheaper; any other critic is differentiated twice.

None takes a step of its own: applying one every k steps with k times the weight (lazy regularisation, Karras et al.
2020, arXiv:1912.04958, section 3.1) is left to the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import relu

Critic = Callable[[Tensor], Tensor]
PenaltyName = Literal["gradient_penalty", "gradient_penalty_one_sided", "r1", "r2", "dragan"]


def input_gradient(critic: Critic, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B,) and their gradient (B,…) at x (B,…), differentiable with respect to the critic's weights."""
    written_out = getattr(critic, "input_gradient", None)
    if written_out is not None:
        logits, grad = written_out(x.detach())
        return logits, grad
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = critic(x)
        (grad,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return logits, grad


def _gradient(critic: Critic, x: Tensor) -> Tensor:
    """The gradient of each judgement, (B,n) or (B/m, m·n) for a critic of packs."""
    logits, grad = input_gradient(critic, x)
    return grad.reshape(len(logits), -1).float() if grad.dtype == torch.bfloat16 else grad.reshape(len(logits), -1)


def mixed(real: Tensor, fake: Tensor, eps: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Points x̂ = ε·real + (1−ε)·fake on straight lines between the two batches, one ε in [0,1] per sample."""
    if real.shape != fake.shape:
        raise ValueError(f"real {tuple(real.shape)} and fake {tuple(fake.shape)} differ; give batches of one shape")
    if eps is None:
        eps = torch.rand(len(real), generator=generator, device=real.device, dtype=real.dtype)
    return fake + eps.view(-1, *[1] * (real.dim() - 1)) * (real - fake)


def gradient_penalty(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Returns E (‖∇D(x̂)‖₂ − 1)² at x̂ = ε·real + (1−ε)·fake: two-sided, one ε per sample.

    Gulrajani et al. 2017, *Improved training of Wasserstein GANs*, arXiv:1704.00028, eq. 3; the weight there is 10.

    Args:
        critic: maps (B,…) to (B,).
        real: images (B,…).
        fake: images (B,…).
        eps: the ε of each sample, (B,) in [0,1]; drawn uniformly when not given.
        generator: draws ε, on the device of `real`.
    """
    return (_gradient(critic, mixed(real, fake, eps, generator)).norm(dim=1) - 1).square().mean()


def gradient_penalty_one_sided(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Returns E max(0, ‖∇D(x̂)‖₂ − 1)²: only slopes above 1 cost, which is all that 1-Lipschitz asks.

    Section 4 of the same paper names it; Petzka et al. 2018 (arXiv:1709.08894), eq. 8, argue for it.
    """
    return relu(_gradient(critic, mixed(real, fake, eps, generator)).norm(dim=1) - 1).square().mean()


def r1(critic: Critic, real: Tensor, fake: Tensor | None = None) -> Tensor:
    """Returns ½ E‖∇D(x)‖² at real x; `fake` is not used.

    Mescheder et al. 2018, *Which training methods for GANs do actually converge?*, arXiv:1801.04406, eq. 9. The ½ is in
    here, so the weight is their γ.
    """
    return 0.5 * _gradient(critic, real).square().sum(1).mean()


def r2(critic: Critic, real: Tensor | None, fake: Tensor) -> Tensor:
    """Returns ½ E‖∇D(x)‖² at generated x; `real` is not used. The same paper, eq. 10."""
    return 0.5 * _gradient(critic, fake).square().sum(1).mean()


def dragan(
    critic: Critic,
    real: Tensor,
    fake: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Returns E (‖∇D(x + δ)‖₂ − 1)² around real x; `fake` is not used.

    Kodali et al. 2017, *On convergence and stability of GANs*, arXiv:1705.07215, eq. 7. As in the authors' code, δ is
    ½ std(x) times noise uniform on [0,1), std over the whole batch; each sample goes a share ε of the way.

    Args:
        critic: maps (B,…) to (B,).
        real: images (B,…).
        fake: unused.
        noise: δ (B,…); drawn when not given.
        generator: draws δ and ε, on the device of `real`.
    """
    if noise is None:
        u = torch.rand(real.shape, generator=generator, device=real.device, dtype=real.dtype)
        eps = torch.rand(len(real), generator=generator, device=real.device, dtype=real.dtype)
        noise = 0.5 * real.std() * u * eps.view(-1, *[1] * (real.dim() - 1))
    return (_gradient(critic, real + noise).norm(dim=1) - 1).square().mean()


PENALTIES: dict[PenaltyName, Callable[[Critic, Tensor, Tensor], Tensor]] = {
    "gradient_penalty": gradient_penalty,
    "gradient_penalty_one_sided": gradient_penalty_one_sided,
    "r1": r1,
    "r2": r2,
    "dragan": dragan,
}
PER_IMAGE: tuple[PenaltyName, ...] = ("gradient_penalty", "gradient_penalty_one_sided", "dragan")
"""Those that bound the slope at each image: they mean nothing for a critic that mixes the images of a batch."""
