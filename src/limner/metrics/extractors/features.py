"""Features that scores are computed on: small classifiers that limner trained itself, and one extractor for any images.

A distance between sets of images is a distance between their features, so it means something only together with the
extractor, and only beside distances of the same extractor. The key of each one, such as ``lenet64-v1``, therefore
goes into the name of every score: ``fd@lenet64-v1[n=10000]``.

=================  ========================================================================================
key                what it knows
=================  ========================================================================================
``lenet64-v1``     digits: MNIST and sets like it
``fashion64-v1``   clothes: Fashion-MNIST
``random192-v1``   no labels: a random convolutional net and the principal components of the training images
=================  ========================================================================================

The classifiers follow LeNet-5 in kind (LeCun, Bottou, Bengio and Haffner 1998, *Gradient-based learning applied to
document recognition*): convolutions and pooling, a hidden layer of 64 numbers, ten logits. Their features are those
64 numbers *before* the ReLU, z-scored by their mean and standard deviation over the 60,000 training images. There they
are closer to Gaussian, which is what a Fréchet distance takes them for; none is constant; and the half that the
classifier drops still tells images of one class apart. How each was trained and how well it does is in the header of
its file; ``benchmarks/extractor.py`` makes them anew.

Classifiers are blind to what their labels do not need. `Random` has no labels: 128 channel means of a convolutional net
that was never trained, and 64 principal components of the pixels. Where the two rank models differently, look closer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load as parse_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.batch import Dataset, to_float, to_uint8
from limner.core.errors import LimnerError, unknown

_WEIGHTS = Path(__file__).parent / "weights"
_SHA256 = {
    "lenet64-v1": "aba33b238fd4b263c7e2d9f7fbfa8ddfc8899d8bef7a049e93388f38a93a0433",
    "fashion64-v1": "a36fd32ba2cb6a2de6ce984cd130fd186e05c45876923c295fb4a7bb92fe8a74",
}
KEYS = {"mnist": "lenet64-v1", "mnist-5k": "lenet64-v1", "fashion-mnist": "fashion64-v1"}
"""The classifier that knows a data set."""
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


@runtime_checkable
class Extractor(Protocol):
    """Turns images into features that sets of images are compared in."""

    @property
    def key(self) -> str:
        """Name and version, for the names of scores."""
        ...

    @property
    def dims(self) -> int:
        """How many features an image has."""
        ...

    def features(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Features (B,dims) float32 of images (B,C,H,W), uint8 or in [-1,1], `batch` at a time."""
        ...


@dataclass(frozen=True)
class Classifier:
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
    for part in checked(x, batch, device):
        grey = part
        if grey.shape[1] == 3:
            grey = (grey * torch.tensor(_LUMA, device=device)[:, None, None]).sum(1, keepdim=True)
        yield resized(grey, (28, 28))


def checked(x: Tensor, batch: int, device: torch.device) -> Iterator[Tensor]:
    """Float32 images in [-1,1], at most `batch` at a time; refuses all others."""
    if batch < 1:
        raise LimnerError(f"a batch holds at least 1 image, got batch={batch}")
    for part in x.split(batch) if len(x) else ():
        part = to_float(part.to(device)).float()
        low, high = (float(v) for v in part.aminmax())
        if not (low >= -1 - _SLACK and high <= 1 + _SLACK):  # NaN too fails both
            raise LimnerError(
                f"images must lie in [-1,1], these reach from {low:g} to {high:g}; scale them, or clamp a net's output"
            )
        yield part


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B,C,H,W) at another size, bilinear and antialiased."""
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def lenet64(device: torch.device | str = "cpu") -> Classifier:
    """The digit classifier ``lenet64-v1``, read once for each device.

    >>> lenet64().key
    'lenet64-v1'

    Raises:
        LimnerError: its file is missing or not the one that limner was released with.
    """
    return classifier("lenet64-v1", device)


def classifier(key: str, device: torch.device | str = "cpu") -> Classifier:
    """One of the classifiers that limner ships, read once for each device.

    Raises:
        LimnerError: there is none of this name, or its file is missing or not the one that limner was released with.
    """
    if key not in _SHA256:
        raise unknown("classifier", key, _SHA256)
    return _loaded(key, str(torch.device(device)))


@cache
def _loaded(key: str, device: str) -> Classifier:
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
    return Classifier(key, len(mean), net.head.out_features, torch.device(device), about, net, mean, std)


class Random:
    """Features without labels, for images of any kind: ``random192-v1``.

    128 numbers are channel means of a convolutional net with random weights (Saxe et al. 2011, *On random weights and
    unsupervised feature learning*), which see texture and edges wherever they are; up to 64 are principal components of
    the pixels at 16×16, which see what lies where. All are z-scored. Images are resized to 32×32, bilinear and
    antialiased, and keep their channels. The components come from the training images, so the key ends in a hash of
    those: scores on other data do not compare.

    >>> Random(torch.randint(0, 256, (100, 3, 48, 64), dtype=torch.uint8)).features(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 192])

    Args:
        training: images (N,C,H,W), uint8 or in [-1,1]; 5,000 spread evenly over them are looked at.
        device: where it computes and where results are.

    Raises:
        LimnerError: there are fewer than 2 images.
    """

    LOOKED_AT = 5000
    _SIDE, _COARSE, _CHANNELS, _COMPONENTS = 32, 16, (32, 64, 128), 64

    def __init__(self, training: Tensor, device: torch.device | str = "cpu") -> None:
        if len(training) < 2:
            raise LimnerError(f"features need at least 2 training images, there are {len(training)}")
        self.device = torch.device(device)
        self.channels = training.shape[1]
        self._net = self._random_net(self.channels).to(self.device)
        chosen = training[torch.linspace(0, len(training) - 1, min(len(training), self.LOOKED_AT)).long()]
        pixels = torch.cat([self._coarse(p).cpu().double() for p in self._prepared(chosen, 256)])
        middle = pixels.mean(0)
        values, vectors = torch.linalg.eigh((pixels - middle).T @ (pixels - middle))
        axes = vectors[:, -min(self._COMPONENTS, len(chosen) - 1, len(values)) :].flip(1)
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # the largest entry is positive
        self._middle, self._axes = middle.float().to(self.device), axes.float().to(self.device)
        self.dims = self._CHANNELS[-1] + axes.shape[1]
        self._mean, self._std = torch.zeros(self.dims).to(self.device), torch.ones(self.dims).to(self.device)
        found = self.features(chosen)
        std = found.std(0)
        self._mean, self._std = found.mean(0), torch.where(std > 1e-4 * std.max(), std, torch.ones_like(std))
        content = chosen if chosen.dtype == torch.uint8 else to_uint8(chosen)
        told = hashlib.sha256(content.cpu().numpy().tobytes() + repr(tuple(chosen.shape)).encode()).hexdigest()
        self.key = f"random{self.dims}-v1-{told[:8]}"

    def _random_net(self, channels: int) -> nn.Module:
        """Convolutions with He's variance, weights from a generator that numpy promises never to change."""
        chance, layers = np.random.RandomState(0), []
        for width in self._CHANNELS:
            layer = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            drawn = chance.standard_normal(layer.weight.shape) * (2 / (9 * channels)) ** 0.5
            layer.weight = nn.Parameter(torch.from_numpy(drawn).float())
            layers += [layer, nn.ReLU(), nn.AvgPool2d(2)]
            channels = width
        return nn.Sequential(*layers).requires_grad_(False).eval()

    def _prepared(self, x: Tensor, batch: int) -> Iterator[Tensor]:
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise LimnerError(f"these features are of images (B,{self.channels},H,W), got the shape {tuple(x.shape)}")
        for part in checked(x, batch, self.device):
            yield resized(part, (self._SIDE, self._SIDE))

    def _coarse(self, x: Tensor) -> Tensor:
        """What the components are of: pixels (B,C·16·16)."""
        return resized(x, (self._COARSE, self._COARSE)).flatten(1)

    @torch.inference_mode()
    def features(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Features (B,dims) float32 of images (B,C,H,W), uint8 or in [-1,1].

        Raises:
            LimnerError: these are no such images, or some are not finite or outside [-1,1].
        """
        found = []
        with torch.autocast(self.device.type, enabled=False):
            for part in self._prepared(x, batch):
                textures = self._net(part).mean((2, 3))
                places = (self._coarse(part) - self._middle) @ self._axes
                found.append((torch.cat([textures, places], 1) - self._mean) / self._std)
        return torch.cat(found) if found else torch.empty(0, self.dims, device=self.device)


def fitted(dataset: Dataset, device: torch.device | str = "cpu") -> Random:
    """`Random`, fitted to the training images of a data set."""
    n = min(len(dataset), Random.LOOKED_AT)
    return Random(dataset.fetch([i * len(dataset) // n for i in range(n)]), device)
