"""Pinned readers of attributes: small convolutional nets with a head for each attribute of a data set.

==============  =====================================================================
key             trained on
==============  =====================================================================
``avatars-v1``  cartoon faces (`avatars`): hair, its colour, skin, beard, glasses, mouth, eyes
``solids-v1``   a shaded head (`solids`): azimuth, elevation, light, width
==============  =====================================================================

Each was trained on the combinations that the split ``train`` shows, and its accuracy on the held-out combinations is in
the header of its file (`AttributeReader.about`). Images are looked at in 32×32 pixels. The features for a Fréchet
distance are the 128 values before the last ReLU, z-scored over training images, as those of
`limner.metrics.extractors.features`. ``benchmarks/attribute_reader.py`` trains the readers again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from limner.core.errors import LimnerError, unknown
from limner.metrics.extractors.features import checked, frozen, read_weights, resized, standardised, three_halvings

_SHA256 = {
    "avatars-v1": "120d42970eea7f6001552c1da54b49861ac72fa78067854ee4f238d99b879987",
    "solids-v1": "08d51889f0bfa2150026b722995199a0704a882843a0f61292e98e6c53cf6066",
}
KEYS = {"avatars": "avatars-v1", "solids": "solids-v1"}
"""The reader of a data set."""
SIDE = 32
"""Pixels of a side of the images that the nets look at."""


class AttributeNet(nn.Module):
    """Images (B,C,32,32) in [-1,1] -> 128 values and the logits of all attributes side by side.

    Args:
        channels: channels of the images.
        outputs: number of logits.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.body = three_halvings(channels, (16, 32, 64), 3, SIDE, 128)
        self.head = nn.Linear(128, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B,128) before the ReLU, and logits (B,outputs)."""
        codes = self.body(x)
        return codes, self.head(codes.relu())


@dataclass(frozen=True, eq=False)
class AttributeReader:
    """Reads the attributes of images, and computes features of them.

    Images are (B,C,H,W), uint8 in [0,255] or floating in [-1,1], of any size: others than 32×32 are resized, bilinear
    and antialiased. A reader of colour images reads grey ones too, as far as they tell. The argument
    `batch` bounds the memory; results do not depend on it beyond rounding.

    Attributes:
        key: name and version, for the names of scores.
        values: names of the values of each attribute, in the order of its logits.
        dims: number of features of an image.
        channels: channels of the images that it reads.
        device: where it computes and where results are.
        about: how it was trained; ``accuracy_test`` is its accuracy on held-out combinations for each attribute.
    """

    key: str
    values: dict[str, list[str]]
    dims: int
    channels: int
    device: torch.device
    about: dict[str, Any] = field(repr=False)
    _net: AttributeNet = field(repr=False)
    _mean: Tensor = field(repr=False)
    _std: Tensor = field(repr=False)

    @property
    def quantities(self) -> dict[str, float | None]:
        """The attributes whose values are numbers, each with its period; None for one that does not repeat."""
        return dict(self.about.get("quantities", {}))

    def features(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Features (B,128) float32 of images (B,C,H,W), z-scored by the training set.

        Args:
            x: images, uint8 or in [-1,1].
            batch: images at a time. Raise it for speed on a GPU; lower it if memory is short.

        Raises:
            LimnerError: the shape or type is wrong, or values are not finite or outside [-1,1].
        """
        return self._computed(x, batch)[0]

    def logits(self, x: Tensor, *, batch: int = 256) -> dict[str, Tensor]:
        """Logits (B,K) by attribute of images (B,C,H,W); the arguments of `features`."""
        sizes = [len(names) for names in self.values.values()]
        return dict(zip(self.values, self._computed(x, batch)[1].split(sizes, 1), strict=True))

    def read(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Value indices (B,F) int64 of images (B,C,H,W), an attribute a column; the arguments of `features`."""
        return torch.stack([logits.argmax(1) for logits in self.logits(x, batch=batch).values()], 1)

    def recognise(self, x: Tensor) -> Tensor:
        """Features (B,128) of images (B,C,H,W) in [-1,1], those of `features`, with gradients of the images.

        They tell a search which pictures look like a given one (`limner.apply.relabel.of_features`). All images are
        looked at together, and their range is not checked.
        """
        with torch.inference_mode(False), torch.autocast(self.device.type, enabled=False):
            codes, _ = self._net(self._looked_at(x.to(self.device).float()))
            features: Tensor = (codes - self._mean) / self._std
            return features

    def _computed(self, x: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        parts = self._prepared(x, batch)
        return standardised(self._net, parts, len(x), self._net.head.out_features, self._mean, self._std)

    def _prepared(self, x: Tensor, batch: int) -> Iterator[Tensor]:
        known = {self.channels, 1}
        if x.ndim != 4 or x.shape[1] not in known or not (x.dtype == torch.uint8 or x.is_floating_point()):
            kinds = "grey or colour images (B,1 or 3,H,W)" if self.channels == 3 else "grey images (B,1,H,W)"
            raise LimnerError(
                f"{self.key} reads {kinds}, uint8 or floating; it got a {str(x.dtype).removeprefix('torch.')} tensor of"
                f" shape {tuple(x.shape)}"
            )
        for part in checked(x, batch, self.device):
            yield self._looked_at(part)

    def _looked_at(self, x: Tensor) -> Tensor:
        return resized(x, (SIDE, SIDE)).expand(-1, self.channels, -1, -1)


def attribute_reader(key: str, device: torch.device | str = "cpu") -> AttributeReader:
    """One of the readers of limner, read once for each device.

    >>> attribute_reader("avatars-v1").values["glasses"]
    ['none', 'round', 'square']

    Raises:
        LimnerError: the key is unknown, or the file is missing or not the one that limner was released with.
    """
    if key not in _SHA256:
        raise unknown("reader of attributes", key, _SHA256)
    return _loaded(key, str(torch.device(device)))


@cache
@torch.inference_mode(False)  # tensors of inference mode would keep no gradients of the images
def _loaded(key: str, device: str) -> AttributeReader:
    weights, about = read_weights(key, _SHA256[key])
    mean, std = weights.pop("mean").to(device), weights.pop("std").to(device)
    channels = weights["body.0.weight"].shape[1]
    net = frozen(AttributeNet(channels, len(weights["head.bias"])), weights, device)
    return AttributeReader(key, about["values"], len(mean), channels, torch.device(device), about, net, mean, std)
