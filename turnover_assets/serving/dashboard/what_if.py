"""What would be: what the form asks, and who answers.

What belongs here: the interface between the page and what answers from the champion. What does not: the
answer itself (serving/champion.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

from turnover_assets.storage.snapshots import Snapshot


@dataclass(frozen=True)
class Question:
    """What would be forecast if.

    Attributes:
        keys: The series, whose history counts; empty for a new one.
        attributes: Attributes in place of those it has, or of a new one.
        ahead: Values known ahead in place of those planned, for all periods to forecast.
        level: The level of its recent history times this.
    """

    keys: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    ahead: Mapping[str, Any] = field(default_factory=dict)
    level: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """A period of the answer; `published` is None for a new series."""

    period: date
    horizon: int
    forecast: float
    lower_80: float | None
    upper_80: float | None
    published: float | None


class WhatIf(Protocol):
    """Answers what would be forecast."""

    def ask(self, snapshot: Snapshot, question: Question) -> Sequence[Outcome]:
        """The forecasts.

        Raises:
            Problem: The question cannot be answered as it is.
            TurnoverError: The champion cannot answer at all.
        """
