"""Small classifiers that measure the information in codes, and whether two sets of images differ.

Linear probe: Alain and Bengio 2016 (arXiv:1610.01644). Two-sample test by classifier: Lopez-Paz and Oquab 2017,
*Revisiting classifier two-sample tests*, arXiv:1610.06545.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from limner.core.batch import drawn
from limner.core.errors import LimnerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def linear_probe(codes: Tensor, labels: Tensor, test_codes: Tensor, test_labels: Tensor) -> float:
    """Accuracy in [0,1] on the test codes (M,…) of a logistic regression trained on standardised codes (N,…).

    Args:
        codes: codes (or features, or pixels) to train the probe on.
        labels: their classes, (N,).
        test_codes: codes to test it on.
        test_labels: their classes, (M,).

    Raises:
        LimnerError: there is only one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(labels.unique()) < 2:
        raise LimnerError("a linear probe needs codes of at least two classes")
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    probe.fit(_table(codes), labels.cpu().numpy())
    return float(probe.score(_table(test_codes), test_labels.cpu().numpy()))


def distinguishable(a: Tensor, b: Tensor, *, trees: int = 200, seed: int = 0) -> float:
    """Accuracy of a random forest that distinguishes a (N,…) from b (M,…), with balanced classes.

    0.5 means that it finds no difference, 1 that it makes no errors. The accuracy is out of bag (Breiman 2001): every
    image is classified by the trees whose bootstrap sample did not contain it.

    Args:
        a: images or codes of one kind.
        b: images or codes of the other kind, of the same shape.
        trees: number of trees.
        seed: seed of the forest.
    """
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier

    if a.shape[1:] != b.shape[1:]:
        raise LimnerError(f"shapes {tuple(a.shape[1:])} and {tuple(b.shape[1:])} differ; compare images of one shape")
    n = min(len(a), len(b))  # balanced, so that 0.5 is chance; the first ones may be of one class
    table = np.concatenate([_table(x[drawn(len(x), n, seed)]) for x in (a, b)])
    kind = np.repeat([0, 1], n)
    forest = RandomForestClassifier(trees, oob_score=True, random_state=seed).fit(table, kind)
    return float(forest.oob_score_)


def _table(codes: Tensor) -> NDArray[np.float32]:
    return codes.detach().flatten(1).float().cpu().numpy()
