"""Where games of conditional GANs come to rest when all nets are perfect, on a finite set of images.

There are N images. p (K,N) is how often each comes with each class in the data, and q (K,N) how often G draws it for
that class; G may choose any distribution for each. D is its best, P/(P + Q) with P = Σ_y p and Q = Σ_y q
(Goodfellow et al. 2014, arXiv:1406.2661, proposition 1), and so is every classifier. What G pays for an image x that it
draws for class y is then

    non-saturating D          log (P + Q)/P
    C of real images          − λ log p/P                         AC-GAN as later versions train it
    C of both                 − λ log (p + q)/(P + Q)             AC-GAN as in Odena et al. 2017, arXiv:1610.09585
    C and its twin            − λ log p/P + λ log q/Q             Gong et al. 2019, arXiv:1907.02690, eq. 4
    C of 2K classes           − λ log p/q                         Hou et al. 2022, arXiv:2107.10060
    D that sees the class     log (p + q)/p                       Mirza and Osindero 2014; Miyato and Koyama 2018

The game rests where all images that G draws for a class cost the same, and the others more.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Game = Literal["real", "both", "twin", "2K", "conditional"]


def costs(log_p: Tensor, log_q: Tensor, game: Game, weight: float | Tensor) -> Tensor:
    """What G pays, in nats, for each image and class.

    Args:
        log_p: log p (…,K,N); -inf for images that a class does not have.
        log_q: log q (…,K,N).
        game: what tells the class.
        weight: λ, the weight of the classifier's term; a number, or (…,1,1).
    """
    log_P, log_Q = log_p.logsumexp(-2, keepdim=True), log_q.logsumexp(-2, keepdim=True)
    both = torch.logaddexp(log_P, log_Q)
    marginal = both - log_P
    match game:
        case "real":
            return marginal - weight * (log_p - log_P)
        case "both":
            return marginal - weight * (torch.logaddexp(log_p, log_q) - both)
        case "twin":
            return marginal - weight * (log_p - log_P) + weight * (log_q - log_Q)
        case "2K":
            return marginal - weight * (log_p - log_q)
        case "conditional":
            return torch.logaddexp(log_p, log_q) - log_p


def at_rest(
    p: Tensor, game: Game, weight: float | Tensor = 1.0, *, start: Tensor | None = None, steps: int = 1500
) -> Tensor:
    """The distribution q (…,K,N) where a game rests, with the frequency of each class that p has.

    In each step G draws what costs more less often: by a factor of e to the cost. An image that a class does not have
    is never drawn for it.

    >>> p = torch.tensor([[0.25, 0.25, 0.0], [0.25, 0.0, 0.25]])
    >>> 2 * at_rest(p, "real")[:, 0]
    tensor([0.1667, 0.1667], dtype=torch.float64)

    Args:
        p: frequencies (K,N) of the data, which add up to 1; each class and each image occurs.
        game: what tells the class.
        weight: λ, the weight of the classifier's term; a number, or (…,1,1) for several games at once.
        start: logarithms (K,N) of a factor by which the first q differs from p, for games that rest in several places.
        steps: number of steps.
    """
    p = p.double()
    log_p, classes = p.log(), p.sum(1, keepdim=True)
    absent = p == 0
    logits = log_p if start is None else log_p + start
    rate = 0.5 / (1 + weight)
    for _ in range(steps):
        log_q = logits.log_softmax(-1) + classes.log()
        logits = log_q - rate * costs(log_p, log_q, game, weight).masked_fill(absent, 0.0)
    return logits.softmax(-1) * classes
