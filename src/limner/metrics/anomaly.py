"""How well a score separates ordinary images from anomalous ones."""

from __future__ import annotations

from torch import Tensor

from limner.core.errors import LimnerError


def auroc(scores: Tensor, anomalous: Tensor) -> float:
    """Area under the receiver operating characteristic, in [0,1].

    It is the probability that an anomalous image scores lower than an ordinary one, ties counted half (Hanley and
    McNeil 1982): 0.5 is chance; a value below it means that anomalies score higher.

    Args:
        scores: (N,), higher for more ordinary images, as of `score_samples`.
        anomalous: (N,) bool.

    Raises:
        LimnerError: all images are ordinary or all are anomalous, or a score is not finite.

    >>> import torch
    >>> auroc(torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([False, False, True, True]))
    1.0
    """
    import numpy as np
    from sklearn.metrics import roc_auc_score

    kind = anomalous.cpu().numpy().astype(bool)
    values = scores.detach().double().cpu().numpy()
    if kind.all() or not kind.any():
        raise LimnerError("AUROC needs ordinary and anomalous images; give some of both")
    if not np.isfinite(values).all():
        raise LimnerError("AUROC needs finite scores, and some of these are not; check the model")
    return float(roc_auc_score(kind, -values))
