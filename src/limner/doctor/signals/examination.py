"""The result of an examination."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Examination:
    """What an examination has measured.

    Attributes:
        signals: numbers by name; not finite where a computation was not.
        counts: number of samples of each kind of `Ground.kinds`; empty where they are not counted.
    """

    signals: dict[str, float] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
