"""Penalties on a critic's gradient with respect to its input.

All are called as `penalty(critic, real, fake)` and return a scalar that can be differentiated again. `critic` maps
(B,…) to (B,); bind a label with `functools.partial(D, y=y)`. The images are taken as given: no gradient reaches the
generator. A critic with batch norm mixes the images of a batch and has no gradient of its own per image, so give it
none.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Critic = Callable[[Tensor], Tensor]


def _gradient(critic: Critic, x: Tensor) -> Tensor:
    """The gradient (B,n) of critic at each of x (B,…), flattened."""
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return grad.flatten(1)


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
    if real.shape != fake.shape:
        raise ValueError(f"real {tuple(real.shape)} and fake {tuple(fake.shape)} differ; give batches of one shape")
    if eps is None:
        eps = torch.rand(len(real), generator=generator, device=real.device, dtype=real.dtype)
    eps = eps.view(-1, *[1] * (real.dim() - 1))
    x_hat = eps * real + (1 - eps) * fake
    return (_gradient(critic, x_hat).norm(dim=1) - 1).square().mean()


def r1(critic: Critic, real: Tensor, fake: Tensor | None = None) -> Tensor:
    """Returns ½ E‖∇D(x)‖² at real x; `fake` is not used.

    Mescheder et al. 2018, *Which training methods for GANs do actually converge?*, arXiv:1801.04406, eq. 9. The ½ is in
    here, so the weight is their γ.
    """
    return 0.5 * _gradient(critic, real).square().sum(1).mean()


def r2(critic: Critic, real: Tensor | None, fake: Tensor) -> Tensor:
    """Returns ½ E‖∇D(x)‖² at generated x; `real` is not used. The same paper, eq. 10."""
    return 0.5 * _gradient(critic, fake).square().sum(1).mean()
