"""Facts of the data and of the nets that no training changes; they are measured at the first examination.

* ``data/items``: number of training images.
* ``data/repeated``: share of training images that repeat an earlier one pixel for pixel; of sets that are too large
  for the memory, of those that are drawn.
* ``data/near``: share of drawn training images with another one among them that looks nearly the same.
* ``data/leaked``: share of held-out images that are training images too.
* ``data/least``, ``data/most``: number of images of the smallest and of the largest class.
* ``net/batch_norm``: number of layers with batch norm; ``net/batch_norm_D`` of those in D.
* ``net/parameters``: number of weights.
"""

from __future__ import annotations

import hashlib

import torch
from PIL import Image
from torch import Tensor, nn

from limner.core.batch import Dataset
from limner.core.frame import drawable
from limner.core.model import GenerativeModel
from limner.data.checks import with_a_twin
from limner.doctor.ground import Ground
from limner.doctor.signals.examination import Examination

_BYTES = 1 << 27  # of images that are compared pixel for pixel
_DRAWN = 512  # images that are compared by their looks


def applies(model: GenerativeModel) -> bool:
    """Every model learns from data."""
    return True


def measure(model: GenerativeModel, ground: Ground) -> Examination:
    """The facts."""
    train = ground.train
    signals = {
        "data/items": float(min(len(part) for part in train.parts())),
        "net/batch_norm": _batch_norms(model),
        "net/parameters": float(sum(p.numel() for p in model.parameters())),
    }
    if "D" in model.groups():
        signals["net/batch_norm_D"] = _batch_norms(model.groups()["D"])
    if train.labels is not None and train.classes and train.labels.dim() == 1:
        counts = torch.bincount(train.labels.long(), minlength=len(train.classes))
        signals |= {"data/least": float(counts.min()), "data/most": float(counts.max())}
    if drawable(train.shape) or len(train) < 2:
        return Examination(signals)
    known = _digests(train, ground.real.images)
    signals["data/repeated"] = 1 - len(set(known)) / len(known)
    images = ground.real.images[:_DRAWN]
    if images.dtype == torch.uint8:
        signals["data/near"] = with_a_twin([_picture(x) for x in images]) / len(images)
    if ground.heldout is not None and ground.held is not None and len(known) == len(train):
        held = _digests(ground.heldout, ground.held.images)
        signals["data/leaked"] = len([digest for digest in held if digest in set(known)]) / len(held)
    return Examination(signals)


def _batch_norms(net: nn.Module) -> float:
    return float(sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()))


def _digests(dataset: Dataset, images: Tensor) -> list[bytes]:
    """A digest of each image of a set that is in memory and not too large, else of those given."""
    whole = dataset.pixels
    if whole is not None and whole.numel() * whole.element_size() <= _BYTES:
        images = whole
    return [hashlib.blake2b(x.tobytes(), digest_size=16).digest() for x in images.numpy()]


def _picture(x: Tensor) -> Image.Image:
    """A picture of the grey values of an image (C,H,W) uint8."""
    return Image.fromarray(x.float().mean(0).round().to(torch.uint8).numpy())
