"""What a discriminator D and a generator G minimise, as functions of logits.

Goodfellow et al. 2014, *Generative adversarial nets*, arXiv:1406.2661. D(x) = sigmoid(logit), and
log D = logsigmoid(logit) = −softplus(−logit), log(1 − D) = logsigmoid(−logit) = −softplus(logit): no probability is
ever formed, so nothing overflows.

Both objectives share D's loss, −E log D(x) − E log(1 − D(G(z))): the plain sum, as in the lectures' code; other
lectures put ½ before each term, which halves the loss and its gradient. When D is the best for a fixed G this loss is
log 4 − 2·JS(p_data ‖ p_G); where the two distributions are equal, D is ½ everywhere and the loss log 4 = 1.386. That
G descends the JS holds for that D only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn.functional import logsigmoid

Objective = Literal["nonsaturating", "saturating"]


class Adversarial(NamedTuple):
    """The two losses of a game.

    Attributes:
        d: `d(real_logits, fake_logits) -> scalar`, what D minimises.
        g: `g(fake_logits) -> scalar`, what G minimises.
    """

    d: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor], Tensor]


def discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Returns −E log D(x) − E log(1 − D(G(z))) of logits (B,): eq. 1 with its sign turned."""
    return -logsigmoid(real).mean() - logsigmoid(-fake).mean()


def generator_nonsaturating(fake: Tensor) -> Tensor:
    """Returns −E log D(G(z)): a strong gradient just when D rejects everything (end of section 3)."""
    return -logsigmoid(fake).mean()


def generator_saturating(fake: Tensor) -> Tensor:
    """Returns E log(1 − D(G(z))), as in the paper's Algorithm 1; its gradient vanishes when D rejects everything."""
    return logsigmoid(-fake).mean()


nonsaturating = Adversarial(discriminator, generator_nonsaturating)
saturating = Adversarial(discriminator, generator_saturating)

OBJECTIVES: dict[Objective, Adversarial] = {"nonsaturating": nonsaturating, "saturating": saturating}
