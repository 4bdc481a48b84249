"""How most checks judge: a row of numbers against a threshold, with hysteresis, in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from limner.doctor.finding import TO_CLEAR, TO_FAIL, Finding, trend

EARLY = "it takes a longer training until this can be judged"
"""What is missing while a model is young."""


def judged(
    name: str,
    values: Iterable[tuple[int, float | None]],
    is_bad: Callable[[float], bool],
    threshold: float,
    *,
    bad: str,
    good: str,
    missing: str = EARLY,
    to_fail: int = TO_FAIL,
    to_clear: int = TO_CLEAR,
    at_most_watch: bool = False,
) -> Finding:
    """The finding of a row of numbers.

    Args:
        name: of the check.
        values: (images, number) of each examination, in order.
        is_bad: whether a number is bad.
        threshold: the number that they are compared with.
        bad: the sentence where it is bad, with ``{value}`` for the number of the last examination.
        good: the sentence where it is not.
        missing: the sentence where nothing was measured.
        to_fail: bad examinations in a row until the check fails.
        to_clear: good ones in a row until a failure ends.
        at_most_watch: whether it is watched instead of failing, because it is a property of such models.
    """
    now = trend(values, is_bad, to_fail, to_clear)
    if now is None:
        return Finding(name, "unknown", missing)
    state = "watch" if at_most_watch and now.state == "fail" else now.state
    sentence = (good if state == "pass" else bad).format(value=now.value)
    return Finding(name, state, sentence, now.value, threshold, now.since)
