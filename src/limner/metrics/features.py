"""Features that scores are computed on: small classifiers that limner trained itself, pinned to the last bit.

A distance between sets of images is a distance between their features, so it means something only together with the
extractor, and only beside distances of the same extractor. The key of each one, such as ``lenet64-v1``, therefore
goes into the name of every score: ``fd@lenet64-v1[n=10000]``.

``lenet64-v1`` knows digits. It follows LeNet-5 in kind (LeCun, Bottou, Bengio and Haffner 1998, *Gradient-based
learning applied to document recognition*): convolutions and pooling, a hidden layer of 64 numbers, ten logits. Its
features are those 64 numbers *before* the ReLU, z-scored by their mean and standard deviation over the 60,000 training
images of MNIST. There they are closer to Gaussian, which is what a Fréchet distance takes them for; none is constant;
and the half that the classifier drops still tells images of one class apart. How it was trained and how well it does is
in the header of its file; ``benchmarks/extractor.py`` makes it anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load as parse_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.batch import to_float
from limner.core.errors import LimnerError

_WEIGHTS = Path(__file__).parent / "weights"
_SHA256 = {"lenet64-v1": "aba33b238fd4b263c7e2d9f7fbfa8ddfc8899d8bef7a049e93388f38a93a0433"}
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the weights of PIL's grey
_SLACK = 1e-3  # a tanh in bfloat16 rounds to 1, a resized image may overshoot by a rounding


class _LeNet64(nn.Module):
    """Grey images (B,1,28,28) -> 64 numbers and 10 logits; 93,834 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 3 * 3, 64),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers (B,64) before the ReLU, and logits (B,10)."""
        codes = self.body(x)
        return codes, self.head(codes.relu())


@dataclass(frozen=True)
class Extractor:
    """Turns images into features, and into class logits.

    Images are (B,C,H,W), uint8 in [0,255] or floating in [-1,1], grey or colour, of any size: colour becomes grey,
    other sizes are resized to 28×28, bilinear and antialiased. They are worked on a few at a time, so memory is
    bounded by the argument `batch`; results do not depend on it beyond rounding.

    Attributes:
        key: name and version, for the names of scores.
        dims: how many features an image has.
        classes: how many classes `classify` tells.
        device: where it computes and where results are.
        about: how it was made and how accurate it is.
    """

    key: str
    dims: int
    classes: int
    device: torch.device
    about: dict[str, Any] = field(repr=False)
    _net: nn.Module = field(repr=False)
    _mean: Tensor = field(repr=False)
    _std: Tensor = field(repr=False)

    def features(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Features (B,64) float32 of images (B,C,H,W), z-scored by the training set.

        >>> lenet64().features(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 64])

        Args:
            x: images, uint8 or in [-1,1].
            batch: images at a time. Raise it for speed on a GPU; lower it if memory is short.

        Raises:
            LimnerError: these are no such images, or some are not finite or outside [-1,1].
        """
        return self.both(x, batch=batch)[0]

    def classify(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Logits (B,10) float32 of images (B,C,H,W); the arguments of `features`."""
        return self.both(x, batch=batch)[1]

    @torch.inference_mode()
    def both(self, x: Tensor, *, batch: int = 256) -> tuple[Tensor, Tensor]:
        """Features and logits in one pass; the arguments of `features`."""
        if x.ndim != 4 or x.shape[1] not in (1, 3) or not (x.dtype == torch.uint8 or x.is_floating_point()):
            raise LimnerError(
                f"{self.key} reads grey or colour images (B,1 or 3,H,W), uint8 or floating; it got a"
                f" {str(x.dtype).removeprefix('torch.')} tensor of shape {tuple(x.shape)}"
            )
        if batch < 1:
            raise LimnerError(f"a batch holds at least 1 image, got batch={batch}")
        codes = torch.empty(len(x), self.dims, device=self.device)
        logits = torch.empty(len(x), self.classes, device=self.device)
        with torch.autocast(self.device.type, enabled=False):
            for i, part in enumerate(_prepared(x, batch, self.device)):
                some = slice(i * batch, i * batch + len(part))
                z, logits[some] = self._net(part)
                codes[some] = (z - self._mean) / self._std
        return codes, logits


def _prepared(x: Tensor, batch: int, device: torch.device) -> Iterator[Tensor]:
    """Grey float32 images (b,1,28,28) in [-1,1], at most `batch` at a time."""
    for part in x.split(batch) if len(x) else ():
        grey = to_float(part.to(device)).float()
        low, high = (float(v) for v in grey.aminmax())
        if not (low >= -1 - _SLACK and high <= 1 + _SLACK):  # NaN too fails both
            raise LimnerError(
                f"images must lie in [-1,1], these reach from {low:g} to {high:g}; scale them, or clamp a net's output"
            )
        if grey.shape[1] == 3:
            grey = (grey * torch.tensor(_LUMA, device=device)[:, None, None]).sum(1, keepdim=True)
        if grey.shape[2:] != (28, 28):
            grey = F.interpolate(grey, (28, 28), mode="bilinear", align_corners=False, antialias=True)
        yield grey


def lenet64(device: torch.device | str = "cpu") -> Extractor:
    """The digit classifier ``lenet64-v1``, read once for each device.

    >>> lenet64().key
    'lenet64-v1'

    Raises:
        LimnerError: its file is missing or not the one that limner was released with.
    """
    return _loaded("lenet64-v1", str(torch.device(device)))


@cache
def _loaded(key: str, device: str) -> Extractor:
    path = _WEIGHTS / f"{key}.safetensors"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LimnerError(
            f"{path.name} of limner's metrics cannot be read ({error.strerror}); reinstall limner"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256[key]:
        raise LimnerError(
            f"{path.name} is not the file that limner was released with (sha256 {found[:12]}…, not"
            f" {_SHA256[key][:12]}…), so its scores would compare with no others; reinstall limner"
        )
    weights = parse_safetensors(content)
    mean, std = weights.pop("mean").to(device), weights.pop("std").to(device)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    net = _LeNet64()
    net.load_state_dict(weights)
    net.requires_grad_(False).eval().to(device)
    return Extractor(key, len(mean), net.head.out_features, torch.device(device), about, net, mean, std)
