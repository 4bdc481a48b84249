"""Features that scores are computed on: small classifiers trained for limner, and one extractor for any images.

Distances between sets of images are distances between their features, so only distances of the same extractor can be
compared. The key of the extractor, such as ``lenet64-v1``, is therefore part of the name of every score:
``fd@lenet64-v1[n=10000]``.

=================  ========================================================================================
key                trained on
=================  ========================================================================================
``lenet64-v1``     digits: MNIST and sets like it
``fashion64-v1``   clothes: Fashion-MNIST
``random192-v1``   no labels: a random convolutional net and the principal components of the training images
=================  ========================================================================================

The classifiers are similar to LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998, *Gradient-based learning applied to
document recognition*): convolutions and pooling, a hidden layer of 64 units, ten logits. Their features are these 64
values *before* the ReLU, z-scored by their mean and standard deviation over the 60,000 training images. Before the
ReLU they are closer to Gaussian, as a Fréchet distance assumes; none is constant; and negative values still
distinguish images of one class. The header of each file states how the net was trained and its accuracy;
``benchmarks/extractor.py`` trains them again.

Classifiers ignore what their labels do not need. `Random` needs no labels: its features are 128 channel means of an
untrained convolutional net and 64 principal components of the pixels. If the two rank models differently, look at the
samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load as parse_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.batch import Dataset, at_once, to_float, to_uint8
from limner.core.errors import LimnerError, unknown

_WEIGHTS = Path(__file__).parent / "weights"
_SHA256 = {
    "lenet64-v1": "aba33b238fd4b263c7e2d9f7fbfa8ddfc8899d8bef7a049e93388f38a93a0433",
    "fashion64-v1": "a36fd32ba2cb6a2de6ce984cd130fd186e05c45876923c295fb4a7bb92fe8a74",
}
KEYS = {"mnist": "lenet64-v1", "mnist-5k": "lenet64-v1", "fashion-mnist": "fashion64-v1"}
"""The classifier for a data set."""
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as for grey images of PIL
_VALUES = 1 << 25  # of images made into floats at once
_SLACK = 1e-3  # resized images may exceed the range by rounding
Net = TypeVar("Net", bound=nn.Module)


def three_halvings(channels: int, widths: tuple[int, int, int], kernel: int, side: int, hidden: int) -> nn.Sequential:
    """Images (B,C,side,side) -> values (B,hidden): convolutions with pooling, of which the first has its own kernel."""
    layers, before = list[nn.Module](), channels
    for i, width in enumerate(widths):
        k = 3 if i else kernel
        layers += [nn.Conv2d(before, width, k, padding=k // 2), nn.ReLU(), nn.MaxPool2d(2)]
        before = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * (side // 8) ** 2, hidden))


class _LeNet64(nn.Module):
    """Grey images (B,1,28,28) -> 64 values and 10 logits; 93,834 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = three_halvings(1, (32, 64, 64), 5, 28, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B,64) before the ReLU, and logits (B,10)."""
        codes = self.body(x)
        return codes, self.head(codes.relu())


@runtime_checkable
class Extractor(Protocol):
    """Computes the features in which sets of images are compared."""

    @property
    def key(self) -> str:
        """Name and version, for the names of scores."""
        ...

    @property
    def dims(self) -> int:
        """Number of features of an image."""
        ...

    def features(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Features (B,dims) float32 of images (B,C,H,W), uint8 or in [-1,1], `batch` at a time."""
        ...


@dataclass(frozen=True)
class Classifier:
    """Computes features and class logits of images.

    Images are (B,C,H,W), uint8 in [0,255] or floating in [-1,1], grey or colour, of any size. Colour is converted to
    grey, and other sizes are resized to 28×28, bilinear and antialiased. The argument `batch` bounds the memory;
    results do not depend on it beyond rounding.

    Attributes:
        key: name and version, for the names of scores.
        dims: number of features of an image.
        classes: number of classes.
        device: where it computes and where results are.
        about: how it was trained, and its accuracy.
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
            LimnerError: the shape or type is wrong, or values are not finite or outside [-1,1].
        """
        return self.both(x, batch=batch)[0]

    def classify(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Logits (B,10) float32 of images (B,C,H,W); the arguments of `features`."""
        return self.both(x, batch=batch)[1]

    def both(self, x: Tensor, *, batch: int = 256) -> tuple[Tensor, Tensor]:
        """Features and logits in one pass; the arguments of `features`."""
        parts = grey_batches(x, (28, 28), batch, self.device, self.key)
        return standardised(self._net, parts, len(x), self.classes, self._mean, self._std)


@torch.inference_mode()
def standardised(
    net: nn.Module, parts: Iterable[Tensor], n: int, outputs: int, mean: Tensor, std: Tensor
) -> tuple[Tensor, Tensor]:
    """Z-scored values (n,d) and logits (n,outputs) that a net gives for batches of n images in all, in float32."""
    codes, logits = torch.empty(n, len(mean), device=mean.device), torch.empty(n, outputs, device=mean.device)
    done = 0
    with torch.autocast(mean.device.type, enabled=False):
        for part in parts:
            rows = slice(done, done := done + len(part))
            z, logits[rows] = net(part)
            codes[rows] = (z - mean) / std
    return codes, logits


def grey_batches(x: Tensor, size: tuple[int, int], batch: int, device: torch.device, key: str) -> Iterator[Tensor]:
    """Grey float32 images (b,1,h,w) in [-1,1] of a size, at most `batch` at a time, for the extractor `key`.

    Raises:
        LimnerError: the shape or type is wrong, or values are not finite or outside [-1,1].
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise LimnerError(
            f"{key} reads grey or colour images (B,1 or 3,H,W), uint8 or floating; it got a"
            f" {str(x.dtype).removeprefix('torch.')} tensor of shape {tuple(x.shape)}"
        )
    for part in checked(x, batch, device):
        if part.shape[1] == 3:
            part = (part * torch.tensor(_LUMA, device=device)[:, None, None]).sum(1, keepdim=True)
        yield resized(part, size)


def checked(x: Tensor, batch: int, device: torch.device) -> Iterator[Tensor]:
    """Float32 images in [-1,1], at most `batch` at a time; others are refused."""
    if batch < 1:
        raise LimnerError(f"a batch has at least 1 image, got batch={batch}")
    for part in x.split(at_once(x, _VALUES, batch)) if len(x) else ():
        part = to_float(part.to(device)).float()
        check_range(part)
        yield part


def check_range(x: Tensor) -> None:
    """Raises a `LimnerError` where images are not finite or outside [-1,1]."""
    low, high = (float(v) for v in x.aminmax())
    if not (low >= -1 - _SLACK and high <= 1 + _SLACK):  # false for NaN too
        raise LimnerError(
            f"images must lie in [-1,1], these reach from {low:g} to {high:g}; scale them, or clamp a net's output"
        )


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B,C,H,W) at another size, bilinear and antialiased."""
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def lenet64(device: torch.device | str = "cpu") -> Classifier:
    """The digit classifier ``lenet64-v1``; see `classifier`.

    >>> lenet64().key
    'lenet64-v1'
    """
    return classifier("lenet64-v1", device)


def classifier(key: str, device: torch.device | str = "cpu") -> Classifier:
    """One of the classifiers of limner, read once for each device.

    Raises:
        LimnerError: the key is unknown, or the file is missing or not the one that limner was released with.
    """
    if key not in _SHA256:
        raise unknown("classifier", key, _SHA256)
    return _loaded(key, str(torch.device(device)))


@cache
def _loaded(key: str, device: str) -> Classifier:
    weights, about = read_weights(key, _SHA256[key])
    mean, std = weights.pop("mean").to(device), weights.pop("std").to(device)
    net = frozen(_LeNet64(), weights, device)
    return Classifier(key, len(mean), net.head.out_features, torch.device(device), about, net, mean, std)


def frozen(net: Net, weights: Mapping[str, Tensor], device: torch.device | str) -> Net:
    """A net in evaluation mode with these weights, which have no gradient."""
    net.load_state_dict(weights)
    return net.requires_grad_(False).eval().to(device)


def read_weights(key: str, sha256: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a weights file of limner, and what its header says about them.

    Raises:
        LimnerError: the file is missing or not the one that limner was released with.
    """
    path = _WEIGHTS / f"{key}.safetensors"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LimnerError(
            f"{path.name} of limner's metrics cannot be read ({error.strerror}); reinstall limner"
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise LimnerError(
            f"{path.name} is not the file that limner was released with (sha256 {digest[:12]}…, not {sha256[:12]}…), so"
            " its scores could not be compared with others; reinstall limner"
        )
    with safe_open(path, "pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["about"])
    return parse_safetensors(content), about


class Random:
    """Features without labels, for images of any kind: ``random192-v1``.

    128 of them are channel means of a convolutional net with random weights (Saxe et al. 2011, *On random weights and
    unsupervised feature learning*), which depend on texture and edges; up to 64 are principal components of the pixels
    at 16×16, which depend on positions. All are z-scored. Images are resized to 32×32, bilinear and antialiased, and
    keep their channels. The components come from the training images, so the key ends in a hash of these: scores on
    other data cannot be compared.

    >>> Random(torch.randint(0, 256, (100, 3, 48, 64), dtype=torch.uint8)).features(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 192])

    Args:
        training: images (N,C,H,W), uint8 or in [-1,1], of which 5,000 evenly spaced ones are used.
        device: where it computes and where results are.

    Raises:
        LimnerError: there are fewer than 2 images.
    """

    MAX_IMAGES = 5000
    _SIDE, _COARSE, _CHANNELS, _COMPONENTS = 32, 16, (32, 64, 128), 64

    def __init__(self, training: Tensor, device: torch.device | str = "cpu") -> None:
        if len(training) < 2:
            raise LimnerError(f"features need at least 2 training images, there are {len(training)}")
        self.device = torch.device(device)
        self.channels = training.shape[1]
        self._net = self._random_net(self.channels).to(self.device)
        sample = training[torch.linspace(0, len(training) - 1, min(len(training), self.MAX_IMAGES)).long()]
        pixels = torch.cat([self._coarse(p).cpu().double() for p in self._prepared(sample, 256)])
        mean_pixels = pixels.mean(0)
        values, vectors = torch.linalg.eigh((pixels - mean_pixels).T @ (pixels - mean_pixels))
        axes = vectors[:, -min(self._COMPONENTS, len(sample) - 1, len(values)) :].flip(1)
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # the largest entry is positive
        self._mean_pixels, self._axes = mean_pixels.float().to(self.device), axes.float().to(self.device)
        self.dims = self._CHANNELS[-1] + axes.shape[1]
        self._mean, self._std = torch.zeros(self.dims).to(self.device), torch.ones(self.dims).to(self.device)
        z = self.features(sample)
        std = z.std(0)
        self._mean, self._std = z.mean(0), torch.where(std > 1e-4 * std.max(), std, torch.ones_like(std))
        content = sample if sample.dtype == torch.uint8 else to_uint8(sample)
        digest = hashlib.sha256(content.cpu().numpy().tobytes() + repr(tuple(sample.shape)).encode()).hexdigest()
        self.key = f"random{self.dims}-v1-{digest[:8]}"

    def _random_net(self, channels: int) -> nn.Module:
        rng, layers = np.random.RandomState(0), list[nn.Module]()
        for width in self._CHANNELS:
            layers += [random_conv(rng, channels, width, bias=False), nn.ReLU(), nn.AvgPool2d(2)]
            channels = width
        return nn.Sequential(*layers).requires_grad_(False).eval()

    def _prepared(self, x: Tensor, batch: int) -> Iterator[Tensor]:
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise LimnerError(f"these features need images (B,{self.channels},H,W), got the shape {tuple(x.shape)}")
        for part in checked(x, batch, self.device):
            yield resized(part, (self._SIDE, self._SIDE))

    def _coarse(self, x: Tensor) -> Tensor:
        """Pixels (B,C·16·16), from which the components are computed."""
        return resized(x, (self._COARSE, self._COARSE)).flatten(1)

    @torch.inference_mode()
    def features(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Features (B,dims) float32 of images (B,C,H,W), uint8 or in [-1,1].

        Raises:
            LimnerError: the shape is wrong, or values are not finite or outside [-1,1].
        """
        parts = []
        with torch.autocast(self.device.type, enabled=False):
            for part in self._prepared(x, batch):
                textures = self._net(part).mean((2, 3))
                components = (self._coarse(part) - self._mean_pixels) @ self._axes
                parts.append((torch.cat([textures, components], 1) - self._mean) / self._std)
        return torch.cat(parts) if parts else torch.empty(0, self.dims, device=self.device)


def random_conv(rng: np.random.RandomState, before: int, after: int, **settings: Any) -> nn.Conv2d:
    """A 3×3 convolution with He's variance; numpy guarantees that the numbers of `RandomState` never change."""
    layer = nn.Conv2d(before, after, 3, padding=1, **settings)
    weight = rng.standard_normal(layer.weight.shape) * (2 / (9 * before)) ** 0.5
    layer.weight = nn.Parameter(torch.from_numpy(weight).float())
    return layer


def fitted(dataset: Dataset, device: torch.device | str = "cpu") -> Random:
    """`Random` features fitted to the training images of a data set."""
    n = min(len(dataset), Random.MAX_IMAGES)
    return Random(dataset.fetch([i * len(dataset) // n for i in range(n)]), device)
