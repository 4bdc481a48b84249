"""Scores of single images and of labels: sharpness, and whether generated images are of their class.

Sharpness is the variance of the Laplacian (Pech-Pacheco et al. 2000), mean over images; relative to that of real
images it shows the blur of autoencoders. Values above 1 mean too much detail or too much noise.

GAN-test (Shmelkov, Schmid and Alahari 2018, arXiv:1807.09499): accuracy of a classifier of real images on generated
ones, against the requested classes. It measures fidelity. CAS, the classification accuracy score (Ravuri and Vinyals
2019, arXiv:1905.10887; GAN-train in Shmelkov et al.): accuracy on real images of a classifier trained on generated
ones only. It measures fidelity and coverage of each class.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.batch import at_once, to_float
from limner.core.errors import LimnerError
from limner.metrics.extractors.features import check_range
from limner.metrics.extractors.readers import SmallReader
from limner.metrics.neighbours import wilson

_BATCH = 500
_VALUES = 1 << 22  # of images filtered at once; a convolution copies each nine times


@torch.inference_mode()
def sharpness(x: Tensor) -> float:
    """Variance of the Laplacian, the mean over images.

    >>> sharpness(torch.zeros(2, 1, 8, 8))
    0.0

    Args:
        x: images (B,C,H,W), uint8 or in [-1,1], of 3×3 pixels at least.

    Raises:
        LimnerError: x has another shape, type or range.
    """
    _check(x)
    if min(x.shape[2:]) < 3:
        raise LimnerError(f"a Laplacian needs images of at least 3×3 pixels, these have {x.shape[2]}×{x.shape[3]}")
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], device=x.device)[None, None]
    total = 0.0
    for part in x.split(at_once(x, _VALUES, _BATCH)):
        edges = F.conv2d(to_float(part).float().flatten(0, 1)[:, None], kernel)
        total += float(edges.flatten(1).double().var(1, correction=0).sum())
    return total / (len(x) * x.shape[1])


@dataclass(frozen=True)
class Accuracy:
    """Share of images that are classified correctly.

    Attributes:
        value: accuracy over all images.
        low: lower end of the 95 % interval (Wilson).
        high: upper end of this interval.
        n: number of images.
        per_class: accuracy over the images of each class; None for a class without images.
    """

    value: float
    low: float
    high: float
    n: int
    per_class: tuple[float | None, ...] = field(repr=False)


def gan_test(logits: Tensor, labels: Tensor) -> Accuracy:
    """Accuracy of a classifier on generated images, against the requested classes.

    >>> gan_test(torch.eye(3), torch.tensor([0, 1, 1])).per_class
    (1.0, 0.5, None)

    Args:
        logits: (N,K) of the generated images, from a classifier of real ones.
        labels: (N,) requested class indices.

    Raises:
        LimnerError: shapes do not fit, a logit is not finite, or the classifier does not know a class.
    """
    if logits.ndim != 2 or not len(logits) or labels.shape != logits.shape[:1]:
        raise LimnerError(
            f"accuracy needs logits (N,K) and classes (N,), got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if not torch.isfinite(logits).all():
        raise LimnerError("some logits are not finite; check the images and the classifier")
    labels, classes = _classes(labels).to(logits.device), logits.shape[1]
    if int(labels.max()) >= classes:
        raise LimnerError(f"the classifier knows classes 0 to {classes - 1}, not {int(labels.max())}")
    correct = (logits.argmax(1) == labels).cpu()
    labels = labels.cpu()
    n = torch.bincount(labels, minlength=classes).tolist()
    hits = torch.bincount(labels[correct], minlength=classes).tolist()
    per_class = tuple(h / m if m else None for h, m in zip(hits, n))
    low, high = wilson(sum(hits), len(labels))
    return Accuracy(sum(hits) / len(labels), low, high, len(labels), per_class)


def synthetic_training(
    *,
    fake: Tensor,
    fake_labels: Tensor,
    real: Tensor,
    real_labels: Tensor,
    epochs: int = 10,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Accuracy:
    """CAS: trains a small classifier on generated images and tests it on real ones.

    The classifier is limner's own: two convolutions and two linear layers on images of 28×28. Compare its accuracies
    with each other and with that for real training images, not with those of papers.

    Args:
        fake: generated images (M,C,H,W), uint8 or in [-1,1].
        fake_labels: (M,) their requested classes.
        real: held-out images (N,C,H,W).
        real_labels: (N,) their classes.
        epochs: passes over the generated images, with a learning rate that falls to 0.
        seed: seed of the weights and of the order.
        device: where it is trained.

    Raises:
        LimnerError: images or classes are invalid, sizes differ, or there are fewer than 2 generated images.
    """
    for kind, x, y in (("generated", fake, fake_labels), ("real", real, real_labels)):
        _check(x)
        if y.shape != x.shape[:1]:
            raise LimnerError(f"there are {len(x)} {kind} images and labels {tuple(y.shape)}; give one label for each")
    if fake.shape[1] != real.shape[1]:
        raise LimnerError(f"generated images have {fake.shape[1]} channels and real ones {real.shape[1]}; convert them")
    if len(fake) < 2:
        raise LimnerError(f"training needs at least 2 generated images, there are {len(fake)}; draw more")
    y, labels = _classes(fake_labels), _classes(real_labels)
    classes = {"class": [str(k) for k in range(int(max(y.max(), labels.max())) + 1)]}
    reader = SmallReader.trained(fake, y[:, None].cpu(), classes, epochs=epochs, seed=seed, device=device)
    return gan_test(reader.logits(real)["class"], labels)


def _classes(y: Tensor) -> Tensor:
    if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool or int(y.min()) < 0:
        raise LimnerError("classes must be whole numbers (N,) from 0; give indices, not names or probabilities")
    return y.long()


def _check(x: Tensor) -> None:
    """Raises where x are no images in the right range."""
    if x.ndim != 4 or not x.numel() or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise LimnerError(
            f"images are (B,C,H,W), uint8 or floating; this is a {str(x.dtype).removeprefix('torch.')} tensor of shape"
            f" {tuple(x.shape)}"
        )
    if x.dtype != torch.uint8:
        check_range(x)
