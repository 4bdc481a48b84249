"""What the doctor says: a finding for each check, with its evidence and what helps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

State = Literal["fail", "watch", "pass", "n/a", "unknown", "error"]

TO_FAIL = 3
"""Examinations in a row that must be bad before a check fails; fewer are watched."""
TO_CLEAR = 2
"""Examinations in a row that must be good before a failed check passes again."""


@dataclass(frozen=True)
class Remedy:
    """A change of the recipe that has helped, and how often.

    Attributes:
        settings: overrides of the recipe, such as ``{"model.D.minibatch": "deviation"}``.
        text: what it does, in a sentence.
        bed: the recipe on whose failure it was measured; "" where it was not.
        helped: trainings of the bed in which it improved the metric.
        of: trainings of the bed.
        automatic: whether it is safe to try without asking, because it can hardly harm a healthy training.
        effect: what was measured, without and with it, such as ``"modes found 2 → 8"``; "" where nothing was.
        start: images of the checkpoint from which the new training begins; None for a training from the start.
    """

    settings: dict[str, Any]
    text: str
    bed: str = ""
    helped: int = 0
    of: int = 0
    automatic: bool = False
    effect: str = ""
    start: int | None = None

    @property
    def rate(self) -> str:
        """How often it has helped, in words."""
        return f"helped {self.helped}/{self.of} seeds on {self.bed}" if self.of else "not measured"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: name of the check, such as ``collapse``; `limner explain doctor.collapse` explains it.
        state: fail, watch (bad, and not yet for long), pass, n/a (`sentence` says why), unknown (`sentence` says what
            is missing) or error.
        sentence: what was found, for people.
        value: the number that decides; None where there is none.
        threshold: the number that it is compared with.
        since: images after which it began, for fail and watch.
        last_good: images of the newest checkpoint from before; None where there is none.
        sheet: path in the run folder of the samples of that moment, or "".
        good_sheet: path of the last samples from before, or "".
        picture: path of the evidence in the run folder, or "".
        looks_like: names of other checks whose failures look similar.
        remedies: what helps, the best first.
    """

    check: str
    state: State
    sentence: str
    value: float | None = None
    threshold: float | None = None
    since: int | None = None
    last_good: int | None = None
    sheet: str = ""
    good_sheet: str = ""
    picture: str = ""
    looks_like: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain values, without what is not known."""
        return {k: v for k, v in asdict(self).items() if v not in (None, "", (), [])}


class Trend(NamedTuple):
    """How a check stands after a row of examinations.

    Attributes:
        state: fail, watch or pass.
        value: the number of the last examination.
        since: images of the first bad examination of the present trouble; None where there is none.
    """

    state: Literal["fail", "watch", "pass"]
    value: float
    since: int | None


def trend(
    values: Iterable[tuple[int, float | None]],
    is_bad: Callable[[float], bool],
    to_fail: int = TO_FAIL,
    to_clear: int = TO_CLEAR,
) -> Trend | None:
    """Judges a row of numbers with hysteresis, so that one bad or good examination decides nothing.

    Args:
        values: (images, number) of each examination, in order; None where it was not measured.
        is_bad: whether a number is bad.
        to_fail: bad ones in a row until it fails.
        to_clear: good ones in a row until a failure ends.

    Returns:
        The present state; None if nothing was measured.

    >>> trend([(100, 0.9), (200, 0.1), (300, 0.1), (400, 0.1), (500, 0.8)], lambda v: v < 0.3)
    Trend(state='fail', value=0.8, since=200)
    """
    bad = good = 0
    failed, since, last = False, None, None
    for images, value in values:
        if value is None:
            continue
        last = value
        if is_bad(value):
            since = images if since is None else since
            bad, good = bad + 1, 0
            failed = failed or bad >= to_fail
        else:
            bad, good = 0, good + 1
            if not failed or good >= to_clear:
                failed, since = False, None
    if last is None:
        return None
    return Trend("fail" if failed else "watch" if since is not None else "pass", last, since)


ORDER: Sequence[State] = ("fail", "watch", "error", "unknown", "pass", "n/a")
"""The states as they are listed."""
