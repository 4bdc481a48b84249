"""Data sets that fit in memory as one tensor, so that a batch is one indexing operation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limner.core.batch import Augment, Dataset, ImageSet, Part, Styled, evenly_spaced, to_float
from limner.core.condition import Classes, Condition
from limner.core.errors import LimnerError
from limner.data.arrays import Arrays, Cloud
from limner.data.densities import Density
from limner.data.files import decode
from limner.data.options import Options
from limner.data.steps import augmentations, binarised, captions, choose, conditioned, fingerprint, identity


class Pixels(ImageSet):
    """A set in one tensor. Satisfies `limner.core.batch.Dataset`.

    Args:
        name: the name of the set.
        pixels: (N,C,H,W) uint8, or float32 where the items are not images.
        labels: (N,…), as the condition reads them: (N,) int64 class indices, or (N,size) float32 vectors.
        classes: names of the classes.
        condition: instead of classes, what the labels are.
        texts: the captions of each image, none or several.
        augment: functions applied to each training batch.
        notes: messages for the user.
        quarantine: (path, reason) of each file that was left out.
        paths: the path of each image, relative to the folder or ZIP.
        factors: (N,F) int64 generative factors, where they are known.
        factor_sizes: the number of values of each factor.
        factor_names: the names of the factors.
        prepared: text that becomes part of the fingerprint, such as the options.
    """

    def __init__(
        self,
        name: str,
        pixels: Tensor,
        *,
        labels: Tensor | None = None,
        classes: list[str] | None = None,
        condition: Condition | None = None,
        texts: Sequence[Sequence[str]] | None = None,
        augment: tuple[Augment, ...] = (),
        notes: Sequence[str] = (),
        quarantine: Sequence[tuple[str, str]] = (),
        paths: list[str] | None = None,
        factors: Tensor | None = None,
        factor_sizes: tuple[int, ...] | None = None,
        factor_names: tuple[str, ...] | None = None,
        prepared: str = "",
    ) -> None:
        self.name = name
        self.pixels: Tensor | None = pixels  # a `Dataset` may have None
        self._pixels = pixels
        _, c, h, w = pixels.shape
        self.shape = (int(c), int(h), int(w))
        self.labels, self.augment = labels, augment
        self.condition = condition if classes is None else Classes(classes)
        self.texts = texts
        self.notes, self.quarantine, self.paths = list(notes), list(quarantine), paths
        self.factors, self.factor_sizes, self.factor_names = factors, factor_sizes, factor_names
        labels_ = None if labels is None else labels.numpy()
        self.fingerprint = fingerprint(prepared, pixels.numpy(), labels_, *captions(texts))

    def __len__(self) -> int:
        return len(self._pixels)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self)} × {self.shape})"

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Items as (B,C,H,W), in the type of `pixels`."""
        return self._pixels[torch.as_tensor(indices, dtype=torch.int64)]


class StyledSet(ImageSet):
    """Content images and style images for style transfer. Satisfies `limner.core.batch.Dataset`.

    Args:
        images: the content; one image or many.
        styles: each (1,3,h,w) uint8.
        masks: for each style (1,1,H,W) uint8, or None where it applies everywhere.
        first: (1,3,h,w) uint8, the initial image, or None.
        fingerprint: identifies content and styles together; by default that of `images`.
    """

    batch_type: type = Styled
    labels: Tensor | None = None

    def __init__(
        self,
        images: Dataset,
        styles: tuple[Tensor, ...],
        masks: tuple[Tensor | None, ...],
        first: Tensor | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self.images, self.styles, self.masks, self.first = images, styles, masks, first
        self.name, self.shape, self.pixels, self.augment = images.name, images.shape, images.pixels, images.augment
        self.notes, self.quarantine = images.notes, images.quarantine
        self.fingerprint = fingerprint or images.fingerprint
        self._styles_by_device: dict[torch.device, tuple[Any, ...]] = {}

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Content images as (B,C,H,W) uint8."""
        return self.images.fetch(indices)

    def parts(self) -> tuple[Any, ...]:
        """The content images, which are the only part that is sampled."""
        return (self.images,)

    def collate(self, parts: Sequence[Part]) -> Styled:
        """A batch of content images with all styles."""
        (part,) = parts
        device = part.x.device
        if device not in self._styles_by_device:
            styles = tuple(to_float(s.to(device)) for s in self.styles)
            masks = tuple(None if m is None else m.to(device).float() / 255 for m in self.masks)
            self._styles_by_device[device] = (
                styles,
                masks,
                None if self.first is None else to_float(self.first.to(device)),
            )
        return Styled(part.x, *self._styles_by_device[device])


class Points(Pixels):
    """Points of a line or of the plane, (N,D,1,1) float32. Satisfies `limner.core.batch.HasDensity`.

    Args:
        name: the name of the set.
        pixels: the points.
        centres: (K,D) modes of the density, or None for a curve.
        sigma: standard deviation around a centre or a curve.
        labels: (N,) the index of each point's centre.
        density: the density of the points, or None where it is not known.
        notes: messages for the user.
        prepared: the options, which become part of the fingerprint.
    """

    def __init__(
        self,
        name: str,
        pixels: Tensor,
        *,
        centres: Tensor | None,
        sigma: float,
        labels: Tensor | None = None,
        density: Density | None = None,
        notes: Sequence[str] = (),
        prepared: str = "",
    ) -> None:
        classes = None if labels is None or centres is None else [str(k) for k in range(len(centres))]
        super().__init__(name, pixels, labels=labels, classes=classes, notes=notes, prepared=prepared)
        self.centres, self.sigma, self.density = centres, sigma, density

    def log_density(self, x: Tensor) -> Tensor | None:
        """Log p(x) of the points' density in nats, (N,) float64 on the CPU, of points x (N,D,1,1); None if unknown."""
        if self.density is None:
            return None
        return torch.from_numpy(self.density.log_density(x.detach().flatten(1).cpu().double().numpy()))

    @cached_property
    def entropy(self) -> float | None:
        """Differential entropy of the points' density in nats; None if unknown."""
        return None if self.density is None else self.density.entropy()


def from_cloud(name: str, cloud: Cloud, prepared: str) -> Points:
    """Makes a data set of points."""
    n, d = cloud.points.shape
    density = f"{len(cloud.centres)} Gaussians" if cloud.centres is not None else "a curve"
    return Points(
        name,
        torch.from_numpy(cloud.points).view(n, d, 1, 1),
        centres=None if cloud.centres is None else torch.from_numpy(cloud.centres),
        sigma=cloud.sigma,
        labels=None if cloud.labels is None else torch.from_numpy(cloud.labels),
        density=cloud.density,
        notes=[f"drew {n} points in {d} dimension{'s' * (d > 1)} from {density} with sigma {cloud.sigma:g}"],
        prepared=prepared,
    )


def from_arrays(name: str, arrays: Arrays, options: Options) -> Pixels:
    """Makes a data set of the images that the options select, at the size and channels that they ask for.

    Raises:
        LimnerError: no image is left, or a class or value does not exist.
    """
    labels, known, chosen = choose(name, arrays.labels, arrays.classes or arrays.attributes, options)
    keep = np.ones(len(arrays.images), dtype=bool) if chosen is None else chosen.copy()
    if options.split != "all" and arrays.test is not None:
        keep &= arrays.test == (options.split == "test")
    ids = np.flatnonzero(keep)
    ids = ids[evenly_spaced(len(ids), options.limit or len(ids))]
    if not len(ids):
        raise LimnerError(f"{name}: no image is left; loosen 'split', 'only' or 'without'")
    images = arrays.images[ids]
    notes = [f"{name}: {len(ids)} images ({options.split})", *arrays.notes]
    pixels = torch.from_numpy(_prepared(images if images.ndim == 4 else images[..., None], options, notes))
    if options.binarise == "static":
        pixels = binarised(pixels, torch.from_numpy(ids))
    y, condition = conditioned(None if labels is None else labels[ids], known)
    if isinstance(known, dict):
        notes.append("attributes: " + ", ".join(f"{attribute} {len(values)}" for attribute, values in known.items()))
    return Pixels(
        name,
        pixels,
        labels=y,
        condition=condition,
        texts=None if arrays.texts is None else [arrays.texts[i] for i in ids],
        augment=augmentations(options),
        notes=notes,
        factors=None if arrays.factors is None else torch.from_numpy(arrays.factors[ids]),
        factor_sizes=arrays.factor_sizes,
        factor_names=arrays.factor_names,
        prepared=identity(known, options),
    )


def _prepared(images: NDArray[np.uint8], options: Options, notes: list[str]) -> NDArray[np.uint8]:
    """(N,H,W,C) -> (N,C,H,W) with the size and the channels of the options."""
    _, h, w, c = images.shape
    size, channels = options.height_width or (h, w), options.channels or c
    if (size, channels) == ((h, w), c):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if channels != c:
        notes.append(f"channels: {c} -> {channels}")
    if size != (h, w):
        enlarged = ", which enlarges them and adds no detail" if size[0] > h or size[1] > w else ""
        notes.append(f"size: {h}x{w} -> {size[0]}x{size[1]}{enlarged}")
    out = np.empty((len(images), channels, *size), dtype=np.uint8)
    for i, image in enumerate(images):
        out[i] = decode.pixels(decode.channelled(decode.fitted(decode.from_array(image), size), channels))
    return out
