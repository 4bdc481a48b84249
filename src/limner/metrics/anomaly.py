"""How well a score tells ordinary images from anomalous ones."""

from __future__ import annotations

from torch import Tensor

from limner.core.errors import LimnerError


def auroc(scores: Tensor, anomalous: Tensor) -> float:
    """Area under the receiver operating characteristic, in [0,1].

    It is the probability that an anomalous image scores lower than an ordinary one, ties counted half (Hanley and
    McNeil 1982): 0.5 is chance, and below that the score takes anomalies for the more ordinary ones.

    Args:
        scores: (N,), higher is more ordinary, as `score_samples` gives them.
        anomalous: (N,) bool.

    Raises:
        LimnerError: one of the two kinds is missing, or a score is not finite.

    >>> import torch
    >>> auroc(torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([False, False, True, True]))
    1.0
    """
    import numpy as np
    from sklearn.metrics import roc_auc_score

    kind = anomalous.cpu().numpy().astype(bool)
    values = scores.detach().double().cpu().numpy()
    if kind.all() or not kind.any():
        raise LimnerError("AUROC needs ordinary and anomalous images; one of the two is missing")
    if not np.isfinite(values).all():
        raise LimnerError("AUROC needs finite scores; the model gave some that are not")
    return float(roc_auc_score(kind, -values))
