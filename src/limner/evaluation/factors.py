"""Factors of variation predicted from images, which measure the disentanglement of decoders without an encoder.

A GAN, a flow or a diffusion model has no codes of given images, but it gives images of given codes. A net trained on
the true factors predicts the factors of decoded codes z. The codes and these factors form a table like that of an
encoder, so the same scores can be computed and compared between all families.

The reader ``sprites-v1`` is trained on `mini-dsprites` (shape 3, scale 6, angle 10, x 8, y 8). The ten angles are a
tenth of a turn apart. A square is symmetric under quarter turns and an ellipse under half turns, so the angles k and
k + 5 give the same image: both have 5 different angles, and only a heart has 10. Accuracy is therefore measured modulo
this symmetry (`canonical`), and disentanglement on the angle modulo half a turn for all shapes (`half_turn`), which is
visible in every image and independent of the shape, as the scores assume of factors. ``benchmarks/factor_reader.py``
trains the reader again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from limner.core.batch import Dataset, to_float
from limner.core.capabilities import Conditional, Encodes, EstimatesCodes, Generates
from limner.core.errors import LimnerError
from limner.data.sources.factors import NAMES, SHAPES, SIZES, render
from limner.evaluation.draws import drawn_codes
from limner.metrics.disentangle import Disentanglement, disentanglement
from limner.metrics.extractors.attributes import AttributeReader
from limner.metrics.extractors.features import frozen, grey_batches, read_weights, three_halvings

KEY = "sprites-v1"
_SHA256 = "b7e29bc712f2183648b91bba0fbfea8dae68de32fa971ce340f4f9d0a7c074b6"
_SHAPE, _ANGLE, _HEART = 0, 2, 2
_HALF_TURN = SIZES[_ANGLE] // 2
_SIDE = 32
_CONTINUOUS = (False, True, False, True, True)  # scale and position are quantities; shape and angle are not


class _Reader(nn.Module):
    """Grey images (B,1,32,32) -> 35 logits, those of the five factors in turn; 159,267 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = three_halvings(1, (16, 32, 64), 5, _SIDE, 128)
        self.head = nn.Linear(128, sum(SIZES))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B,35)."""
        return self.head(self.body(x).relu())


def canonical(factors: Tensor) -> Tensor:
    """Factors (N,5), unique for each image: angles of squares and ellipses are taken modulo half a turn.

    >>> canonical(torch.tensor([[0, 3, 7, 1, 1], [2, 3, 7, 1, 1]])).tolist()
    [[0, 3, 2, 1, 1], [2, 3, 7, 1, 1]]
    """
    angle = factors[:, _ANGLE]
    canonical_angle = torch.where(factors[:, _SHAPE] == _HEART, angle, angle % _HALF_TURN)
    return torch.cat([factors[:, :_ANGLE], canonical_angle[:, None], factors[:, _ANGLE + 1 :]], 1)


def half_turn(factors: Tensor) -> Tensor:
    """Factors (N,5) with the angles of all shapes modulo half a turn, which are independent: sizes 3,6,5,8,8.

    >>> half_turn(torch.tensor([[0, 3, 7, 1, 1], [2, 3, 7, 1, 1]])).tolist()
    [[0, 3, 2, 1, 1], [2, 3, 2, 1, 1]]
    """
    return torch.cat([factors[:, :_ANGLE], factors[:, _ANGLE, None] % _HALF_TURN, factors[:, _ANGLE + 1 :]], 1)


@dataclass(frozen=True)
class FactorReader:
    """Predicts the five factors of mini-dSprites from images.

    Images are (B,C,H,W), uint8 in [0,255] or floating in [-1,1], grey or colour, of any size. Colour is converted to
    grey, and other sizes are resized to 32×32, bilinear and antialiased.

    Attributes:
        key: name and version, for the names of scores.
        names: names of the factors.
        sizes: number of values of each factor.
        device: where it computes and where results are.
        about: how it was trained, and its accuracy.
    """

    key: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    device: torch.device
    about: dict[str, Any] = field(repr=False)
    _net: nn.Module = field(repr=False)

    @property
    def values(self) -> dict[str, list[str]]:
        """Names of the values of each factor as `logits` has them: the angle in degrees, modulo half a turn."""
        counted = {name: [str(k) for k in range(size)] for name, size in zip(self.names, self.sizes, strict=True)}
        degrees = [str(k * 360 // SIZES[_ANGLE]) for k in range(_HALF_TURN)]
        return counted | {NAMES[_SHAPE]: SHAPES, NAMES[_ANGLE]: degrees}

    @property
    def quantities(self) -> dict[str, float | None]:
        """The factors that are numbers: all but the shape. The angle repeats after half a turn."""
        return {name: 180.0 if k == _ANGLE else None for k, name in enumerate(self.names) if k != _SHAPE}

    def logits(self, x: Tensor, *, batch: int = 256) -> dict[str, Tensor]:
        """Logits (B,K) by factor of images (B,C,H,W), in the form of `half_turn`; the arguments of `read`."""
        parts = [self._net(grey) for grey in self._prepared(x, batch)]
        joined = torch.cat(parts) if parts else torch.empty(0, sum(self.sizes), device=self.device)
        table = list(joined.split(self.sizes, 1))
        table[_ANGLE] = torch.logaddexp(*table[_ANGLE].split(_HALF_TURN, 1))
        return dict(zip(self.names, table, strict=True))

    def read(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Factors (B,5) int64 of images (B,C,H,W), in the form of `canonical`.

        Args:
            x: images, uint8 or in [-1,1].
            batch: images at a time.

        Raises:
            LimnerError: the shape or type is wrong, or values are not finite or outside [-1,1].
        """
        parts = [decode_logits(self._net(grey)) for grey in self._prepared(x, batch)]
        return torch.cat(parts) if parts else torch.empty(0, len(self.sizes), dtype=torch.int64, device=self.device)

    def read_and_match(self, x: Tensor, *, batch: int = 256) -> tuple[Tensor, Tensor]:
        """Factors (B,5), and the correlation (B,) over pixels of each image with the sprite of these factors.

        It is 1 for a true sprite of any brightness, about 0.9 for one that is half a step off the grid of positions,
        and near 0 for noise. The confidence of the net cannot replace it, because it is high for noise too.
        """
        factors, matches = [], []
        for grey in self._prepared(x, batch):
            read_factors = decode_logits(self._net(grey))
            index = torch.zeros_like(read_factors[:, 0])
            for k, size in enumerate(self.sizes):
                index = index * size + read_factors[:, k]
            sprites = _sprites()[index.cpu()].to(self.device)
            matches.append(_correlation(grey.flatten(1), sprites.flatten(1).float()))
            factors.append(read_factors)
        if not factors:
            return self.read(x), torch.empty(0, device=self.device)
        return torch.cat(factors), torch.cat(matches)

    @torch.inference_mode()
    def _prepared(self, x: Tensor, batch: int) -> Iterator[Tensor]:
        with torch.autocast(self.device.type, enabled=False):
            yield from grey_batches(x, (_SIDE, _SIDE), batch, self.device, self.key)


@cache
def _sprites() -> Tensor:
    """All sprites (11520,32,32) uint8, in the order of their factors."""
    return torch.from_numpy(render())


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row of a (B,d) with that of b; 0 where one of the two is constant."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norms = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(norms > 1e-6, (a * b).sum(1) / norms.clamp_min(1e-6), 0.0)


def decode_logits(logits: Tensor) -> Tensor:
    """Factors (B,5) of logits (B,35), in canonical form."""
    p = [l.softmax(1) for l in logits.split(SIZES, 1)]
    symmetric = p[_SHAPE].argmax(1) != _HEART
    half_turns = torch.cat(
        [p[_ANGLE][:, :_HALF_TURN] + p[_ANGLE][:, _HALF_TURN:], torch.zeros_like(p[_ANGLE][:, _HALF_TURN:])], 1
    )
    p[_ANGLE] = torch.where(symmetric[:, None], half_turns, p[_ANGLE])
    return torch.stack([q.argmax(1) for q in p], 1)


def factor_reader(device: torch.device | str = "cpu") -> FactorReader:
    """The reader ``sprites-v1``, loaded once for each device.

    >>> factor_reader().key
    'sprites-v1'

    Raises:
        LimnerError: the file is missing or not the one that limner was released with.
    """
    return _loaded(str(torch.device(device)))


@cache
def _loaded(device: str) -> FactorReader:
    weights, about = read_weights(KEY, _SHA256)
    net = frozen(_Reader(), weights, device)
    return FactorReader(KEY, NAMES, SIZES, torch.device(device), about, net)


# ---- scores ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FactorScores:
    """Disentanglement of one model, and the source of its factors.

    Attributes:
        scores: the scores.
        how: ``encoder``, or the key of the reader.
        names: factors that were scored.
        left_out: factors that never changed in the images, for example if a generator draws only squares. A score
            over fewer factors cannot be compared with one over all.
        match: mean correlation of the images with the sprites of the predicted factors; None where none are drawn. It
            is 1 for true sprites. If it is below about 0.7, the images show no sprites, and the scores mean little.
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
    reader: FactorReader | AttributeReader | None = None,
    n: int = 10_000,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> FactorScores:
    """Disentanglement of a decoder: the scores of its noise and the factors predicted from the decoded images.

    Args:
        model: draws noise and decodes it, in evaluation mode.
        reader: predicts the factors of the data that the model was trained on; by default those of mini-dSprites.
        n: number of images.
        device: where the model is.
        seed: seed of the noise and of the scores.

    Raises:
        LimnerError: fewer than two factors change over the images, or there are too few images.
    """
    reader = reader or factor_reader(device)
    generator = torch.Generator(device).manual_seed(seed)
    codes, parts, matches = [], [], []
    for first in range(0, n, 500):
        z = drawn_codes(model, min(500, n - first), generator)
        conditions = model.condition.default(first + len(z)) if isinstance(model, Conditional) else None
        y = None if conditions is None else conditions[first:].to(z.device)
        x = model.decode(z, y).float().clamp(-1, 1)
        codes.append(z.flatten(1).cpu())
        if isinstance(reader, FactorReader):
            read, match = reader.read_and_match(x)
            matches.append(match.cpu())
            parts.append(half_turn(read).cpu())
        else:
            parts.append(reader.read(x).cpu())
    names = reader.names if isinstance(reader, FactorReader) else tuple(reader.values)
    mean_match = float(torch.cat(matches).mean()) if matches else None
    return _score_factors(torch.cat(codes), torch.cat(parts), names, reader.key, mean_match, seed)


@torch.inference_mode()
def encoded_disentanglement(
    model: Encodes | EstimatesCodes,
    dataset: Dataset,
    *,
    n: int = 10_000,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> FactorScores:
    """Disentanglement of an encoder: the scores of its codes of images and their true factors.

    The codes of a variational encoder are its posterior means, as in published tables, and those of an InfoGAN the
    estimates of Q, one number for each code.

    Args:
        model: encodes or estimates codes, in evaluation mode.
        dataset: images with known factors, an attribute `factors` (N,K), such as mini-dSprites.
        n: number of images, chosen at random; all if the set has fewer.
        device: where the model is.
        seed: seed of the choice and of the scores.

    Raises:
        LimnerError: the factors of the set are not known, or it is too small.
    """
    codes, true_factors, names = codes_and_factors(model, dataset, n=n, device=device, seed=seed)
    return _score_factors(codes, true_factors, names, "encoder", None, seed)


@torch.inference_mode()
def codes_and_factors(
    model: Encodes | EstimatesCodes,
    dataset: Dataset,
    *,
    n: int = 10_000,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The codes (N,d) of images, their true factors (N,K), of sprites in the form of `half_turn`, and their names.

    The arguments and errors are those of `encoded_disentanglement`.
    """
    factors: Tensor | None = getattr(dataset, "factors", None)
    if factors is None:
        raise LimnerError(f"the factors of {dataset.name} are not known; measure disentanglement on mini-dsprites")
    names: tuple[str, ...] = getattr(dataset, "factor_names", None) or tuple(str(k) for k in range(factors.shape[1]))
    # at random, because factors of evenly spaced images in a table of all combinations depend on each other
    ids = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:n]
    codes = []
    for part in ids.split(250):
        x = to_float(dataset.fetch(part.tolist())).to(device)
        for augment in dataset.augment:
            x = augment(x, part.to(device))
        y = None if dataset.labels is None else dataset.labels[part].to(device)
        z = model.encode(x, y) if isinstance(model, Encodes) else model.estimate_codes(x)
        codes.append(z.flatten(1).float().cpu())
    true_factors = half_turn(factors[ids]) if names == NAMES else factors[ids]
    return torch.cat(codes), true_factors, names


def _score_factors(
    codes: Tensor, factors: Tensor, names: tuple[str, ...], how: str, match: float | None, seed: int
) -> FactorScores:
    varying = [k for k in range(factors.shape[1]) if len(factors[:, k].unique()) > 1]
    if len(varying) < 2:
        raise LimnerError(
            f"{len(varying)} of {len(names)} factors change over these images; draw more, or train longer"
        )
    continuous = [_CONTINUOUS[k] if names == NAMES else False for k in varying]
    scores = disentanglement(codes, factors[:, varying], seed=seed, continuous=continuous)
    left_out = tuple(name for k, name in enumerate(names) if k not in varying)
    return FactorScores(scores, how, tuple(names[k] for k in varying), left_out, match)
