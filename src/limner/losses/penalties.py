"""Penalties on a critic's gradient with respect to its input, and path lengths of a generator.

All penalties are called as `penalty(critic, real, fake)` and return a scalar that can be differentiated again. `critic`
maps (B,…) to (B,); use `D.bind(y)` for a conditional one. Images are constants: no gradient reaches the generator. A
critic must not have batch norm, with which a logit has a gradient at all images of the batch. One that packs m images
(PacGAN) gives (B/m,) logits, and a penalty counts one gradient for each pack.

A penalty needs the gradient of a gradient. A critic that computes its input gradient by forward operations
(`input_gradient`, as the discriminators of limner do) needs one ordinary backward pass, which is cheaper; any other
critic is differentiated twice, with the same result.

Models may apply a penalty every k steps with k times the weight (lazy regularisation, Karras et al. 2020,
arXiv:1912.04958, section 3.1).
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
    own_gradient = getattr(critic, "input_gradient", None)
    if own_gradient is not None:
        logits, grad = own_gradient(x.detach())
        return logits, grad
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = critic(x)
        (grad,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return logits, grad


class Through:
    """A critic that sees images through a transform, such as an augmentation; a penalty is taken at the images before.

    So do Karras et al. 2020 (arXiv:2006.06676, the authors' code) with R1 under ADA, and R3GAN. The gradient is the
    critic's own at the transformed images, led back through the transform, so a critic with an `input_gradient` still
    needs one backward pass.

    Args:
        transform: maps images (B,…) to (B,…), differentiable; each call draws anew.
        critic: maps (B,…) to (B,).
    """

    def __init__(self, transform: Callable[[Tensor], Tensor], critic: Critic) -> None:
        self.transform, self.critic = transform, critic

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (B,) of the transformed images."""
        return self.critic(self.transform(x))

    def input_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,) and their gradient (B,…) at x, differentiable with respect to the critic's weights."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            seen = self.transform(x)
            logits, at_seen = input_gradient(self.critic, seen)
            (grad,) = torch.autograd.grad(seen, x, at_seen.to(seen.dtype), create_graph=True)
        return logits, grad


def _gradient(critic: Critic, x: Tensor) -> Tensor:
    """The gradient of each logit, (B,n), or (B/m, m·n) for a critic of packs."""
    logits, grad = input_gradient(critic, x)
    grad = grad.reshape(len(logits), -1)
    return grad.float() if grad.dtype == torch.bfloat16 else grad


def interpolate(
    real: Tensor, fake: Tensor, eps: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Points x̂ = ε·real + (1−ε)·fake between two batches, one ε in [0,1] per sample."""
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
    return (_gradient(critic, interpolate(real, fake, eps, generator)).norm(dim=1) - 1).square().mean()


def gradient_penalty_one_sided(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Returns E max(0, ‖∇D(x̂)‖₂ − 1)²: only gradient norms above 1 cost, as for a 1-Lipschitz critic.

    Section 4 of the same paper names it; Petzka et al. 2018 (arXiv:1709.08894), eq. 8, argue for it.
    """
    return relu(_gradient(critic, interpolate(real, fake, eps, generator)).norm(dim=1) - 1).square().mean()


def r1(critic: Critic, real: Tensor, fake: Tensor | None = None) -> Tensor:
    """Returns ½ E‖∇D(x)‖² at real x; `fake` is not used.

    Mescheder et al. 2018, *Which training methods for GANs do actually converge?*, arXiv:1801.04406, eq. 9. The ½ is
    included, so the weight is their γ.
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


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """Lengths (B,) of ‖J_wᵀ y‖ with J_w = ∂G(w)/∂w: how far an image moves if its styles move a little.

    Karras et al. 2020, arXiv:1912.04958, section 3.2 and eq. 4. In the mean over noise y ~ N(0, I) the square is the
    squared Frobenius norm of J_w. As in the authors' code the images are scaled by 1/√(H W), and with one w per layer
    the square is the mean over the layers. The result can be differentiated again.

    Args:
        images: G(w), (B,C,H,W).
        ws: the styles that they were made of, (B,L,w).
        noise: y, (B,C,H,W) standard normal.
    """
    images = images.float() if images.dtype == torch.bfloat16 else images
    total = (images * noise).sum() / (images.shape[2] * images.shape[3]) ** 0.5
    (g,) = torch.autograd.grad(total, ws, create_graph=True)
    g = g.float() if g.dtype == torch.bfloat16 else g
    return g.square().sum(2).mean(1).sqrt()


PENALTIES: dict[PenaltyName, Callable[[Critic, Tensor, Tensor], Tensor]] = {
    "gradient_penalty": gradient_penalty,
    "gradient_penalty_one_sided": gradient_penalty_one_sided,
    "r1": r1,
    "r2": r2,
    "dragan": dragan,
}
PER_IMAGE: tuple[PenaltyName, ...] = ("gradient_penalty", "gradient_penalty_one_sided", "dragan")
"""Penalties on the gradient at each image, which a critic that mixes the images of a batch does not have."""
