"""Whether samples are what was asked for, how much samples of one label differ, and whether the label is used at all.

Agreement is that of what a reader reads in samples with what was asked for: GAN-test (Shmelkov, Schmid and Alahari
2018, arXiv:1807.09499), for one attribute or for all at once. Beside it stands its control, the agreement after the
labels were shuffled among the samples. It is exact, the mean over all orders: 1/K for K equally frequent classes, and
more where some values are frequent.

A conditional generator can obey and yet draw one image for each label, whatever the noise. The diversity within a label
is therefore the mean distance of samples that share their label over that of real images that share it. It counts any
difference, so samples that are no good can raise it above 1: read it beside the agreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limner.core.errors import LimnerError
from limner.metrics.extractors.readers import UNKNOWN
from limner.metrics.neighbours import Z95, wilson

_COMPARED = 1 << 24  # values compared at once
_MOST = 500  # images of one label whose distances are measured
PARTS = {"": "the mean over attributes", "_joint": "all attributes at once"}
"""What agreements of several attributes are of, by the ending of a score's name."""


@dataclass(frozen=True)
class Agreement:
    """Share of the images in which everything that was asked for is read.

    Attributes:
        value: the share; or, of `mean_agreement`, the mean share over attributes.
        low: lower end of the 95 % interval.
        high: upper end of this interval.
        n: images with a known label.
        chance: the share with the labels shuffled among the images, the mean over all orders.
    """

    value: float
    low: float
    high: float
    n: int
    chance: float


def agreement(read: Tensor, asked: Tensor) -> Agreement:
    """Agreement in all attributes at once, with Wilson's interval.

    >>> agreement(torch.tensor([[0], [1], [1], [1]]), torch.tensor([[0], [1], [0], [1]])).value
    0.75

    Args:
        read: (N,F) int64, the values that are read in the images.
        asked: (N,F) int64, the values that were asked for; `UNKNOWN` agrees with anything.

    Raises:
        LimnerError: the shapes differ, or no image has a known value.
    """
    read, asked = _known(read, asked)
    hits = int(_fits(read, asked).sum())
    return Agreement(hits / len(read), *wilson(hits, len(read)), len(read), _chance(read, asked))


def mean_agreement(read: Tensor, asked: Tensor) -> Agreement:
    """Agreement in each attribute by itself, the mean over attributes; the arguments of `agreement`."""
    read, asked = _known(read, asked)
    known = (asked != UNKNOWN).double()
    used = known.sum(0) > 0
    hits = (read == asked).double() * known / known.sum(0).clamp(min=1)  # (N,F), the share that each image adds
    each = hits[:, used].mean(1)
    value, n = float(each.sum()), len(read)
    half = Z95 * float((each * n).std()) / n**0.5 if n > 1 else 1.0
    columns = [_known(read[:, f : f + 1], asked[:, f : f + 1]) for f in used.nonzero().flatten().tolist()]
    chance = sum(_chance(*column) for column in columns) / len(columns)
    return Agreement(value, max(0.0, value - half), min(1.0, value + half), n, chance)


def _known(read: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    if read.ndim != 2 or read.shape != asked.shape or not read.shape[1]:
        raise LimnerError(f"agreement needs values (N,F) twice, got {tuple(read.shape)} and {tuple(asked.shape)}")
    known = (asked != UNKNOWN).any(1)
    if not bool(known.any()):
        raise LimnerError("no image has a known label, so there is nothing to agree with")
    return read[known], asked[known]


def _fits(read: Tensor, asked: Tensor) -> Tensor:
    """Whether all known values are read, by broadcasting over all but the last dimension."""
    return ((read == asked) | (asked == UNKNOWN)).all(-1)


def _chance(read: Tensor, asked: Tensor) -> float:
    """The mean agreement over all orders of the labels: over all pairs of an image and a label."""
    seen, times = read.unique(dim=0, return_counts=True)
    wanted, often = asked.unique(dim=0, return_counts=True)
    total, step = 0, max(1, _COMPARED // max(1, seen.numel()))
    for part, count in zip(wanted.split(step), often.split(step), strict=True):
        total += int((_fits(seen, part[:, None]) * times * count[:, None]).sum())
    return total / len(read) ** 2


@dataclass(frozen=True)
class WithinLabel:
    """How much images of one label differ.

    Attributes:
        ratio: mean distance of samples that share their label over that of real images that share it; 1 is as diverse.
        least: the smallest ratio of a label.
        least_label: index of that label's first sample.
        labels: number of labels that were compared.
    """

    ratio: float
    least: float
    least_label: int
    labels: int


def within_label(*, fake: Tensor, fake_labels: Tensor, real: Tensor, real_labels: Tensor) -> WithinLabel | None:
    """Diversity of samples within their label, beside that of real images.

    Args:
        fake: features (N,d) of samples.
        fake_labels: (N,…) their labels.
        real: features (M,d) of real images.
        real_labels: (M,…) their labels.

    Returns:
        None if no label has two different real images and two samples.
    """
    joined = torch.cat([fake_labels.flatten(1) if fake_labels.dim() > 1 else fake_labels[:, None],
                        real_labels.flatten(1) if real_labels.dim() > 1 else real_labels[:, None]])  # fmt: skip
    group = joined.unique(dim=0, return_inverse=True)[1]
    of_fake, of_real = _members(group[: len(fake)]), _members(group[len(fake) :])
    pairs = []
    for label, ids in of_fake.items():
        if len(ids) > 1 and len(of_real.get(label, ())) > 1:
            pairs.append((_spread(fake[ids]), _spread(real[of_real[label]]), int(ids[0])))
    pairs = [pair for pair in pairs if pair[1] > 0]
    if not pairs:
        return None
    least = min(pairs, key=lambda pair: pair[0] / pair[1])
    ratio = sum(pair[0] for pair in pairs) / sum(pair[1] for pair in pairs)
    return WithinLabel(ratio, least[0] / least[1], least[2], len(pairs))


def _members(group: Tensor) -> dict[int, Tensor]:
    """The indices of the items of each group."""
    order = group.argsort(stable=True)
    values, counts = group[order].unique_consecutive(return_counts=True)
    return dict(zip(values.tolist(), order.split(counts.tolist()), strict=True))


def _spread(x: Tensor) -> float:
    """The mean distance of two different ones of features (N,d), of which 500 evenly spaced ones are used."""
    x = x[torch.linspace(0, len(x) - 1, min(len(x), _MOST)).long()].double()
    return float(torch.pdist(x).mean())


@dataclass(frozen=True)
class LabelEffect:
    """How much the label changes an image whose noise stays.

    Attributes:
        ratio: mean distance of samples with the same noise and different labels, over that of real images of different
            labels; 0 if the label is ignored.
        n: number of samples.
        labels: number of labels.
    """

    ratio: float
    n: int
    labels: int


def label_effect(sheet: Tensor, columns: int, real: Tensor, real_labels: Tensor) -> LabelEffect | None:
    """How much the label changes an image whose noise stays.

    Args:
        sheet: features (rows·columns,d) of samples; a row shares its noise, and a column its label.
        columns: number of labels.
        real: features (M,d) of real images.
        real_labels: (M,…) their labels.

    Returns:
        None if there is one label only, or real images of different labels do not differ.
    """
    if columns < 2:
        return None
    rows = sheet.unflatten(0, (-1, columns)).double()
    ids = torch.linspace(0, len(real) - 1, min(len(real), 2 * _MOST)).long()
    x, y = real[ids].double(), real_labels[ids].flatten(1) if real_labels.dim() > 1 else real_labels[ids][:, None]
    different = (y[:, None] != y).any(2)
    if not bool(different.any()):
        return None
    apart = float(torch.cdist(x, x)[different].mean())
    if apart == 0:
        return None
    between = sum(float(torch.pdist(row).mean()) for row in rows) / len(rows)
    return LabelEffect(between / apart, len(sheet), columns)


def spaced_labels(labels: Tensor, most: int) -> Tensor:
    """At most `most` different ones of labels (N,…), evenly spaced in their order."""
    different = labels.unique(dim=0)
    return different[torch.linspace(0, len(different) - 1, min(most, len(different))).long()]


def shuffled_labels(labels: Tensor, seed: int = 0) -> Tensor:
    """Labels (N,…) in another order, for a control; a function of their number and the seed."""
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def unseen_labels(labels: Tensor, trained: Tensor) -> Tensor:
    """Which of labels (N,…) none of the images has whose labels are `trained` (M,…): (N,) bool.

    >>> unseen_labels(torch.tensor([0, 2, 1]), torch.tensor([0, 1, 1]))
    tensor([False,  True, False])
    """
    values, group = torch.cat([trained, labels]).unique(dim=0, return_inverse=True)
    seen = torch.zeros(len(values), dtype=torch.bool)
    seen[group[: len(trained)]] = True
    return ~seen[group[len(trained) :]]


def accuracies(read: Tensor, asked: Tensor, attributes: Sequence[str]) -> dict[str, Agreement]:
    """Agreements by the ending of a score's name.

    Of one attribute there is one, with the ending ``""``. Of several this is the mean over attributes, ``_joint`` is
    that all agree, and ``:NAME`` is that of an attribute; one without a known value is left out.
    """
    if len(attributes) == 1:
        return {"": agreement(read, asked)}
    columns = {f":{name}": (read[:, f : f + 1], asked[:, f : f + 1]) for f, name in enumerate(attributes)}
    each = {name: agreement(*column) for name, column in columns.items() if bool((column[1] != UNKNOWN).any())}
    return {"": mean_agreement(read, asked), "_joint": agreement(read, asked), **each}
