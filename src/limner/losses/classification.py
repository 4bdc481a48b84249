"""Cross-entropy of labels: of classes, and of attributes one by one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.losses._precision import in_float32


@in_float32
def cross_entropy(logits: Tensor, y: Tensor, sizes: Sequence[int], others: Tensor | None = None) -> Tensor:
    """Cross-entropy −E log P(y|x) in nats of logits (B,S), where P is the softmax of the logits: no softmax before.

    Of class indices y (B,) there is one softmax over S = K classes. Of label vectors y (B,S) each attribute has a
    softmax of its own and log P is their sum, as if the attributes were independent given the image; an attribute of
    zeros, whose value is not known, adds nothing.

    >>> cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3]), [4])
    tensor(1.3863)
    >>> cross_entropy(torch.zeros(1, 5), torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]]), [2, 3])
    tensor(0.6931)

    Args:
        logits: (B,S).
        y: class indices (B,), or vectors (B,S).
        sizes: number of values of each attribute; [K] for classes.
        others: logits (B,S) of further outcomes of each softmax, none of which is y, such as "generated and of class
            k"; none by default.
    """
    if y.dim() == 1:
        return F.cross_entropy(logits if others is None else torch.cat([logits, others], 1), y)
    parts = [logits.split(list(sizes), 1)] + ([] if others is None else [others.split(list(sizes), 1)])
    nats = [
        -(target * torch.cat(outcomes, 1).log_softmax(1)[:, : target.shape[1]]).sum(1)
        for target, *outcomes in zip(y.split(list(sizes), 1), *parts, strict=True)
    ]
    return torch.stack(nats).sum(0).mean()
