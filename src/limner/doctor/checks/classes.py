"""Failures that the counts of kinds show: classes, modes of a toy, or bins of similar images."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from limner.doctor.checks._check import check
from limner.doctor.checks._judged import judged
from limner.doctor.checks._missing import NO_SAMPLES, YOUNG_YET
from limner.doctor.checks.samples import SPREAD
from limner.doctor.finding import Finding, State, trend
from limner.doctor.history import Counts, History

DROPPED, RARE = 0.25, 0.5  # of the share of a class among real images
_CONFIDENCE = 0.999  # of the upper bound of a share (Clopper and Pearson 1934)
_SAMPLES = 384  # to judge a class by, at least
_NEEDED = 40  # samples for each expected share: 28/p have a bound below a quarter of p when none is of the class
_FEWEST = 0.005  # share of the rarest class that is judged
_LAST = 48  # examinations that are looked at
OSCILLATION = 0.3  # nats
_TWICE = 2


@check("Draws", why_not=NO_SAMPLES, looks_like=("dropped_classes", "collapse"))
def oscillation(history: History) -> Finding:
    """The generator draws now these classes and now those: it runs in circles, and does not converge.

    Where D learns to refuse what G draws, G moves to other modes, D follows, and G returns. The smallest GAN does it by
    simple arithmetic: the gradients of a zero-sum game turn round its equilibrium. It shows as a divergence between the
    counts of classes of successive examinations. An average of G's weights, a lower beta1 and a penalty on D's slope
    damp it. `limner lab oscillation` shows it.
    """
    counts = history.counts()
    return judged(
        "oscillation",
        [] if counts is None else _changes(counts),
        lambda kl: kl > OSCILLATION,
        OSCILLATION,
        bad="classes come and go: the counts diverge from those of the examination before by {value:.2f} nats",
        good="the same classes are drawn at each examination: their counts diverge by {value:.2f} nats",
        missing=YOUNG_YET,
        to_fail=_TWICE,
    )


@check("Draws", why_not=NO_SAMPLES, looks_like=("collapse", "oscillation"))
def dropped_classes(history: History) -> Finding:
    """The generator leaves out classes, or other kinds of images, that the data have: dropped modes.

    D judges one image at a time, so nothing tells G that a class is missing. It shows in the counts of a classifier:
    the upper bound of the share of a class is less than a quarter of its share among real images. The bound is
    Clopper and Pearson's at 99.9 %, so that few samples cannot name a class. Samples that the classifier misreads
    hide a dropped class rather than invent one. `limner lab gan` counts the classes; `toy-gan` shows modes of a
    mixture.
    """
    counts = history.counts()
    if counts is None or not counts.drawn:
        return Finding("dropped_classes", "unknown", YOUNG_YET)
    alike = {images for images, spread in history.signal("samples/spread") if spread is not None and spread < SPREAD}
    counts = replace(counts, drawn=[(images, n) for images, n in counts.drawn if images not in alike])
    if not counts.drawn:
        return Finding("dropped_classes", "unknown", "samples are too alike to count their classes; see collapse")
    bounds = _upper_bounds(counts)  # (T,K), NaN where there are too few samples
    shares = np.asarray(counts.shares)
    images = [at for at, _ in counts.drawn[-_LAST:]]
    ratios = bounds / np.where(shares > 0, shares, np.nan)
    if np.isnan(ratios).all():
        needed = max(_SAMPLES, int(_NEEDED / max(min(s for s in counts.shares if s >= _FEWEST), _FEWEST)))
        have = sum(map(sum, (drawn for _, drawn in counts.drawn)))
        return Finding("dropped_classes", "unknown", f"needs {needed - have:,} more samples to count classes")
    trends = {
        k: trend(
            [(at, None if np.isnan(r) else float(r)) for at, r in zip(images, ratios[:, k], strict=True)],
            lambda ratio: ratio < DROPPED,
            _TWICE,
        )
        for k in range(len(shares))
    }
    bad = {k: found for k, found in trends.items() if found is not None and found.state != "pass"}
    if bad:
        state: State = "fail" if any(found.state == "fail" for found in bad.values()) else "watch"
        # Of those that only begin, nothing is said beside those that fail.
        named = [k for k, found in bad.items() if found.state == state]
        worst = min(named, key=lambda k: bad[k].value)
        since = min(found.since or 0 for k, found in bad.items() if k in named)
        names = _listed([counts.names[k] for k in named])
        sentence = (
            f"never or hardly drawn: {names}; at most {bad[worst].value * shares[worst]:.2%} of the samples are"
            f" {counts.names[worst]}, of real images {shares[worst]:.2%}"
        )
        changes = trend(_changes(counts), lambda kl: kl > OSCILLATION, _TWICE)
        if changes is not None and changes.state == "fail":
            state, sentence = "watch", sentence + "; but classes come and go"
        return Finding("dropped_classes", state, sentence, bad[worst].value, DROPPED, since)
    last = ratios[-1]
    least = int(np.nanargmin(last)) if not np.isnan(last).all() else 0
    rare = [counts.names[k] for k in np.flatnonzero(last < RARE).tolist()]
    if rare:
        sentence = f"rarely drawn: {_listed(rare)}"
        return Finding("dropped_classes", "watch", sentence, float(last[least]), RARE, images[-1])
    judged_ones = int((~np.isnan(ratios).all(0)).sum())
    sentence = f"all of the {judged_ones} kinds that are frequent enough to be judged are drawn"
    return Finding("dropped_classes", "pass", sentence, None if np.isnan(last).all() else float(last[least]), DROPPED)


def _changes(counts: Counts) -> list[tuple[int, float | None]]:
    """(images, KL of the counts from those before, in nats, less what chance gives) of the last examinations."""
    drawn = counts.drawn[-_LAST:]
    changes: list[tuple[int, float | None]] = []
    for (_, before), (images, now) in pairwise(drawn):
        p, q = (np.asarray(n, float) + 0.5 for n in (now, before))
        used = np.asarray(now) + np.asarray(before) > 0
        n, m = sum(now), sum(before)
        p, q = p[used] / p[used].sum(), q[used] / q[used].sum()
        chance = (used.sum() - 1) / 2 * (1 / max(n, 1) + 1 / max(m, 1))
        changes.append((images, max(0.0, float((p * np.log(p / q)).sum() - chance))))
    return changes


def _upper_bounds(counts: Counts) -> NDArray[np.float64]:
    """(T,K) upper bound of the share of each kind at each of the last examinations; NaN where samples are too few.

    A class is judged by as many of the last examinations as it takes: the rarer it is among real images, the more.
    """
    from scipy.special import betaincinv

    drawn = np.asarray([n for _, n in counts.drawn[-_LAST:]], dtype=np.int64)
    sums = np.concatenate([np.zeros((1, drawn.shape[1]), np.int64), drawn.cumsum(0)])
    totals = sums.sum(1)
    bounds = np.full(drawn.shape, np.nan)
    for k, share in enumerate(counts.shares):
        if share < _FEWEST:
            continue
        needed = max(_SAMPLES, _NEEDED / share)
        for t in range(1, len(totals)):
            first = int(np.searchsorted(totals[:t], totals[t] - needed, side="right")) - 1
            if first >= 0:
                hits, n = sums[t, k] - sums[first, k], totals[t] - totals[first]
                bounds[t - 1, k] = 1.0 if hits == n else betaincinv(hits + 1, n - hits, _CONFIDENCE)
    return bounds


def _listed(names: list[str], most: int = 6) -> str:
    """Names in a row.

    >>> _listed(["3", "7"]), _listed(["a", "b", "c"], 2)
    ('3 and 7', 'a, b and 1 more')
    """
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
