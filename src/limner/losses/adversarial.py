"""What a discriminator D and a generator G minimise, as functions of logits.

D gives logits; in the first two objectives D(x) = sigmoid(logit), and log D = −softplus(−logit), log(1 − D) =
−softplus(logit): no probability is computed, so nothing overflows. With f = logit:

====================  ==================================================  ======================================
objective             D minimises                                         G minimises
====================  ==================================================  ======================================
nonsaturating         E softplus(−f(x)) + E softplus(f(G))                E softplus(−f(G))
saturating            the same                                            −E softplus(f(G))
lsgan                 ½ E (f(x) − 1)² + ½ E f(G)²                         ½ E (f(G) − 1)²
hinge                 E max(0, 1 − f(x)) + E max(0, 1 + f(G))             −E f(G)
wasserstein           E f(G) − E f(x)                                     −E f(G)
relativistic          E softplus(f(G) − f(x)), one pair at a time         E softplus(f(x) − f(G))
relativistic_average  E softplus(m(G) − f(x)) + E softplus(f(G) − m(x))   E softplus(f(x) − m(G)) + …
====================  ==================================================  ======================================

with m(·) the mean of f over the batch. Sources: Goodfellow et al. 2014 (arXiv:1406.2661), eq. 1 and section 3; Mao et
al. 2017 (arXiv:1611.04076), eq. 9; Lim and Ye 2017 (arXiv:1705.02894); Arjovsky et al. 2017 (arXiv:1701.07875);
Jolicoeur-Martineau 2018 (arXiv:1807.00734), RpGAN and RaGAN.

If the two distributions are equal, the best D is constant (f = 0, for lsgan ½), and D's loss is log 4 = 1.386, ¼,
2, 0, log 2 and log 4: `AT_EQUILIBRIUM`. For the first two objectives D's smallest loss is log 4 − 2·JS(p_data ‖ p_G)
for any G; G descends the JS for that D only. Some texts put ½ before each term of D's loss.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn.functional import relu, softplus

from limner.losses._precision import in_float32

Objective = Literal[
    "nonsaturating", "saturating", "lsgan", "hinge", "wasserstein", "relativistic", "relativistic_average"
]


class Adversarial(NamedTuple):
    """The two losses of an objective.

    Attributes:
        d: `d(real_logits, fake_logits) -> scalar`, what D minimises.
        g: `g(fake_logits, real_logits) -> scalar`, what G minimises.
        relativistic: whether `g` uses the real logits; if not, they may be None.
    """

    d: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor, Tensor | None], Tensor]
    relativistic: bool = False


@in_float32
def labelled(logits: Tensor, target: Tensor | float) -> Tensor:
    """Cross-entropy −E [t log D + (1−t) log(1−D)] of logits (B,) with soft labels t in [0,1], a number or (B,).

    t = 1 and t = 0 are the two terms of D's loss. With real labels t < 1 the best D stops at t p/(p + q) (one-sided
    smoothing, Salimans et al. 2016, arXiv:1606.03498, section 3.4); fake labels t > 0 move its optimum
    towards the generator's own density, which is why the paper leaves them at 0.
    """
    return (softplus(logits) - target * logits).mean()


@in_float32
def discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Returns −E log D(x) − E log(1 − D(G(z))): minus eq. 1 of Goodfellow et al."""
    return softplus(-real).mean() + softplus(fake).mean()


@in_float32
def generator_nonsaturating(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Returns −E log D(G(z)): its gradient is strong when D rejects all samples."""
    return softplus(-fake).mean()


@in_float32
def generator_saturating(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Returns E log(1 − D(G(z))), the paper's Algorithm 1; its gradient vanishes when D rejects all samples."""
    return -softplus(fake).mean()


@in_float32
def lsgan_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Returns ½ E (f(x) − 1)² + ½ E f(G(z))²: labels a = 0, b = c = 1."""
    return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()


@in_float32
def lsgan_generator(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Returns ½ E (f(G(z)) − 1)²."""
    return 0.5 * (fake - 1).square().mean()


@in_float32
def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Returns E max(0, 1 − f(x)) + E max(0, 1 + f(G(z))): images beyond the margin have no gradient."""
    return relu(1 - real).mean() + relu(1 + fake).mean()


@in_float32
def critic(real: Tensor, fake: Tensor) -> Tensor:
    """Returns E f(G(z)) − E f(x): minus the estimate of the Wasserstein distance, for a 1-Lipschitz f."""
    return fake.mean() - real.mean()


@in_float32
def generator_wasserstein(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Returns −E f(G(z))."""
    return -fake.mean()


@in_float32
def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Returns E softplus(f(G(z)) − f(x)) over the pairs (real, fake) of the batch."""
    return softplus(fake - real).mean()


@in_float32
def relativistic_generator(fake: Tensor, real: Tensor | None) -> Tensor:
    """Returns E softplus(f(x) − f(G(z))) over the pairs of the batch."""
    return softplus(_required(real) - fake).mean()


@in_float32
def average_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Returns E softplus(m(G) − f(x)) + E softplus(f(G) − m(x)): each against the mean of the others."""
    return softplus(fake.mean() - real).mean() + softplus(fake - real.mean()).mean()


@in_float32
def average_generator(fake: Tensor, real: Tensor | None) -> Tensor:
    """Returns D's loss with real and fake exchanged."""
    return average_discriminator(fake, _required(real))


def _required(real: Tensor | None) -> Tensor:
    if real is None:
        raise ValueError("a relativistic generator's loss needs the logits of real images; pass them as `real`")
    return real


nonsaturating = Adversarial(discriminator, generator_nonsaturating)
saturating = Adversarial(discriminator, generator_saturating)
lsgan = Adversarial(lsgan_discriminator, lsgan_generator)
hinge = Adversarial(hinge_discriminator, generator_wasserstein)
wasserstein = Adversarial(critic, generator_wasserstein)
relativistic = Adversarial(relativistic_discriminator, relativistic_generator, relativistic=True)
relativistic_average = Adversarial(average_discriminator, average_generator, relativistic=True)


@in_float32
def lsgan_g_loss(fake: Tensor) -> Tensor:
    """Returns E (f(G(z)) − 1)², without the ½ of `lsgan`: G's loss in Zhu et al. 2017 (arXiv:1703.10593)."""
    return (fake - 1).square().mean()


OBJECTIVES: dict[Objective, Adversarial] = {
    "nonsaturating": nonsaturating,
    "saturating": saturating,
    "lsgan": lsgan,
    "hinge": hinge,
    "wasserstein": wasserstein,
    "relativistic": relativistic,
    "relativistic_average": relativistic_average,
}
AT_EQUILIBRIUM: dict[Objective, float] = {
    "nonsaturating": log(4),
    "saturating": log(4),
    "lsgan": 0.25,
    "hinge": 2.0,
    "wasserstein": 0.0,
    "relativistic": log(2),
    "relativistic_average": log(4),
}
"""D's loss when p_G = p_data and D is optimal."""
