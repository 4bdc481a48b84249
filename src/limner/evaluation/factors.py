"""Factors of variation read from images: how decoders without an encoder are judged for disentanglement.

A GAN, a flow or a diffusion model has no codes of given images, but it has images of given codes. Draw z, decode it,
let a net that was trained on the true factors say what is in the picture, and the codes z with the factors read are a
table like that of an encoder: the same scores are computed from both, so all families compare.

The reader ``sprites-v1`` knows `mini-dsprites` (shape 3, scale 6, angle 10, x 8, y 8). Ten angles a tenth of a turn
apart go once around, and a square repeats every quarter turn, an ellipse every half: angle k and angle k + 5 are one
and the same picture of either, so both have 5 angles that can be told apart and only a heart has 10. Accuracy is
therefore counted modulo that symmetry (`canonical`), and disentanglement on the angle modulo half a turn for all three
shapes (`half_turn`): that is in every picture, and independent of the shape as the scores assume of factors.
``benchmarks/factor_reader.py`` trains it anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load as parse_safetensors
from torch import Tensor, nn

from limner.core.batch import Dataset, to_float
from limner.core.capabilities import Conditional, Encodes, Generates
from limner.core.errors import LimnerError
from limner.data.sources.factors import NAMES, SIZES, render
from limner.metrics.disentangle import Disentanglement, disentanglement
from limner.metrics.extractors.features import _LUMA, _WEIGHTS, checked, resized

KEY = "sprites-v1"
_SHA256 = "b7e29bc712f2183648b91bba0fbfea8dae68de32fa971ce340f4f9d0a7c074b6"
_SHAPE, _ANGLE, _HEART = 0, 2, 2
_HALF = SIZES[_ANGLE] // 2
_SIDE = 32
_CONTINUOUS = (False, True, False, True, True)  # scale and place are quantities; a shape is not, an angle goes round


class _Reader(nn.Module):
    """Grey images (B,1,32,32) -> 35 logits, those of the five factors one after the other; 159,267 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 128),
        )
        self.head = nn.Linear(128, sum(SIZES))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B,35)."""
        return self.head(self.body(x).relu())


def canonical(factors: Tensor) -> Tensor:
    """Factors (N,5) with one name for one picture: angles of squares and ellipses modulo half a turn.

    >>> canonical(torch.tensor([[0, 3, 7, 1, 1], [2, 3, 7, 1, 1]])).tolist()
    [[0, 3, 2, 1, 1], [2, 3, 7, 1, 1]]
    """
    angle = factors[:, _ANGLE]
    told = torch.where(factors[:, _SHAPE] == _HEART, angle, angle % _HALF)
    return torch.cat([factors[:, :_ANGLE], told[:, None], factors[:, _ANGLE + 1 :]], 1)


def half_turn(factors: Tensor) -> Tensor:
    """Factors (N,5) with the angles of all shapes modulo half a turn, which leaves them independent: sizes 3,6,5,8,8.

    >>> half_turn(torch.tensor([[0, 3, 7, 1, 1], [2, 3, 7, 1, 1]])).tolist()
    [[0, 3, 2, 1, 1], [2, 3, 2, 1, 1]]
    """
    return torch.cat([factors[:, :_ANGLE], factors[:, _ANGLE, None] % _HALF, factors[:, _ANGLE + 1 :]], 1)


@dataclass(frozen=True)
class FactorReader:
    """Reads the five factors of mini-dSprites from an image.

    Images are (B,C,H,W), uint8 in [0,255] or floating in [-1,1], grey or colour, of any size: colour becomes grey,
    other sizes are resized to 32×32, bilinear and antialiased.

    Attributes:
        key: name and version, for the names of scores.
        names: what the factors are.
        sizes: how many values each takes.
        device: where it computes and where results are.
        about: how it was made and how accurate it is.
    """

    key: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    device: torch.device
    about: dict[str, Any] = field(repr=False)
    _net: nn.Module = field(repr=False)

    def read(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Factors (B,5) int64 of images (B,C,H,W), one name for one picture: see `canonical`.

        Args:
            x: images, uint8 or in [-1,1].
            batch: images at a time.

        Raises:
            LimnerError: these are no such images, or some are not finite or outside [-1,1].
        """
        found = [decided(self._net(grey)) for grey in self._prepared(x, batch)]
        return torch.cat(found) if found else torch.empty(0, len(self.sizes), dtype=torch.int64, device=self.device)

    def read_and_match(self, x: Tensor, *, batch: int = 256) -> tuple[Tensor, Tensor]:
        """Factors (B,5), and how well the sprite that was read fits the picture: their correlation over pixels, (B,).

        It is 1 for a true sprite however dim, about 0.9 for one half a step off the grid of places, near 0 for noise:
        a net is sure of what it reads from noise too, so its own certainty tells nothing.
        """
        factors, matches = [], []
        for grey in self._prepared(x, batch):
            found = decided(self._net(grey))
            place = torch.zeros_like(found[:, 0])
            for k, size in enumerate(self.sizes):
                place = place * size + found[:, k]
            drawn = _sprites()[place.cpu()].to(self.device)
            matches.append(_correlation(grey.flatten(1), drawn.flatten(1).float()))
            factors.append(found)
        if not factors:
            return self.read(x), torch.empty(0, device=self.device)
        return torch.cat(factors), torch.cat(matches)

    @torch.inference_mode()
    def _prepared(self, x: Tensor, batch: int) -> Iterator[Tensor]:
        """Grey float32 images (b,1,32,32) in [-1,1], at most `batch` at a time."""
        if x.ndim != 4 or x.shape[1] not in (1, 3) or not (x.dtype == torch.uint8 or x.is_floating_point()):
            raise LimnerError(
                f"{self.key} reads grey or colour images (B,1 or 3,H,W), uint8 or floating; it got a"
                f" {str(x.dtype).removeprefix('torch.')} tensor of shape {tuple(x.shape)}"
            )
        with torch.autocast(self.device.type, enabled=False):
            for part in checked(x, batch, self.device):
                grey = part
                if grey.shape[1] == 3:
                    grey = (grey * torch.tensor(_LUMA, device=self.device)[:, None, None]).sum(1, keepdim=True)
                yield resized(grey, (_SIDE, _SIDE))


@cache
def _sprites() -> Tensor:
    """All sprites (11520,32,32) uint8, in the order of their factors."""
    return torch.from_numpy(render())


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's, of each row of a (B,d) with that of b; 0 where one of the two is constant."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norms = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(norms > 1e-6, (a * b).sum(1) / norms.clamp_min(1e-6), 0.0)


def decided(logits: Tensor) -> Tensor:
    """Factors (B,5) of logits (B,35), in canonical form."""
    p = [l.softmax(1) for l in logits.split(SIZES, 1)]
    round_ = p[_SHAPE].argmax(1) != _HEART
    turned = torch.cat([p[_ANGLE][:, :_HALF] + p[_ANGLE][:, _HALF:], torch.zeros_like(p[_ANGLE][:, _HALF:])], 1)
    p[_ANGLE] = torch.where(round_[:, None], turned, p[_ANGLE])
    return torch.stack([q.argmax(1) for q in p], 1)


def factor_reader(device: torch.device | str = "cpu") -> FactorReader:
    """The reader ``sprites-v1``, loaded once for each device.

    >>> factor_reader().key
    'sprites-v1'

    Raises:
        LimnerError: its file is missing or not the one that limner was released with.
    """
    return _loaded(str(torch.device(device)))


@cache
def _loaded(device: str) -> FactorReader:
    path = _WEIGHTS / f"{KEY}.safetensors"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LimnerError(
            f"{path.name} of limner's metrics cannot be read ({error.strerror}); reinstall limner"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256:
        raise LimnerError(
            f"{path.name} is not the file that limner was released with (sha256 {found[:12]}…, not"
            f" {_SHA256[:12]}…), so its scores would compare with no others; reinstall limner"
        )
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    net = _Reader()
    net.load_state_dict(parse_safetensors(content))
    net.requires_grad_(False).eval().to(device)
    return FactorReader(KEY, NAMES, SIZES, torch.device(device), about, net)


# ---- what the factors are for ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FactorScores:
    """Disentanglement of one model, and how its factors came to be known.

    Attributes:
        scores: the scores.
        how: ``encoder``, or the key of the reader.
        names: factors judged.
        left_out: factors that never changed in the images, so that nothing can be said about them: a generator that
            draws only squares. A score over fewer factors does not compare with one over all.
        match: mean correlation of the images with the sprites that were read from them; None for an encoder. It is 1
            for true sprites. Where it is far below, say under 0.7, the pictures are none of sprites, and the scores
            mean little.
    """

    scores: Disentanglement
    how: str
    names: tuple[str, ...]
    left_out: tuple[str, ...]
    match: float | None


@torch.inference_mode()
def read_disentanglement(
    model: Generates,
    *,
    reader: FactorReader | None = None,
    n: int = 10_000,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> FactorScores:
    """Disentanglement of a decoder: the scores between its noise and the factors read from what it makes of it.

    Args:
        model: draws noise and decodes it, trained on mini-dSprites, in evaluation mode.
        reader: of the factors; `factor_reader` when not given.
        n: images.
        device: where the model is.
        seed: of the noise and of the scores.

    Raises:
        LimnerError: fewer than two factors change over the images, or there are too few images.
    """
    reader = reader or factor_reader(device)
    generator = torch.Generator(device).manual_seed(seed)
    codes, found, matches = [], [], []
    for first in range(0, n, 500):
        z = model.prior.sample(min(500, n - first), generator)
        every = model.condition.default(first + len(z)) if isinstance(model, Conditional) else None
        y = None if every is None else every[first:].to(z.device)
        read, match = reader.read_and_match(model.decode(z, y).float().clamp(-1, 1))
        codes.append(z.flatten(1).cpu())
        found.append(read.cpu())
        matches.append(match.cpu())
    factors = half_turn(torch.cat(found))
    return _scored(torch.cat(codes), factors, NAMES, reader.key, float(torch.cat(matches).mean()), seed)


@torch.inference_mode()
def encoded_disentanglement(
    model: Encodes, dataset: Dataset, *, n: int = 10_000, device: torch.device | str = "cpu", seed: int = 0
) -> FactorScores:
    """Disentanglement of an encoder: the scores between its codes of images and their true factors.

    A variational encoder gives its posterior means, as in published tables.

    Args:
        model: encodes, in evaluation mode.
        dataset: images whose factors are known, as an attribute `factors` (N,K), such as mini-dSprites.
        n: images, chosen at random; all where the set has fewer.
        device: where the model is.
        seed: of the choice and of the scores.

    Raises:
        LimnerError: the factors of this set are not known, or it is too small.
    """
    factors: Tensor | None = getattr(dataset, "factors", None)
    if factors is None:
        raise LimnerError(f"the factors of {dataset.name} are not known; disentanglement is judged on mini-dsprites")
    names: tuple[str, ...] = getattr(dataset, "factor_names", None) or tuple(str(k) for k in range(factors.shape[1]))
    # at random: images at even distances in a table of all combinations have factors that depend on each other
    ids = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:n]
    codes = []
    for some in ids.split(250):
        x = to_float(dataset.fetch(some.tolist())).to(device)
        for augment in dataset.augment:
            x = augment(x, some.to(device))
        y = None if dataset.labels is None else dataset.labels[some].to(device)
        codes.append(model.encode(x, y).flatten(1).float().cpu())
    truth = half_turn(factors[ids]) if names == NAMES else factors[ids]
    return _scored(torch.cat(codes), truth, names, "encoder", None, seed)


def _scored(
    codes: Tensor, factors: Tensor, names: tuple[str, ...], how: str, match: float | None, seed: int
) -> FactorScores:
    kept = [k for k in range(factors.shape[1]) if len(factors[:, k].unique()) > 1]
    if len(kept) < 2:
        raise LimnerError(f"{len(kept)} of {len(names)} factors change over these images; the model draws one picture")
    continuous = [_CONTINUOUS[k] if names == NAMES else False for k in kept]
    scores = disentanglement(codes, factors[:, kept], seed=seed, continuous=continuous)
    left_out = tuple(name for k, name in enumerate(names) if k not in kept)
    return FactorScores(scores, how, tuple(names[k] for k in kept), left_out, match)
