"""What would be: the interface between the page and what answers from the champion.

What belongs here: what the page asks and shows. What does not: the answer itself (serving/champion.py,
core/what_if).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pandas as pd

from turnover_assets.serving.view import View


class Told(Protocol):
    """Something that a reader of the answer should know."""

    @property
    def text(self) -> str:
        """In a sentence."""


class Answered(Protocol):
    """The answer to a question.

    Its table has a row for each series and period: the series keys, the time column, `horizon`, `baseline`
    (what was published; NaN for a new series), `forecast`, `lower_80`, `upper_80`, and others.
    """

    @property
    def table(self) -> pd.DataFrame:
        """The forecasts."""

    @property
    def changes(self) -> Sequence[str]:
        """What was changed, in sentences."""

    @property
    def warnings(self) -> Sequence[Told]:
        """What a reader should know."""


class WhatIf(Protocol):
    """Answers what would be forecast."""

    def ask(self, view: View, asked: Mapping[str, Any]) -> Answered:
        """The answer from one snapshot.

        Args:
            view: Its tables.
            asked: `series` or `new`, `covariates`, `history`, as `POST /v1/what-if` takes them.

        Raises:
            TurnoverError: The question cannot be answered; the message says why and what to do.
        """
