"""Noise levels of a sampler: lists of Python floats, descending, that end in 0.

They are computed in float64. n levels above 0 are n steps; n = 1 is one step from the highest level.
"""

from __future__ import annotations

from collections.abc import Sequence

from limner.core.errors import LimnerError


def karras(n: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> list[float]:
    """Noise levels that are evenly spaced in σ^(1/ρ). Karras et al. 2022, arXiv:2206.00364, eq. 5.

    Args:
        n: number of steps.
        low: the lowest level above 0.
        high: the highest level.
        rho: ρ. Raise it for more of the steps at low levels, lower it for more at high levels.

    >>> [round(sigma, 3) for sigma in karras(4)]
    [80.0, 9.723, 0.47, 0.002, 0.0]

    Raises:
        LimnerError: n is below 1, or the levels do not descend.
    """
    _check(n, low, high)
    return [_between(high ** (1 / rho), low ** (1 / rho), i, n) ** rho for i in range(n)] + [0.0]


def discrete(n: int, sigmas: Sequence[float]) -> list[float]:
    """Takes n of the levels that a model was trained at, evenly spaced from the highest on.

    The spacing is "trailing" (Lin et al. 2023, arXiv:2305.08891, section 3.3), so that sampling starts where training
    ended. It is `diffusers`' trailing where n divides the number of levels; elsewhere theirs leaves its own list in
    its steps.

    Args:
        n: number of steps.
        sigmas: σ of the steps t = 0 … T−1 of the training, ascending.

    >>> discrete(2, [0.1, 0.5, 2.0, 9.0])
    [9.0, 0.5, 0.0]

    Raises:
        LimnerError: n is below 1, or above the number of levels.
    """
    T = len(sigmas)
    if n > T:
        raise LimnerError(f"steps={n} is more than the {T} noise levels that this model was trained at; use steps={T}")
    _check(n, sigmas[0], sigmas[-1])
    return [float(sigmas[round(T * (n - i) / n) - 1]) for i in range(n)] + [0.0]


def flow(n: int, high: float = 80.0, shift: float = 1.0) -> list[float]:
    """Noise levels that are evenly spaced in the time t = σ/(1+σ) of a straight flow, down to t = 0.

    The flow is x_t = (1−t)·x0 + t·ε (Liu, Gong and Liu 2022, arXiv:2209.03003). A shift k, t' = kt/(1 + (k−1)t) of
    Esser et al. 2024 (arXiv:2403.03206, eq. 23), is σ' = kσ exactly; the highest level stays where it is. The last
    level above 0 is about 1/n: `karras` goes lower, which encoding and likelihoods need, and few steps of a sampler do
    not.

    Args:
        n: number of steps.
        high: the highest level.
        shift: k. Raise it for more of the steps at high levels, as large images need; lower it for more at low levels.

    >>> [round(sigma, 3) for sigma in flow(4)]
    [80.0, 2.857, 0.976, 0.328, 0.0]

    Raises:
        LimnerError: n is below 1, or `high` or the shift is not above 0.
    """
    _check(n, 0.0, high)
    if shift <= 0:
        raise LimnerError(f"shift={shift:g} must be above 0; 1 shifts nothing")
    start = high / (shift + high)
    times = (start * (n - i) / n for i in range(1, n))
    return [float(high), *(shift * t / (1 - t) for t in times), 0.0]


def _between(start: float, end: float, i: int, n: int) -> float:
    """Number i of n that are evenly spaced from start to end; both ends are exact."""
    return start if n == 1 else (start * (n - 1 - i) + end * i) / (n - 1)


def _check(n: int, low: float, high: float) -> None:
    if n < 1:
        raise LimnerError(f"steps={n} draws nothing; use at least 1")
    if not 0 <= low < high < float("inf"):
        raise LimnerError(f"noise levels cannot go from {high:g} down to {low:g}; use 0 < low < high, both finite")
