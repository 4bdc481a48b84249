"""Scores of single images and of labels: sharpness, and whether generated images are of their class.

Sharpness is the variance of the Laplacian (Pech-Pacheco et al. 2000), the mean over images; beside that of real images
it shows the blur of autoencoders. It cannot tell detail from noise: values above 1 mean too much of either.

GAN-test (Shmelkov, Schmid and Alahari 2018, arXiv:1807.09499): accuracy of a classifier of real images on generated
ones, against the classes that were asked for: fidelity. CAS, the classification accuracy score (Ravuri and Vinyals
2019, arXiv:1905.10887; GAN-train in Shmelkov et al.): accuracy on real images of a classifier that saw only generated
ones: fidelity and coverage, class by class.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.batch import to_float
from limner.core.errors import LimnerError
from limner.metrics.neighbours import wilson

_BATCH = 500
_SLACK = 1e-3  # a tanh in bfloat16 rounds to 1, a resized image may overshoot by a rounding
_SIDE = 28


@torch.inference_mode()
def sharpness(x: Tensor) -> float:
    """Variance of the Laplacian, the mean over images.

    >>> sharpness(torch.zeros(2, 1, 8, 8))
    0.0

    Args:
        x: images (B,C,H,W), uint8 or in [-1,1], of 3×3 pixels at least.

    Raises:
        LimnerError: these are no such images.
    """
    _check(x)
    if min(x.shape[2:]) < 3:
        raise LimnerError(f"a Laplacian needs images of 3×3 pixels, these have {x.shape[2]}×{x.shape[3]}")
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], device=x.device)[None, None]
    total = 0.0
    for part in x.split(_BATCH):
        edges = F.conv2d(to_float(part).float().flatten(0, 1)[:, None], kernel)
        total += float(edges.flatten(1).double().var(1, correction=0).sum())
    return total / (len(x) * x.shape[1])


@dataclass(frozen=True)
class Accuracy:
    """Share of images that were given the right class.

    Attributes:
        value: over all images.
        low: lower end of the interval of 95 % (Wilson).
        high: upper end.
        n: images.
        per_class: the same for the images of each class; None for a class without images.
    """

    value: float
    low: float
    high: float
    n: int
    per_class: tuple[float | None, ...] = field(repr=False)


def gan_test(logits: Tensor, wanted: Tensor) -> Accuracy:
    """Accuracy of a classifier on generated images, against the classes that were asked for.

    >>> gan_test(torch.eye(3), torch.tensor([0, 1, 1])).per_class
    (1.0, 0.5, None)

    Args:
        logits: (N,K) of the generated images, from a classifier of real ones.
        wanted: (N,) class indices.

    Raises:
        LimnerError: shapes do not fit, a logit is not finite, or a class is not one of the classifier's.
    """
    if logits.ndim != 2 or not len(logits) or wanted.shape != logits.shape[:1]:
        raise LimnerError(
            f"accuracy needs logits (N,K) and classes (N,), got {tuple(logits.shape)} and {tuple(wanted.shape)}"
        )
    if not torch.isfinite(logits).all():
        raise LimnerError("some logits are not finite; look at the images, or at the classifier")
    wanted, classes = _classes(wanted).to(logits.device), logits.shape[1]
    if int(wanted.max()) >= classes:
        raise LimnerError(f"the classifier knows classes 0 to {classes - 1}, class {int(wanted.max())} was asked for")
    right = (logits.argmax(1) == wanted).cpu()
    wanted = wanted.cpu()
    n = torch.bincount(wanted, minlength=classes).tolist()
    hits = torch.bincount(wanted[right], minlength=classes).tolist()
    per_class = tuple(h / m if m else None for h, m in zip(hits, n))
    low, high = wilson(sum(hits), len(wanted))
    return Accuracy(sum(hits) / len(wanted), low, high, len(wanted), per_class)


class _Small(nn.Module):
    """Images (B,C,28,28) -> logits (B,K)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


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

    The classifier is limner's own, two convolutions and two linear layers on images of 28×28, so its accuracies compare
    with each other and with the one that real training images give, not with those of papers.

    Args:
        fake: generated images (M,C,H,W), uint8 or in [-1,1].
        fake_labels: (M,) the classes they were asked for.
        real: held-out images (N,C,H,W).
        real_labels: (N,) their classes.
        epochs: passes over the generated images, at a learning rate that falls to 0.
        seed: of the weights and the order.
        device: where it is trained.

    Raises:
        LimnerError: these are no such images and classes, sizes differ, or there are fewer than 2 generated images.
    """
    for kind, x, y in (("generated", fake, fake_labels), ("real", real, real_labels)):
        _check(x)
        if y.shape != x.shape[:1]:
            raise LimnerError(f"there are {len(x)} {kind} images and labels {tuple(y.shape)}; give one for each")
    if fake.shape[1] != real.shape[1]:
        raise LimnerError(f"generated images have {fake.shape[1]} channels and real ones {real.shape[1]}; convert them")
    if len(fake) < 2:
        raise LimnerError(f"training needs at least 2 generated images, there are {len(fake)}")
    y, wanted = _classes(fake_labels).to(device), _classes(real_labels)
    classes = int(max(y.max(), wanted.max())) + 1
    x = torch.cat([_small(part, device) for part in fake.split(_BATCH)])
    net = _fitted(x, y, classes, epochs, seed)
    with torch.inference_mode():
        logits = torch.cat([net(_small(part, device)) for part in real.split(_BATCH)])
    return gan_test(logits.cpu(), wanted)


def _fitted(x: Tensor, y: Tensor, classes: int, epochs: int, seed: int) -> nn.Module:
    batch = min(64, len(x))
    steps = epochs * (len(x) // batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _Small(x.shape[1], classes)
    net = net.to(x.device)
    generator = torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / steps)
    with torch.enable_grad():
        for _ in range(epochs):
            order = torch.randperm(len(x), generator=generator).to(x.device)
            for some in order.split(batch)[: len(x) // batch]:
                loss = F.cross_entropy(net(x[some]), y[some])
                adam.zero_grad()
                loss.backward()
                adam.step()
                schedule.step()
    return net.eval()


def _small(x: Tensor, device: torch.device | str) -> Tensor:
    x = to_float(x.to(device)).float()
    if tuple(x.shape[2:]) == (_SIDE, _SIDE):
        return x
    return F.interpolate(x, (_SIDE, _SIDE), mode="bilinear", align_corners=False, antialias=True)


def _classes(y: Tensor) -> Tensor:
    if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool or int(y.min()) < 0:
        raise LimnerError("classes are whole numbers (N,) from 0; give indices, not names or probabilities")
    return y.long()


def _check(x: Tensor) -> None:
    """Refuses what are no images."""
    if x.ndim != 4 or not x.numel() or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise LimnerError(
            f"images are (B,C,H,W), uint8 or floating; this is a {str(x.dtype).removeprefix('torch.')} tensor of shape"
            f" {tuple(x.shape)}"
        )
    if x.dtype == torch.uint8:
        return
    low, high = (float(v) for v in x.aminmax())
    if not (low >= -1 - _SLACK and high <= 1 + _SLACK):  # NaN too fails both
        raise LimnerError(
            f"images must lie in [-1,1], these reach from {low:g} to {high:g}; scale them, or clamp a net's output"
        )
