"""Failures of the numbers of a training, of any model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from limner.doctor.checks._check import check
from limner.doctor.finding import TO_FAIL, Finding, trend
from limner.doctor.history import History

_DEVIATIONS = 8  # of a loss from its median, in median absolute deviations
_LEAST_DEVIATION = 0.25  # of the median, so that a loss that has settled may move
_TIMES, _NORM = 10.0, 100.0  # of the mean gradient, and at least; Chintala et al. 2016, "how to train a GAN"
_LINES = 8  # of metrics before a number is judged
_LAST = 256  # lines that are looked at


@check(looks_like=("noise", "vanishing"), rolls_back=True)
def divergence(history: History) -> Finding:
    """The training diverges: numbers are not finite, or losses and gradients grow without bound.

    A learning rate that is too high makes each step overshoot, and the next one by more. It shows as losses far above
    those of before (eight median deviations, and three lines in a row), as gradients over 100 that are ten times their
    mean, or as NaN. Weights are spoilt then, so only an earlier checkpoint and a lower rate help.
    """
    not_finite = _not_finite(history)
    if not_finite is not None:
        return not_finite
    found = [f for f in (*_gradients(history), *_losses(history)) if f is not None]
    for state in ("fail", "watch"):
        for finding in found:
            if finding.state == state:
                return finding
    if not found:
        return Finding("divergence", "unknown", f"needs {_LINES} lines of metrics")
    return Finding("divergence", "pass", "losses and gradients stay where they were")


def _not_finite(history: History) -> Finding | None:
    """The finding about numbers that are not finite at the end of the training so far; one line of them is watched."""
    finite = history.signal("samples/finite")
    if finite and (finite[-1][1] is None or finite[-1][1] < 1):
        return Finding("divergence", "fail", "some values of the samples are not finite numbers", since=finite[-1][0])
    for name in _names(history, "loss/", "grad/"):
        values = history.metric(name)
        lines = 0
        while lines < len(values) and values[-1 - lines][1] is None:
            lines += 1
        if lines:
            since = values[-lines][0]
            return Finding(
                "divergence", "fail" if lines > 1 else "watch", f"{name} is not a finite number", since=since
            )
    return None


def _names(history: History, *prefixes: str) -> Iterator[str]:
    yield from dict.fromkeys(k for m in history.metrics for k in m if k.startswith(prefixes))


def _gradients(history: History) -> Iterator[Finding | None]:
    for name in _names(history, "grad/"):
        mean, n, rows = 0.0, 0, list[tuple[int, float | None]]()
        for images, value in history.metric(name)[-_LAST:]:
            if value is None:
                continue
            if n >= _LINES:
                rows.append((images, value / max(mean, 1e-30) if value > _NORM else 0.0))
            if not rows or not rows[-1][1] or rows[-1][1] <= _TIMES:  # what has exploded is no part of the mean
                n += 1
                mean += (value - mean) / n
        yield _told(rows, _TIMES, f"the gradient of {name.removeprefix('grad/')} is {{value:.0f}} times its mean")


def _losses(history: History) -> Iterator[Finding | None]:
    for name in _names(history, "loss/"):
        seen, rows = list[float](), list[tuple[int, float | None]]()
        for images, value in history.metric(name)[-_LAST:]:
            if value is None:
                continue
            if len(seen) >= _LINES:
                middle = median(seen)
                deviation = max(median(abs(v - middle) for v in seen), _LEAST_DEVIATION * abs(middle), 0.1)
                rows.append((images, (value - middle) / deviation))
            seen.append(value)
        yield _told(rows, _DEVIATIONS, f"{name} is {{value:.0f}} median deviations above what it was before")


def _told(rows: Sequence[tuple[int, float | None]], threshold: float, sentence: str) -> Finding | None:
    now = trend(rows, lambda value: value > threshold, TO_FAIL)
    if now is None:
        return None
    return Finding("divergence", now.state, sentence.format(value=now.value), now.value, threshold, now.since)
